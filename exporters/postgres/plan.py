"""How tables are cut into chunks (see ``exporters.relational.plan``), and the queries for their rows.

Chunks are half-open ranges of heap pages, the last one without an end, so that rows that appear later
always lie in one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporters.postgres.catalog import Table
from exporters.relational.plan import Cut, Plan, plan_tables

CHUNK_BYTES = 96 * 2**20
"""About so much of a table's storage (TOAST included) is one unit."""
TID_RANGE_VERSION = 140000
"""From here on a range of ctids is read without reading the whole table (PostgreSQL 14 release notes)."""

Range = tuple[int, int | None]


def make_plan(tables: Sequence[Table], former: Plan | None, *, version: int, page_bytes: int) -> Plan:
    """Return the plan for ``tables``, see ``relational.plan``."""
    return plan_tables(tables, former, lambda table: Cut(cut(table, version=version, page_bytes=page_bytes)))


def cut(table: Table, *, version: int, page_bytes: int) -> tuple[Range, ...]:
    """Return the page ranges of a table's chunks; one open range where ranges cannot be read cheaply."""
    if version < TID_RANGE_VERSION or not table.heap or table.condition:
        return ((0, None),)
    pages = table.heap_bytes // page_bytes
    chunks = max(1, round(table.size_bytes / CHUNK_BYTES))
    step = max(1, -(-pages // chunks))
    starts = list(range(0, pages, step)) or [0]
    return tuple(zip(starts, [*starts[1:], None], strict=True))


def where_clause(pages: Range) -> str:
    """Return the condition for a range of pages, empty for the whole table."""
    first, last = pages
    conditions = [f"ctid >= '({first},0)'::pg_catalog.tid"] if first else []
    conditions += [f"ctid < '({last},0)'::pg_catalog.tid"] if last is not None else []
    return " WHERE " + " AND ".join(conditions) if conditions else ""


def rows_of(table: Table, pages: Range = (0, None)) -> str:
    """Return the FROM clause for the table's rows in a range of pages; a table that has a condition is
    never cut.
    """
    return f"FROM ONLY {table.label}{where_clause(pages) or ' ' + table.condition}".rstrip()


def canonical_select(table: Table, pages: Range = (0, None)) -> str:
    """Return the query whose CSV lines are the rows' text."""
    columns = ", ".join(column.expression for column in table.columns)
    return f"SELECT {columns} {rows_of(table, pages)}"
