"""Provable erasure: every version and every upload of a bundle is removed, the location is listed again, and a signed
certificate says what was done and what nobody can verify.

What survives is the record: the custody log, documents, and the signatures that give them their weight. The intention
is written into the log first, so that the same command finishes what a dead run began.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from migrate.bundle import layout, lease
from migrate.custody import bundle_hold, cross_checks, documents, location_files, receipt
from migrate.custody.documents import Document
from migrate.custody.location_files import Remains, is_kept, unknown_files, unknown_payload
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log, is_same_location
from migrate.custody.log.entry import CustodyEvent, LogEntry
from migrate.custody.log.events import new_event
from migrate.custody.obligations import clock
from migrate.custody.obligations.clock import Verdict
from migrate.custody.obligations.rulebook import RuleSet
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey, Signer
from migrate.errors import BusyError, DamageError, GoneError, NotAllowedError
from migrate.number_text import count_words, things
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


def objections(
    store: MultipartStore,
    object_lock: ObjectLock,
    by: Collection[PublicKey],
    rule_sets: Sequence[RuleSet],
    trust: Trust | None,
    *,
    workers: int,
) -> tuple[list[str], list[str]]:
    """Return what is held, and what else speaks against an erasure by the keys ``by``: see ``check``, and for what is
    left of one that was begun ``check_rest``.
    """
    versions, now, log = removable(object_lock), object_lock.now(), custody_log.read(store)
    if _begun(store, log) is not None:
        return [], check_rest(store, log, versions, now, trust)
    documents_kept = documents.read_all(store)[0]
    receipts = [document for document in documents_kept if document.kind == "receipt"]
    released = log.at(store.location, "released")
    # A stranger's entry allows nothing, and a notice that puts the end off counts whoever has written it.
    views = [log.counted(trust), log.entries] if trust else [log.entries]
    breaches = {
        (rules.id, breach.rule.id): breach
        for rules in rule_sets
        for entries in views
        for breach in clock.breached_by_erasure(rules, entries, now)
    }
    reasons = [
        *check(store, versions, list(breaches.values()), by, trust, log=log, receipts=receipts),
        *check_releases(log, store.location, now),
        *map(str, cross_checks.releases(log, released, documents_kept, trust)),
        *cross_checks.dated_too_early(log, receipts),
        *map(str, cross_checks.against_receipts(log, store.location, receipts)[0]),
    ]
    return check_holds(object_lock, versions, workers=workers), reasons


def removable(object_lock: ObjectLock) -> list[FileVersion]:
    """Return the versions that an erasure removes, without delete markers."""
    return [version for version in object_lock.versions() if not version.is_marker and not is_kept(version)]


def check_holds(object_lock: ObjectLock, versions: Sequence[FileVersion], *, workers: int) -> list[str]:
    """Return what is held of these versions: the server removes none of it, whatever reason is given."""
    now = object_lock.now()
    locks = bundle_hold.each(object_lock.lock, versions, workers)
    locked = [lock for lock in locks if lock.legal or (lock.until is not None and lock.until > now)]
    if not locked:
        return []
    ends = [lock.until for lock in locked if lock.until is not None and lock.until > now]
    words = [f"until {max(ends):%Y-%m-%d %H:%M} UTC"] if ends else []
    if legal := sum(lock.legal for lock in locked):
        words.append(f"{count_words(legal)} of them by a legal hold without an end")
    of_all = f"{count_words(len(locked))} of the {things(len(versions), 'version')} to be removed"
    return [f"{of_all} are held {', '.join(words)}"]


def check(
    store: MultipartStore,
    versions: Sequence[FileVersion],
    breaches: Sequence[Verdict],
    by: Collection[PublicKey],
    trust: Trust | None,
    *,
    log: Log,
    receipts: Sequence[Document],
) -> list[str]:
    """Return why the bundle with these versions must not be erased, unless somebody says why: what the clock says, that
    there is no receipt by another than ``by``, who erases it, that what is another's would go with it.
    With ``trust`` only receipts by its keys count, and none by a key that has the same owner as ``by``.

    Where an erasure was begun at another location, and its rest is here, that alone speaks against it. ``log`` and
    ``receipts`` are those that lie there.
    """
    if (begun := _begun_elsewhere(store, log)) is not None:
        sentence = f"its erasure was begun at {begun.location}, and not here"
        return [f"{sentence} (where the directory was renamed, rename it back, and erase it there)"]
    reasons = []
    keys = [version.key for version in versions]
    payload_keys = [version.key for version in versions if version.is_latest]
    if other_files := [*unknown_files(store, keys), *unknown_payload(store, payload_keys)]:
        number = things(len(other_files), "file")
        reasons.append(f"{number} that the bundle does not name would go with it, such as {other_files[0]!r}")
    if links := [version.key for version in versions if version.is_link]:
        number = things(len(links), "file")
        reasons.append(f"{number} may lie elsewhere, and stay there: {links[0]!r} is a symbolic link")
    reasons += [f"{breach.rules}, {breach.rule.article}: {breach.why}" for breach in breaches]
    return [*reasons, *_unreceived(store, log, receipts, by, trust)]


def check_rest(
    store: MultipartStore, log: Log, versions: Sequence[FileVersion], now: datetime, trust: Trust | None
) -> list[str]:
    """Return why what is left of a bundle whose erasure has begun must not be removed without a reason: holds that were
    placed since, files that the bundle has not, and that ``trust`` does not count the key that began it.
    """
    begun = log.at(store.location, "erasing")[-1]
    newer = [hold for hold in bundle_hold.standing(log, store.location, now) if hold.number > begun.number]
    reasons = [_unreleased(hold) for hold in newer]
    if trust is not None and begun.line in log.uncounted(trust):
        reasons.append(f"its erasure was begun (entry {begun.number}) by nobody in {trust.source}")
    if begun.what.details.get("override"):
        return reasons
    keys = sorted({version.key for version in versions if version.is_latest})
    payload = [key for key in keys if key.startswith(layout.DATA)]
    others = unknown_payload(store, payload) if exists(store, layout.MANIFEST) else payload
    if others:
        number = things(len(others), "file")
        reasons.append(
            f"{number} that the bundle does not name would go with its rest, such as {others[0]!r}"
        )
    return reasons


def check_releases(log: Log, location: str, now: datetime) -> list[str]:
    """Return the holds of a location that stand by its log, also where somebody lifted their locks in another way; and
    those that an entry of a transfer has made another location's of the same name: no URL tells whether that is so.
    """
    here = log.at(location, "held")
    untransferred = replace(
        log, entries=[entry for entry in log.entries if entry.what.event != "transferred"]
    )
    of_namesakes = [hold for hold in bundle_hold.standing(untransferred, location, now) if hold not in here]
    sentence = "by an entry of a transfer it is another location's of the same name"
    return [
        *map(_unreleased, bundle_hold.standing(log, location, now)),
        *(f"{_unreleased(hold)}; {sentence}" for hold in of_namesakes),
    ]


def _unreleased(hold: LogEntry) -> str:
    return f"the hold of entry {hold.number} was not released (moveout hold release)"


def _unreceived(
    store: MultipartStore,
    log: Log,
    all_receipts: Sequence[Document],
    by: Collection[PublicKey],
    trust: Trust | None,
) -> list[str]:
    """Return why no receipt allows it: one of this very root is needed, for another location, for which every byte was
    read, and all was well. The newest of several for one location counts.
    """
    if trust is not None and (unlisted := [public for public in by if trust.name(public) is None]):
        sentence = f"your key {unlisted[0].fingerprint} is none that {trust.source} counts now"
        return [
            f"{sentence}: nobody can say whose receipts are another's, and its certificate is worth nothing"
        ]
    root = new_event(store, "erasing").root
    entries = [*log.find("received", root), *log.find("acknowledged", root)]
    recorded = {entry.what.details.get("sha256"): entry.number for entry in reversed(entries)}
    receipts = [
        document for document in all_receipts if document.root == root and document.sha256 in recorded
    ]
    first_named = log.first_named(trust) if trust else {}
    signed = [
        document
        for document in receipts
        if any(_is_of_others(public, document, first_named, by, trust) for public in document.signers)
    ]
    if not signed:
        nobody = f"nobody in {trust.source}" if trust else "nobody"
        return [f"{nobody}{' but you' if receipts else ''} has signed a receipt for it"]
    signed.sort(key=lambda document: (receipt.time_of(document), recorded[document.sha256]))
    conclusive = [
        document for document in signed if receipt.names_damage(document) or receipt.is_full(document)
    ]
    if not conclusive:
        level = signed[-1].value.get("level")
        sentence = f"its receipt is of level {level}, for which not every byte was read"
        return [f"{sentence} (moveout receive LOCATION --level {receipt.FULL} makes one that counts)"]
    of_others = [document for document in conclusive if not receipt.is_for(document, log, store.location)]
    copies = [
        document for document in of_others if receipt.names_damage(document) or receipt.is_stored(document)
    ]
    if not copies:
        sentence = f"its receipt is for {store.location} itself, and shows no other copy"
        if of_others:
            sentence = "whoever signed its receipt could only read the bundle there: that shows no other copy"
        return [f"{sentence} (the receiver makes one by moveout transfer, and moveout receive for that copy)"]
    damaged = list(filter(receipt.names_damage, copies))
    whole = [document for document in copies if document not in damaged]
    if not any(all(_outlasts(document, other) for other in damaged) for document in whole):
        return [f"its receipt names damage: {damaged[-1].value.get('findings_total')} findings"]
    return []


def _outlasts(whole: Document, damaged: Document) -> bool:
    """Tell whether damage that was named is none of a copy that was received whole: it was another one's, or that was
    received later, by its own time and by the log there. One of the two may be of a clock that was set back.
    """
    locations = [str(document.value.get("location")) for document in (whole, damaged)]
    if not is_same_location(*locations):
        return True
    is_later = receipt.time_of(whole) >= receipt.time_of(damaged)
    return is_later and receipt.order(whole) > receipt.order(damaged)


def _is_of_others(
    public: PublicKey,
    document: Document,
    first_named: Mapping[str, datetime],
    by: Collection[PublicKey],
    trust: Trust | None,
) -> bool:
    """Tell whether a key that signed a document is another party's. With a list it must be on it, and under no name
    of the keys ``by`` which the bundle is erased: a second key of who erases it is not another party, whatever else it
    is called.
    """
    if trust is None or public in by:
        return public not in by
    is_own = any(trust.owners(public) & trust.owners(own) for own in by)
    return documents.name_of(public, document, first_named, trust) is not None and not is_own


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


def is_begun(store: MultipartStore) -> bool:
    """Tell whether an erasure has begun to remove what is at the location, and nothing has come there since: it may be
    finished, or be asked for its certificate again. As long as the bundle is whole nothing of it is taken for granted.
    """
    return _begun(store, custody_log.read(store)) is not None


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
    erasing = _begun(store, log)
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
    begun = _begun_elsewhere(store, log)
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


def _begun(store: MultipartStore, log: Log) -> CustodyEvent | None:
    """Return the erasure that was begun last. One that has ended counts as long as nothing else lies there: a run may
    have died between the log's last line and its head.

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


def _begun_elsewhere(store: MultipartStore, log: Log) -> CustodyEvent | None:
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
