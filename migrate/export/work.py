"""How one unit is done: exported, perhaps read back, committed; or found to be done already."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from exporters.base import Json, Snapshot, Unit
from exporters.engine import Engine
from exporters.errors import SourceError, SourceUnreachableError
from migrate.bundle import canonical, layout
from migrate.bundle.lease import Fence
from migrate.bundle.records import CommitRecord, read_record, write_record
from migrate.bundle.sink import Stopped, StoreSink
from migrate.bundle.state import now
from migrate.errors import DamageError, GoneError
from migrate.export.prove import is_proved, prove
from migrate.progress import Progress
from migrate.store.base import MultipartStore

RETRY_WAITS = (1.0, 5.0, 15.0)


@dataclass(frozen=True, slots=True)
class UnitWork:
    """How one unit is done; called by the workers."""

    store: MultipartStore
    lease: Fence
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
        told = _Told(self.progress, unit.size_bytes)
        for attempt in range(self.attempts):
            if self.stop.is_set():
                raise Stopped
            told.begin()
            try:
                record = self._export(unit, told)
            except SourceUnreachableError as exc:
                if attempt + 1 == self.attempts:
                    raise
                self.progress.note(f"{self.source}: {exc}; trying unit {unit.id} again")
                self.stop.wait(RETRY_WAITS[min(attempt, len(RETRY_WAITS) - 1)])
            else:
                told.end(unit.items)
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

    def _export(self, unit: Unit, told: _Told) -> CommitRecord:
        sink = StoreSink(self.store, self.source, stop=self.stop, on_part=told.arrived)
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


class _Told:
    """What progress is told of a unit: so much as has arrived of its files, and at the end the rest. Bytes of files are
    not those of the source, so it is never told more than the unit has, nor anything twice.
    """

    def __init__(self, progress: Progress, size_bytes: int) -> None:
        self._progress, self._size_bytes = progress, size_bytes
        self._lock = threading.Lock()
        self._told = self._here = 0

    def begin(self) -> None:
        """Say that the unit is begun, perhaps anew."""
        with self._lock:
            self._here = 0

    def arrived(self, size_bytes: int) -> None:
        """Say that a part of a file has arrived."""
        with self._lock:
            self._here += size_bytes
            more = min(self._here, self._size_bytes) - self._told
            self._told += max(0, more)
        if more > 0:
            self._progress.advance(size_bytes=more)

    def end(self, items: int) -> None:
        """Say that the unit is done."""
        self._progress.advance(items=items, size_bytes=self._size_bytes - self._told)


def same_point(one: Json, other: Json) -> bool:
    """Tell whether two points are of one snapshot."""
    return canonical.encode(one) == canonical.encode(other)
