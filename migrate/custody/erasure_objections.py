"""What speaks against an erasure: holds, retention that the clock counts, no receipt of another party for another copy,
files that are somebody else's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from migrate.bundle import layout
from migrate.custody import bundle_hold, cross_checks, documents, receipt
from migrate.custody.documents import Document
from migrate.custody.erase import begun_elsewhere, begun_here
from migrate.custody.location_files import is_kept, unknown_files, unknown_payload
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log, is_same_location
from migrate.custody.log.entry import LogEntry
from migrate.custody.log.events import new_event
from migrate.custody.obligations import clock
from migrate.custody.obligations.clock import Verdict
from migrate.custody.obligations.rulebook import RuleSet
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey
from migrate.number_text import count_words, things
from migrate.storage.api import MultipartStore, exists
from migrate.storage.object_lock import FileVersion, ObjectLock


def objections(
    store: MultipartStore,
    object_lock: ObjectLock,
    by: Collection[PublicKey],
    rule_sets: Sequence[RuleSet],
    trust: Trust | None,
    *,
    workers: int,
) -> tuple[list[str], list[str]]:
    """Return what is held, and what else speaks against an erasure by the keys ``by``: see ``check_bundle``, and
    ``check_rest`` for what is left of one that was begun.
    """
    versions, now, log = removable(object_lock), object_lock.now(), custody_log.read(store)
    if begun_here(store, log) is not None:
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
        *check_bundle(store, versions, list(breaches.values()), by, trust, log=log, receipts=receipts),
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


def check_bundle(
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
    if (begun := begun_elsewhere(store, log)) is not None:
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
