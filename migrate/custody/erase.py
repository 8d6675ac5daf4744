"""Provable erasure: every version and every upload of a bundle is removed, the location is listed again, and a signed
certificate says what was done and what nobody can verify.

What survives is the record: the custody log, documents, and the signatures that give them their weight. The intention
is written into the log first, so that the same command finishes what a dead run began.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec.structs import replace

from migrate.bundle import layout, lease
from migrate.custody import documents, location_files
from migrate.custody.documents import Document
from migrate.custody.location_files import Remains, is_kept
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log, is_same_location
from migrate.custody.log.entry import CustodyEvent
from migrate.custody.log.events import new_event
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import Signer
from migrate.errors import BusyError, DamageError, GoneError, NotAllowedError
from migrate.runtime.crash_points import durable
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore, Store, exists
from migrate.storage.object_lock import FileVersion, ObjectLock

UNVERIFIABLE = (
    "Copies that others made while they could read the location, and bundles that were transferred from it.",
    "Other names of the same files, such as hard links.",
    "Backups, snapshots and replicas of the storage system below the location; ask its operator for their retention.",
    "Whether the storage system has overwritten the freed blocks on its media.",
    "Unfinished uploads of files that the bundle does not name: servers may list old ones by their whole names only.",
    "The databases and buckets from which the bundle was exported: this certificate is about the bundle alone.",
)

_UNDER_WAY = (layout.EXPORT_STATE, layout.TRANSFER_STATE)


def refuse_held(held: Sequence[str]) -> None:
    """Raise ``NotAllowedError`` where something is held: an erasure that cannot succeed is not begun, for its begin is
    an event that the clock counts.
    """
    if held:
        raise NotAllowedError(
            f"the bundle cannot be erased: {held[0]}",
            next_step="moveout hold release lifts a hold; a retention in compliance mode must end. No --override does",
        )


def refuse(reasons: Sequence[str], override: str) -> None:
    """Raise ``NotAllowedError`` where something speaks against it, and nobody says why it is done all the same."""
    if reasons and not override.strip():
        error = NotAllowedError(
            "the bundle must not be erased",
            next_step="wait until none of this holds (moveout receive, moveout clock),"
            ' or add --override "REASON": it is signed, and stays',
        )
        error.causes = [(f"{number}", NotAllowedError(reason)) for number, reason in enumerate(reasons, 1)]
        raise error


def erase(
    store: MultipartStore,
    object_lock: ObjectLock,
    signer: Signer,
    *,
    workers: int,
    progress: Progress,
    override: str = "",
    reasons: Sequence[str] = (),
) -> Document:
    """Remove the bundle; return the certificate. ``reasons``: what speaks against it; ``override``: why it is done all
    the same.

    Raises ``NotAllowedError`` (reasons without an override; locks that hold), ``BusyError`` (a run is at work there),
    ``DamageError`` (something is still there after all).
    """
    lease.refuse_live(store, progress=progress)
    log = custody_log.check_order(store)
    erasing = begun_here(store, log)
    refuse(reasons, override)
    if erasing is None:
        erasing = _begin(store, object_lock, signer, log, _details(override, reasons))
        lease.refuse_live(store, progress=progress)  # who began meanwhile, and may not have seen that entry
    elif reasons:
        erasing = replace(erasing, details={**erasing.details, **_details(override, reasons)})
        custody_log.append(store, signer, custody_log.once(erasing))
    names = location_files.names(store)
    remaining = location_files.list_remains(store, object_lock, names, workers=workers)
    progress.begin("erase", items=len(remaining.files), size_bytes=0)
    _remove(store, object_lock, remaining, workers, progress)
    progress.end()
    if left := list(location_files.list_remains(store, object_lock, names, workers=workers).words()):
        raise DamageError(
            store.location, expected="nothing", found=f"{left[0]} and {len(left) - 1} more",
            next_step="somebody still writes there, or these are locked; run the same command again",
        )  # fmt: skip
    _check_recorded(store, erasing)
    document = _certificate(store, signer, erasing, remaining)
    details = {**document.named, **_counts(erasing)}
    event = CustodyEvent("erased", erasing.bundle, erasing.root, store.location, details)
    custody_log.append(store, signer, custody_log.once(event, undone_by="erasing"))
    return document


def _details(override: str, reasons: Sequence[str]) -> dict[str, Any]:
    return {"override": override, "against": list(reasons)} if override else {}


def _begin(
    store: MultipartStore, object_lock: ObjectLock, signer: Signer, log: Log, details: dict[str, Any]
) -> CustodyEvent:
    """Write into the log that the erasure begins; return that entry. Where somebody else has begun it since ``log`` was
    read, it is his erasure that goes on. What a run that died had counted counts: it may have removed some.
    """
    after = log.last.number if log.last else 0
    begun = begun_elsewhere(store, log)
    here = replace(begun, location=store.location) if begun else new_event(store, "erasing")
    versions = [version for version in object_lock.versions() if not is_kept(version)]
    counts: dict[str, Any] = {
        "versions": sum(not version.is_marker for version in versions),
        "markers": sum(version.is_marker for version in versions),
        "size_bytes": sum(version.size_bytes for version in versions),
        "uploads": sum(1 for _ in store.uploads()),
    }
    for former in log.unended(store.location, "erasing", "erased"):
        if former.what.root == here.root:
            counts = {name: max(number, _count(former.what, name)) for name, number in counts.items()}
    if begun:
        counts |= {**begun.details, "begun_at": begun.location}
    event = replace(here, details=counts | details)

    def choose(newest: Log) -> Sequence[CustodyEvent]:
        if newest.at(store.location, "erasing", after=after):
            return []
        return custody_log.once(event, undone_by="erased")(newest)

    custody_log.append(store, signer, choose)
    by_others = custody_log.read(store).at(store.location, "erasing", after=after)
    return by_others[0].what if by_others else event


def begun_here(store: MultipartStore, log: Log) -> CustodyEvent | None:
    """Return the erasure that has begun to remove what is at the location; None where there is none, or something has
    come there since. One that has ended counts as long as nothing else lies there: a run may have died between the
    log's last line and its head.

    A log travels with its bundle, and says of another location what is not so here; and before the tag manifest is
    gone, which goes first, nothing has been removed.
    """
    erasing_entries = log.at(store.location, "erasing")
    if not erasing_entries or _has_bundle(store):
        return None
    has_ended = any(entry.number > erasing_entries[-1].number for entry in log.find("erased"))
    if has_ended and not all(map(is_kept, store.list())):
        return None
    return erasing_entries[-1].what


def begun_elsewhere(store: MultipartStore, log: Log) -> CustodyEvent | None:
    """Return the erasure that the log says was begun last, at another location, and that has not ended: what is here
    is the rest of that, if the directory was renamed. But it may also be a damaged copy.
    """
    begun = [*log.find("erasing"), *log.find("erased")]
    if not begun or _has_bundle(store):
        return None
    last = max(begun, key=lambda entry: entry.number).what
    is_here = is_same_location(last.location, store.location)
    return None if last.event == "erased" or is_here else last


def _has_bundle(store: Store) -> bool:
    """Tell whether a bundle lies at a location, or an export or transfer has begun to make one there: what an erasure
    has left has none of these files, which go first.
    """
    return any(exists(store, key) for key in (layout.TAG_MANIFEST, *_UNDER_WAY))


def count_begun(store: Store, trust: Trust | None) -> int:
    """Return how many erasures the log says were begun at a location. Raises ``BusyError`` where the last of them has
    removed something and has not ended: what is there now may be gone in a moment. With ``trust`` none was another
    location's by the word of a key that its list does not count.
    """
    log = custody_log.read(store).without({"transferred"}, trust)
    begun, unended = log.at(store.location, "erasing"), log.unended(store.location, "erasing", "erased")
    if unended and not _has_bundle(store):
        raise BusyError(
            f"an erasure was begun at {store.location} on {unended[-1].moment:%Y-%m-%d %H:%M} UTC, and has not ended",
            next_step=f"moveout erase {shlex.quote(store.location)} --key FILE finishes it, from any machine",
        )
    return len(begun)


def erased_before(store: Store) -> GoneError | None:
    """Return the error that names the certificate of the last erasure at a location, by the log; None where none has
    ended there, or something lies there by now.
    """
    entries = custody_log.read(store).at(store.location, "erased")
    if not entries or not all(map(is_kept, store.list())):
        return None
    file = entries[-1].what.details.get("file", "not named")
    return GoneError(
        f"the bundle at {store.location} was erased on {entries[-1].moment:%Y-%m-%d %H:%M} UTC;"
        f" the certificate: {file}",
        next_step=f"moveout custody show {shlex.quote(store.location)} prints who did what to it before",
    )


def _check_recorded(store: MultipartStore, erasing: CustodyEvent) -> None:
    """Raise ``DamageError`` where the log lacks the erasure that was begun: what was there was moved away."""
    if any(entry.what == erasing for entry in custody_log.read(store).find("erasing")):
        return
    raise DamageError(
        f"{store.location}/{layout.CUSTODY_LOG}", expected="the entry by which this erasure began", found="none",
        next_step="somebody moved what was there, so nothing is certified: put it back, and run the same command again",
    )  # fmt: skip


def _remove(
    store: MultipartStore, object_lock: ObjectLock, remaining: Remains, workers: int, progress: Progress
) -> None:
    """Remove it. The notes of an export or transfer go first, then the tag manifest: without these nobody takes what is
    left for a bundle. The manifest, which names all, goes late, and delete markers last: nothing that they hide is seen
    again.
    """

    def remove(version: FileVersion) -> None:
        with durable("erase.remove"):
            object_lock.remove(version)
        progress.advance(items=not version.is_marker)

    groups: list[list[FileVersion]] = [[], [], [], [], []]
    for file in remaining.files:
        groups[_turn(file)].append(file)
    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-erase") as pool:
        for group in groups[:3]:
            list(pool.map(remove, group))
        for upload in remaining.uploads:
            store.abort(upload.key, upload.id)
        for rest in (*groups[3:], remaining.markers):
            list(pool.map(remove, rest))


def _turn(file: FileVersion) -> int:
    """Return when a version goes. Older ones of what says that there is a bundle go first: so they are never seen."""
    if file.key in {layout.TAG_MANIFEST, *_UNDER_WAY}:
        return 0 if not file.is_latest else 2 if file.key == layout.TAG_MANIFEST else 1
    return 4 if file.key == layout.MANIFEST else 3


def _certificate(
    store: MultipartStore, signer: Signer, erasing: CustodyEvent, remaining: Remains
) -> Document:
    log = custody_log.read(store)
    last = log.find("erasing")[-1].number
    former = {entry.what.details.get("file") for entry in log.find("erased") if entry.number < last}
    entries = [*log.at(store.location, "erasing"), *log.at(store.location, "erased", after=last)]
    about = (
        f"Certificate of erasure: the bundle {erasing.bundle} was removed from {store.location}, and a listing"
        " afterwards named nothing of it"
    )
    value = {
        "bundle": erasing.bundle,
        "root": erasing.root,
        "location": store.location,
        **_counts(erasing),
        "delete_markers": max(len(remaining.markers), _count(erasing, "markers")),
        "uploads": max(len(remaining.uploads), _count(erasing, "uploads")),
        "override": erasing.details.get("override", ""),
        "against": erasing.details.get("against", []),
        "not_verified": [*_origins(log, store.location, erasing), *UNVERIFIABLE],
        "kept": "the custody log, the checkpoint of the tree, documents and their signatures, under sig/: they may name"
        " sources and objects, and hold nothing of their content",
    }
    certificate = documents.make("erasure", about, value)
    erasers = {signer.public, *(entry.public for entry in entries)}
    for document in documents.read_all(store, "erasure")[0]:
        is_own = document.key not in former and not erasers.isdisjoint(document.signers)
        if is_own and _is_same(document, certificate):
            documents.keep(store, document, [signer])  # who finishes the erasure stands for it, too
            return document
    certificate = documents.resumed(store, certificate)
    documents.keep(store, certificate, [signer])
    return certificate


def _is_same(document: Document, certificate: Document) -> bool:
    """Tell whether a certificate that lies there says what ``certificate`` says, by whichever profile the location was
    reached. A run that died after it may have removed more markers and uploads than are left to count.
    """
    here, there = str(certificate.value["location"]), str(document.value.get("location"))
    renamed = {"location": there, "about": certificate.about.replace(here, there)}
    fewer = ("delete_markers", "uploads")
    return (
        is_same_location(here, there)
        and document.says(replace(certificate, value={**certificate.value, **renamed}), besides=fewer)
        and all(
            type(number := document.value.get(name)) is int and number >= certificate.value[name]
            for name in fewer
        )
    )


def _origins(log: custody_log.Log, location: str, erasing: CustodyEvent) -> list[str]:
    """Return a sentence for each location that the bundle came from: by the log alone, it lies there still."""
    here = {location, str(erasing.details.get("begun_at", location))}
    transfers = [entry for name in here for entry in log.at(name, "transferred")]
    origins = {entry.what.details.get("from") for entry in transfers} - {None}
    return [
        f"The bundle at {origin}, from which this one was transferred."
        for origin in sorted(map(str, origins))
    ]


def _counts(erasing: CustodyEvent) -> dict[str, int]:
    return {name: _count(erasing, name) for name in ("versions", "size_bytes")}


def _count(erasing: CustodyEvent, name: str) -> int:
    """Return a number of an entry, which anybody may have written; 0 where it is none."""
    number = erasing.details.get(name)
    return number if type(number) is int else 0
