"""What the verbs write into the custody log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from migrate.bundle import bundle_json, layout, tag_files
from migrate.bundle.bundle_json import BundleInfo
from migrate.bundle.reader import hash_file, no_bundle
from migrate.custody.log import custody_log
from migrate.custody.log.entry import CustodyEvent, LogEntry
from migrate.custody.signing import timestamps
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.bundle_signatures import root_of
from migrate.custody.signing.keys import Signer
from migrate.errors import GoneError, MoveoutError
from migrate.storage.api import Store


def new_event(store: Store, event: str, details: Mapping[str, Any] | None = None) -> CustodyEvent:
    """Return what happened to the sealed bundle at a location. Raises like ``need_sealed``."""
    try:
        root = root_of(store)
    except GoneError:
        raise _no_bundle(store) from None
    return CustodyEvent(event, bundle_json.read_identity(store).id, root, store.location, details or {})


def need_sealed(store: Store) -> BundleInfo:
    """Return what the sealed bundle at a location says of itself. Raises ``UsageError`` where there is none,
    ``GoneError`` where only its record is left.
    """
    info = bundle_json.read_sealed(store)
    if info is None:
        raise _no_bundle(store)
    return info


def _no_bundle(store: Store) -> MoveoutError:
    return no_bundle(store, f"there is no {layout.TAG_MANIFEST}")


def signing_times(log: custody_log.Log, root: str, trust: Trust) -> dict[str, datetime]:
    """Return when each key signed the bundle of a root, by its fingerprint, as ``Log.dated`` has it."""
    times: dict[str, datetime] = {}
    for entry, at in log.dated(trust):
        if (entry.what.event, entry.what.root) == ("signed", root):
            times.setdefault(str(entry.what.details.get("by")), at)
    return times


def record(
    store: Store, signer: Signer, event: str, details: Mapping[str, Any] | None = None, *, once: bool = False
) -> list[LogEntry]:
    """Append one event. ``once``: unless the log has it already, for after a crash the same command comes by again."""
    event_ = new_event(store, event, details)
    return custody_log.append(store, signer, custody_log.once(event_) if once else lambda _: [event_])


def record_seal(store: Store, signer: Signer, signers: Sequence[Signer]) -> list[LogEntry]:
    """Append that the bundle was created, sealed and signed, as far as the log does not say so."""
    info = need_sealed(store)
    labels = tag_files.parse_bag_info(store.read(layout.BAG_INFO))
    size_bytes, files = tag_files.parse_oxum(labels.get("Payload-Oxum", ""))
    sources = [
        {"name": source.name, "url": source.url, "complete": source.complete} for source in info.sources
    ]
    created = {"at": info.created, "software": info.software, "sources": sources}
    sealed = {"at": info.sealed, "complete": info.complete, "files": files, "size_bytes": size_bytes}
    event = new_event(store, "created", created)
    events = [event, replace(event, event="sealed", details=sealed)]
    events += [replace(event, event="signed", details={"by": one.public.fingerprint}) for one in signers]

    def choose(log: custody_log.Log) -> Sequence[CustodyEvent]:
        """Choose what the log does not say: of another location, too, from which it came along with the bundle."""
        return [
            event
            for event in events
            if not any(entry.what.details == event.details for entry in log.find(event.event, event.root))
        ]

    return custody_log.append(store, signer, choose)


def record_stamp(store: Store, signer: Signer, url: str) -> list[LogEntry]:
    """Let a timestamp authority say when the bundle was there, and append that, unless this key has done so before. A
    token that only lies there may be anybody's: who may write there can make one, of any authority's name and any time.
    """
    own = [
        entry
        for entry in custody_log.read(store).find("timestamped", root_of(store))
        if entry.public == signer.public and _has(store, entry)
    ]
    if own:
        return []
    key, stamp = timestamps.stamp(store, url)
    details = {
        "file": key,
        "sha256": hash_file(store, key),
        "at": stamp.moment.isoformat(),
        "by": stamp.authority,
    }
    return record(store, signer, "timestamped", details)


def _has(store: Store, entry: LogEntry) -> bool:
    """Tell whether the file that an entry names is there as it was."""
    try:
        return hash_file(store, str(entry.what.details.get("file"))) == entry.what.details.get("sha256")
    except GoneError:
        return False


def record_transfer(
    origin: Store, destination: Store, signer: Signer | None, details: Mapping[str, Any]
) -> str:
    """Copy the log to the destination and append the transfer there; return why it was not copied, if it was not."""
    why = custody_log.carry(origin, destination)
    if signer is not None:
        event = new_event(destination, "transferred", {"from": origin.location, **details})
        custody_log.append(destination, signer, custody_log.once(event, undone_by="erased"))
    return why


def record_if_allowed(
    store: Store,
    signers: Sequence[Signer],
    event: str,
    details: Mapping[str, Any],
    note: Callable[[str], None],
    *,
    once: bool = False,
) -> None:
    """Append an event with the first key, if there is one; note why it could not be, for what was done is done.
    ``once``: unless the log has it already.
    """
    if not signers:
        return
    try:
        record(store, signers[0], event, details, once=once)
    except MoveoutError as exc:
        note(f"not in the custody log: {exc}")
