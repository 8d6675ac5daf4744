"""The units of one source, done by all workers at once.

The main thread hands units out as the planner finds them, a few more than there are workers; workers export
and commit.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass

from exporters.base import Json, Snapshot, Unit
from exporters.engine import Engine
from exporters.errors import SourceError, SourceGoneError, SourceNotAllowedError, SourceUnreachableError
from migrate.bundle import canonical, layout
from migrate.bundle.lease import Lease
from migrate.bundle.ledger import Ledger
from migrate.bundle.records import CommitRecord, read_record, record_ids, write_record
from migrate.bundle.sink import Stopped, StoreSink
from migrate.bundle.state import now
from migrate.errors import DamageError, GoneError, MoveoutError
from migrate.export.planner import Planner
from migrate.export.prove import is_proved, prove
from migrate.export.summary import Summary, write_summary
from migrate.progress import Progress
from migrate.store.base import MultipartStore

TICK_SECONDS = 0.5
HUNGRY_TICK_SECONDS = 0.02
SUMMARY_SECONDS = 10.0
GIVE_UP_AFTER = 10
"""So many units in a row that the source denies, and no more are tried."""
RETRY_WAITS = (1.0, 5.0, 15.0)


@dataclass(frozen=True, slots=True)
class UnitWork:
    """How one unit is done; called by the workers."""

    store: MultipartStore
    lease: Lease
    stop: threading.Event
    progress: Progress
    source: str
    snapshot: Snapshot
    attempts: int
    engine: Engine | None = None
    """Reads rows back from what was written; None: they are not read back."""
    strict: bool = False
    """Whether units of other snapshots are done again, come what may."""

    def do(self, unit: Unit, *, recorded: bool) -> CommitRecord:
        """Return the unit's commit record: the earlier one where it still holds, else after exporting the
        unit.
        """
        if recorded and (record := self._earlier(unit)) is not None:
            self.progress.skip(items=unit.items, size_bytes=unit.size_bytes)
            return record
        for attempt in range(self.attempts):
            if self.stop.is_set():
                raise Stopped
            try:
                record = self._export(unit)
            except SourceUnreachableError as exc:
                if attempt + 1 == self.attempts:
                    raise
                self.progress.note(f"{self.source}: {exc}; trying unit {unit.id} again")
                self.stop.wait(RETRY_WAITS[min(attempt, len(RETRY_WAITS) - 1)])
            else:
                self.progress.advance(items=unit.items, size_bytes=unit.size_bytes)
                return record
        raise Stopped

    def _earlier(self, unit: Unit) -> CommitRecord | None:
        try:
            record = read_record(self.store, self.source, unit.id)
        except DamageError as exc:
            self.progress.note(f"{exc}; the unit is exported again")
        else:
            same = not self.strict or same_point(record.point, self.snapshot.point)
            if same and record.unit.id == unit.id and self.snapshot.still_holds(record.done()):
                try:
                    return record if self.engine is None or is_proved(record) else self._commit(record)
                except (SourceError, DamageError, GoneError) as exc:
                    self.progress.note(f"{exc}; the unit is exported again")
        # First the record, then the files: a record never describes files that are being replaced.
        self.lease.check()
        self.store.delete(layout.commit_record(self.source, unit.id))
        return None

    def _export(self, unit: Unit) -> CommitRecord:
        sink = StoreSink(self.store, self.source, stop=self.stop)
        try:
            outcome = self.snapshot.export(unit, sink)
        except Exception:
            if sink.error is not None:
                raise sink.error from None
            raise
        if sink.error is not None:
            raise sink.error
        if self.stop.is_set():
            raise Stopped
        self.lease.check()
        return self._commit(CommitRecord(self.source, unit, outcome, sink.files, self.snapshot.point, now()))

    def _commit(self, record: CommitRecord) -> CommitRecord:
        """Write the record, after reading the rows back where that is wanted."""
        if self.engine is not None and not is_proved(record):
            record = prove(self.store, self.engine, record)
            self.lease.check()
        write_record(self.store, record)
        return record


def same_point(one: Json, other: Json) -> bool:
    """Tell whether two points are of one snapshot."""
    return canonical.encode(one) == canonical.encode(other)


class UnitRun:
    """One source's units in one run. After ``run``, ``failed`` names the units that could not be done."""

    def __init__(self, work: UnitWork, ledger: Ledger) -> None:
        self.failed: list[str] = []
        self._work = work
        self._ledger = ledger
        self._source = work.source
        self._pending: dict[Future[CommitRecord], Unit] = {}
        self._before: set[str] = set()
        self._denied_in_a_row = 0
        self._error: SourceError | None = None
        self._last_denial: SourceError | None = None
        self._plan = Planner(work.snapshot, ledger, work.source, work.progress)
        self._plan_told = False
        self._reported = time.monotonic()

    def run(self, executor: Executor, workers: int) -> SourceError | None:
        """Do all units; return the error for which the source was left, if it was. Raises the place's
        errors.
        """
        self._before = set(record_ids(self._work.store, self._source))
        self._plan.start()
        try:
            while not self._ended():
                self._hand_out(executor, workers * 2)
                self._settle(hungry=len(self._pending) < workers)
                self._work.lease.check()
                self._report()
        except BaseException:
            self._work.stop.set()
            for future in self._pending:
                future.cancel()
            raise
        finally:
            self._plan.close()
        if self._error is None and self._denied_in_a_row and not self._ledger.totals(self._source).units:
            self._error = self._last_denial
        if self._error is None:
            self._forget_unplanned()
        self._report(at_once=True)
        return self._error

    def _ended(self) -> bool:
        if self._pending:
            return False
        if self._error is not None:
            return True
        try:
            return self._plan.ended()
        except SourceError as exc:
            self._error = exc
            return True

    def _hand_out(self, executor: Executor, most: int) -> None:
        while len(self._pending) < most and self._error is None and (unit := self._plan.next()):
            recorded = unit.id in self._before
            self._before.discard(unit.id)
            self._pending[executor.submit(self._work.do, unit, recorded=recorded)] = unit

    def _settle(self, *, hungry: bool) -> None:
        seconds = HUNGRY_TICK_SECONDS if hungry and not self._plan.whole else TICK_SECONDS
        if not self._pending:
            time.sleep(HUNGRY_TICK_SECONDS)
            return
        finished, _ = wait(self._pending, timeout=seconds, return_when=FIRST_COMPLETED)
        for future in finished:
            unit = self._pending.pop(future)
            try:
                self._ledger.add(future.result())
                self._denied_in_a_row = 0
            except MoveoutError:
                raise
            except SourceUnreachableError as exc:
                self._error = exc
            except Exception as exc:
                self._fail(unit, exc)

    def _fail(self, unit: Unit, exc: Exception) -> None:
        said = str(exc) if isinstance(exc, SourceError) else repr(exc)
        self.failed.append(f"unit {unit.id} ({unit.items} items) failed: {said}")
        self._work.progress.note(f"{self._source}: unit {unit.id} failed: {said}")
        if isinstance(exc, SourceNotAllowedError | SourceGoneError):
            self._denied_in_a_row += 1
            self._last_denial = exc
            if self._denied_in_a_row >= GIVE_UP_AFTER:
                self._error = exc

    def _forget_unplanned(self) -> None:
        """Drop records of units that are in the plan no more; the seal removes their files."""
        for unit_id in self._before:
            self._work.store.delete(layout.commit_record(self._source, unit_id))

    def _report(self, *, at_once: bool = False) -> None:
        news = self._plan.whole and not self._plan_told
        if at_once or news or time.monotonic() - self._reported > SUMMARY_SECONDS:
            self._reported = time.monotonic()
            self._plan_told = self._plan.whole
            done = self._ledger.totals(self._source)
            write_summary(
                self._work.store, self._source, Summary(self._plan.totals, self._plan.whole, done, now())
            )
