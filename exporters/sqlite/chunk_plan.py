"""How tables are cut into chunks, and the kind of every column (see ``exporters.sql.chunk_plan``).

Chunks are half-open ranges of rowids, the first and the last without an end. Tables WITHOUT ROWID, and those whose
rowid has no name, are one chunk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from exporters.sql.chunk_plan import Cut, Plan, plan_tables
from exporters.sqlite.catalog import SqliteTable
from exporters.sqlite.errors import is_damage
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.rows.damaged_pages import readable
from exporters.sqlite.rows.typed_columns import affinity_of, dominating

CHUNK_BYTES = 96 * 2**20
"""About so many bytes of pages are one unit."""
_SAMPLE_ROWS = 500
_UNKNOWN_PAYLOAD_BYTES = 2**20

Bounds = tuple[int | None, int | None]


class Size(Struct, frozen=True):
    """How large a table is: rows, bytes of pages, and the bytes of its largest row (at least)."""

    rows: int
    size_bytes: int
    largest_bytes: int


def plan_readable(
    connection: sqlite3.Connection, tables: Sequence[SqliteTable], former: Plan | None
) -> tuple[Plan, dict[str, Size], dict[str, str]]:
    """Return the plan, the size of each table in it, and why a table is not: its pages are damaged. The kind of every
    column belongs to the plan, see ``exporters.sql.chunk_plan``. Raises ``sqlite3.Error``.
    """
    damaged: dict[str, str] = {}
    sizes = measure(connection, tables, damaged)
    plan = plan_tables(
        [table for table in tables if table.name in sizes],
        former,
        lambda table: Cut(cut(connection, table, sizes[table.name]), kinds_of(connection, table)),
    )
    return plan, sizes, {name: reason for name, reason in damaged.items() if name not in sizes}


def measure(
    connection: sqlite3.Connection, tables: Sequence[SqliteTable], damaged: dict[str, str] | None = None
) -> dict[str, Size]:
    """Return the size of every table: rows are counted, pages too where the library has dbstat. ``damaged`` takes those
    that cannot be read, with the reason; else that is raised. One that can be read in part has a size, too.
    """
    rows: dict[str, int] = {}
    for table in tables:
        try:
            rows[table.name] = _count(connection, table)
        except sqlite3.DatabaseError as exc:
            if damaged is None or not is_damage(exc):
                raise
            damaged[table.name] = f"it cannot be read: {exc}"
            readable_part = readable(connection, table) if table.rowid else None
            if readable_part is not None and readable_part.rows:
                rows[table.name] = readable_part.rows
                damaged[table.name] = "; ".join(readable_part.reasons())
    pages: dict[str, tuple[int, int]] = {}
    try:
        query = "SELECT name, sum(pgsize), max(mx_payload) FROM dbstat GROUP BY name"
        pages = {name: (size, largest) for name, size, largest in connection.execute(query)}
    except sqlite3.DatabaseError:  # no such table, or damaged pages
        pages = {}
    file_bytes = _value(connection, "PRAGMA page_count") * _value(connection, "PRAGMA page_size")
    total = max(sum(rows.values()), 1)
    return {
        name: Size(count, *pages.get(name, (file_bytes * count // total, _UNKNOWN_PAYLOAD_BYTES)))
        for name, count in rows.items()
    }


def _count(connection: sqlite3.Connection, table: SqliteTable) -> int:
    """Count in the table itself: an index may need a collation that only the application has."""
    return _value(connection, f"SELECT count(*) FROM {quote_name(table.name)} NOT INDEXED")


def _value(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def cut(connection: sqlite3.Connection, table: SqliteTable, size: Size) -> tuple[Bounds, ...]:
    """Return the bounds of a table's chunks, of equal numbers of rows; a damaged one stays one chunk."""
    chunks = max(1, round(size.size_bytes / CHUNK_BYTES))
    if not table.rowid or chunks == 1:
        return ((None, None),)
    step = -(-size.rows // chunks)
    starts: list[int | None] = [None]
    name = quote_name(table.name)
    last: int | None = None
    while len(starts) < chunks:
        condition = "" if last is None else f" WHERE {table.rowid} >= {last}"
        query = f"SELECT {table.rowid} FROM {name} NOT INDEXED{condition}"
        rows = _unless_damaged(connection, f"{query} ORDER BY {table.rowid} LIMIT 1 OFFSET {step}")
        if rows is None:
            return ((None, None),)
        row = next(iter(rows), None)
        if row is None:
            break
        last = row[0]
        starts.append(last)
    return tuple(zip(starts, [*starts[1:], None], strict=True))


def kinds_of(connection: sqlite3.Connection, table: SqliteTable) -> tuple[str, ...]:
    """Return the kind of every selected column, judged by the first and the last rows that can be read."""
    columns = ", ".join(f"typeof({name})" for name in table.selected)
    source = f"SELECT {columns} FROM {quote_name(table.name)} NOT INDEXED"
    rows = _unless_damaged(connection, f"{source} LIMIT {_SAMPLE_ROWS}")
    if table.rowid and (rows is None or len(rows) == _SAMPLE_ROWS):
        last = f"{source} ORDER BY {table.rowid} DESC LIMIT {_SAMPLE_ROWS}"
        rows = [*(rows or ()), *(_unless_damaged(connection, last) or ())]
    affinities = ["integer"] if table.hidden_rowid else []
    affinities += [affinity_of(column.declared) for column in table.columns]
    if not rows:
        return tuple(affinities)
    return tuple(
        dominating(classes, affinity)
        for classes, affinity in zip(zip(*rows, strict=True), affinities, strict=True)
    )


def _unless_damaged(connection: sqlite3.Connection, query: str) -> list[tuple[Any, ...]] | None:
    """Return the rows of a query; None where it meets a damaged page."""
    try:
        return connection.execute(query).fetchall()
    except sqlite3.DatabaseError as exc:
        if is_damage(exc):
            return None
        raise
