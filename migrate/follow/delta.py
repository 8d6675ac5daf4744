"""Delta passes: what a source has written since the last one is found by comparing tables, and written by repair.

For sources whose log cannot be followed. A pass reads the tables that may have changed, at both sides; the destination
is equal to one snapshot of the source afterwards. Between two passes the source has as long a rest as a pass took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.engine import part_reader_of
from exporters.errors import SourceError, SourceGoneError, SourceReplacedError
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.changes.capture import resume_position
from migrate.changes.change_logs import definition_state
from migrate.changes.delta_record import (
    DeltaRecord,
    forget_written,
    note_written,
    read_delta,
    recorded_deltas,
    require_delta,
    write_delta,
    written_tables,
)
from migrate.changes.remainder import Carried, carry_remainder
from migrate.changes.segments import SegmentFolder
from migrate.errors import (
    BusyError,
    GoneError,
    IncompleteError,
    MoveoutError,
    NoSpaceError,
    UnreachableError,
    UsageError,
)
from migrate.follow.cutover import Stages, written_meanwhile
from migrate.follow.cutover_record import ProvenSource, Stage
from migrate.follow.followed import (
    DatabasePair,
    FollowedSource,
    RecordedBase,
    followed_sources,
    recorded_bases,
)
from migrate.follow.follower import run_guarded
from migrate.follow.own_rows import OwnRows
from migrate.follow.table_digests import (
    Digests,
    as_recorded,
    differences,
    live_tables,
    read_digests,
    recorded_digests,
)
from migrate.repair.live_repair import open_repair, repair_from_source
from migrate.repair.repair import RepairDestination
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.retry_pauses import RetryPauses
from migrate.storage.api import Store

_SHORTEST_REST_SECONDS = 10.0
_WATCH_SECONDS = 1.0
_TO_SECONDS = len("2026-12-01T00:00:00")
DEFINE_DELTA_STEP = (
    "give the source's statements at the destination, too; the next delta pass fills a new table"
)


class DeltaSource(DatabasePair, frozen=True):
    """A source that is kept up by delta passes. ``overwrites``: they replace what others have written at the
    destination, too. ``copies``: other locations of the bundle, next to which a restore may be recorded.
    """

    store: Store
    overwrites: bool = False
    copies: Sequence[Store] = ()

    def is_at_work(self) -> bool:
        """Tell whether another moveout writes to the destination. Raises errors of its server."""
        try:
            self._require_restored()
        except BusyError:
            return True
        return False

    def note_running(self) -> None:
        """Do nothing: nothing waits at the destination."""

    def guarded(self) -> DeltaSource:
        """Return the same source, whose passes replace nothing that others have written."""
        return replace(self, overwrites=False)

    def take_pass(self, cancellation: CancellationToken) -> DeltaRecord:
        """Make the destination equal to the source as it is now, and record that. Raises ``NotEqualError`` where others
        have written to a table that differs, and errors of both servers and of the location.
        """
        try:
            with open_repair(self.destination) as opened:
                return self._take_pass(opened, cancellation)
        except GoneError:
            self._require_restored()
            raise

    def _take_pass(self, opened: RepairDestination, cancellation: CancellationToken) -> DeltaRecord:
        """Take a pass. What is recorded is read and written while the destination is locked: what was read before would
        lack what another moveout has just written there.
        """
        require_delta(self.store, self.name)
        before = read_delta(self.store, self.name) or DeltaRecord(self.name)
        if before.defined is None:
            before = replace(before, defined=definition_state(self.source, self._exported(), self.name))
        written = written_tables(self.store, self.name, before.passes)
        own_rows = OwnRows(
            self.name,
            self.destination,
            before,
            written,
            open_bundle=self._restored,
            overwrites=self.overwrites,
            note=partial(note_written, self.store, self.name),
        )
        is_known = before.left and not self.overwrites and not self._was_restored_since(before.at)
        states = {**before.states} if is_known else {}
        for table in written:  # a pass that was killed may have left it behind the source
            states.pop(table.label, None)
        at, begun = datetime.now(UTC), time.monotonic()
        repaired = repair_from_source(
            self.source,
            self.destination,
            opened=opened,
            cancellation=cancellation,
            states=states,
            guard=own_rows,
        )
        record = replace(
            own_rows.noted_in(before),
            passes=before.passes + 1,
            at=at.isoformat(timespec="milliseconds"),
            seconds=round(time.monotonic() - begun, 3),
            rows=repaired.rows,
            tables_read=repaired.read,
            unequal=[f"{table.table}: {table.reason}" for table in repaired.tables if table.reason],
            states=repaired.states,
        )
        require_delta(self.store, self.name)
        write_delta(self.store, record)
        forget_written(self.store, self.name)
        return record

    def _exported(self) -> BundleReader | None:
        """Return the bundle, None where there is none with this source. Raises ``DamageError`` and errors of the
        location: without an answer, what was defined since would count as older.
        """
        with suppress(GoneError, UsageError):
            reader = BundleReader(self.store)
            return reader if self.name in reader.sources else None
        return None

    def _restored(self) -> BundleReader | None:
        """Return the bundle that was restored; None also where a log was followed since, which has changed rows. Raises
        as ``_exported`` does.
        """
        reader = self._exported()
        return None if reader is None or reader.changes(self.name) is not None else reader

    def _was_restored_since(self, at: str) -> bool:
        """Tell whether a restore to the destination is recorded that ended after this time: it has put back rows that a
        pass had replaced, and no state of the source says so.
        """
        from migrate.restore.restore_records import read_restore_records  # noqa: PLC0415  it imports Arrow

        return any(
            (record.source, record.destination) == (self.name, self.destination.shown)
            and record.at[:_TO_SECONDS] > at[:_TO_SECONDS]
            for record in read_restore_records([self.store, *self.copies])
        )

    def last_pass(self) -> DeltaRecord | None:
        """Return the last pass that is recorded, None where there is none. Raises errors of the location."""
        record = read_delta(self.store, self.name)
        return record if record and record.passes else None

    def _require_restored(self) -> None:
        """Raise ``IncompleteError`` where the destination is not there."""
        try:
            with open_repair(self.destination):
                pass
        except GoneError as exc:
            raise IncompleteError(
                f"{self.name} was not restored yet: {exc}",
                next_step="run moveout restore, then the same command again",
            ) from exc


def sources_to_follow(
    store: Store,
    sources: Mapping[str, Endpoint],
    destinations: Mapping[str, Endpoint],
    *,
    every: bool = False,
    overwrites: bool = False,
    copies: Sequence[Store] = (),
) -> list[FollowedSource | DeltaSource]:
    """Return the sources of a bundle that have a destination, and either a base, or delta passes since their log cannot
    be followed. ``every``: others get delta passes, too, but buckets, which have none; so do, for good, those with a
    base whose log is gone. ``overwrites``, ``copies``: see ``DeltaSource``. Raises ``UsageError`` where there is no
    such source.
    """
    bases = {base.source: base for base in recorded_bases(store)}
    recorded = {record.source for record in recorded_deltas(store)}
    deltas = []
    for name in sorted(sources.keys() & destinations.keys()):
        has_log = name in bases and name not in recorded
        if has_log and not (every and _is_log_gone(store, bases[name], sources[name])):
            continue
        source = DeltaSource(name, sources[name], destinations[name], store, overwrites, copies)
        if (every or name in recorded) and source.destination.engine.row_repair:
            deltas.append(source)
            if name not in recorded:
                write_delta(store, DeltaRecord(name))
    with_deltas = {source.name for source in deltas}
    by_log = {name: endpoint for name, endpoint in sources.items() if name not in with_deltas}
    followed = followed_sources(store, by_log, destinations, may_be_none=bool(deltas))
    return [*followed, *deltas]


def _is_log_gone(store: Store, base: RecordedBase, source: Endpoint) -> bool:
    """Tell whether the log does not continue what is captured; False where that cannot be asked."""
    folder = SegmentFolder(store, base.source, base.position)
    try:
        after = resume_position(folder, base.position)
        with base.open_log(source).stream(base.log, after, folder) as stream:
            while not stream.is_continuous:
                stream.receive(_WATCH_SECONDS)
            return False
    except SourceReplacedError:
        return False
    except SourceGoneError:
        return True
    except SourceError:
        return False


class DeltaState(Struct):
    """How far delta passes of a source are. ``last``: also of an earlier run. ``passes`` and ``rows``: of this run.
    ``undefined``: what only the source defines, or otherwise since the export. ``stopped``: why there are no more.
    """

    source: str
    last: DeltaRecord | None = None
    passes: int = 0
    rows: int = 0
    undefined: tuple[str, ...] = ()
    stopped: list[MoveoutError] = field(default_factory=list)

    @property
    def skipped(self) -> Sequence[str]:
        """The tables that the last pass could not make equal, with the reasons."""
        return self.last.unequal if self.last else ()


class DeltaFollower:
    """Takes passes of one source in a thread of its own. ``note`` is called with what fails for a while; what
    fails for ``limit_seconds`` ends.
    """

    def __init__(
        self,
        source: DeltaSource,
        *,
        cancellation: CancellationToken,
        note: Callable[[str], None],
        limit_seconds: float,
    ) -> None:
        self.source = source
        self._cancellation, self._limit_seconds = cancellation, limit_seconds
        self._note: Callable[[str], None] = lambda message: note(f"{source.name}: {message}")
        self._state = DeltaState(source.name)
        self._thread = threading.Thread(
            target=run_guarded,
            args=(self._run, self._state.stopped, self._note),
            name=f"moveout-delta-{source.name}",
            daemon=True,
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait, so long at most, until the thread has ended, which it does once the run is cancelled."""
        self._thread.join(seconds)

    @property
    def is_ended(self) -> bool:
        """Whether there are no more passes."""
        return not self._thread.is_alive()

    @property
    def is_done(self) -> bool:
        """Whether a whole pass was taken, or none will be."""
        return self._state.passes > 0 or self.is_ended

    def state(self) -> DeltaState:
        """Return how far it is."""
        return self._state

    def _run(self) -> None:
        with suppress(MoveoutError):  # a pass says what the location lacks
            self._state.last = self.source.last_pass()
        pauses = RetryPauses("no delta pass for now", self._cancellation, self._note, self._limit_seconds)
        while not self._cancellation.is_cancelled:
            try:
                record = self.source.take_pass(self._cancellation)
            except (UnreachableError, NoSpaceError) as exc:
                pauses.failed(exc)
                continue
            pauses.succeeded()
            self.source = self.source.guarded()
            state, begun = self._state, time.monotonic()
            self._compare_definitions(record)
            compared_seconds = time.monotonic() - begun
            state.last = record
            state.passes, state.rows = state.passes + 1, state.rows + record.rows
            self._cancellation.wait(max(record.seconds + compared_seconds, _SHORTEST_REST_SECONDS))

    def _compare_definitions(self, record: DeltaRecord) -> None:
        """Note what the source defines and the destination lacks, each once."""
        with suppress(SourceError):  # the next pass says what is away
            undefined = self.source.gaps_since(record.defined or {})
            if fresh := [thing for thing in undefined if thing not in self._state.undefined]:
                self._note(f"not at the destination: {', '.join(fresh)}; {DEFINE_DELTA_STEP}")
            self._state.undefined = undefined


class DeltaCutover(Struct):
    """The cutover of one source that is kept up by delta passes; see ``Cutover``."""

    followed: DeltaSource
    cancellation: CancellationToken
    workers: int
    report: Callable[[str], None] = lambda _: None
    _passes_with_rows: int = 0

    def catch_up(self) -> int:
        """Take a pass; return another number than before where the source was written to since the last one."""
        record = self.followed.take_pass(self.cancellation)
        self._passes_with_rows += record.rows > 0
        return self._passes_with_rows

    def compare_early(self) -> None:
        """Do nothing: no log says what is written after a comparison."""

    def recent_sessions(self) -> Sequence[str]:
        """Return none: all tables are read whole, whoever wrote to them."""
        return ()

    def prove(self) -> ProvenSource:
        """Take the last pass, bring over what tables do not hold, and compare. Raises ``BusyError`` where the
        source was written to meanwhile, and errors of both servers and of the location.
        """
        source, stages = self.followed, Stages(self.report)
        with stages.timed(Stage.LAST_DELTA):
            record = source.take_pass(self.cancellation)
        with stages.timed(Stage.CARRY_OUTSIDE_TABLES):
            carried = self._carry(record)
        with stages.timed(Stage.COMPARE):
            source_digests, destination_digests, findings = read_digests(
                live_tables(source.source),
                live_tables(source.destination),
                workers=self.workers,
                cancellation=self.cancellation,
            )
        with stages.timed(Stage.LAST_DELTA):
            if self._is_written_since(record, source_digests):
                raise written_meanwhile(source.name)
        different = [*findings, *differences(source_digests, destination_digests)]
        end = f"delta pass {record.passes}"
        return ProvenSource(source.name, end, carried, different, as_recorded(source_digests), stages.seconds)

    def _is_written_since(self, record: DeltaRecord, source_digests: Digests) -> bool:
        """Tell whether the source has been written to since a pass and a comparison. Where its server says which tables
        were, a pass reads these alone; else, and of what passes do not read (large objects), all is read again.
        """
        source = self.followed.source
        if record.states and self.followed.take_pass(self.cancellation).rows > 0:
            return True
        label = part_reader_of(source.engine).label
        seen = {name for name in source_digests if label(*name) in record.states}
        before = as_recorded({name: digest for name, digest in source_digests.items() if name not in seen})
        return recorded_digests(source, workers=self.workers, without=seen) != before

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _carry(self, record: DeltaRecord) -> Carried:
        source = self.followed
        if not source.destination.engine.remainder:
            return Carried(
                notes=["only rows were carried since the snapshot: no other objects, no definitions"]
            )
        return carry_remainder(
            source.source, source.destination, log=None, workers=self.workers, defined=record.defined
        )
