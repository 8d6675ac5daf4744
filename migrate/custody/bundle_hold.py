"""A hold: every version of a bundle's files is locked, and read back one by one.

What is held is what the location says when asked, never what was once done. A hold that broke off half-way is seen as
such, and the same command goes on with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import read_manifest, read_tag_manifest
from migrate.custody import documents
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log, is_same_location
from migrate.custody.log.entry import LogEntry, moment_of
from migrate.custody.log.events import new_event
from migrate.custody.signing.keys import Signer
from migrate.errors import (
    ChangedError,
    DamageError,
    GoneError,
    MoveoutError,
    NotAllowedError,
    UnreachableError,
    UsageError,
)
from migrate.runtime.progress import Progress
from migrate.storage.api import Store, exists
from migrate.storage.object_lock import FileVersion, Lock, Mode, ObjectLock


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


def survey(store: Store, object_lock: ObjectLock, *, workers: int, terms: Terms | None = None) -> Protection:
    """Ask the location for the lock of every version, and compare with what the bundle's manifest names.

    A version counts as protected where a legal hold is on, or where its retention is firm here and has not ended by the
    clock of the location. With ``terms`` it has to meet those.
    """
    all_versions = list(object_lock.versions())
    now = object_lock.now()
    hidden = {
        version.key
        for version in all_versions
        if version.is_marker and version.is_latest and not _is_work(version.key)
    }
    versions = [version for version in all_versions if not version.is_marker and not _is_work(version.key)]
    locks = dict(zip(versions, each(object_lock.lock, versions, workers), strict=True))

    def is_protected(lock: Lock) -> bool:
        if terms:
            return terms.met_by(lock)
        return lock.legal or (
            lock.mode is not None
            and lock.until is not None
            and lock.until > now
            and object_lock.is_firm(lock.mode)
        )

    bound = [version for version in versions if not _is_loose(version)]
    open_ = [version for version in bound if not is_protected(locks[version])]
    findings = [
        Finding(
            version.key,
            "is not protected" if terms is None else "is not protected as it should be",
            "",
            _lock_text(version, locks, object_lock),
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
    object_lock: ObjectLock,
    terms: Terms,
    *,
    workers: int,
    progress: Progress,
    details: dict[str, Any],
    signer: Signer,
) -> Protection:
    """Lock every version, read each back, and write the hold into the custody log once all are. A lock is never
    weakened: one that lasts longer stays. ``details`` are what else the entry says: the reason, and who may end it.

    Raises ``NotAllowedError`` where the location has no Object Lock, lets anybody lift such a retention, or removes
    what is locked, ``UsageError`` where it holds no sealed bundle.
    """
    object_lock.check_lock()
    event = new_event(store, "held")
    if not terms.legal and not object_lock.is_firm(terms.mode):
        raise NotAllowedError(
            f"{store.location}: this server lets every account lift a {terms.mode} retention, so it is not a hold",
            next_step="add --legal, which only who has the right to can lift, or --mode compliance",
        )
    custody_log.begin(store, signer)
    versions = [
        version for version in object_lock.versions() if not version.is_marker and not _is_work(version.key)
    ]
    progress.begin("hold", items=len(versions), size_bytes=0)

    def lock(version: FileVersion) -> None:
        current = object_lock.lock(version)
        if (
            current.until is None
            or current.until < terms.until
            or (current.mode != terms.mode == "COMPLIANCE")
        ):
            mode = current.mode if current.mode == "COMPLIANCE" else terms.mode
            firmer = current.mode is not None and current.mode != mode
            object_lock.retain(version, max(terms.until, current.until or terms.until), mode, firmer=firmer)
        if terms.legal and not current.legal:
            object_lock.set_legal(version, on=True)
        progress.advance(items=1)

    # An erasure removes the tag manifest first: where that is locked, it has not begun, and cannot.
    tag_manifests = [version for version in versions if version.key == layout.TAG_MANIFEST]
    each(lock, tag_manifests, workers)
    new_event(store, "held")  # raises where an erasure was faster
    each(lock, [version for version in versions if version not in tag_manifests], workers)
    progress.end()
    protection = survey(store, object_lock, workers=workers, terms=terms)
    if protection.is_held:
        _check_enforced(
            store, object_lock, [version for version in versions if version.key == layout.CUSTODY_HEAD]
        )
        of_terms = {"until": terms.until.isoformat(), "mode": terms.mode, "legal": terms.legal}
        event = replace(event, details={**details, **of_terms, "versions": protection.versions})
        custody_log.append(store, signer, custody_log.once(event, undone_by="released"))
    return protection


def _check_enforced(store: Store, object_lock: ObjectLock, heads: Sequence[FileVersion]) -> None:
    """Try to remove a locked version of the log's head, which a newer one has replaced: nothing is lost where that
    succeeds. Raises ``NotAllowedError`` then: the location takes locks, and holds nothing.
    """
    if not heads:  # somebody has taken it away: then the log takes no entry of a hold, either
        return
    locked = next((version for version in heads if not version.is_latest), None)
    if locked is None:
        locked, etag = heads[0], store.stat(layout.CUSTODY_HEAD).etag
        with suppress(ChangedError):  # somebody else has written a newer one
            store.replace(layout.CUSTODY_HEAD, store.read(layout.CUSTODY_HEAD), etag=etag)
    try:
        object_lock.remove(locked)
    except UnreachableError:
        raise
    except MoveoutError:  # refused, in whatever words
        return
    raise NotAllowedError(
        f"{store.location}: this server takes a lock, names it when asked, and removes what is locked all the same",
        next_step="nothing is held there: transfer the bundle to a server that keeps to Object Lock, and hold it there",
    )


def is_erased(store: Store, object_lock: ObjectLock) -> bool:
    """Tell whether no version of a bundle is left at a location, only its record."""
    if exists(store, layout.TAG_MANIFEST) or not exists(store, layout.CUSTODY_LOG):
        return False
    return all(version.key != layout.TAG_MANIFEST for version in object_lock.versions())


def last_standing(log: Log, location: str) -> list[LogEntry]:
    """Return the holds of a location, by its log, that no release has ended; where all are released those that a
    release has ended last, for it may have to be finished.
    """
    if holds := standing(log, location):
        return holds
    here = {entry.line for entry in log.at(location, "released")}
    ended = [holds for entry, holds in standing_before(log, {"released"}) if holds and entry.line in here]
    return ended[-1] if ended else []


def standing_before(log: Log, events: Collection[str]) -> Iterator[tuple[LogEntry, list[LogEntry]]]:
    """Yield the entries of some kinds, each with the holds of its location that no release had ended before it. The log
    is searched only for transfers between two URLs of one location: what was written there before may be another's.
    """
    holds_at: defaultdict[str, list[LogEntry]] = defaultdict(list)
    for index, entry in enumerate(log.entries):
        event, location = entry.what.event, entry.what.location
        holds = holds_at[location.partition("?")[0]]
        if event in events:
            yield entry, [*holds]
        if event == "held":
            holds.append(entry)
        elif event == "released":
            holds.clear()
        elif event == "transferred" and is_same_location(str(entry.what.details.get("from")), location):
            holds[:] = standing(replace(log, entries=log.entries[: index + 1]), location)


def standing(log: Log, location: str, moment: datetime | None = None) -> list[LogEntry]:
    """Return the holds of a location, by its log, that no release has ended; with ``moment`` only those that had not
    ended by themselves by then.
    """
    return [
        hold
        for hold in log.unended(location, "held", "released")
        if moment is None or has_not_ended(hold, moment)
    ]


def has_not_ended(hold: LogEntry, moment: datetime) -> bool:
    """Tell whether a hold had not ended by itself by some moment, as the log says."""
    return bool(hold.what.details.get("legal")) or end_of(hold) > moment


def end_of(hold: LogEntry) -> datetime:
    """Return until when the log says that a hold lasts; the first of all moments where it makes no sense."""
    return moment_of(hold.what.details.get("until")) or datetime.min.replace(tzinfo=UTC)


def release_of(log: Log, location: str, hold: LogEntry) -> LogEntry | None:
    """Return the release that ended a hold of a location, by its log; None where it stands."""
    return next(iter(log.at(location, "released", after=hold.number)), None)


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


def _lock_text(version: FileVersion, locks: dict[FileVersion, Lock], object_lock: ObjectLock) -> str:
    lock = locks[version]
    until = f"{lock.mode} until {lock.until.isoformat()}" if lock.until else "no retention"
    weak = " (which any account here may lift)" if lock.mode and not object_lock.is_firm(lock.mode) else ""
    return f"version {version.id or 'only'}: {until}{weak}, {'a' if lock.legal else 'no'} legal hold"


def each(do: Callable[[FileVersion], Any], versions: Sequence[FileVersion], workers: int) -> list[Any]:
    """Return what a function returns for each version, several at a time."""
    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-hold") as pool:
        return list(pool.map(do, versions))
