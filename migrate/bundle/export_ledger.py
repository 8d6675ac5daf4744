"""The finished units, as a run has read them: an SQLite file in the temporary directory, so that 100,000 units
need no memory. It has no name there, so that a killed run leaves nothing behind.

It is a cache of the commit records at the location and of nothing else: losing it costs reading them again. It
also answers what the seal asks in the order of keys: the bundle's files, each once, and the gaps and losses,
each once.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from exporters.api import DoneUnit, Gap, Json, Loss, Unit
from migrate.bundle import canonical_json
from migrate.bundle.commit_records import CommitRecord, FileRecord, FinalRecord, decode_record, encode_record
from migrate.errors import MoveoutError, NoSpaceError

_MOST_OF_REASONS = 2000
"""A gap whose reasons have so many characters gets no more of them."""
_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE units (source TEXT, id TEXT, items INTEGER, size_bytes INTEGER, position TEXT, finished TEXT, record BLOB,
  PRIMARY KEY (source, id)) WITHOUT ROWID;
CREATE TABLE files (key TEXT PRIMARY KEY, size_bytes INTEGER, sha256 TEXT, crc64nvme TEXT, source TEXT, unit
TEXT) WITHOUT ROWID;
CREATE TABLE earlier_files (key TEXT PRIMARY KEY, sha256 TEXT, source TEXT) WITHOUT ROWID;
CREATE TABLE plan (number INTEGER PRIMARY KEY, source TEXT, unit BLOB);
CREATE TABLE gaps (source TEXT, item TEXT, disposition TEXT, reason TEXT, PRIMARY KEY (source, item,
disposition)) WITHOUT ROWID;
CREATE TABLE losses (source TEXT, item TEXT, property TEXT, reason TEXT, PRIMARY KEY (source, item,
property, reason))
  WITHOUT ROWID;
"""
_ALL_REASONS = f"""UPDATE SET reason = reason || '; ' || excluded.reason
WHERE instr(reason, excluded.reason) = 0 AND length(reason) < {_MOST_OF_REASONS}"""
"""Two chunks of a table may lack different rows."""
_PAGE = 500


class Totals(Struct, frozen=True):
    """Sums over a source's finished units."""

    units: int
    items: int
    size_bytes: int


class ExportLedger:
    """Finished units and their files. Thread-safe; iterators see a snapshot page by page and hold no lock
    between pages.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        with _disk_errors_translated(), tempfile.TemporaryDirectory(prefix="moveout-") as directory:
            path = Path(directory) / "progress.sqlite"
            with ExitStack() as undo:
                self._db = undo.enter_context(
                    closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None))
                )
                self._db.executescript(_TABLES)
                undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._db.close()

    def add(self, record: CommitRecord) -> None:
        """Add a finished unit. Raises ``MoveoutError`` if another unit has written one of its files."""
        self.add_all([record])

    def add_all(self, records: Sequence[CommitRecord]) -> None:
        """Add finished units, all or none. Raises ``MoveoutError`` if two units have written the same file."""
        with self._writing():
            for record in records:
                self._add_unit(record)

    def _add_unit(self, record: CommitRecord) -> None:
        unit, source = record.unit, record.source
        self._db.execute(
            "INSERT INTO units VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                source,
                unit.id,
                record.outcome.items,
                record.outcome.size_bytes,
                canonical_json.encode(record.position).decode(),
                record.finished,
                encode_record(record),
            ),
        )
        self._add_files(source, unit.id, record.files)
        self._add_notes(source, record.outcome.gaps, record.outcome.losses, _ALL_REASONS)

    def add_final(self, final: FinalRecord) -> None:
        """Add the files, gaps and losses that belong to a whole source."""
        with self._writing():
            self._add_files(final.source, "", final.files)
            self._add_notes(final.source, final.summary.gaps, final.summary.losses)

    def add_files(self, files: Sequence[FileRecord]) -> None:
        """Add files that belong to the whole bundle."""
        with self._writing():
            self._add_files("", "", files)

    def add_gaps(self, source: str, gaps: Iterable[Gap]) -> None:
        """Add gaps that are in no record, such as units that failed."""
        with self._writing():
            self._add_notes(source, gaps, ())

    def set_aside(self, source: str) -> None:
        """Drop all rows of a source, and remember which files its units had."""
        with self._writing():
            query = "SELECT key, sha256, source FROM files WHERE source = ? AND unit > ''"
            self._db.execute(f"INSERT OR REPLACE INTO earlier_files {query}", (source,))
        self.forget(source)

    def has_all_set_aside(self, source: str) -> bool:
        """Tell whether each file that was set aside of a source is in the ledger again as it was."""
        query = "SELECT 1 FROM earlier_files e LEFT JOIN files f ON f.key = e.key AND f.sha256 = e.sha256"
        return not self._rows(f"{query} WHERE e.source = ? AND f.key IS NULL LIMIT 1", source)

    def forget(self, source: str) -> None:
        """Drop all rows of a source."""
        with self._writing():
            for table in ("units", "files", "gaps", "losses", "plan"):
                self._db.execute(f"DELETE FROM {table} WHERE source = ?", (source,))

    def plan(self, source: str, units: Sequence[Unit]) -> None:
        """Add planned units."""
        rows = [
            (source, canonical_json.encode([unit.id, unit.items, unit.size_bytes, unit.spec]))
            for unit in units
        ]
        with self._writing():
            self._db.executemany("INSERT INTO plan (source, unit) VALUES (?, ?)", rows)

    def planned(self, source: str, after: int, limit: int) -> list[tuple[int, Unit]]:
        """Return up to ``limit`` planned units with their numbers, those after number ``after``, in the
        order of planning.
        """
        rows = self._rows(
            "SELECT number, unit FROM plan WHERE source = ? AND number > ? ORDER BY number LIMIT ?",
            source,
            after,
            limit,
        )
        return [(number, Unit(*json.loads(unit))) for number, unit in rows]

    def has(self, source: str, unit_id: str) -> bool:
        """Tell whether a unit is in the ledger."""
        return bool(self._rows("SELECT 1 FROM units WHERE source = ? AND id = ?", source, unit_id))

    def totals(self, source: str) -> Totals:
        """Return the sums over the finished units of a source."""
        ((units, items, size_bytes),) = self._rows(
            "SELECT count(*), total(items), total(size_bytes) FROM units WHERE source = ?", source
        )
        return Totals(units, int(items), int(size_bytes))

    def unit_count(self) -> int:
        """Return how many units of all sources are finished."""
        ((units,),) = self._rows("SELECT count(*) FROM units")
        return int(units)

    def positions(self, source: str) -> list[tuple[Json, int, int]]:
        """Return the positions under which the finished units were read, with the number of units and of items."""
        rows = self._rows(
            "SELECT position, count(*), total(items) FROM units WHERE source = ?"
            " GROUP BY position ORDER BY min(finished)",
            source,
        )
        return [(json.loads(position), units, int(items)) for position, units, items in rows]

    def times(self) -> list[tuple[str, int]]:
        """Return when units were finished (UTC, ISO 8601), oldest first, and how many bytes were read in them."""
        query = "SELECT finished, total(size_bytes) FROM units GROUP BY finished ORDER BY finished"
        return [(finished, int(size)) for finished, size in self._rows(query)]

    def done(self, source: str) -> Iterator[DoneUnit]:
        """Yield the finished units of a source, by id."""
        for unit_id, record in self._pages(
            "SELECT id, record FROM units WHERE source = ? AND id > ?", "id", source
        ):
            yield decode_record(record, unit_id, source).done()

    def files(self, prefix: str = "") -> Iterator[FileRecord]:
        """Yield all files of the bundle so far whose keys begin so, ordered by key (UTF-8 bytes, as stores list)."""
        query = "SELECT key, size_bytes, sha256, crc64nvme FROM files WHERE key < ? AND key > ?"
        for row in self._pages(query, "key", f"{prefix}\U0010ffff", after=prefix):
            yield FileRecord(row[0], row[1], row[2], int(row[3], 16))

    def owner(self, key: str) -> tuple[str, str] | None:
        """Return (source, unit id) of the record that names this file; the unit id is empty for a source's
        own files.
        """
        rows = self._rows("SELECT source, unit FROM files WHERE key = ?", key)
        return (rows[0][0], rows[0][1]) if rows else None

    def gaps(self, source: str) -> Iterator[Gap]:
        """Yield the gaps of a source, each item once, ordered by item."""
        query = "SELECT item, disposition, reason FROM gaps WHERE source = ? AND (item, disposition) > (?, ?)"
        for item, disposition, reason in self._pages(query, "item, disposition", source, marks=2):
            yield Gap(item, disposition, reason)

    def gap_counts(self, source: str) -> dict[str, int]:
        """Return the number of gaps of a source by disposition."""
        return dict(self._rows("SELECT disposition, count(*) FROM gaps WHERE source = ? GROUP BY 1", source))

    def losses(self, source: str) -> Iterator[Loss]:
        """Yield the losses of a source, each once, ordered by item and property."""
        columns = "item, property, reason"
        query = f"SELECT {columns} FROM losses WHERE source = ? AND ({columns}) > (?, ?, ?)"
        for row in self._pages(query, columns, source, marks=3):
            yield Loss(*row)

    def lost_properties(self, source: str) -> dict[str, tuple[int, str]]:
        """Return of how many items of a source each property is lost, and the first of them; rarer ones first."""
        query = "SELECT property, count(*), min(item) FROM losses WHERE source = ? GROUP BY 1 ORDER BY 2, 1"
        return {name: (count, item) for name, count, item in self._rows(query, source)}

    def _add_files(self, source: str, unit_id: str, files: Sequence[FileRecord]) -> None:
        for file in files:
            try:
                self._db.execute(
                    "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)",
                    (file.key, file.size_bytes, file.sha256, f"{file.crc64nvme:016x}", source, unit_id),
                )
            except sqlite3.IntegrityError as exc:
                raise MoveoutError(
                    f"{file.key} was written twice, the second time by unit {unit_id!r} of {source}",
                    next_step="this is a defect of the exporter; the bundle cannot be sealed with it",
                ) from exc

    def _add_notes(
        self, source: str, gaps: Iterable[Gap], losses: Iterable[Loss], on_conflict: str = "NOTHING"
    ) -> None:
        self._db.executemany(
            "INSERT INTO gaps VALUES (?, ?, ?, ?) ON CONFLICT DO " + on_conflict,
            ((source, _text(gap.item), gap.disposition, _text(gap.reason)) for gap in gaps),
        )
        self._db.executemany(
            "INSERT OR IGNORE INTO losses VALUES (?, ?, ?, ?)",
            ((source, _text(loss.item), _text(loss.property), _text(loss.reason)) for loss in losses),
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction. Raises ``NoSpaceError`` where the temporary directory is full."""
        with _disk_errors_translated(), self._lock, self._db:
            self._db.execute("BEGIN")
            yield

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with _disk_errors_translated(), self._lock:
            return self._db.execute(query, values).fetchall()

    def _pages(self, query: str, order: str, *fixed: str, marks: int = 1, after: str = "") -> Iterator[Any]:
        """Walk a query page by page; its first ``marks`` columns are the order and the last conditions."""
        last: tuple[str, ...] = (after,) * marks
        while rows := self._rows(f"{query} ORDER BY {order} LIMIT {_PAGE}", *fixed, *last):
            yield from rows
            last = tuple(rows[-1][:marks])


@contextmanager
def _disk_errors_translated() -> Iterator[None]:
    """Raise ``NoSpaceError`` where the temporary directory is full or cannot be written."""
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        raise NoSpaceError(
            f"the temporary directory {tempfile.gettempdir()} cannot be written: {exc}",
            next_step="make room there or set TMPDIR, then run the same command again",
        ) from exc


def _text(value: str) -> str:
    """SQLite and Parquet take only UTF-8: a lone surrogate is written as its escape."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
