"""How tables are cut into chunks, and the kind of every column (see ``exporters.sql.chunk_plan``).

Chunks are half-open ranges of rowids, the first and the last without an end. Tables WITHOUT ROWID, and those whose
rowid has no name, are one chunk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from msgspec import Struct

from exporters.sql.chunk_plan import Cut, Plan, plan_tables
from exporters.sqlite.catalog import SqliteTable
from exporters.sqlite.errors import is_damage
from exporters.sqlite.identifiers import quote_name
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


def make_plan(
    connection: sqlite3.Connection,
    tables: Sequence[SqliteTable],
    sizes: Mapping[str, Size],
    former: Plan | None,
) -> Plan:
    """Return the plan for ``tables``, see ``exporters.sql.chunk_plan``. The kind of every column belongs to it."""
    return plan_tables(
        tables,
        former,
        lambda table: Cut(cut(connection, table, sizes[table.name]), kinds_of(connection, table)),
    )


def plan_readable(
    connection: sqlite3.Connection, tables: Sequence[SqliteTable], former: Plan | None
) -> tuple[Plan, dict[str, Size], dict[str, str]]:
    """Return the plan, the size of each table in it, and why a table is not: its pages are damaged. Raises
    ``sqlite3.Error``.
    """
    damaged: dict[str, str] = {}
    sizes = measure(connection, tables, damaged)

    def left() -> list[SqliteTable]:
        return [table for table in tables if table.name not in damaged]

    try:
        return make_plan(connection, left(), sizes, former), sizes, damaged
    except sqlite3.DatabaseError as exc:
        if not is_damage(exc):
            raise
    for table in left():  # some damage shows only where rows are looked at
        try:
            cut(connection, table, sizes[table.name])
            kinds_of(connection, table)
        except sqlite3.DatabaseError as exc:
            _note(damaged, table, exc)
    return make_plan(connection, left(), sizes, former), sizes, damaged


def _note(damaged: dict[str, str], table: SqliteTable, error: sqlite3.DatabaseError) -> None:
    if not is_damage(error):
        raise error
    damaged[table.name] = f"it cannot be read: {error}"


def measure(
    connection: sqlite3.Connection, tables: Sequence[SqliteTable], damaged: dict[str, str] | None = None
) -> dict[str, Size]:
    """Return the size of every table: rows are counted, pages too where the library has dbstat. ``damaged`` takes those
    that cannot be read, with the reason; else that is raised.
    """
    rows: dict[str, int] = {}
    for table in tables:
        try:
            rows[table.name] = _count(connection, table)
        except sqlite3.DatabaseError as exc:
            if damaged is None:
                raise
            _note(damaged, table, exc)
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


def kinds_of(connection: sqlite3.Connection, table: SqliteTable) -> tuple[str, ...]:
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
        dominating(classes, affinity)
        for classes, affinity in zip(zip(*rows, strict=True), affinities, strict=True)
    )
