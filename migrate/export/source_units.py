"""The units of one source, executed by a worker pool.

The main thread hands units out as the planner finds them and takes in what became of them; the pool exports and
commits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from exporters.api import Foresighted, Unit
from exporters.errors import SourceError, SourceGoneError, SourceNotAllowedError, SourceUnreachableError
from migrate.bundle import layout
from migrate.bundle.commit_records import CommitRecord, record_ids
from migrate.bundle.export_state import now
from migrate.bundle.progress_database import ProgressDatabase
from migrate.errors import NoSpaceError
from migrate.export.location_room import LocationRoom
from migrate.export.plan_totals import Summary, write_summary
from migrate.export.seal_time import SealTime, SealTimeError
from migrate.export.unit_planner import Planner
from migrate.export.unit_runner import (
    PlannedUnit,
    SettledUnit,
    UnitPool,
    UnitWork,
    failed_items,
    is_of_location,
    is_small,
)
from migrate.runtime.worker_pool import IDLE_SECONDS, TICK_SECONDS
from migrate.storage.rate_limit import RateLimiter

SUMMARY_SECONDS = 10.0
LAST_BYTES = 256 * 2**20
"""The last units are under way where no more than this is left: seconds of work on most links."""
GIVE_UP_AFTER = 10
"""After so many units in a row that the source denies, no more are tried."""


class UnitRun:
    """One source's units in one run. After ``run``, ``failed`` names the units that could not be done.
    ``most_together`` says how many small units go into one group, where so many are ready.
    """

    def __init__(
        self,
        work: UnitWork,
        ledger: ProgressDatabase,
        pool: UnitPool,
        most_together: Callable[[int], int],
        *,
        room: LocationRoom,
        seal_time: SealTime,
        rate_limiter: RateLimiter | None = None,
    ) -> None:
        self.failed: list[str] = []
        self._work = work
        self._ledger = ledger
        self._pool = pool
        self._most_together = most_together
        self._source = work.source
        self._room = room
        self._seal_time = seal_time
        self._rate_limiter = rate_limiter
        self._under_way_bytes = 0
        self._recorded_ids: set[str] = set()
        self._denied_in_a_row = 0
        self._error: SourceError | None = None
        self._last_denial: SourceError | None = None
        self._plan = Planner(work.snapshot, ledger, work.source, work.progress)
        self._plan_reported = False
        self._foreseen = False
        self._ended_bytes = 0
        self._reported = time.monotonic()

    def run(self) -> SourceError | None:
        """Do all units; return the error for which the source was left, if it was. Raises the location's errors, but
        that it is full, for which the source is left.
        """
        self._recorded_ids = set(record_ids(self._work.store, self._source))
        self._plan.start()
        try:
            with self._pool:
                while True:
                    try:
                        if self._ended():
                            break
                        self._step()
                    except NoSpaceError as exc:
                        self._stop(self._room.as_source_error(self._source, exc))
        finally:
            self._plan.close()
        if isinstance(self._error, SealTimeError) and self._has_all_units():
            self._error = None
        if self._error is None and self._denied_in_a_row and not self._ledger.totals(self._source).units:
            self._error = self._last_denial
        if self._error is None:
            self._forget_unplanned()
        with suppress(NoSpaceError):
            self._report(at_once=True)
        return self._error

    def _step(self) -> None:
        """Hand out units, and take in what became of others."""
        if self._seal_time.is_over:
            self._stop(self._seal_time.error(self._source))
        self._pool.fill(self._next_group)
        self._foresee()
        self._report()
        self._settle()
        self._work.lease.check()

    def _ended(self) -> bool:
        if not self._pool.idle:
            return False
        if self._error is not None:
            return True
        try:
            return self._plan.ended()
        except SourceError as exc:
            self._error = exc
            return True

    def _stop(self, error: SourceError) -> None:
        """Begin no more units, and end those that are under way: it is time to seal, or the location is full."""
        if self._error is None:
            self._error = error
            self._work.cancellation.cancel()

    def _has_all_units(self) -> bool:
        """Tell whether every unit was done although it was time to stop: those under way were the last ones."""
        return self._plan.has_all and self._ledger.totals(self._source).units == self._plan.totals.units

    def _next_group(self) -> Sequence[PlannedUnit] | None:
        """Return units for one worker: small ones are done together, as long as there is enough for all workers."""
        most = self._most_together(self._plan.ready())
        group: list[PlannedUnit] = []
        while len(group) < most and (planned := self._next()) is not None:
            group.append(planned)
            if not is_small(planned):
                break
        return group or None

    def _next(self) -> PlannedUnit | None:
        unit = self._plan.peek() if self._error is None else None
        if unit is None:
            return None
        planned = PlannedUnit(unit, unit.id in self._recorded_ids)
        rate = None if self._rate_limiter is None else self._rate_limiter.present_rate
        if not self._seal_time.may_begin(_bytes_to_send(planned), self._under_way_bytes, rate):
            return None
        self._plan.next()
        self._recorded_ids.discard(unit.id)
        self._under_way_bytes += _bytes_to_send(planned)
        return planned

    def _foresee(self) -> None:
        """Notify a snapshot that supports it that the last units are under way."""
        snapshot = self._work.snapshot
        if self._foreseen or not isinstance(snapshot, Foresighted):
            return
        is_near = self._plan.has_all if snapshot.foresees_early else self._plan.drained()
        left_bytes = self._plan.totals.size_bytes - self._ended_bytes
        if self._error is None and is_near and left_bytes <= LAST_BYTES:
            self._foreseen = True
            snapshot.foresee_finish()

    def _settle(self) -> None:
        for group, result in self._pool.settle(TICK_SECONDS if self._plan.has_all else IDLE_SECONDS):
            self._under_way_bytes -= sum(_bytes_to_send(planned) for planned in group)
            settled: Sequence[SettledUnit] = (
                [(planned.unit, result) for planned in group] if isinstance(result, Exception) else result
            )
            self._ledger.add_all([record for _, record in settled if isinstance(record, CommitRecord)])
            for unit, record in settled:
                self._take(unit, record)

    def _take(self, unit: Unit, result: CommitRecord | Exception) -> None:
        """Take what became of a unit. Raises the location's errors."""
        self._ended_bytes += unit.size_bytes
        if isinstance(result, CommitRecord):
            self._work.progress.count_gaps(failed_items(result.outcome))
            self._denied_in_a_row = 0
        elif isinstance(result, NoSpaceError):
            self._stop(self._room.as_source_error(self._source, result))
        elif is_of_location(result):
            raise result
        elif isinstance(result, SourceUnreachableError | SealTimeError):
            self._error = self._error or result
        else:
            self._fail(unit, result)

    def _fail(self, unit: Unit, exc: Exception) -> None:
        message = str(exc) if isinstance(exc, SourceError) else repr(exc)
        self.failed.append(f"unit {unit.id} ({unit.items} items) failed: {message}")
        self._work.progress.count_gaps(unit.items)
        self._work.progress.note(f"{self._source}: unit {unit.id} failed: {message}")
        if isinstance(exc, SourceNotAllowedError | SourceGoneError):
            self._denied_in_a_row += 1
            self._last_denial = exc
            if self._denied_in_a_row >= GIVE_UP_AFTER:
                self._error = exc

    def _forget_unplanned(self) -> None:
        """Drop records of units that are in the plan no more; the seal removes their files."""
        for unit_id in self._recorded_ids:
            self._work.store.delete(layout.commit_record(self._source, unit_id))

    def _report(self, *, at_once: bool = False) -> None:
        news = self._plan.has_all and not self._plan_reported
        if at_once or news or time.monotonic() - self._reported > SUMMARY_SECONDS:
            self._reported = time.monotonic()
            self._plan_reported = self._plan.has_all
            exported = self._ledger.totals(self._source)
            self._room.keep(exported.units)
            write_summary(
                self._work.store,
                self._source,
                Summary(self._plan.totals, self._plan.has_all, exported, now()),
            )


def _bytes_to_send(planned: PlannedUnit) -> int:
    """Return how many bytes a unit sends, by its estimate; none where an earlier run has done it."""
    return 0 if planned.recorded else planned.unit.size_bytes
