"""The release of a hold: a document that the owners of the hold's keys sign, each where they are. With enough
signatures the locks are lifted.

It names the holds that it ends by the hashes of their entries in the custody log. So what was signed for one hold ends
no other, and a hold that is placed later needs signatures of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from migrate.custody import bundle_hold, documents
from migrate.custody.bundle_hold import Protection
from migrate.custody.documents import Document
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log, is_same_location
from migrate.custody.log.entry import CustodyEvent, LogEntry
from migrate.custody.log.events import new_event
from migrate.custody.signing import party_names
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey, Signer
from migrate.errors import BusyError, DamageError, UsageError
from migrate.number_text import things
from migrate.runtime.progress import Progress
from migrate.storage.api import Store
from migrate.storage.object_lock import FileVersion, ObjectLock

_SOON = timedelta(seconds=10)
"""A server that has no end of a retention has it end in a moment."""
_MEMBERS = {"about", "kind", "version", "time", "bundle", "root", "location", "reason", "holds"}


class Released(Struct, frozen=True):
    """A release and what became of it. ``missing``: a sentence for each hold that lacks signatures; then nothing was
    unlocked. ``others``: further releases of the same holds that wait for signatures, for other reasons.
    """

    document: Document
    missing: Sequence[str]
    protection: Protection | None
    others: Sequence[Document] = ()


class Waiting(Struct, frozen=True):
    """A release that was begun, and has not ended its holds. ``signed``: the keys of the holds that have signed it, by
    their fingerprints, in words with their owners. ``missing``: a sentence for each hold that lacks signatures; none
    where it only has to be carried out. ``until``: when the holds end by themselves, None for never.
    """

    document: Document
    signed: Mapping[str, str]
    missing: Sequence[str]
    until: datetime | None


def release(
    store: Store,
    object_lock: ObjectLock,
    release_: Document,
    signers: Sequence[Signer],
    *,
    workers: int,
    progress: Progress,
    trust: Trust | None,
) -> Released:
    """Sign a release that ``prepare`` or ``accept`` has returned. If as many owners have signed it by now as each of
    its holds says, lift the legal hold and, where the mode lets, the retention of every version. ``trust`` says of more
    keys that they have one owner, and a key that it no longer lists does not count.

    Raises ``DamageError`` where the server holds on to what was released, ``BusyError`` where somebody places a hold
    meanwhile.
    """
    holds = bundle_hold.last_standing(_believed(store, custody_log.read(store), trust), store.location)
    if release_.value["holds"] != [hold.hash for hold in holds]:
        raise BusyError(
            f"the holds at {store.location} have changed meanwhile", next_step="run the same command again"
        )
    documents.keep(store, release_, signers)
    releases = {document.key: document for document in _releases_of(store, holds)}
    release_ = releases.pop(release_.key, release_)
    if missing := _missing(release_, holds, trust):
        return Released(release_, missing, None, list(releases.values()))
    # Once the holds have ended, locks are of a hold that is being placed.
    versions = (
        []
        if _has_ended(store, holds, [release_, *releases.values()], trust)
        else [version for version in object_lock.versions() if not version.is_marker]
    )
    progress.begin("release", items=len(versions), size_bytes=0)

    def unlock(version: FileVersion) -> None:
        current = object_lock.lock(version)
        if current.legal:
            object_lock.set_legal(version, on=False)
        if current.mode == "GOVERNANCE":
            object_lock.retain(version, None, "GOVERNANCE")
        if current.legal or current.mode == "GOVERNANCE":
            _check_unlocked(object_lock, version)
        progress.advance(items=1)

    bundle_hold.each(unlock, versions, workers)
    progress.end()
    details = {**release_.named, "reason": release_.value["reason"]}
    released = custody_log.once(new_event(store, "released", details), undone_by="held")

    def choose(log: Log) -> Sequence[CustodyEvent]:
        newer = bundle_hold.standing(log, store.location)[-1:]
        if newer and newer[0].number > holds[-1].number:
            raise BusyError(
                f"a hold was placed at {store.location} meanwhile (entry {newer[0].number}), and its locks may be gone",
                next_step=f"moveout hold place {shlex.quote(store.location)} … with its terms locks what is open now",
            )
        return released(log)

    custody_log.append(store, signers[0], choose)
    return Released(release_, [], bundle_hold.survey(store, object_lock, workers=workers))


def waiting(store: Store, trust: Trust | None) -> list[Waiting]:
    """Return the releases of the holds that stand at a location by its log, those that most owners have signed first;
    none where all of these have ended by themselves. Raises like ``new_event``.
    """
    log = _believed(store, custody_log.read(store), trust)
    holds = bundle_hold.standing(log, store.location)
    if not bundle_hold.standing(log, store.location, datetime.now(UTC)):
        return []
    has_end = not any(hold.what.details.get("legal") for hold in holds)
    until = max(map(bundle_hold.end_of, holds)) if has_end else None
    words = {key: word for hold in holds for key, word in _key_words(hold, trust).items()}

    def described(document: Document) -> Waiting:
        by = [public.fingerprint for public in document.signers]
        signed = {key: word for key, word in words.items() if key in by}
        return Waiting(document, signed, _missing(document, holds, trust), until)

    return [
        described(document)
        for document in sorted(_releases_of(store, holds), key=partial(_rank, holds), reverse=True)
    ]


def prepare(store: Store, reason: str, trust: Trust | None) -> Document:
    """Return the release of the holds that stand at a location for this reason: of those that lie there what most
    owners have signed, or a new one. What says anything else, such as another location, is not taken. With ``trust`` no
    hold has ended by the word of a key that its list does not count.

    Raises ``UsageError`` where nothing was held, ``DamageError`` where the log, which names the keys, is not in order.
    """
    holds = _need_holds(store, trust)
    event = new_event(store, "released")
    value = {
        "bundle": event.bundle,
        "root": event.root,
        "location": store.location,
        "reason": reason,
        "holds": [hold.hash for hold in holds],
    }
    new_release = documents.make("release", _about(event.bundle), value)
    same = [document for document in _releases_of(store, holds) if document.value["reason"] == reason]
    return max(same, key=partial(_rank, holds), default=None) or documents.resumed(store, new_release)


def accept(
    store: Store, document: Document, signatures: Mapping[str, bytes], trust: Trust | None
) -> tuple[Document, list[PublicKey]]:
    """Check a release that came as files, with its ``signatures`` (their bytes, by file), and keep it at the location.
    Signatures by keys that neither its holds name nor ``trust`` lists are left out; these keys are returned, too.

    Raises like ``prepare``, and ``UsageError`` where it is another bundle's, location's or hold's, ``DamageError``
    where a signature does not hold.
    """
    holds = _need_holds(store, trust)
    if (objection := _objection(document, new_event(store, "released"), holds)) is not None:
        raise objection
    named, listed = set(_named_keys(*holds)), set(trust.keys if trust else ())
    kept, strangers = documents.sort_signatures(
        document, signatures, lambda public: public.fingerprint in named or public in listed
    )
    documents.copy_all(store, document, kept)
    return document, strangers


def check_form(document: Document) -> None:
    """Raise ``UsageError`` where a document is no release as ``prepare`` makes it: whoever signs it stands for every
    member.
    """
    if document.kind != "release":
        raise UsageError(
            f"{document.key} is no release",
            next_step="name the file that moveout hold release --to DIR wrote",
        )
    value = document.value
    holds = value.get("holds")
    is_formed = (
        set(value) == _MEMBERS
        and all(isinstance(value[name], str) for name in _MEMBERS - {"version", "holds"})
        and isinstance(holds, list)
        and bool(holds)
        and all(isinstance(hold, str) for hold in holds)
        and document.moment is not None
        and document.about == _about(str(value["bundle"]))
    )
    if not is_formed:
        raise UsageError(
            f"{document.key} is no release as moveout makes it",
            next_step="do not sign it; ask for the file that moveout hold release --to DIR wrote",
        )


def quorum(hold: LogEntry) -> int:
    """Return how many owners have to sign the release of a hold; 0 where anybody may end it."""
    number = hold.what.details.get("release_quorum")
    return number if isinstance(number, int) else 0


def lacking_keys(hold: LogEntry, fingerprints: Collection[str], trust: Trust | None) -> str:
    """Return a sentence where fewer owners of the keys signed that a hold names than it wants; else "". Keys that the
    hold, or ``trust``, has under one name are one owner's. One that ``trust`` does not list at all does not count.
    """
    named, owners = _named_keys(hold), _owners(hold, trust)
    listed = {public.fingerprint for public in trust.keys} if trust else set(named)
    signed_with = [key for key in named if key in fingerprints]
    counted = [key for key in signed_with if key in listed]
    count = count_owners(counted, owners)
    if count >= quorum(hold):
        return ""
    words = _key_words(hold, trust)
    of_owners = ", each of another owner" if quorum(hold) > 1 else ""
    few = f", all of {things(count, 'owner')}" if count < len(counted) else ""
    unlisted = [words[key] for key in signed_with if key not in listed]
    removed = f"; not in {trust.source} any more: {', '.join(unlisted)}" if trust and unlisted else ""
    unsigned = [words[key] for key in named if key not in signed_with]
    open_ = f"; not signed: {', '.join(unsigned)}" if unsigned else ""
    if trust and not listed.intersection(named):
        open_ += (
            f"; {trust.source} lists none of them: where entry {hold.number} is a stranger's, only the administrator of"
            " the bucket can lift the locks"
        )
    return (
        f"the hold of entry {hold.number} ends by {quorum(hold)} of these keys{of_owners}: {', '.join(words.values())};"
        f" {len(signed_with)} of them signed{few}{removed}{open_}"
    )


def count_owners(keys: Collection[str], owners: Mapping[str, Collection[str]]) -> int:
    """Return how many owners keys have at least: those that share a name, or one that looks the same, have one."""
    groups: list[set[str]] = []
    for key in keys:
        own = {look for name in owners.get(key, ()) for look in party_names.looks(name)} or {key}
        joined = own.union(*(group for group in groups if group & own))
        groups = [*(group for group in groups if not group & own), joined]
    return len(groups)


def names_hold(document: Document, hold: LogEntry) -> bool:
    """Tell whether a release is for a hold. One of before releases named their holds is for any."""
    holds = document.value.get("holds")
    return holds is None or (isinstance(holds, list) and hold.hash in holds)


def _has_ended(
    store: Store, holds: Sequence[LogEntry], releases: Sequence[Document], trust: Trust | None
) -> bool:
    """Tell whether the log has by now the end of holds, by one of their releases with all its signatures: whoever may
    write there can write an entry that says so, and their locks would stay.
    """
    log = _believed(store, custody_log.read(store), trust)
    released = bundle_hold.release_of(log, store.location, holds[-1])
    if released is None:
        return False
    file = released.what.details.get("file")
    return any(document.key == file and not _missing(document, holds, trust) for document in releases)


def _believed(store: Store, log: Log, trust: Trust | None) -> Log:
    """Return a log without what a key has written that ``trust`` does not count: transfers, which make holds another
    location's, and ends of holds, unless as many owners have signed the release as these say.
    """
    ending = {"released", "transferred"}
    uncounted = log.uncounted(trust).values() if trust else ()
    strangers = {entry.line for entry in uncounted if entry.what.event in ending}
    if not strangers:
        return log
    releases = {document.key: document for document in documents.read_all(store, "release")[0]}

    believed: list[LogEntry] = []
    for entry in log.entries:
        if entry.line in strangers:
            document = releases.get(str(entry.what.details.get("file")))
            if document is None:
                continue
            holds = bundle_hold.standing(replace(log, entries=believed), store.location)
            is_signed = (
                any(map(quorum, holds))
                and all(names_hold(document, hold) for hold in holds)
                and not _missing(document, holds, trust)
            )
            if not is_signed:
                continue
        believed.append(entry)
    return replace(log, entries=believed)


def _need_holds(store: Store, trust: Trust | None) -> list[LogEntry]:
    log = _believed(store, custody_log.check_order(store), trust)
    holds = bundle_hold.last_standing(log, store.location)
    if not holds:
        raise UsageError(
            f"no hold is in the custody log at {store.location}",
            next_step=f"moveout hold status {shlex.quote(store.location)} shows its locks: a hold that broke off is"
            " placed to its end before it is released; what others locked, or the bucket's own rule, ends by itself or"
            " by them",
        )
    return holds


def _rank(holds: Sequence[LogEntry], document: Document) -> tuple[int, str]:
    """Order releases by how many of the keys that holds name have signed them."""
    named = set(_named_keys(*holds))
    return len(named & {public.fingerprint for public in document.signers}), document.key


def _missing(document: Document, holds: Sequence[LogEntry], trust: Trust | None) -> list[str]:
    """Return a sentence for each hold that lacks signatures of a release."""
    by = [public.fingerprint for public in document.signers]
    return [lacking for hold in holds if (lacking := lacking_keys(hold, by, trust))]


def _releases_of(store: Store, holds: Sequence[LogEntry]) -> list[Document]:
    """Return the releases at a location that are for these holds, and are as ``prepare`` makes them."""
    event, releases = new_event(store, "released"), documents.read_all(store, "release")[0]
    return [document for document in releases if _objection(document, event, holds) is None]


def _objection(document: Document, event: CustodyEvent, holds: Sequence[LogEntry]) -> UsageError | None:
    """Return why a document is no release of these holds, which ``event`` would record; None where it is."""
    try:
        check_form(document)
    except UsageError as exc:
        return exc
    if (document.root, document.value["bundle"]) != (event.root, event.bundle):
        return UsageError(
            f"{document.key} releases the bundle {document.value['bundle']}, root {document.root}; at"
            f" {event.location} lies {event.bundle}, root {event.root}",
            next_step="check the location, and which file you name",
        )
    if not is_same_location(str(document.value["location"]), event.location):
        return UsageError(
            f"{document.key} is for {document.value['location']}, not for {event.location}",
            next_step="name that location; for this one, this makes another release:"
            f" moveout hold release {shlex.quote(event.location)} --reason TEXT --to DIR",
        )
    if document.value["holds"] != [hold.hash for hold in holds]:
        entries = ", ".join(f"{hold.number}" for hold in holds)
        return UsageError(
            f"{document.key} is not for the holds that stand now (entries of the custody log: {entries})",
            next_step="a hold that was placed since needs a release of its own, for all owners to sign:"
            f" moveout hold release {shlex.quote(event.location)} --reason TEXT --to DIR",
        )
    return None


def _check_unlocked(object_lock: ObjectLock, version: FileVersion) -> None:
    """Read back what was lifted. Raises ``DamageError`` where it is still there."""
    lock = object_lock.lock(version)
    lasts = lock.mode == "GOVERNANCE" and lock.until is not None and lock.until > object_lock.now() + _SOON
    if lock.legal or lasts:
        lock_text = "a legal hold" if lock.legal else f"a retention until {lock.until}"
        raise DamageError(
            f"{object_lock.location}/{version.key}", expected="no hold any more", found=lock_text,
            next_step="the server took the release and does not have it; run the same command again",
        )  # fmt: skip


def _about(bundle: str) -> str:
    return f"Release of the bundle {bundle} from its hold"


def _owners(hold: LogEntry, trust: Trust | None) -> dict[str, frozenset[str]]:
    """Return the names of the owners of the keys that a hold names, by their fingerprints: those that it has, and those
    of a list.
    """
    keys, recorded = _named_keys(hold), hold.what.details.get("release_owners")
    listed = [public for public in (trust.keys if trust else ()) if public.fingerprint in keys]
    names = {public.fingerprint: trust.owners(public) for public in listed if trust}
    by_hold = recorded if isinstance(recorded, dict) else {}
    return {key: names.get(key, frozenset()).union(_list(by_hold.get(key))) for key in keys}


def _key_words(hold: LogEntry, trust: Trust | None) -> dict[str, str]:
    """Return each key that a hold names, by its fingerprint, with its owner where that is recorded or listed."""
    owners = _owners(hold, trust)
    return {key: f"{key} ({', '.join(sorted(names))})" if names else key for key, names in owners.items()}


def _named_keys(*holds: LogEntry) -> list[str]:
    """Return the fingerprints of the keys that holds name."""
    return [key for hold in holds for key in _list(hold.what.details.get("release_keys"))]


def _list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
