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
