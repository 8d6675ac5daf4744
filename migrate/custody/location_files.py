"""What lies at a bundle's location: its record, which outlives an erasure, its files, and what is somebody else's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.reader import read_manifest, read_tag_manifest
from migrate.custody import documents
from migrate.custody.signing import ssh_signatures
from migrate.custody.tree import checkpoint
from migrate.errors import DamageError, GoneError, UsageError
from migrate.storage.api import FileInfo, MultipartStore, Store, Upload
from migrate.storage.object_lock import FileVersion, ObjectLock

_FOLDERS = (layout.DATA, *layout.OUTSIDE_MANIFESTS)
_FILES = {"", layout.BAGIT, layout.BAG_INFO, layout.MANIFEST, layout.TAG_MANIFEST, layout.REPORT}
"""Some programs make an object of the location itself, with an empty name below it."""
_DOCUMENT = re.compile(
    rf"sig/({'|'.join(documents.KINDS)})-[0-9a-f]{{16}}\.json(?P<signature>\.[0-9a-f]{{16}}\.sig)?"
)
"""The signatures of the tag manifest go with it: that it was signed, and by whom, the log says."""


class Remains(Struct, frozen=True):
    """What is there. ``files`` are versions of files, ``markers`` delete markers."""

    files: Sequence[FileVersion]
    markers: Sequence[FileVersion]
    uploads: Sequence[Upload]

    def words(self) -> Iterator[str]:
        """Yield it in words."""
        for version in (*self.files, *self.markers):
            yield f"{version.key} (version {version.id or 'only'})"
        for upload in self.uploads:
            yield f"an unfinished upload of {upload.key}"


def list_remains(
    store: MultipartStore, object_lock: ObjectLock, names: Collection[str], *, workers: int
) -> Remains:
    """List the location. The uploads of each file of ``names``, and of each that is there, are asked for one by one. A
    MinIO that was started again lists those from before by their whole names only.
    """
    versions = [version for version in object_lock.versions() if not is_kept(version)]
    uploads = {upload.id: upload for upload in store.uploads()}
    keys = sorted({*names, *(version.key for version in versions)} - {""})
    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-erase") as pool:
        for key_uploads in pool.map(lambda key: list(store.uploads(key)), keys):
            uploads |= {upload.id: upload for upload in key_uploads}
    files = [version for version in versions if not version.is_marker]
    return Remains(files, [version for version in versions if version.is_marker], list(uploads.values()))


def names(store: MultipartStore) -> set[str]:
    """Return the files that the bundle names, as far as its manifests can be read."""
    keys: set[str] = set()
    unreadable = (DamageError, GoneError, UsageError)
    with suppress(*unreadable):
        keys.update(read_tag_manifest(store))
    with suppress(*unreadable):
        keys.update(entry.key for entry in read_manifest(store))
    return keys


def is_kept(file: FileVersion | FileInfo) -> bool:
    """Tell whether it is of the record: also by its size, for a document's name holds nothing else together."""
    if layout.is_custody(file.key):
        return True
    if file.key == layout.CHECKPOINT:
        return file.size_bytes <= checkpoint.MAX_BYTES
    match = _DOCUMENT.fullmatch(file.key)
    if match is None:
        return False
    return file.size_bytes <= (ssh_signatures.MAX_BYTES if match["signature"] else documents.MAX_BYTES)


def unknown_payload(store: Store, keys: Iterable[str]) -> list[str]:
    """Return those of ``keys`` that are among the bundle's payload, and which its manifest does not name, sorted; none
    where that cannot be read.
    """
    payload_keys = {key for key in keys if key.startswith(layout.DATA)}
    try:
        payload_keys.difference_update(entry.key for entry in read_manifest(store))
    except (DamageError, GoneError, UsageError):
        return []
    return sorted(payload_keys)


def unknown_files(store: Store, keys: Iterable[str]) -> list[str]:
    """Return those of ``keys`` that are outside of the bundle's folders and no file of its tag manifest, sorted."""
    unknown_keys = sorted({key for key in keys if key not in _FILES and not key.startswith(_FOLDERS)})
    if not unknown_keys:
        return []
    try:
        known = read_tag_manifest(store)
    except DamageError:
        known = {}
    return [key for key in unknown_keys if key not in known]
