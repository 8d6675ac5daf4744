"""The units of one source in one run of an export: planned, handed to a worker pool, and taken in when they have ended.

A thread of its own takes the units of the snapshot into the ledger. The main thread hands them out and takes in what
became of them; the pool exports and commits them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Self

from msgspec import Struct

from exporters.api import PreparesFinish, Snapshot, Source, Unit
from exporters.errors import SourceError, SourceGoneError, SourceNotAllowedError, SourceUnreachableError
from migrate.bundle import layout
from migrate.bundle.commit_records import CommitRecord, read_records, record_ids
from migrate.bundle.export_ledger import ExportLedger, Totals
from migrate.bundle.export_state import ExportState, now
from migrate.bundle.lease import Lease
from migrate.errors import MoveoutError, NoSpaceError
from migrate.export.followed_changes import FollowedChanges
from migrate.export.outcome import ExportOptions
from migrate.export.plan_totals import PlanTotals, write_plan_totals
from migrate.export.preflight import LocationRoom
from migrate.export.seal_time import SealTimeError
from migrate.export.standing_seal import StandingSeal
from migrate.export.unit_runner import (
    PlannedUnit,
    SettledUnit,
    UnitPool,
    UnitRules,
    UnitRunner,
    failed_items,
    is_of_location,
)
from migrate.report.bundle_page import prepare_page
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import IDLE_SECONDS, TICK_SECONDS, ThreadWorkerPool
from migrate.storage.api import MultipartStore

REPORT_SECONDS = 10.0
LAST_BYTES = 256 * 2**20
"""The last units are under way where no more than this is left: seconds of work on most links."""
GIVE_UP_AFTER = 10
"""After this many units in a row that the source denies, no more are tried."""
_PAGE, _LEAST_READY = 200, 128
"""How many planned units are read at once, as soon as fewer are ready."""
_TINY_BYTES = 2**19
_JOIN_SECONDS = 5.0


class ExportRun(Struct, frozen=True, kw_only=True):
    """What all steps of one export share. ``cancellation`` ends running units at their next write."""

    store: MultipartStore
    state: ExportState
    seal: StandingSeal
    ledger: ExportLedger
    lease: Lease
    executor: Executor
    workers: int
    progress: Progress
    options: ExportOptions
    cancellation: CancellationToken
    followed: FollowedChanges
    room: LocationRoom
    unit_store: MultipartStore
    unit_cancellation: CancellationToken
    """Ends the units under way, and their waiting for ``unit_store``: it is time to seal, or the location is full."""


class SourceUnits:
    """One source's units in one run. After ``run``, ``failed`` names the units that could not be done, ``obsolete`` the
    files of units that the source has no more.
    """

    def __init__(self, run: ExportRun, source: Source, snapshot: Snapshot) -> None:
        self.failed: list[str] = []
        self.obsolete: Collection[str] = ()
        self._run = run
        self._source = source.name
        self._runner = UnitRunner(
            store=run.unit_store,
            lease=run.lease,
            cancellation=run.unit_cancellation,
            progress=run.progress,
            source=source.name,
            url=source.url,
            snapshot=snapshot,
            rules=UnitRules(
                attempts=run.options.attempts,
                prove=run.options.prove,
                strict=run.options.strict_snapshot,
                sealed_before=run.state.created if run.state.continues else "",
            ),
        )
        self._together = run.store.together
        """How many small units go into one group at most."""
        self._pool = self._open_pool(source)
        self._plan = _Plan(snapshot, run.ledger, source.name, run.progress)
        self._recorded_ids: set[str] = set()
        self._under_way_bytes = self._ended_bytes = 0
        self._error: SourceError | None = None
        self._denied_in_a_row = 0
        self._last_denial: SourceError | None = None
        self._is_prepared = self._plan_reported = False
        self._reported = time.monotonic()

    def _open_pool(self, source: Source) -> UnitPool:
        run = self._run
        if run.options.open_pool is not None:
            pool = run.options.open_pool(source, self._runner, run.lease, run.executor)
            if pool is not None:
                run.seal.remove()  # other machines write to the location themselves
                self._together = 1
                return pool
            run.progress.note(f"{source.name} can only be read by one machine at a time: this one does it")
        return ThreadWorkerPool(
            self._do_all,
            run.workers,
            name="moveout-export",
            ahead=run.workers,
            cancellation=run.cancellation,
            on_stuck=run.lease.abandon,
        )

    def _do_all(self, units: Sequence[PlannedUnit]) -> Sequence[SettledUnit]:
        """Do units. Raise the reason where ``_stop`` has ended this source, but not the whole run."""
        try:
            return self._runner.do_all(units)
        except Cancelled:
            if self._run.cancellation.is_cancelled or self._error is None:
                raise
            raise self._error from None

    def run(self) -> SourceError | None:
        """Do all units; return the error for which the source was left, if it was. Raises the location's errors, but
        that it is full, for which the source is left.
        """
        ledger, store = self._run.ledger, self._run.unit_store
        self._recorded_ids = set(record_ids(store, self._source))
        with self._plan, self._pool:
            more = True
            while more:
                try:
                    more = self._step()
                except NoSpaceError as exc:
                    self._stop(self._run.room.as_source_error(exc))
        units = ledger.totals(self._source).units
        if isinstance(self._error, SealTimeError) and self._plan.has_all and units == self._plan.totals.units:
            self._error = None  # what was under way when the time came was the rest
        if not units:
            self._error = self._error or self._last_denial
        if self._error is None:
            self._remove_obsolete()
        with suppress(NoSpaceError):
            self._report(at_once=True)
        return self._error

    def _remove_obsolete(self) -> None:
        """Remove the records of what is in the plan no more; the seal removes their files. Where units failed, note
        these: other files without a record stay.
        """
        run = self._run
        if self.failed:
            ids = sorted(self._recorded_ids)
            records = read_records(run.store, self._source, ids, run.executor, lambda _: None)
            self.obsolete = {file.key for record in records for file in record.files}
        for unit_id in self._recorded_ids:
            run.unit_store.delete(layout.commit_record(self._source, unit_id))

    def _step(self) -> bool:
        """Hand out units, and note the results of others. Return whether there is more to do."""
        if self._pool.idle and (self._error is not None or self._plan.is_drained):
            if self._error is None:
                self._error = self._plan.source_error()
            return False
        seal_time = self._run.options.seal_time
        if seal_time.is_over:
            self._stop(seal_time.error(self._source))
        self._pool.fill(self._next_group)
        self._prepare_finish()
        self._report()
        self._settle()
        self._run.lease.check()
        return True

    def _stop(self, error: SourceError) -> None:
        """Begin no more units, and end those that are under way: it is time to seal, or the location is full. A source
        that was left before keeps the error for which it was.
        """
        self._error = self._error or error
        self._runner.cancellation.cancel()

    def _next_group(self) -> Sequence[PlannedUnit] | None:
        """Return units for one worker. Small ones are done together, as long as there is enough for all workers. A
        group of at most ``_TINY_BYTES`` may have twice as many units: committing it takes longer than reading it.
        """
        options = self._run.options
        share = self._plan.ready() // self._run.workers
        group: list[PlannedUnit] = []
        group_bytes = 0
        while self._error is None and (unit := self._plan.peek()) is not None:
            group_bytes += unit.size_bytes
            most = min(self._together, share if group_bytes <= _TINY_BYTES else share // 2)
            if group and len(group) >= most:
                break
            planned = PlannedUnit(unit, unit.id in self._recorded_ids)
            rate = None if options.rate_limiter is None else options.rate_limiter.present_rate
            if not options.seal_time.may_begin(planned.bytes_to_send, self._under_way_bytes, rate):
                break
            self._plan.pop()
            self._recorded_ids.discard(unit.id)
            self._under_way_bytes += planned.bytes_to_send
            group.append(planned)
            if not planned.is_small:
                break
        return group or None

    def _prepare_finish(self) -> None:
        """When the last units are under way, prepare the end: load the template of the page, and call
        ``prepare_finish`` of a snapshot that has it.
        """
        if self._is_prepared:
            return
        snapshot = self._runner.snapshot
        prepares_finish = snapshot if isinstance(snapshot, PreparesFinish) else None
        is_early = prepares_finish is not None and prepares_finish.prepares_early
        is_near = self._plan.has_all if is_early else self._plan.is_drained
        left_bytes = self._plan.totals.size_bytes - self._ended_bytes
        if self._error is None and is_near and left_bytes <= LAST_BYTES:
            self._is_prepared = True
            if prepares_finish is not None:
                prepares_finish.prepare_finish()
            self._run.executor.submit(prepare_page)

    def _settle(self) -> None:
        """Note the results of groups that have ended."""
        for group, result in self._pool.settle(TICK_SECONDS if self._plan.has_all else IDLE_SECONDS):
            self._under_way_bytes -= sum(planned.bytes_to_send for planned in group)
            settled: Sequence[SettledUnit] = (
                [(planned.unit, result) for planned in group] if isinstance(result, Exception) else result
            )
            self._run.ledger.add_all([record for _, record in settled if isinstance(record, CommitRecord)])
            for unit, record in settled:
                self._take(unit, record)

    def _take(self, unit: Unit, result: CommitRecord | Exception) -> None:
        """Note the result of a unit. Raises the location's errors."""
        self._ended_bytes += unit.size_bytes
        if isinstance(result, CommitRecord):
            self._run.progress.count_gaps(failed_items(result.outcome))
            self._denied_in_a_row = 0
        elif isinstance(result, NoSpaceError):
            self._stop(self._run.room.as_source_error(result))
        elif is_of_location(result):
            raise result
        elif isinstance(result, SourceUnreachableError | SealTimeError):
            self._error = self._error or result
        else:
            self._fail(unit, result)

    def _fail(self, unit: Unit, exc: Exception) -> None:
        message = str(exc) if isinstance(exc, SourceError) else repr(exc)
        if isinstance(exc, MemoryError):
            message = "there was no memory left for it; fewer --workers need less"
        self.failed.append(f"unit {unit.id} ({unit.items} items) failed: {message}")
        self._run.progress.count_gaps(unit.items)
        self._run.progress.note(f"{self._source}: unit {unit.id} failed: {message}")
        if isinstance(exc, SourceNotAllowedError | SourceGoneError):
            self._denied_in_a_row += 1
            self._last_denial = exc
            if self._denied_in_a_row >= GIVE_UP_AFTER:
                self._error = exc

    def _report(self, *, at_once: bool = False) -> None:
        """Write how far the plan and the source are, now and then."""
        news = self._plan.has_all and not self._plan_reported
        if at_once or news or time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            self._plan_reported = self._plan.has_all
            exported = self._run.ledger.totals(self._source)
            self._run.room.keep(exported.units)
            totals = PlanTotals(self._plan.totals, self._plan.has_all, exported, now())
            write_plan_totals(self._run.unit_store, self._source, totals)


class _Plan:
    """The units of one source in the order in which the snapshot gives them. Inside the context a thread takes them
    into the ledger, so that totals are known early and memory stays small; another one takes them out.
    """

    def __init__(self, snapshot: Snapshot, ledger: ExportLedger, source: str, progress: Progress) -> None:
        self.totals = Totals(0, 0, 0)
        """What has been planned so far."""
        self.has_all = False
        """Whether every unit has been planned."""
        self._snapshot = snapshot
        self._ledger = ledger
        self._source = source
        self._progress = progress
        self._error: MoveoutError | None = None
        self._stop = threading.Event()
        self._read_to = 0
        """The number of the last unit that was read from the ledger."""
        self._buffer: deque[Unit] = deque()
        self._thread = threading.Thread(target=self._fill, name="moveout-plan", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Stop planning; wait a moment for a listing that is under way."""
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)

    def source_error(self) -> SourceError | None:
        """Return the source's error that ended the planning too early, if there is one. Raises any other error."""
        if self._error is None or isinstance(self._error, SourceError):
            return self._error
        raise self._error

    @property
    def is_drained(self) -> bool:
        """Whether nothing is left to hand out and nothing will come."""
        return not self._thread.is_alive() and not self.ready()

    def ready(self) -> int:
        """Return how many units can be handed out now, up to some number."""
        if len(self._buffer) < _LEAST_READY:
            for number, unit in self._ledger.planned(self._source, self._read_to, _PAGE):
                self._buffer.append(unit)
                self._read_to = number
        return len(self._buffer)

    def peek(self) -> Unit | None:
        """Return the unit that is next, None where there is none now."""
        return self._buffer[0] if self._buffer or self.ready() else None

    def pop(self) -> None:
        """Take out the unit that is next."""
        self._buffer.popleft()

    def _fill(self) -> None:
        try:
            for unit in self._snapshot.units():
                if self._stop.is_set():
                    return
                self._add(unit)
            self.has_all = True
        except MoveoutError as exc:
            self._error = exc
        except Exception as exc:
            self._error = SourceError(f"{self._source} could not be planned: {exc!r}")
            self._error.__cause__ = exc

    def _add(self, unit: Unit) -> None:
        if not layout.is_payload_name(unit.id):
            raise SourceError(f"{self._source}: {unit.id!r} cannot be the id of a unit")
        self._ledger.plan(self._source, [unit])
        units, items, size_bytes = self.totals.units, self.totals.items, self.totals.size_bytes
        self.totals = Totals(units + 1, items + unit.items, size_bytes + unit.size_bytes)
        self._progress.grow(items=unit.items, size_bytes=unit.size_bytes)
