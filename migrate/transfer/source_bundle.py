"""The sealed bundle at the origin: its files by its own manifests, set against what really lies there."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO

from msgspec import Struct

from migrate.bundle import canonical_json, layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import not_sealed
from migrate.bundle.tag_files import parse_manifest
from migrate.errors import DamageError, GoneError, UsageError
from migrate.storage.api import Store
from migrate.transfer.plan import SealedFile


class SealedSource(Struct, frozen=True):
    """A sealed bundle: ``id``, its files in the order of keys, and what is wrong with it at first sight. Also what lies
    there without belonging to it, and the ids of the incomplete bundles that it was continued from.
    """

    id: str
    files: list[SealedFile]
    findings: list[Finding]
    extra: list[Finding]
    continues: Collection[str] = ()

    @property
    def size_bytes(self) -> int:
        """The bytes of all files."""
        return sum(file.size_bytes for file in self.files)


def read_sealed(origin: Store) -> SealedSource:
    """Read the manifests and the listing of the origin.

    Raises ``UsageError`` where there is no sealed bundle, ``DamageError`` for a manifest that cannot be read.
    """
    with ThreadPoolExecutor(
        3, thread_name_prefix="moveout-sealed"
    ) as threads:  # on a long link each takes its time
        tags, manifests, identities = (
            threads.submit(origin.read, key)
            for key in (layout.TAG_MANIFEST, layout.MANIFEST, layout.BUNDLE_META)
        )
        present = {
            info.key: info.size_bytes for info in origin.list() if not info.key.startswith(layout.LOCAL)
        }
    _check_sealed(origin, present)
    hashes = dict(_tag_entries(tags.result()))
    manifest = manifests.result()
    promised = hashes.get(layout.MANIFEST)
    for entry in parse_manifest(BytesIO(manifest), layout.MANIFEST, layout.is_payload):
        hashes[entry.key] = entry.sha256
    findings = [
        Finding(key, "is in the manifest but not at the origin") for key in hashes if key not in present
    ]
    extra = [
        Finding(key, "lies at the origin but is in no manifest; it was not copied", extra=True)
        for key in present
        if key not in hashes and not _is_unlisted(key) and not layout.is_custody(key)
    ]
    actual_digest = hashlib.sha256(manifest).hexdigest()
    if promised is None:
        findings.append(Finding(layout.TAG_MANIFEST, f"does not name {layout.MANIFEST}"))
    elif actual_digest != promised:
        findings.append(Finding(layout.MANIFEST, "differs from the tag manifest", promised, actual_digest))
    files = [
        SealedFile(key, size, hashes.get(key))
        for key, size in present.items()
        if key in hashes or _is_unlisted(key)
    ]
    identity = _identity(identities)
    return SealedSource(bundle_id(identity), files, findings, extra, _continues(identity))


def bundle_id(data: bytes) -> str:
    """Return the bundle's id from the bytes of ``meta/bundle.json``. Raises ``DamageError``."""
    value = canonical_json.decode(data, layout.BUNDLE_META)
    if isinstance(value.get("id"), str) and value["id"]:
        return str(value["id"])
    raise DamageError(layout.BUNDLE_META, expected="the bundle's id", found=repr(data[:80]))


def _check_sealed(origin: Store, present: Mapping[str, int]) -> None:
    if layout.TAG_MANIFEST not in present:
        raise not_sealed(origin)
    for key in (layout.BAGIT, layout.MANIFEST):
        if key not in present:
            raise UsageError(
                f"{origin.location} holds no sealed bundle ({key} is missing)",
                next_step="fetch the missing file again from a copy",
            )


def _tag_entries(data: bytes) -> Iterator[tuple[str, str]]:
    for entry in parse_manifest(BytesIO(data), layout.TAG_MANIFEST, layout.is_tag_name):
        yield entry.key, entry.sha256


def _continues(data: bytes) -> Collection[str]:
    continued_ids = canonical_json.decode(data, layout.BUNDLE_META).get("continues", ())
    return (
        frozenset(continued_id for continued_id in continued_ids if isinstance(continued_id, str))
        if isinstance(continued_ids, list)
        else ()
    )


def _identity(reading: Future[bytes]) -> bytes:
    try:
        return reading.result()
    except GoneError as exc:
        raise DamageError(layout.BUNDLE_META, expected="the bundle's identity", found="no such file") from exc


def _is_unlisted(key: str) -> bool:
    """Tell whether the file belongs to a bundle without being in a manifest: the last ones written, and
    signatures. A custody log stays where it is: each location has its own.
    """
    signature = key.startswith(layout.SIGNATURES) and not layout.is_custody(key)
    return signature or key in {layout.TAG_MANIFEST, layout.BAGIT}
