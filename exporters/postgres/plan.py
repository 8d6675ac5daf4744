"""Which chunks of which tables: decided once, kept in the workspace, used again after a crash.

A table keeps its number for the life of the bundle. Its chunks are half-open ranges of heap pages, the last
one without an end, so that rows that appear later always lie in one of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from exporters.base import Unit
from exporters.postgres.catalog import Table

CHUNK_BYTES = 96 * 2**20
"""About so much of a table's storage (TOAST included) is one unit."""
TID_RANGE_VERSION = 140000
"""From here on a range of ctids is read without reading the whole table (PostgreSQL 14 release notes)."""

Range = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A table's number and chunks. ``fingerprint`` as ``Table.fingerprint``."""

    number: int
    schema: str
    name: str
    fingerprint: str
    filenode: int
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All tables, ordered by number."""

    tables: tuple[PlannedTable, ...]

    def dump(self) -> bytes:
        """Return it as JSON."""
        return json.dumps([asdict(table) for table in self.tables]).encode()

    @staticmethod
    def load(data: bytes) -> Plan:
        """Read what ``dump`` wrote."""
        rows = json.loads(data)
        for row in rows:
            row["ranges"] = tuple((first, last) for first, last in row["ranges"])
        return Plan(tuple(PlannedTable(**row) for row in rows))


def make_plan(tables: Sequence[Table], former: Plan | None, *, version: int, page_bytes: int) -> Plan:
    """Return the plan for ``tables``: what ``former`` says about a table holds as long as its fingerprint does."""
    known = {(table.schema, table.name): table for table in former.tables} if former else {}
    unused = max((table.number for table in known.values()), default=0) + 1
    planned = []
    for table in tables:
        old = known.get((table.schema, table.name))
        if old is not None and old.fingerprint == table.fingerprint:
            planned.append(old)
            continue
        number = old.number if old else unused
        unused += old is None
        ranges = cut(table, version=version, page_bytes=page_bytes)
        planned.append(
            PlannedTable(number, table.schema, table.name, table.fingerprint, table.filenode, ranges)
        )
    return Plan(tuple(sorted(planned, key=lambda table: table.number)))


def cut(table: Table, *, version: int, page_bytes: int) -> tuple[Range, ...]:
    """Return the page ranges of a table's chunks; one open range where ranges cannot be read cheaply."""
    if version < TID_RANGE_VERSION or not table.heap:
        return ((0, None),)
    pages = table.heap_bytes // page_bytes
    chunks = max(1, round(table.size_bytes / CHUNK_BYTES))
    step = max(1, -(-pages // chunks))
    starts = list(range(0, pages, step)) or [0]
    return tuple(zip(starts, [*starts[1:], None], strict=True))


def units(plan: Plan, tables: Sequence[Table]) -> Iterator[Unit]:
    """Yield the units of the plan; sizes and rows are the server's estimates, spread evenly."""
    by_name = {(table.schema, table.name): table for table in tables}
    for planned in plan.tables:
        table = by_name[planned.schema, planned.name]
        count = len(planned.ranges)
        for chunk in range(count):
            yield Unit(
                id=unit_id(planned.number, chunk),
                items=table.estimate // count,
                size_bytes=table.size_bytes // count,
                spec=spec(planned, chunk),
            )


def unit_id(number: int, chunk: int) -> str:
    """Return the id of a table's chunk."""
    return f"tables/{number}/{chunk:06d}"


def spec(planned: PlannedTable, chunk: int) -> dict[str, Any]:
    """Return what a unit needs, and what must be the same for a finished one to count."""
    return {
        "table": planned.number,
        "chunk": chunk,
        "pages": list(planned.ranges[chunk]),
        "fingerprint": planned.fingerprint,
    }


def where_clause(pages: Range) -> str:
    """Return the condition for a range of pages, empty for the whole table."""
    first, last = pages
    conditions = [f"ctid >= '({first},0)'::pg_catalog.tid"] if first else []
    conditions += [f"ctid < '({last},0)'::pg_catalog.tid"] if last is not None else []
    return " WHERE " + " AND ".join(conditions) if conditions else ""


def canonical_select(table: Table, pages: Range = (0, None)) -> str:
    """Return the query whose CSV lines are the rows' text."""
    columns = ", ".join(column.expression for column in table.columns)
    return f"SELECT {columns} FROM ONLY {table.label}{where_clause(pages)}"
