"""How one unit is done: exported, perhaps read back, committed; or found to be done already."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import closing
from typing import TypeVar

from msgspec import Struct

from exporters.api import Json, Mendable, Outcome, ReadingAhead, Snapshot, Source, Unit
from exporters.engine import PartReader
from exporters.errors import SourceError, SourceUnreachableError
from migrate.bundle import canonical_json, layout
from migrate.bundle.commit_records import CommitRecord, FileRecord, read_record, write_record, write_records
from migrate.bundle.export_state import now
from migrate.bundle.lease import Fence, Lease
from migrate.bundle.unit_sink import StoreSink
from migrate.errors import DamageError, GoneError, MoveoutError
from migrate.export.read_back import is_proved, prove
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import WorkerPool
from migrate.storage.api import MultipartStore

_log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_WAITS = (1.0, 5.0, 15.0)
SMALL_BYTES = 2**20
"""Units of up to this size are committed together."""
_TOGETHER_BYTES, _TOGETHER_SECONDS = 16 * 2**20, 0.5
"""How much of them is held until it is committed, and for how long: a kill loses no more."""

SettledUnit = tuple[Unit, CommitRecord | Exception]
"""A unit that came to its end: what was committed, or why it was not."""


class PlannedUnit(Struct, frozen=True):
    """A unit to do. ``recorded``: an earlier run has left a commit record of it."""

    unit: Unit
    recorded: bool


UnitPool = WorkerPool[Sequence[PlannedUnit], Sequence[SettledUnit]]
"""Executes the units of one source, in groups. What it has done has a commit record at the location."""


class UnitWork(Struct, frozen=True, kw_only=True):
    """How one unit is done; called by the workers."""

    store: MultipartStore
    lease: Fence
    cancellation: CancellationToken
    progress: Progress
    source: str
    snapshot: Snapshot
    attempts: int
    part_reader: PartReader | None = None
    """Reads rows back from what was written; None: they are not read back."""
    strict: bool = False
    """Whether units of other snapshots are always done again."""
    sealed_before: str = ""
    """When (UTC, ISO 8601) a bundle that had been sealed incomplete was taken up again: in units that were finished
    until then, what failed is tried again.
    """

    def do(self, planned: PlannedUnit) -> CommitRecord:
        """Return the unit's commit record: the earlier one where it still holds and nothing in it is to be tried again,
        else after exporting the unit. What an earlier run has stays at the location until something better is there.
        """
        unit = planned.unit
        earlier = self._earlier(unit) if planned.recorded else None
        if earlier is not None and earlier.holds and not self._is_to_be_tried_again(earlier.record):
            grow_to(self.progress, unit, earlier.record.outcome)
            outcome = earlier.record.outcome
            _log.info("unit %s of %s was done by an earlier run", unit.id, earlier.record.source)
            self.progress.skip(items=outcome.items, size_bytes=outcome.size_bytes)
            return earlier.record
        unit_progress = _UnitProgress(self.progress, unit)
        record = self._with_retries(unit, unit_progress, lambda: self._export(unit, earlier, unit_progress))
        unit_progress.end(record.outcome)
        return record

    def do_all(self, units: Sequence[PlannedUnit]) -> Sequence[SettledUnit]:
        """Do units one after the other; return what became of each. Small ones that are not recorded are committed
        together. Raises the location's errors.
        """
        settled: list[SettledUnit] = []
        unreachable: SourceUnreachableError | None = None
        if isinstance(self.snapshot, ReadingAhead):
            self.snapshot.read_ahead([planned.unit for planned in units if is_small(planned)])
        with closing(_HeldGroup()) as group:
            for planned in units:
                unit = planned.unit
                if unreachable is not None:
                    settled.append((unit, unreachable))
                    continue
                try:
                    if is_small(planned):
                        group.add(self._export_held(unit))
                    else:
                        settled += self._commit_group(group.take())
                        settled.append((unit, self.do(planned)))
                except (Cancelled, KeyboardInterrupt):
                    self._commit_group(group.take())
                    raise
                except Exception as exc:
                    if is_of_location(exc):
                        raise
                    unreachable = exc if isinstance(exc, SourceUnreachableError) else None
                    settled.append((unit, exc))
                if group.is_full:
                    settled += self._commit_group(group.take())
            return settled + self._commit_group(group.take())

    def _with_retries(self, unit: Unit, unit_progress: _UnitProgress, export: Callable[[], T]) -> T:
        """Export a unit; again where its source cannot be reached."""
        for attempt in range(self.attempts):
            self.cancellation.check()
            unit_progress.begin()
            try:
                return export()
            except SourceUnreachableError as exc:
                if attempt + 1 == self.attempts:
                    unit_progress.fail()
                    raise
                self.progress.note(f"{self.source}: {exc}; trying unit {unit.id} again")
                self.cancellation.wait(RETRY_WAITS[min(attempt, len(RETRY_WAITS) - 1)])
            except SourceError:
                unit_progress.fail()
                raise
        raise AssertionError("a unit is tried at least once")

    def _export_held(self, unit: Unit) -> _HeldUnit:
        """Export a unit, and hold what is to be written."""
        unit_progress = _UnitProgress(self.progress, unit)

        def export() -> _HeldUnit:
            sink = self._sink(unit_progress, held=True)
            try:
                return _HeldUnit(
                    unit, self._read(lambda: self.snapshot.export(unit, sink), sink), sink, unit_progress
                )
            except BaseException:
                sink.drop()
                raise

        return self._with_retries(unit, unit_progress, export)

    def _commit_group(self, group: Sequence[_HeldUnit]) -> list[SettledUnit]:
        """Write what is held, then its records."""
        if not group:
            return []
        self.lease.check()
        self.store.put_all([file for held_unit in group for file in held_unit.sink.release()])
        self.lease.check()
        settled: list[SettledUnit] = []
        records: list[CommitRecord] = []
        for held_unit in group:
            try:
                record = self._proved(self._record(held_unit.unit, held_unit.outcome, held_unit.sink.files))
            except Exception as exc:
                if is_of_location(exc):
                    raise
                settled.append((held_unit.unit, exc))
            else:
                records.append(record)
                settled.append((held_unit.unit, record))
                held_unit.unit_progress.end(held_unit.outcome)
        write_records(self.store, records)
        return settled

    def _earlier(self, unit: Unit) -> _EarlierUnit | None:
        """Return what an earlier run has of a unit; None, and nothing is left of it, where that is of no use."""
        try:
            record = read_record(self.store, self.source, unit.id)
        except DamageError as exc:
            self._discard(unit, exc)
            return None
        is_same_position = not self.strict or same_position(record.position, self.snapshot.position)
        if not (is_same_position and record.unit.id == unit.id and self.snapshot.still_holds(record.done())):
            return _EarlierUnit(record, holds=False)
        try:
            return _EarlierUnit(
                record if self.part_reader is None or is_proved(record) else self._commit(record), holds=True
            )
        except (SourceError, DamageError, GoneError) as exc:
            self._discard(unit, exc)
            return None

    def _discard(self, unit: Unit, reason: Exception) -> None:
        """Remove what an earlier run has of a unit, and say why."""
        self.progress.note(f"{reason}; the unit is exported again")
        self._remove_record(unit)

    def _remove_record(self, unit: Unit) -> None:
        """Remove a unit's record: a record never describes files that are being replaced."""
        self.lease.check()
        self.store.delete(layout.commit_record(self.source, unit.id))

    def _is_to_be_tried_again(self, record: CommitRecord) -> bool:
        """Tell whether something failed in a unit that is to be tried again: at once where that alone is read, else
        once the bundle was sealed without it.
        """
        may_be = isinstance(self.snapshot, Mendable) or record.finished <= self.sealed_before
        return may_be and failed_items(record.outcome) > 0

    def _export(self, unit: Unit, earlier: _EarlierUnit | None, unit_progress: _UnitProgress) -> CommitRecord:
        if earlier is not None and earlier.holds:
            try:
                return self._mend(earlier.record, unit_progress)
            except SourceUnreachableError:
                raise
            except SourceError:
                return earlier.record
        sink = self._sink(unit_progress, held=earlier is not None)
        try:
            outcome = self._read(lambda: self.snapshot.export(unit, sink), sink)
            if earlier is not None:
                self._remove_record(unit)
            sink.publish()
        finally:
            sink.drop()
        return self._commit_exported(unit, outcome, sink.files)

    def _mend(self, before: CommitRecord, unit_progress: _UnitProgress) -> CommitRecord:
        """Try again what failed in a unit; where no more comes of it, it stays as it is."""
        unit, snapshot, sink = before.unit, self.snapshot, self._sink(unit_progress, held=True)
        adds = isinstance(snapshot, Mendable)

        def read() -> Outcome:
            if isinstance(snapshot, Mendable):
                return snapshot.mend(before.done(), sink)
            return snapshot.export(unit, sink)

        try:
            outcome = self._read(read, sink)
            if not _is_better(outcome, before.outcome):
                return before
            if not adds:
                self._remove_record(unit)
            sink.publish()
        finally:
            sink.drop()
        return self._commit_exported(unit, outcome, [*before.files, *sink.files] if adds else sink.files)

    def _sink(self, unit_progress: _UnitProgress, *, held: bool) -> StoreSink:
        return StoreSink(
            self.store,
            self.source,
            cancellation=self.cancellation,
            watch=unit_progress,
            held=held,
        )

    def _commit_exported(self, unit: Unit, outcome: Outcome, files: Sequence[FileRecord]) -> CommitRecord:
        self.lease.check()
        return self._commit(self._record(unit, outcome, files))

    def _record(self, unit: Unit, outcome: Outcome, files: Sequence[FileRecord]) -> CommitRecord:
        return CommitRecord(self.source, unit, outcome, files, self.snapshot.position, now())

    def _read(self, read: Callable[[], Outcome], sink: StoreSink) -> Outcome:
        """Have a unit read into the sink, whose own error comes first."""
        try:
            outcome = read()
        except Exception:
            if sink.error is not None:
                raise sink.error from None
            raise
        if sink.error is not None:
            raise sink.error
        self.cancellation.check()
        return outcome

    def _commit(self, record: CommitRecord) -> CommitRecord:
        record = self._proved(record)
        write_record(self.store, record)
        return record

    def _proved(self, record: CommitRecord) -> CommitRecord:
        """Return the record after reading the rows back, where that is wanted."""
        if self.part_reader is None or is_proved(record):
            return record
        record = prove(self.store, self.part_reader, record)
        self.lease.check()
        return record


OpenPool = Callable[[Source, UnitWork, Lease, Executor], UnitPool | None]
"""Makes the pool that does the units of a source, one a group; None where only this machine can. The executor reads
meanwhile.
"""


class _UnitProgress:
    """Reports a unit to the progress: half of it as it is read, half as that arrives at the location, the rest at the
    end. Sizes are estimates until then: no more is reported than was planned for the unit, and nothing twice.
    """

    def __init__(self, progress: Progress, unit: Unit) -> None:
        self._progress, self._unit = progress, unit
        self._lock = threading.Lock()
        self._reported_items = self._reported_bytes = 0
        self.begin()

    def begin(self) -> None:
        """Begin the unit, or begin it again."""
        with self._lock:
            self._read_items = self._read_bytes = self._written_bytes = self._landed_bytes = 0

    def read(self, items: int, size_bytes: int) -> None:
        """See ``SinkWatch``."""
        with self._lock:
            self._read_items += items
            self._read_bytes += size_bytes
            self._report()

    def write(self, size_bytes: int) -> None:
        """See ``SinkWatch``."""
        with self._lock:
            self._written_bytes += size_bytes

    def land(self, size_bytes: int) -> None:
        """See ``SinkWatch``."""
        with self._lock:
            self._landed_bytes += size_bytes
            self._report()

    def _report(self) -> None:
        share = (1 + self._landed_bytes / max(self._written_bytes, self._landed_bytes, 1)) / 2
        items = int(share * min(self._read_items, self._unit.items)) - self._reported_items
        size_bytes = int(share * min(self._read_bytes, self._unit.size_bytes)) - self._reported_bytes
        # Where more was read than had arrived, it waits for that: progress never goes back.
        items, size_bytes = max(0, items), max(0, size_bytes)
        if items or size_bytes:
            self._reported_items += items
            self._reported_bytes += size_bytes
            self._progress.advance(items=items, size_bytes=size_bytes)

    def end(self, outcome: Outcome) -> None:
        """Report the unit as done."""
        grow_to(self._progress, self._unit, outcome)
        self._progress.advance(
            items=outcome.items - self._reported_items, size_bytes=outcome.size_bytes - self._reported_bytes
        )

    def fail(self) -> None:
        """Take back what was reported of a unit that came to nothing."""
        self._progress.advance(items=-self._reported_items, size_bytes=-self._reported_bytes)


class _HeldUnit(Struct, frozen=True):
    """A unit that was read, and is not written yet."""

    unit: Unit
    outcome: Outcome
    sink: StoreSink
    unit_progress: _UnitProgress


class _HeldGroup:
    """Units that are committed together."""

    def __init__(self) -> None:
        self._held: list[_HeldUnit] = []
        self._size_bytes = 0
        self._begun = time.monotonic()

    def add(self, held_unit: _HeldUnit) -> None:
        """Take one more."""
        self._held.append(held_unit)
        self._size_bytes += sum(file.size_bytes for file in held_unit.sink.files)

    @property
    def is_full(self) -> bool:
        """Whether to commit them now."""
        passed = time.monotonic() - self._begun
        return bool(self._held) and (self._size_bytes >= _TOGETHER_BYTES or passed >= _TOGETHER_SECONDS)

    def take(self) -> Sequence[_HeldUnit]:
        """Return the units, and begin anew."""
        held_units, self._held = self._held, []
        self._size_bytes, self._begun = 0, time.monotonic()
        return held_units

    def close(self) -> None:
        """Give up what is held."""
        for held_unit in self.take():
            held_unit.sink.drop()


def is_small(planned: PlannedUnit) -> bool:
    """Tell whether a unit may be committed together with others: one of an earlier run is looked at by itself."""
    return planned.unit.size_bytes <= SMALL_BYTES and not planned.recorded


def is_of_location(error: Exception) -> bool:
    """Tell whether the bundle's location failed, so that nothing more can be written."""
    return isinstance(error, MoveoutError) and not isinstance(error, SourceError)


def grow_to(progress: Progress, unit: Unit, outcome: Outcome) -> None:
    """Put what a unit had in place of its estimate, so that progress ends with the numbers of the result."""
    progress.grow(items=outcome.items - unit.items, size_bytes=outcome.size_bytes - unit.size_bytes)


class _EarlierUnit(Struct, frozen=True):
    """What an earlier run has of a unit; ``holds``: it is what this run would read."""

    record: CommitRecord
    holds: bool


def failed_items(outcome: Outcome) -> int:
    """Return how many items of a unit could not be had."""
    return sum(gap.disposition == "failed" for gap in outcome.gaps)


def _is_better(new: Outcome, old: Outcome) -> bool:
    """Tell whether a second reading has what the first one lacked, and lacks nothing that the first one has: by then a
    source may refuse, or have deleted, what it gave before.
    """
    lacked = {gap.item for gap in old.gaps}
    return failed_items(new) < failed_items(old) and all(gap.item in lacked for gap in new.gaps)


def same_position(left: Json, right: Json) -> bool:
    """Tell whether two positions are of one snapshot."""
    return canonical_json.encode(left) == canonical_json.encode(right)
