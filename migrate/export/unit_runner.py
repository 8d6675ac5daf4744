"""How one unit is done: exported, perhaps read back, committed; or found to be done already."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import closing
from functools import partial
from typing import TypeVar

from msgspec import Struct

from exporters.api import Json, Mendable, Outcome, ReadingAhead, Snapshot, Source, Unit
from exporters.errors import SourceError, SourceSnapshotLostError, SourceUnreachableError
from migrate.bundle import canonical_json, layout
from migrate.bundle.commit_records import CommitRecord, FileRecord, read_record, write_record, write_records
from migrate.bundle.export_state import now
from migrate.bundle.lease import Fence, Lease
from migrate.bundle.unit_sink import SinkWatch, StoreSink
from migrate.errors import DamageError, GoneError, MoveoutError
from migrate.export.read_back import prove
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

    @property
    def is_small(self) -> bool:
        """Whether it may be committed together with others. One that an earlier run has recorded is not: see ``do``."""
        return self.unit.size_bytes <= SMALL_BYTES and not self.recorded

    @property
    def bytes_to_send(self) -> int:
        """How many bytes it sends, by its estimate; none where an earlier run has done it."""
        return 0 if self.recorded else self.unit.size_bytes


UnitPool = WorkerPool[Sequence[PlannedUnit], Sequence[SettledUnit]]
"""Executes the units of one source, in groups. What it has done has a commit record at the location."""


class UnitRules(Struct, frozen=True, kw_only=True):
    """How the units of a source are done in one run, on whichever machine."""

    attempts: int
    """How often a unit is tried while its source cannot be reached."""
    prove: bool = False
    """Whether rows are read back from what was written."""
    strict: bool = False
    """Whether units of other snapshots are always done again."""
    sealed_before: str = ""
    """When (UTC, ISO 8601) a bundle that had been sealed incomplete was taken up again: in units that were finished
    until then, what failed is tried again.
    """


class UnitRunner(Struct, frozen=True, kw_only=True):
    """Does the units of a source, by its ``rules``; called by the workers. ``source`` is its name."""

    store: MultipartStore
    lease: Fence
    cancellation: CancellationToken
    progress: Progress
    source: str
    url: str
    snapshot: Snapshot
    rules: UnitRules

    def do(self, planned: PlannedUnit) -> CommitRecord:
        """Return the unit's commit record: the earlier one where it still holds and nothing in it is to be tried again,
        else after exporting the unit. What an earlier run has stays at the location until something better is there.
        """
        unit = planned.unit
        progress = _UnitProgress(self.progress, unit)
        earlier = self._with_retries(progress, partial(self._earlier, unit)) if planned.recorded else None
        if earlier is not None and earlier.holds and not self._is_to_be_tried_again(earlier.record):
            grow_to(self.progress, unit, earlier.record.outcome)
            outcome = earlier.record.outcome
            _log.info("unit %s of %s was done by an earlier run", unit.id, earlier.record.source)
            self.progress.skip(items=outcome.items, size_bytes=outcome.size_bytes)
            return earlier.record
        record = self._with_retries(progress, partial(self._export, progress, earlier))
        progress.end(record.outcome)
        return record

    def do_all(self, units: Sequence[PlannedUnit]) -> Sequence[SettledUnit]:
        """Do units one after the other; return in their order what became of each. Small ones that are not recorded are
        committed together. Raises the location's errors.
        """
        settled: list[SettledUnit] = []
        unreachable: SourceUnreachableError | None = None
        if isinstance(self.snapshot, ReadingAhead):
            self.snapshot.read_ahead([planned.unit for planned in units if planned.is_small])
        with closing(_HeldGroup()) as group:
            for planned in units:
                unit = planned.unit
                if unreachable is not None:
                    settled.append((unit, unreachable))
                    continue
                try:
                    if planned.is_small:
                        progress = _UnitProgress(self.progress, unit)
                        group.add(self._with_retries(progress, partial(self._read, progress, held=True)))
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
            settled += self._commit_group(group.take())
        places = {planned.unit.id: place for place, planned in enumerate(units)}
        return sorted(settled, key=lambda each: places[each[0].id])

    def _with_retries(self, progress: _UnitProgress, export: Callable[[], T]) -> T:
        """Export a unit, or compare it; again where its source cannot be reached, but not under a lost snapshot."""
        for attempt in range(self.rules.attempts):
            self.cancellation.check()
            progress.begin()
            try:
                return export()
            except SourceSnapshotLostError:
                progress.fail()
                raise
            except SourceUnreachableError as exc:
                if attempt + 1 == self.rules.attempts:
                    progress.fail()
                    raise
                self.progress.note(f"{self.source}: {exc}; trying unit {progress.unit.id} again")
                self.cancellation.wait(RETRY_WAITS[min(attempt, len(RETRY_WAITS) - 1)])
            except SourceError:
                progress.fail()
                raise
        raise AssertionError("a unit is tried at least once")

    def _read(self, progress: _UnitProgress, *, held: bool, mended: CommitRecord | None = None) -> _ReadUnit:
        """Have a unit read into files, or only what failed in it, if it is to be ``mended``. ``held``: see
        ``StoreSink``. Nothing is left of files where it fails. An error of the location comes before the source's.
        """
        sink = StoreSink(
            self.store,
            self.source,
            cancellation=self.cancellation,
            watch=progress,
            held=held,
            check=self.lease.check,
        )
        snapshot = self.snapshot
        try:
            if mended is not None and isinstance(snapshot, Mendable):
                outcome = snapshot.mend(mended.done(), sink)
            else:
                outcome = snapshot.export(progress.unit, sink)
            self.cancellation.check()
        except BaseException as exc:
            sink.drop()
            if sink.error is not None and isinstance(exc, Exception):
                raise sink.error from None
            raise
        if sink.error is not None:
            sink.drop()
            raise sink.error
        return _ReadUnit(progress, outcome, sink)

    def _export(self, progress: _UnitProgress, earlier: _EarlierUnit | None) -> CommitRecord:
        """Read a unit and commit it. Where an earlier one still holds, only what failed is read again. The earlier
        record stays where that brings nothing new.
        """
        mended = earlier.record if earlier is not None and earlier.holds else None
        kept = mended.files if mended is not None and isinstance(self.snapshot, Mendable) else None
        try:
            with closing(self._read(progress, held=earlier is not None, mended=mended)) as read:
                if mended is not None and not _is_better(read.outcome, mended.outcome):
                    return mended
                if earlier is not None and kept is None:
                    self._remove_record(progress.unit)
                read.sink.publish()
                self.lease.check()
                record = self._record(read, kept or ())
        except SourceUnreachableError:
            raise
        except SourceError:
            if mended is None:
                raise
            return mended
        write_record(self.store, record)
        return record

    def _commit_group(self, group: Sequence[_ReadUnit]) -> list[SettledUnit]:
        """Write what is held, then its records."""
        if not group:
            return []
        self.lease.check()
        self.store.put_all([file for read in group for file in read.sink.release()])
        self.lease.check()
        settled: list[SettledUnit] = []
        records: list[CommitRecord] = []
        for read in group:
            try:
                record = self._record(read)
            except Exception as exc:
                if is_of_location(exc):
                    raise
                settled.append((read.progress.unit, exc))
            else:
                records.append(record)
                settled.append((read.progress.unit, record))
                read.progress.end(read.outcome)
        write_records(self.store, records)
        return settled

    def _earlier(self, unit: Unit) -> _EarlierUnit | None:
        """Return what an earlier run has of a unit. Where that is damaged, remove its record and return None."""
        try:
            record = read_record(self.store, self.source, unit.id)
        except DamageError as exc:
            self._discard(unit, exc)
            return None
        is_same_position = not self.rules.strict or same_position(record.position, self.snapshot.position)
        if not (is_same_position and record.unit.id == unit.id and self.snapshot.still_holds(record.done())):
            return _EarlierUnit(record, holds=False)
        try:
            proved = self._proved(record)
        except (SourceError, DamageError, GoneError) as exc:
            self._discard(unit, exc)
            return None
        if proved is not record:
            write_record(self.store, proved)
        return _EarlierUnit(proved, holds=True)

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
        may_be = isinstance(self.snapshot, Mendable) or record.finished <= self.rules.sealed_before
        return may_be and failed_items(record.outcome) > 0

    def _record(self, read: _ReadUnit, kept: Sequence[FileRecord] = ()) -> CommitRecord:
        """Return the record of a unit, of files that it has already and those that were read now."""
        unit, files = read.progress.unit, [*kept, *read.sink.files]
        return self._proved(
            CommitRecord(self.source, unit, read.outcome, files, self.snapshot.position, now())
        )

    def _proved(self, record: CommitRecord) -> CommitRecord:
        """Return the record, after reading the rows back if ``--prove`` is given."""
        proved = prove(self.store, self.url, record) if self.rules.prove else record
        if proved is not record:
            self.lease.check()
        return proved


OpenPool = Callable[[Source, UnitRunner, Lease, Executor], UnitPool | None]
"""Makes the pool that does the units of a source, one a group; None where only this machine can. The executor reads
meanwhile.
"""


class _UnitProgress(SinkWatch):
    """Reports a unit to the progress: half of it as it is read, half as that arrives at the location. Sizes are
    estimates until the end, so no more is reported than was planned for the unit, and nothing twice.
    """

    def __init__(self, progress: Progress, unit: Unit) -> None:
        self.unit = unit
        self._progress = progress
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
        items = int(share * min(self._read_items, self.unit.items)) - self._reported_items
        size_bytes = int(share * min(self._read_bytes, self.unit.size_bytes)) - self._reported_bytes
        # Where more was read than had arrived, it waits for that: progress never goes back.
        items, size_bytes = max(0, items), max(0, size_bytes)
        if items or size_bytes:
            self._reported_items += items
            self._reported_bytes += size_bytes
            self._progress.advance(items=items, size_bytes=size_bytes)

    def end(self, outcome: Outcome) -> None:
        """Report the unit as done."""
        grow_to(self._progress, self.unit, outcome)
        self._progress.advance(
            items=outcome.items - self._reported_items, size_bytes=outcome.size_bytes - self._reported_bytes
        )

    def fail(self) -> None:
        """Take back what was reported of a unit that came to nothing."""
        self._progress.advance(items=-self._reported_items, size_bytes=-self._reported_bytes)


class _ReadUnit(Struct, frozen=True):
    """A unit that was read into files, and is not committed yet."""

    progress: _UnitProgress
    outcome: Outcome
    sink: StoreSink

    def close(self) -> None:
        """Give up what is held of it."""
        self.sink.drop()


class _HeldGroup:
    """Units that are committed together."""

    def __init__(self) -> None:
        self._held: list[_ReadUnit] = []
        self._size_bytes = 0
        self._begun = time.monotonic()

    def add(self, read: _ReadUnit) -> None:
        """Take one more."""
        self._held.append(read)
        self._size_bytes += sum(file.size_bytes for file in read.sink.files)

    @property
    def is_full(self) -> bool:
        """Whether to commit them now."""
        passed = time.monotonic() - self._begun
        return bool(self._held) and (self._size_bytes >= _TOGETHER_BYTES or passed >= _TOGETHER_SECONDS)

    def take(self) -> Sequence[_ReadUnit]:
        """Return the units, and begin anew."""
        held, self._held = self._held, []
        self._size_bytes, self._begun = 0, time.monotonic()
        return held

    def close(self) -> None:
        """Give up what is held."""
        for read in self.take():
            read.close()


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
