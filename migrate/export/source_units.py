"""The units of one source, done by a crew.

The main thread hands units out as the planner finds them and takes in what became of them; the crew exports and
commits.
"""

from __future__ import annotations

import time

from exporters.api import Foresighted, Unit
from exporters.errors import SourceError, SourceGoneError, SourceNotAllowedError, SourceUnreachableError
from migrate.bundle import layout
from migrate.bundle.commit_records import record_ids
from migrate.bundle.export_state import now
from migrate.bundle.progress_database import Ledger
from migrate.errors import MoveoutError
from migrate.export.progress_summary import Summary, write_summary
from migrate.export.unit_planner import Planner
from migrate.export.unit_runner import UnitWork
from migrate.export.worker_pool import HUNGRY_SECONDS, Crew

TICK_SECONDS = 0.5
SUMMARY_SECONDS = 10.0
LAST_BYTES = 256 * 2**20
"""The last units are under way where no more than this is left: seconds of work on most links."""
GIVE_UP_AFTER = 10
"""So many units in a row that the source denies, and no more are tried."""


class UnitRun:
    """One source's units in one run. After ``run``, ``failed`` names the units that could not be done."""

    def __init__(self, work: UnitWork, ledger: Ledger, crew: Crew) -> None:
        self.failed: list[str] = []
        self._work = work
        self._ledger = ledger
        self._crew = crew
        self._source = work.source
        self._before: set[str] = set()
        self._denied_in_a_row = 0
        self._error: SourceError | None = None
        self._last_denial: SourceError | None = None
        self._plan = Planner(work.snapshot, ledger, work.source, work.progress)
        self._plan_told = False
        self._foreseen = False
        self._reported = time.monotonic()

    def run(self) -> SourceError | None:
        """Do all units; return the error for which the source was left, if it was. Raises the location's
        errors.
        """
        self._before = set(record_ids(self._work.store, self._source))
        self._plan.start()
        try:
            while not self._ended():
                self._crew.fill(self._next, self._plan.ready)
                self._foresee()
                self._settle()
                self._work.lease.check()
                self._report()
        except BaseException:
            self._work.stop.set()
            self._crew.cancel()
            raise
        finally:
            self._plan.close()
            self._crew.close()
        if self._error is None and self._denied_in_a_row and not self._ledger.totals(self._source).units:
            self._error = self._last_denial
        if self._error is None:
            self._forget_unplanned()
        self._report(at_once=True)
        return self._error

    def _ended(self) -> bool:
        if not self._crew.idle:
            return False
        if self._error is not None:
            return True
        try:
            return self._plan.ended()
        except SourceError as exc:
            self._error = exc
            return True

    def _next(self) -> tuple[Unit, bool] | None:
        unit = self._plan.next() if self._error is None else None
        if unit is None:
            return None
        recorded = unit.id in self._before
        self._before.discard(unit.id)
        return unit, recorded

    def _foresee(self) -> None:
        """Tell a snapshot that wants to know that the last units are under way."""
        snapshot = self._work.snapshot
        if self._foreseen or not isinstance(snapshot, Foresighted):
            return
        if self._error is None and self._plan.drained() and self._left_bytes() <= LAST_BYTES:
            self._foreseen = True
            snapshot.foresee_finish()

    def _left_bytes(self) -> int:
        return self._plan.totals.size_bytes - self._ledger.totals(self._source).size_bytes

    def _settle(self) -> None:
        waiting = self._crew.hungry and not self._plan.whole
        for unit, found in self._crew.settle(HUNGRY_SECONDS if waiting else TICK_SECONDS):
            if isinstance(found, SourceUnreachableError):
                self._error = found
            elif isinstance(found, MoveoutError) and not isinstance(found, SourceError):
                raise found
            elif isinstance(found, Exception):
                self._fail(unit, found)
            else:
                self._ledger.add(found)
                self._denied_in_a_row = 0

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
