"""One consistent view of a SQLite database: a copy of its file, cut into chunks of tables."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec.structs import replace

from exporters.api import (
    DoneUnit,
    Gap,
    Loss,
    Outcome,
    Sink,
    SourceSummary,
    Survey,
    SurveyItem,
    Unit,
    Workspace,
)
from exporters.sql import chunk_plan
from exporters.sql.chunk_plan import Plan, PlannedTable, Range, spec, units_of
from exporters.sql.outline import Outline, write_files
from exporters.sql.snapshots import remember_position
from exporters.sql.source_summary import Counted, Exported, HowCounted
from exporters.sqlite.address import SqliteAddress
from exporters.sqlite.catalog import SqliteTable, nothing_of, read_catalog
from exporters.sqlite.chunk_plan import Size, measure, plan_readable
from exporters.sqlite.definitions import schema_files
from exporters.sqlite.errors import is_damage
from exporters.sqlite.files.backup import LOG_ENDINGS, Copy, Header, connected
from exporters.sqlite.files.connection_pool import Pool
from exporters.sqlite.identifiers import SCHEMA
from exporters.sqlite.rows.chunk_export import Layout, count_octets, export_rows
from exporters.sqlite.rows.damaged_pages import Readable, disorder, readable
from exporters.sqlite.rows.long_rows import LongCells
from exporters.sqlite.rows.row_batches import Batch, digest_table, in_order, read_batches, read_stretch
from exporters.structs import as_dict

DAMAGED = "damaged/database.sqlite"
"""Where a damaged file lies in the bundle as it is, below ``data/<source>/``."""
_THREADS = max(2, os.cpu_count() or 2)


class SqliteSnapshot:
    """See ``exporters.api.Snapshot``. Opened by ``SqliteSource.snapshot``; thread-safe."""

    def __init__(self, copy: Copy, header: Header, url: str, workspace: Workspace) -> None:
        self._pool = Pool(copy.path, url)
        self._copy = copy
        self._header = header
        self._met_damage = False
        former = Plan.load(workspace.read(chunk_plan.NAME))
        self._catalog, self._plan = nothing_of(copy.damage), Plan(())
        self._sizes: dict[str, Size] = {}
        self._damaged: dict[str, str] = {}
        if copy.damage is None:
            with self._pool.connection() as connection:
                self._catalog = read_catalog(connection)
                planned = plan_readable(connection, self._catalog.tables, former)
                self._plan, self._sizes, self._damaged = planned
        if self._plan != former:
            workspace.write(chunk_plan.NAME, self._plan.dump())
        by_name = {table.name: table for table in self._catalog.tables}
        self._tables: dict[int, tuple[PlannedTable, SqliteTable]] = {
            planned.number: (planned, by_name[planned.name]) for planned in self._plan.tables
        }
        self.position: Mapping[str, Any] = {
            "snapshot": copy.sha256,
            "size_bytes": copy.size_bytes,
            "journal_mode": "wal" if header.wal else "delete",
            "server": server(),
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
        }
        self._positions = remember_position(workspace, self.position)

    def units(self) -> Iterator[Unit]:
        """Yield the chunks of every table."""
        for planned in self._plan.tables:
            size = self._sizes[planned.name]
            yield from units_of(planned, size.rows, size.size_bytes)

    def export(self, unit: Unit, sink: Sink) -> Outcome:
        """Export one chunk."""
        planned, table = self._tables[unit.spec["table"]]
        layout = Layout.of(table, planned.kinds)
        facts = {"snapshot": self.position["snapshot"]}
        with self._pool.connection() as connection:
            try:
                batches = self._batches(connection, unit.spec)
                outcome = export_rows(batches, layout=layout, sink=sink, spec=unit.spec, facts=facts)
                is_first = unit.spec["range"][0] is None  # what SQLite says is of the whole table
                return replace(outcome, gaps=_gaps(table, disorder(connection, table)) if is_first else [])
            except sqlite3.DatabaseError as exc:
                self._met_damage = self._met_damage or is_damage(exc)
                if not is_damage(exc) or not table.rowid:
                    raise
            part = readable(connection, table, tuple(unit.spec["range"]))
            outcome = export_rows(
                self._readable_batches(connection, table, part),
                layout=layout,
                sink=sink,
                spec=unit.spec,
                facts=facts,
            )
        return replace(outcome, gaps=_gaps(table, part.reasons()))

    def _readable_batches(
        self, connection: sqlite3.Connection, table: SqliteTable, part: Readable
    ) -> Iterator[Batch | LongCells]:
        for stretch in part.stretches:
            largest = self._sizes[table.name].largest_bytes
            yield from read_stretch(connection, table, stretch, largest_bytes=largest)

    def _batches(self, connection: sqlite3.Connection, of: Mapping[str, Any]) -> Iterator[Batch | LongCells]:
        planned, table = self._tables[of["table"]]
        first, last = of["range"]
        largest = self._sizes[planned.name].largest_bytes
        return in_order(table, read_batches(connection, table, (first, last), largest_bytes=largest))

    def still_holds(self, done: DoneUnit) -> bool:
        """Tell whether a chunk has the same rows in this copy: it reads and digests them, unless the file is equal."""
        known = self._tables.get(done.unit.spec.get("table", 0))
        if known is None or dict(done.unit.spec) != spec(known[0], done.unit.spec["chunk"]):
            return False
        if done.outcome.facts.get("snapshot") == self.position["snapshot"]:
            return True
        planned, table = known
        first, last = done.unit.spec["range"]
        with self._pool.connection() as connection:
            largest = self._sizes[planned.name].largest_bytes
            try:
                digest = digest_table(connection, table, (first, last), largest_bytes=largest)
            except sqlite3.DatabaseError as exc:
                if is_damage(exc):
                    return False
                raise
        return (digest.rows, digest.digest) == (done.outcome.items, done.outcome.digest)

    def begin_outline(self, workspace: Workspace) -> None:
        """See ``exporters.api.Outlined``: all of it has been read."""
        self._outline().note(workspace)

    def _outline(self) -> Outline:
        pragmas = dict(self._catalog.pragmas) | {"journal_mode": self.position["journal_mode"]}
        return Outline(
            files=schema_files(self._catalog.entries, pragmas),
            tables=[_exported(*planned) for planned in self._tables.values()],
            planned=[planned for planned, _ in self._tables.values()],
            gaps=[
                *self._catalog.gaps,
                *(Gap(f"{SCHEMA}.{name}", "failed", reason) for name, reason in self._damaged.items()),
            ],
            losses=[*self._catalog.losses, *self._header_losses()],
            positions=[dict(position) for position in self._positions],
            server=server(),
        )

    def finish(self, done: Iterator[DoneUnit], sink: Sink) -> SourceSummary:
        """Write the definitions and return the summary, with SQLite's own count of every table."""
        outline, units = self._outline(), list(done)
        write_files(sink, outline.files)
        counts = {
            number: Counted(self._sizes[self._tables[number][1].name].rows, octets)
            for number, octets in self._octets().items()
        }
        listed = sum(1 for entry in self._catalog.entries if entry.type == "table") - self._virtual()
        how = HowCounted(
            listed=("sqlite_schema, virtual tables apart", listed - len(self._damaged)),
            counted="count(*) in the copy",
            measured="sum(length()) in the copy",
        )
        summary = outline.finished(units, counts, how)
        losses = list(summary.losses)
        if self._met_damage or outline.gaps or any(unit.outcome.gaps for unit in units):
            losses.append(write_damaged(self._copy, sink))
        return replace(summary, losses=losses, has_definitions=bool(self._catalog.entries))

    def _virtual(self) -> int:
        """Count the virtual tables by their statements."""
        return sum(
            1
            for entry in self._catalog.entries
            if entry.type == "table" and (entry.sql or "").upper().startswith("CREATE VIRTUAL")
        )

    def _header_losses(self) -> list[Loss]:
        if not self._header.reserved_bytes:
            return []
        reason = f"{self._header.reserved_bytes} bytes of every page are an extension's own; the destination has none"
        return [Loss("database", "reserved bytes of pages", reason)]

    def _octets(self) -> dict[int, dict[str, int]]:
        """Let SQLite add up the bytes of every table's texts and blobs, by several threads; where text is not kept as
        UTF-8, or rows cannot be read, there is no sum.
        """
        chunks = [
            (number, bounds) for number, (planned, _) in self._tables.items() for bounds in planned.ranges
        ]
        sums: dict[int, Counter[str]] = {number: Counter() for number in self._tables}
        unreadable: set[int] = set()
        with ThreadPoolExecutor(_THREADS) as pool:
            for (number, _), counts in zip(
                chunks, pool.map(lambda chunk: self._counted(*chunk), chunks), strict=True
            ):
                if counts is None:
                    unreadable.add(number)
                else:
                    sums[number].update(counts)
        return {number: {} if number in unreadable else dict(counts) for number, counts in sums.items()}

    def _counted(self, number: int, bounds: Range) -> dict[str, int] | None:
        planned, table = self._tables[number]
        names = [field.name for field in Layout.of(table, planned.kinds).fields]
        largest = self._sizes[table.name].largest_bytes
        with self._pool.connection() as connection:
            try:
                return count_octets(connection, table, names, bounds, largest_bytes=largest)
            except sqlite3.DatabaseError as exc:
                if is_damage(exc):  # its export has failed, too
                    self._met_damage = True
                    return None
                raise

    def release(self) -> None:
        """Close the connections that are idle; they are opened again where they are needed."""
        self._pool.close()

    def close(self) -> None:
        """Close the workers' connections."""
        self._pool.close()


def _gaps(table: SqliteTable, reasons: Sequence[str]) -> list[Gap]:
    return [Gap(f"{SCHEMA}.{table.name}", "failed", "; ".join(reasons))] if reasons else []


def write_damaged(copy: Copy, sink: Sink) -> Loss:
    """Write the file as it is, because not all of it can be read: other tools may read more."""
    for suffix in ("", *LOG_ENDINGS):
        path = copy.path.with_name(copy.path.name + suffix)
        if path.exists():
            name = f"{DAMAGED}{suffix}"
            with sink.create(name, size_bytes=path.stat().st_size) as written, path.open("rb") as file:
                shutil.copyfileobj(file, written, 2**20)
    step = f"{DAMAGED} is the file as it was: try sqlite3 FILE .recover"
    return Loss("database", "what lies in damaged pages", step)


def survey_damaged(address: SqliteAddress) -> SurveyItem:
    """Return the copy of a file that lies in the bundle where not all of the file can be read."""
    paths = [address.companion(suffix) for suffix in ("", *LOG_ENDINGS)]
    size_bytes = sum(path.stat().st_size for path in paths if path.exists())
    return SurveyItem(DAMAGED, "table", 0, size_bytes, exact=True)


def _exported(planned: PlannedTable, table: SqliteTable) -> Exported:
    kinds = planned.kinds[1:] if table.hidden_rowid else planned.kinds
    columns = [as_dict(column) | {"kind": kind} for column, kind in zip(table.columns, kinds, strict=True)]
    details = {"columns": columns, "hidden_rowid": table.hidden_rowid}
    details |= {"shadow_of": table.shadow_of} if table.shadow_of else {}
    return Exported(planned.number, SCHEMA, table.name, f"{SCHEMA}.{table.name}", None, details)


def server() -> str:
    """Return what reads the file."""
    return f"SQLite {sqlite3.sqlite_version}"


def survey_file(address: SqliteAddress) -> Survey:
    """Return every table with its rows counted; the file's bytes are spread over them by rows. Raises
    ``SourceError``.
    """
    with connected(address) as connection:
        catalog = read_catalog(connection)
        damaged: dict[str, str] = {}
        sizes = measure(connection, catalog.tables, damaged)
    damaged |= {gap.item.removeprefix(f"{SCHEMA}."): gap.reason for gap in catalog.gaps}
    counts = {name: size.rows for name, size in sizes.items()}
    total = max(sum(counts.values()), 1)
    size_bytes = address.path.stat().st_size
    items = [
        SurveyItem(name, "table", count, size_bytes * count // total, exact=True)
        for name, count in counts.items()
    ]
    if damaged:
        items.append(survey_damaged(address))
    warnings = [f"{loss.item}: {loss.property} will not survive: {loss.reason}" for loss in catalog.losses]
    warnings += [f"{name}: {reason}" for name, reason in damaged.items()]
    return Survey(items, server(), warnings)
