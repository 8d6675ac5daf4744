"""Which chunks of which tables, and the kind of every column: decided once, kept in the workspace, used again after a
crash.

A table keeps its number for the life of the bundle. Its chunks are half-open ranges of rowids, the first and the last
without an end. Tables WITHOUT ROWID, and those whose rowid has no name, are one chunk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from exporters.base import Unit
from exporters.sqlite.catalog import Table, select
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.typed import affinity_of, dominating

CHUNK_BYTES = 96 * 2**20
"""About so many bytes of pages are one unit."""
_SAMPLE_ROWS = 500
_UNKNOWN_PAYLOAD_BYTES = 2**20

Bounds = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Size:
    """How large a table is: rows, bytes of pages, and the bytes of its largest row (at least)."""

    rows: int
    size_bytes: int
    largest_bytes: int


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A table's number, the kinds of its columns and its chunks. ``fingerprint`` as ``Table.fingerprint``."""

    number: int
    name: str
    fingerprint: str
    kinds: tuple[str, ...]
    bounds: tuple[Bounds, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All tables, in the order in which they are loaded again."""

    tables: tuple[PlannedTable, ...]

    def dump(self) -> bytes:
        """Return it as JSON."""
        return json.dumps([asdict(table) for table in self.tables]).encode()

    @staticmethod
    def load(data: bytes) -> Plan:
        """Read what ``dump`` wrote."""
        rows = json.loads(data)
        for row in rows:
            row["kinds"] = tuple(row["kinds"])
            row["bounds"] = tuple((first, last) for first, last in row["bounds"])
        return Plan(tuple(PlannedTable(**row) for row in rows))


def make_plan(
    connection: sqlite3.Connection, tables: Sequence[Table], sizes: Mapping[str, Size], former: Plan | None
) -> Plan:
    """Return the plan for ``tables``: what ``former`` says about one holds as long as its fingerprint does."""
    known = {table.name: table for table in former.tables} if former else {}
    unused = max((table.number for table in known.values()), default=0) + 1
    planned = []
    for table in tables:
        old = known.get(table.name)
        if old is not None and old.fingerprint == table.fingerprint:
            planned.append(old)
            continue
        number = old.number if old else unused
        unused += old is None
        bounds = cut(connection, table, sizes[table.name])
        planned.append(PlannedTable(number, table.name, table.fingerprint, _kinds(connection, table), bounds))
    return Plan(tuple(planned))


def measure(connection: sqlite3.Connection, tables: Sequence[Table]) -> dict[str, Size]:
    """Return the size of every table: rows are counted, pages too where the library has dbstat."""
    pages: dict[str, tuple[int, int]] = {}
    try:
        query = "SELECT name, sum(pgsize), max(mx_payload) FROM dbstat GROUP BY name"
        pages = {name: (size, largest) for name, size, largest in connection.execute(query)}
    except sqlite3.OperationalError:
        pages = {}
    rows = {table.name: _count(connection, table) for table in tables}
    file_bytes = _value(connection, "PRAGMA page_count") * _value(connection, "PRAGMA page_size")
    total = max(sum(rows.values()), 1)
    return {
        name: Size(count, *pages.get(name, (file_bytes * count // total, _UNKNOWN_PAYLOAD_BYTES)))
        for name, count in rows.items()
    }


def _count(connection: sqlite3.Connection, table: Table) -> int:
    """Count in the table itself: an index may need a collation that only the application has."""
    return _value(connection, f"SELECT count(*) FROM {quote_name(table.name)} NOT INDEXED")


def _value(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def cut(connection: sqlite3.Connection, table: Table, size: Size) -> tuple[Bounds, ...]:
    """Return the bounds of a table's chunks, of equal numbers of rows."""
    chunks = max(1, round(size.size_bytes / CHUNK_BYTES))
    if not table.rowid or chunks == 1:
        return ((None, None),)
    step = -(-size.rows // chunks)
    starts: list[int | None] = [None]
    name = quote_name(table.name)
    last: int | None = None
    while len(starts) < chunks:
        condition = "" if last is None else f" WHERE {table.rowid} >= {last}"
        row = connection.execute(
            f"SELECT {table.rowid} FROM {name} NOT INDEXED{condition} ORDER BY {table.rowid} LIMIT 1 OFFSET {step}"
        ).fetchone()
        if row is None:
            break
        last = row[0]
        starts.append(last)
    return tuple(zip(starts, [*starts[1:], None], strict=True))


def _kinds(connection: sqlite3.Connection, table: Table) -> tuple[str, ...]:
    """Return the kind of every selected column, judged by the first and the last rows."""
    columns = ", ".join(f"typeof({name})" for name in table.selected)
    source = f"SELECT {columns} FROM {quote_name(table.name)} NOT INDEXED"
    rows = connection.execute(f"{source} LIMIT {_SAMPLE_ROWS}").fetchall()
    if table.rowid and len(rows) == _SAMPLE_ROWS:
        rows += connection.execute(f"{source} ORDER BY {table.rowid} DESC LIMIT {_SAMPLE_ROWS}").fetchall()
    affinities = ["integer"] if table.hidden_rowid else []
    affinities += [affinity_of(column.declared) for column in table.columns]
    if not rows:
        return tuple(affinities)
    return tuple(
        dominating(seen, affinity) for seen, affinity in zip(zip(*rows, strict=True), affinities, strict=True)
    )


def units(plan: Plan, sizes: Mapping[str, Size]) -> Iterator[Unit]:
    """Yield the units of the plan; rows and bytes spread evenly."""
    for planned in plan.tables:
        size = sizes[planned.name]
        count = len(planned.bounds)
        for chunk in range(count):
            yield Unit(
                id=f"tables/{planned.number}/{chunk:06d}",
                items=size.rows // count + (size.rows % count if chunk == count - 1 else 0),
                size_bytes=size.size_bytes // count,
                spec=spec(planned, chunk),
            )


def spec(planned: PlannedTable, chunk: int) -> dict[str, Any]:
    """Return what a unit needs, and what must be the same for a finished one to count."""
    return {
        "table": planned.number,
        "chunk": chunk,
        "rowids": list(planned.bounds[chunk]),
        "kinds": list(planned.kinds),
        "fingerprint": planned.fingerprint,
    }


__all__ = ["Plan", "PlannedTable", "Size", "cut", "make_plan", "measure", "select", "spec", "units"]
