"""A hold: every version of a bundle's files is locked, and read back one by one.

What is held is what the location says when asked, never what was once done. A hold that broke off half-way is seen as
such, and the same command goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import read_manifest, read_tag_manifest
from migrate.custody.handover import documents
from migrate.custody.handover.documents import Document
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log
from migrate.custody.log.entry import CustodyEvent, LogEntry, moment_of
from migrate.custody.log.events import new_event
from migrate.custody.signing import party_names
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import Signer
from migrate.errors import BusyError, DamageError, GoneError, NotAllowedError, UsageError
from migrate.number_text import things
from migrate.runtime.progress import Progress
from migrate.storage.api import Store
from migrate.storage.object_lock import FileVersion, Lock, Mode, ObjectLock

_SOON = timedelta(seconds=10)
"""A server that has no end of a retention has it end in a moment."""


class Terms(Struct, frozen=True):
    """Until when, how firmly, and whether with a legal hold, which has no end."""

    until: datetime
    mode: Mode
    legal: bool

    def met_by(self, lock: Lock) -> bool:
        """Tell whether a lock is at least this."""
        firm = lock.mode == "COMPLIANCE" or self.mode == "GOVERNANCE"
        return firm and lock.until is not None and lock.until >= self.until and (lock.legal or not self.legal)


class Protection(Struct, frozen=True):
    """What is protected at a location, version by version. ``until`` is the earliest end of a retention among them;
    ``later`` counts versions of the custody log and documents that came after the hold, which are no part of it.
    """

    versions: int
    protected: int
    legal: int
    until: datetime | None
    findings: Sequence[Finding]
    later: int = 0

    @property
    def is_held(self) -> bool:
        """Whether everything of the bundle is protected."""
        return self.versions > 0 and self.protected == self.versions and not self.findings


def survey(store: Store, vault: ObjectLock, *, workers: int, terms: Terms | None = None) -> Protection:
    """Ask the location for the lock of every version, and compare with what the bundle's manifest names.

    A version counts as protected where a legal hold is on, or where its retention is firm here and has not ended by the
    clock of the location. With ``terms`` it has to meet those.
    """
    all_versions = list(vault.versions())
    now = vault.now()
    hidden = {
        version.key
        for version in all_versions
        if version.is_marker and version.is_latest and not _is_work(version.key)
    }
    versions = [version for version in all_versions if not version.is_marker and not _is_work(version.key)]
    locks = dict(zip(versions, _each(vault.lock, versions, workers), strict=True))

    def is_protected(lock: Lock) -> bool:
        if terms:
            return terms.met_by(lock)
        return lock.legal or (
            lock.mode is not None and lock.until is not None and lock.until > now and vault.is_firm(lock.mode)
        )

    bound = [version for version in versions if not _is_loose(version)]
    open_ = [version for version in bound if not is_protected(locks[version])]
    findings = [
        Finding(
            version.key,
            "is not protected" if terms is None else "is not protected as it should be",
            "",
            _lock_text(version, locks, vault),
        )
        for version in open_
    ]
    findings += [Finding(key, "is hidden behind a delete marker") for key in sorted(hidden)]
    findings += _missing(store, {version.key for version in bound})
    ends = [until for version in bound if (until := locks[version].until) is not None]
    return Protection(
        versions=len(bound),
        protected=len(bound) - len(open_),
        legal=sum(locks[version].legal for version in bound),
        until=min(ends, default=None),
        findings=findings,
        later=sum(not is_protected(locks[version]) for version in versions if _is_loose(version)),
    )


def place(
    store: Store,
    vault: ObjectLock,
    terms: Terms,
    *,
    workers: int,
    progress: Progress,
    details: dict[str, Any],
    signer: Signer,
) -> Protection:
    """Lock every version, read each back, and write the hold into the custody log once all are. A lock is never
    weakened: one that lasts longer stays.

    Raises ``NotAllowedError`` where the location has no Object Lock, or lets anybody lift such a retention,
    ``UsageError`` where it holds no sealed bundle.
    """
    vault.check_lock()
    event = new_event(store, "held", details)
    if not terms.legal and not vault.is_firm(terms.mode):
        raise NotAllowedError(
            f"{vault.location}: this server lets every account lift a {terms.mode} retention, so it is not a hold",
            next_step="add --legal, which only who has the right to can lift, or --mode compliance",
        )
    versions = [
        version for version in vault.versions() if not version.is_marker and not _is_work(version.key)
    ]
    progress.begin("hold", items=len(versions), size_bytes=0)

    def lock(version: FileVersion) -> None:
        current = vault.lock(version)
        if (
            current.until is None
            or current.until < terms.until
            or (current.mode != terms.mode == "COMPLIANCE")
        ):
            mode = current.mode if current.mode == "COMPLIANCE" else terms.mode
            firmer = current.mode is not None and current.mode != mode
            vault.retain(version, max(terms.until, current.until or terms.until), mode, firmer=firmer)
        if terms.legal and not current.legal:
            vault.set_legal(version, on=True)
        progress.advance(items=1)

    # An erasure removes the tag manifest first: where that is locked, it has not begun, and cannot.
    tag_manifests = [version for version in versions if version.key == layout.TAG_MANIFEST]
    _each(lock, tag_manifests, workers)
    new_event(store, "held")  # raises where an erasure was faster
    _each(lock, [version for version in versions if version not in tag_manifests], workers)
    progress.end()
    protection = survey(store, vault, workers=workers, terms=terms)
    if protection.is_held:
        event = replace(event, details={**details, "versions": protection.versions})
        custody_log.append(store, signer, custody_log.once(event, undone_by="released"))
    return protection


def release(
    store: Store,
    vault: ObjectLock,
    reason: str,
    signers: Sequence[Signer],
    *,
    workers: int,
    progress: Progress,
    trust: Trust | None = None,
) -> tuple[Document, Protection]:
    """Lift the legal hold and, where the mode lets, the retention of every version. That takes the word of those whom
    the hold names, and of those whom each hold names that was placed since the last release. Return the signed release
    and what is still protected. ``trust`` says of more keys that they have one owner.

    Raises ``NotAllowedError`` where too few owners of the named keys sign, ``UsageError`` where nothing was held,
    ``DamageError`` where the log, which names the keys, is not in order, or the server holds on to what was released,
    ``BusyError`` where somebody places a hold meanwhile.
    """
    custody_log.check_order(store)
    holds = standing_at(store)
    if not holds:
        raise UsageError(
            f"no hold is in the custody log at {store.location}",
            next_step="moveout hold status LOCATION shows its locks: a hold that broke off is placed to its end before"
            " it is released; what others locked, or the bucket's own rule, ends by itself or by them",
        )
    for hold in holds:
        _need_keys(hold, signers, trust)
    document = _release_document(store, reason, signers, holds[-1])
    versions = [version for version in vault.versions() if not version.is_marker]
    progress.begin("release", items=len(versions), size_bytes=0)

    def unlock(version: FileVersion) -> None:
        current = vault.lock(version)
        if current.legal:
            vault.set_legal(version, on=False)
        if current.mode == "GOVERNANCE":
            vault.retain(version, None, "GOVERNANCE")
        if current.legal or current.mode == "GOVERNANCE":
            _check_unlocked(vault, version)
        progress.advance(items=1)

    _each(unlock, versions, workers)
    progress.end()
    details = {"file": document.key, "sha256": document.sha256, "reason": reason}
    released = custody_log.once(new_event(store, "released", details), undone_by="held")

    def choose(log: Log) -> Sequence[CustodyEvent]:
        newer = standing(log, store.location)[-1:]
        if newer and newer[0].number > holds[-1].number:
            raise BusyError(
                f"a hold was placed at {store.location} meanwhile (entry {newer[0].number}), and its locks may be gone",
                next_step="moveout hold place LOCATION … with its terms locks what is open now",
            )
        return released(log)

    custody_log.append(store, signers[0], choose)
    return document, survey(store, vault, workers=workers)


def _check_unlocked(vault: ObjectLock, version: FileVersion) -> None:
    """Read back what was lifted. Raises ``DamageError`` where it is still there."""
    lock = vault.lock(version)
    lasts = lock.mode == "GOVERNANCE" and lock.until is not None and lock.until > vault.now() + _SOON
    if lock.legal or lasts:
        lock_text = "a legal hold" if lock.legal else f"a retention until {lock.until}"
        raise DamageError(
            f"{vault.location}/{version.key}", expected="no hold any more", found=lock_text,
            next_step="the server took the release and does not have it; run the same command again",
        )  # fmt: skip


def _release_document(store: Store, reason: str, signers: Sequence[Signer], hold: LogEntry) -> Document:
    """Return the release of a hold for this reason: the one that a run before has begun, or a new one. What says
    anything else, such as another location, is not signed.
    """
    event, log = new_event(store, "released"), custody_log.read(store)
    former = {entry.what.details.get("file") for entry in log.find("released") if entry.number < hold.number}
    about = f"Release of the bundle {event.bundle} from its hold"
    value = {"bundle": event.bundle, "root": event.root, "location": store.location, "reason": reason}
    new_release = documents.make("release", about, value)
    begun = (
        document
        for document in documents.read_all(store, "release")[0]
        if document.key not in former and document.says(new_release)
    )
    release_ = next(begun, None) or documents.resumed(store, new_release)
    documents.keep(store, release_, signers)
    return release_


def standing_at(store: Store) -> list[LogEntry]:
    """Return the holds of the location, by its log, that no release has ended; where all are released the newest, for a
    release may have to be finished.
    """
    log = custody_log.read(store)
    return standing(log, store.location) or log.at(store.location, "held")[-1:]


def standing(log: Log, location: str, moment: datetime | None = None) -> list[LogEntry]:
    """Return the holds of a location, by its log, that no release has ended; with ``moment`` only those that had not
    ended by themselves by then.
    """
    return [
        hold
        for hold in log.unended(location, "held", "released")
        if moment is None or hold.what.details.get("legal") or end_of(hold) > moment
    ]


def end_of(hold: LogEntry) -> datetime:
    """Return until when the log says that a hold lasts; the first of all moments where it makes no sense."""
    return moment_of(hold.what.details.get("until")) or datetime.min.replace(tzinfo=UTC)


def release_of(store: Store, hold: LogEntry) -> LogEntry | None:
    """Return the release that ended a hold, by the log; None where it stands."""
    released = custody_log.read(store).at(store.location, "released")
    return next((entry for entry in released if entry.number > hold.number), None)


def _need_keys(hold: LogEntry, signers: Sequence[Signer], trust: Trust | None) -> None:
    """Raise ``NotAllowedError`` unless as many owners of the keys sign that a hold names as it wants."""
    if lacking := lacking_keys(hold, {signer.public.fingerprint for signer in signers}, trust):
        raise NotAllowedError(lacking, next_step="name them all: --key FILE --key FILE")


def lacking_keys(hold: LogEntry, fingerprints: Collection[str], trust: Trust | None = None) -> str:
    """Return a sentence where fewer owners of the keys signed that a hold names than it wants; else "". Keys that the
    hold, or ``trust``, has under one name are one owner's.
    """
    details = hold.what.details
    named, quorum_value = _list(details.get("release_keys")), details.get("release_quorum")
    quorum = quorum_value if isinstance(quorum_value, int) else 0
    owners = _owners(named, details.get("release_owners"), trust)
    signed_with = set(fingerprints) & set(named)
    count = count_owners(signed_with, owners)
    if count >= quorum:
        return ""
    keys = ", ".join(f"{key} ({', '.join(sorted(owners[key]))})" if owners[key] else key for key in named)
    of_owners = ", each of another owner" if quorum > 1 else ""
    few = f", all of {things(count, 'owner')}" if count < len(signed_with) else ""
    return (
        f"the hold of entry {hold.number} ends by {quorum} of these keys{of_owners}: {keys}; {len(signed_with)} of"
        f" them signed{few}"
    )


def _owners(keys: Sequence[str], recorded: object, trust: Trust | None) -> dict[str, frozenset[str]]:
    """Return the names of the owners of keys, by their fingerprints: those that a hold has, and those of a list."""
    listed = [public for public in (trust.keys if trust else ()) if public.fingerprint in keys]
    names = {public.fingerprint: trust.owners(public) for public in listed if trust}
    by_hold = recorded if isinstance(recorded, dict) else {}
    return {key: names.get(key, frozenset()).union(_list(by_hold.get(key))) for key in keys}


def count_owners(keys: Collection[str], owners: Mapping[str, Collection[str]]) -> int:
    """Return how many owners keys have at least: those that share a name, or one that looks the same, have one."""
    groups: list[set[str]] = []
    for key in keys:
        own = {look for name in owners.get(key, ()) for look in party_names.looks(name)} or {key}
        joined = own.union(*(group for group in groups if group & own))
        groups = [*(group for group in groups if not group & own), joined]
    return len(groups)


def _list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _missing(store: Store, present: Collection[str]) -> Iterator[Finding]:
    """Yield the files of the bundle, by its manifests, of which there is not one version."""
    try:
        for key in (layout.TAG_MANIFEST, *read_tag_manifest(store)):
            if key not in present:
                yield Finding(key, "is missing")
        for entry in read_manifest(store):
            if entry.key not in present:
                yield Finding(entry.key, "is missing")
    except DamageError as exc:
        yield Finding(exc.key, "cannot be read", exc.expected, exc.found)
    except (GoneError, UsageError) as exc:
        yield Finding(layout.MANIFEST, f"cannot be read: {exc}")


def _is_work(key: str) -> bool:
    return key.startswith(layout.WORK)


def _is_loose(version: FileVersion) -> bool:
    """Tell whether a version is of what grows next to a held bundle: the log, documents, changes, and records."""
    grows = (layout.CHANGES, layout.RESTORED, *(f"{layout.SIGNATURES}{kind}-" for kind in documents.KINDS))
    return layout.is_custody(version.key) or version.key.startswith(grows)


def _lock_text(version: FileVersion, locks: dict[FileVersion, Lock], vault: ObjectLock) -> str:
    lock = locks[version]
    until = f"{lock.mode} until {lock.until.isoformat()}" if lock.until else "no retention"
    weak = " (which any account here may lift)" if lock.mode and not vault.is_firm(lock.mode) else ""
    return f"version {version.id or 'only'}: {until}{weak}, {'a' if lock.legal else 'no'} legal hold"


def _each(do: Callable[[FileVersion], Any], versions: Sequence[FileVersion], workers: int) -> list[Any]:
    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-hold") as pool:
        return list(pool.map(do, versions))
