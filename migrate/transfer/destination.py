"""The location that a bundle travels to: whose it is, and what it records of a transfer under way. From that alone one
sees how far it is, also while it runs elsewhere, and after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.bundle.layout import is_tag_name
from migrate.bundle.lease import look
from migrate.bundle.reader import hash_file
from migrate.bundle.tag_files import parse_manifest
from migrate.errors import DamageError, GoneError, NotEmptyError
from migrate.runtime.process_identity import is_dead
from migrate.storage.api import MultipartStore, Store
from migrate.transfer.plan import foreign
from migrate.transfer.source_bundle import SealedSource, bundle_id

VERSION = 1


class TransferState(Struct, frozen=True):
    """``_work/transfer.json``: which bundle comes from where, and how much it is. ``origin`` is without
    secrets. ``replaces``: the bundle that lay there before, as long as what is left of it is not cleared.
    """

    id: str
    origin: str
    files: int
    size_bytes: int
    replaces: str = ""


def write_state(store: Store, state: TransferState) -> None:
    """Write or replace the state; the lease must be held."""
    value = {"version": VERSION, **as_dict(state)}
    if not state.replaces:
        del value["replaces"]
    store.put(layout.TRANSFER_STATE, canonical_json.encode(value))


def read_state(store: Store) -> TransferState | None:
    """Return the transfer that is under way at the location, None without one. Raises ``DamageError``."""
    try:
        data = store.read(layout.TRANSFER_STATE)
    except GoneError:
        return None
    step = (
        f"remove {layout.TRANSFER_STATE} at {store.location}, then run the same command again: files that are there"
        " are not sent again"
    )
    value = canonical_json.decode(data, layout.TRANSFER_STATE, version=VERSION, next_step=step)
    try:
        return msgspec.convert(value, TransferState)
    except ValueError as exc:
        raise DamageError(
            layout.TRANSFER_STATE, expected="a transfer", found=repr(data[:80]), next_step=step
        ) from exc


class Surveyed(Struct, frozen=True):
    """What lies at the destination: sizes by key, and whether a transfer of this bundle was begun. Also the id of the
    bundle that this one continues and that must make room first, "" where there is none.
    """

    present: dict[str, int]
    begun: bool
    predecessor: str


def list_sizes(destination: Store) -> dict[str, int]:
    """Return the size of each file that lies there, by key."""
    return {info.key: info.size_bytes for info in destination.list()}


def survey(destination: Store, sealed: SealedSource, present: dict[str, int]) -> Surveyed:
    """Look at what is ``present`` at the destination. Raises ``NotEmptyError`` if the location holds anything but
    (a part of) this very bundle, or of one that it continues.
    """
    state = read_state(destination) if layout.TRANSFER_STATE in present else None
    predecessor = _predecessor(destination, sealed, present, state)
    sealed_keys = {file.key for file in sealed.files}
    allowed = sealed_keys | _files_of_predecessor(destination, present) if predecessor else sealed_keys
    stranger = next(foreign(present, allowed), None)
    if stranger is not None:
        raise NotEmptyError(
            f"{destination.location} holds {stranger!r}, which is not a file of the bundle",
            next_step="choose an empty location, or remove what lies there",
        )
    return Surveyed(present, state is not None and state.id == sealed.id, predecessor)


def make_room(destination: Store, sealed: SealedSource, surveyed: Surveyed, origin: str) -> Surveyed:
    """Remove what the predecessor has and this bundle has not, or has otherwise; the lease must be held.

    The tag manifest goes first, so that nobody takes the place for sealed meanwhile. After a crash at any
    point the same call goes on: the state says that there is room to be made.
    """
    present = dict(surveyed.present)
    replaced = _hashes(destination, present) or _hashed(destination, sealed, present)
    state = TransferState(sealed.id, origin, len(sealed.files), sealed.size_bytes, surveyed.predecessor)
    write_state(destination, state)
    sealed_digests = {file.key: file.sha256 for file in sealed.files}
    # The manifest goes last: it says which of the other files differ.
    stale = [
        key for key in present if key.startswith(layout.DATA) and _differs(key, sealed_digests, replaced)
    ]
    tags = [
        key
        for key in present
        if not key.startswith((layout.DATA, *layout.LOCAL))
        and not (layout.is_custody(key) or layout.is_document(key))
    ]
    for key in sorted({*stale, *tags}, key=_order):
        destination.delete(key)
        del present[key]
    write_state(destination, replace(state, replaces=""))
    return Surveyed(present, begun=True, predecessor="")


def _order(key: str) -> int:
    return {layout.TAG_MANIFEST: 0, layout.BAGIT: 1, layout.MANIFEST: 3}.get(key, 2)


def _differs(key: str, sealed_digests: Mapping[str, str | None], replaced: Mapping[str, str]) -> bool:
    return key not in sealed_digests or sealed_digests[key] != replaced.get(key)


def _hashes(destination: Store, present: Mapping[str, int]) -> dict[str, str]:
    """Return the SHA-256 by key of the payload at the destination, where a manifest still names it."""
    if layout.MANIFEST not in present:
        return {}
    data = destination.read(layout.MANIFEST)
    return {
        entry.key: entry.sha256 for entry in parse_manifest(BytesIO(data), layout.MANIFEST, layout.is_payload)
    }


def _id_at(destination: Store, sealed: SealedSource) -> str:
    """Return the id of the bundle at the destination, "" if it is this one: also where its identity is damaged,
    by its manifest. Raises ``DamageError`` where neither can be read.
    """
    promised = {file.key: file.sha256 for file in sealed.files}
    matching_keys = [
        key for key in (layout.MANIFEST, layout.BAG_INFO) if _has(destination, key, promised.get(key))
    ]
    try:
        stored_id = bundle_id(destination.read(layout.BUNDLE_META))
    except DamageError:
        if matching_keys:
            return ""
        raise
    return (
        "" if stored_id == sealed.id or (matching_keys and stored_id not in sealed.continues) else stored_id
    )


def _has(destination: Store, key: str, sha256: str | None) -> bool:
    try:
        return hash_file(destination, key) == sha256
    except GoneError:
        return False


def _hashed(destination: Store, sealed: SealedSource, present: Mapping[str, int]) -> dict[str, str]:
    """Return the same by reading, for files that may be the same: where no manifest had arrived yet."""
    same_size = [file.key for file in sealed.files if present.get(file.key) == file.size_bytes]
    payload = [key for key in same_size if key.startswith(layout.DATA)]
    stored_digests = (
        {key: destination.stat(key).sha256 for key in payload} if destination.keeps_sha256 else {}
    )
    return {key: stored_digests.get(key) or hash_file(destination, key) for key in payload}


def _files_of_predecessor(destination: Store, present: Mapping[str, int]) -> set[str]:
    """Return the files that may go: what its manifest names, tag files, and, where its transfer had not come
    to the manifest yet, whatever has a payload's name.
    """
    known = set(_hashes(destination, present))
    return {
        key for key in present if key in known or is_tag_name(key) or (not known and layout.is_payload(key))
    }


def _predecessor(
    destination: Store, sealed: SealedSource, present: Mapping[str, int], state: TransferState | None
) -> str:
    """Return the id of the bundle that must make room. Raises ``NotEmptyError`` for what must not."""
    predecessor, kind = "", ""
    if layout.EXPORT_STATE in present:
        kind = "an export"
    elif state is not None:
        predecessor = state.id if state.id != sealed.id else state.replaces
        kind = f"the transfer of another bundle ({predecessor}, from {state.origin})"
    elif layout.BUNDLE_META in present:
        predecessor = _id_at(destination, sealed)
        kind = f"another bundle ({predecessor})"
    if layout.EXPORT_STATE in present or (predecessor and predecessor not in sealed.continues):
        raise NotEmptyError(
            f"{destination.location} holds {kind}, not bundle {sealed.id}",
            next_step="choose an empty location",
        )
    return predecessor


class TransferStatus(Struct, frozen=True):
    """Files and bytes that are durable at the destination and that are still to come. ``holder`` names the run that
    holds the location, "" where none does (or where it is known to be dead). ``origin`` is a URL without secrets.
    """

    id: str
    origin: str
    files_done: int
    files_left: int
    bytes_done: int
    bytes_left: int
    holder: str


def transfer_status(store: MultipartStore) -> TransferStatus | None:
    """Return how far the transfer to this location is; None if there is none under way (never begun, or
    finished).
    """
    state = read_state(store)
    if state is None:
        return None
    files_done = bytes_done = 0
    for info in store.list():
        if not info.key.startswith(layout.LOCAL):
            files_done += 1
            bytes_done += info.size_bytes
    for upload in store.uploads():
        try:
            bytes_done += sum(part.size_bytes for part in store.parts(upload.key, upload.id))
        except GoneError:  # completed since
            continue
    return TransferStatus(
        id=state.id,
        origin=state.origin,
        files_done=min(files_done, state.files),
        files_left=max(0, state.files - files_done),
        bytes_done=min(bytes_done, state.size_bytes),
        bytes_left=max(0, state.size_bytes - bytes_done),
        holder=_holder(store),
    )


def _holder(store: MultipartStore) -> str:
    lease_and_file = look(store)
    if lease_and_file is None or lease_and_file[0] is None or is_dead(lease_and_file[0].process):
        return ""
    return str(lease_and_file[0])
