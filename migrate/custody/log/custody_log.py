"""The custody log at a location: ``sig/custody.jsonl``, and its head, which says how far it went.

Entries are only ever added, by a conditional write of the whole (small) file: of two writers one finds it changed, and
goes on from what the other wrote. The head (``sig/custody-head.json``, signed) is written after the log, so that a log
that was cut short is behind its head. Somebody who may write there can put an *older* log and its head back. Only a
comparison shows that: with a copy of the log, or with what a receipt says of it (``cross_checks``).
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from migrate.bundle import canonical_json, layout
from migrate.bundle.findings import Finding
from migrate.custody.log import entry
from migrate.custody.log.entry import CustodyEvent, LogEntry
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey, Signer
from migrate.errors import AlreadyExistsError, BusyError, ChangedError, DamageError, GoneError
from migrate.storage.api import Store

MAX_BYTES = 64 * 2**20
_MAX_HEAD_BYTES = 4096
_TRIES = 50
_NEXT = "moveout custody verify says more; a copy of the log from another location may help to mend it"


class Head(Struct, frozen=True):
    """How many entries a log had, the hash of the last of them, whose word that is, and the bytes that say so."""

    size: int
    hash: str
    signer: PublicKey
    data: bytes


class Log(Struct, frozen=True):
    """A log as it lies there. ``etag`` is the file's, None where there is no log. ``notes`` are oddities that are no
    damage. ``head`` was read before it; None where there is none that holds.
    """

    entries: Sequence[LogEntry]
    findings: Sequence[Finding]
    notes: Sequence[str]
    data: bytes = b""
    etag: str | None = None
    head: Head | None = None

    @property
    def last(self) -> LogEntry | None:
        """The newest entry."""
        return self.entries[-1] if self.entries else None

    def find(self, event: str, root: str | None = None) -> list[LogEntry]:
        """Return the entries of one kind, of one root where that is given."""
        return [
            entry_
            for entry_ in self.entries
            if entry_.what.event == event and root in {None, entry_.what.root}
        ]

    def dated(self, trust: Trust) -> Iterator[tuple[LogEntry, datetime]]:
        """Yield the entries by keys of a list, each with the time as of which it shows anything: its own, and not
        before that of an earlier one whose key counted. Whoever has a key that counts no more dates back what he signs.
        None is of later than now: one clock that was ahead would make keys end sooner.
        """
        latest, now = datetime.min.replace(tzinfo=UTC), datetime.now(UTC)
        for entry_ in self.entries:
            if entry_.public in trust.keys:
                moment = max(latest, min(entry_.moment, now))
                latest = latest if trust.name(entry_.public, moment) is None else moment
                yield entry_, moment

    def counted(self, trust: Trust) -> list[LogEntry]:
        """Return the entries by keys that a list counted when they were written."""
        return [entry_ for entry_, at in self.dated(trust) if trust.name(entry_.public, at) is not None]

    def uncounted(self, trust: Trust) -> dict[bytes, LogEntry]:
        """Return the entries that are not ``counted``, by their lines."""
        counted = {entry_.line for entry_ in self.counted(trust)}
        return {entry_.line: entry_ for entry_ in self.entries if entry_.line not in counted}

    def without(self, events: Collection[str], trust: Trust | None) -> Log:
        """Return the log without entries of these kinds that a list does not count; all of it without a list. A
        transfer of a stranger's would make what was written here another location's.
        """
        strangers = self.uncounted(trust) if trust else {}
        kept = [
            entry_
            for entry_ in self.entries
            if entry_.what.event not in events or entry_.line not in strangers
        ]
        return replace(self, entries=kept)

    def first_named(self, trust: Trust) -> dict[str, datetime]:
        """Return when the log first named each file, by its SHA-256, as ``dated`` has it."""
        named: dict[str, datetime] = {}
        for entry_, at in self.dated(trust):
            named.setdefault(str(entry_.what.details.get("sha256")), at)
        return named

    def before(self, entry_: LogEntry) -> Log:
        """Return the log as it was when an entry was written."""
        return replace(self, entries=[earlier for earlier in self.entries if earlier.number < entry_.number])

    def at(self, location: str, event: str, *, after: int = 0) -> list[LogEntry]:
        """Return the entries of one kind, with a number above ``after``, that were written at a location, by whichever
        profile that was reached. What came along with the bundle from another server, where the location has the same
        name, is of there.
        """
        came_by: dict[str, int] = {}
        for by in self.find("transferred"):
            if is_same_location(by.what.location, location) and (came_from := _origin(by)) is not None:
                came_by[came_from] = max(by.number, came_by.get(came_from, 0))
        return [
            entry_
            for entry_ in self.find(event)
            if entry_.number > after
            and is_same_location(entry_.what.location, location)
            and entry_.number >= came_by.get(entry_.what.location, 0)
        ]

    def unended(self, location: str, event: str, end: str) -> list[LogEntry]:
        """Return the entries of one kind at a location after which there is none of the kind ``end``."""
        ended = max((entry_.number for entry_ in self.at(location, end)), default=0)
        return self.at(location, event, after=ended)

    def is_of_here(self, entry_: LogEntry, location: str) -> bool:
        """Tell whether an entry was written at the very location of this log, whatever URL its writer had for it. What
        was written at another came along with the bundle, by a transfer from there.
        """
        is_namesake = is_same_location(entry_.what.location, location)
        return not any(
            entry_.number < by.number and entry_.what.location == _origin(by)
            for by in self.find("transferred")
            if not is_namesake or is_same_location(by.what.location, location)
        )


def _origin(transfer: LogEntry) -> str | None:
    """Return the location that a transfer came from; None where it does not say, or that is where it led to."""
    came_from = transfer.what.details.get("from")
    return came_from if isinstance(came_from, str) and came_from != transfer.what.location else None


def is_same_location(location: str, other: str) -> bool:
    """Tell whether two URLs name one location, by whichever profile each is reached."""
    return location.partition("?")[0] == other.partition("?")[0]


def read(store: Store) -> Log:
    """Read and check the log at a location; where there is none it is empty."""
    head = _read_head(store)  # first: who writes in between puts the log ahead of it, which is in order
    try:
        info = store.stat(layout.CUSTODY_LOG)
        if info.size_bytes > MAX_BYTES:
            return Log([], [Finding(layout.CUSTODY_LOG, "is too long for a log")], [], etag=info.etag)
        data = store.read(layout.CUSTODY_LOG)
    except GoneError:
        return Log([], _behind_head([], head) if head is not None else [], [])
    entries, findings = parse(data)
    findings += _behind_head(entries, head)
    signed_head = head if isinstance(head, Head) else None
    return Log(entries, findings, list(_notes(entries)), data, info.etag, signed_head)


def parse(data: bytes) -> tuple[list[LogEntry], list[Finding]]:
    """Read the bytes of a log."""
    if not data.endswith(b"\n"):
        entries, findings = entry.chain(data.split(b"\n"), layout.CUSTODY_LOG)
        return entries, [
            *findings,
            Finding(layout.CUSTODY_LOG, "does not end with a newline: it was cut short"),
        ]
    return entry.chain(data[:-1].split(b"\n"), layout.CUSTODY_LOG)


def check_order(store: Store) -> Log:
    """Read the log at a location. Raises ``DamageError`` where it is not in order."""
    log = read(store)
    if log.findings:
        raise _damaged(log.findings[0])
    return log


def append(
    store: Store,
    signer: Signer,
    choose: Callable[[Log], Sequence[CustodyEvent]],
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[LogEntry]:
    """Append what ``choose`` returns, given the log as it is; return the new entries. Nothing is written for nothing.

    ``choose`` is asked again where another writer was faster. Raises ``DamageError`` where the log is not in order:
    nothing is built upon a damaged one.
    """
    for attempt in range(_TRIES):
        log = check_order(store)
        new: list[LogEntry] = []
        for event in choose(log):
            new.append(entry.write(signer, event, new[-1] if new else log.last, clock()))
        if not new:
            if log.etag is not None:
                _write_head(store, signer, log.entries)
            return []
        if log.etag is None:
            _write_head(store, signer, [])
        data = log.data + b"".join(new_entry.line + b"\n" for new_entry in new)
        try:
            _put(store, layout.CUSTODY_LOG, data, log.etag)
        except (ChangedError, AlreadyExistsError):
            time.sleep(random.uniform(0, 0.02 * (attempt + 1)))  # noqa: S311 - no secret, only jitter
            continue
        _write_head(store, signer, [*log.entries, *new])
        return new
    raise BusyError(
        f"others keep writing to the custody log at {store.location}", next_step="run the same command again"
    )


def begin(store: Store, signer: Signer) -> None:
    """Write the head of an empty log where there is neither log nor head: so a log without one is one whose head was
    taken away.
    """
    log = read(store)
    if log.etag is None and not log.findings:
        _write_head(store, signer, [])


def once(event: CustodyEvent, *, undone_by: str = "") -> Callable[[Log], Sequence[CustodyEvent]]:
    """Return a choice for ``append``: ``event``, unless the log has the same of the same root at the same location, by
    whichever profile, and no entry of the event ``undone_by`` after it.
    """

    def choose(log: Log) -> Sequence[CustodyEvent]:
        undone = max((entry_.number for entry_ in log.find(undone_by, event.root)), default=0)
        same_entries = (
            entry_
            for entry_ in log.at(event.location, event.event, after=undone)
            if replace(entry_.what, location=event.location) == event
        )
        return [] if any(same_entries) else [event]

    return choose


def carry(origin: Store, destination: Store) -> str:
    """Bring the log along to a bundle's new location, which then begins with the origin's entries. Return why that was
    not possible, if it was not.

    A log at the destination that has more stays; one that went another way stays too. A log that is not in order is
    left where it is: nothing could be added to it.
    """
    for _ in range(_TRIES):
        with ThreadPoolExecutor(1, thread_name_prefix="moveout-log") as threads:
            reading = threads.submit(read, origin)
            log_there = read(destination)
        log_here = reading.result()
        if log_here.findings:
            found = f"{log_here.findings[0]} (moveout custody verify)"
            return f"the custody log at {origin.location} is not in order, and was not taken along: {found}"
        if log_there.data.startswith(log_here.data):
            if log_there.data == log_here.data:
                _keep_head(destination, log_here.head)
            return ""
        if not log_here.data.startswith(log_there.data):
            return f"the custody log at {destination.location} is its own; {origin.location} has another"
        try:
            _put(destination, layout.CUSTODY_LOG, log_here.data, log_there.etag)
            _keep_head(destination, log_here.head)
        except (ChangedError, AlreadyExistsError):
            continue
        return ""
    raise BusyError(
        f"others keep writing to the custody log at {destination.location}",
        next_step="run the same command again",
    )


def _put(store: Store, key: str, data: bytes, etag: str | None) -> None:
    if etag is None:
        store.create(key, data)
    else:
        store.replace(key, data, etag=etag)


def _notes(entries: Sequence[LogEntry]) -> Sequence[str]:
    clock_set_back = (
        (before, after) for before, after in itertools.pairwise(entries) if after.moment < before.moment
    )
    return [
        f"entry {after.number} ({after.time}) is earlier than entry {before.number} ({before.time}):"
        " a clock was set back"
        for before, after in clock_set_back
    ]


def _write_head(store: Store, signer: Signer, entries: Sequence[LogEntry]) -> None:
    """Write how long the log is."""
    size, digest = len(entries), entries[-1].hash if entries else entry.NOBODY
    data = entry.sign(signer, {"version": entry.VERSION, "size": size, "hash": digest}) + b"\n"
    _keep_head(store, Head(size, digest, signer.public, data))


def _keep_head(store: Store, head: Head | None) -> None:
    """Put a head at a location, unless one that is as long is noted there, or one that does not hold: what that says of
    the log is to be seen.
    """
    if head is None:
        return
    for _ in range(_TRIES):
        try:
            etag = store.stat(layout.CUSTODY_HEAD).etag
        except GoneError:
            etag = None
        there = _read_head(store) if etag else None
        if isinstance(there, Finding) or (there is not None and there.size >= head.size):
            return
        try:
            _put(store, layout.CUSTODY_HEAD, head.data, etag)
        except (ChangedError, AlreadyExistsError):
            continue
        return


def _read_head(store: Store) -> Head | Finding | None:
    try:
        return _head(store.read(layout.CUSTODY_HEAD, 0, _MAX_HEAD_BYTES))
    except GoneError:
        return None


def _head(data: bytes) -> Head | Finding:
    key = layout.CUSTODY_HEAD
    try:
        value = canonical_json.decode(data, key)
        size, digest = value["size"], value["hash"]
        if (
            not isinstance(size, int)
            or not isinstance(digest, str)
            or canonical_json.encode(value) + b"\n" != data
        ):
            return Finding(key, "is no head of a log")
        public = entry.signer_of(value)
    except (DamageError, KeyError, TypeError, AttributeError, ValueError):
        return Finding(key, "is no head of a log")
    if public is None:
        return Finding(key, "was changed after it was signed")
    return Head(size, digest, public, data)


def _behind_head(entries: Sequence[LogEntry], head: Head | Finding | None) -> list[Finding]:
    if head is None:
        return [Finding(layout.CUSTODY_HEAD, "is missing")]
    if isinstance(head, Finding):
        return [head]
    size, digest = head.size, head.hash
    if size > len(entries):
        state = f"it has {len(entries)} entries" if entries else "it is gone"
        return [Finding(layout.CUSTODY_LOG, f"was cut short: {state}, its head says {size}")]
    hash_found = entries[size - 1].hash if size > 0 else entry.NOBODY
    if hash_found != digest:
        sentence = f"is another log than its head names: entry {size} differs, so there is a second branch"
        return [Finding(layout.CUSTODY_LOG, sentence, digest, hash_found)]
    return []


def _damaged(finding: Finding) -> DamageError:
    return DamageError(
        finding.key,
        expected=finding.expected or "a log in order",
        found=finding.found or finding.what,
        next_step=_NEXT,
    )
