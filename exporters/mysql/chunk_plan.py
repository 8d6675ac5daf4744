"""How tables are cut into chunks (see ``exporters.sql.chunk_plan``), and the queries for their rows.

Chunks are half-open intervals of the first column of the primary key, the first and the last without an end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pymysql

from exporters.mysql.catalog import MysqlColumn, MysqlTable
from exporters.mysql.connection import Connection
from exporters.mysql.errors import is_about_the_thing
from exporters.mysql.identifiers import quote_name
from exporters.sql.chunk_plan import Cut, Plan, plan_tables, share_bytes

CHUNK_BYTES = 64 * 2**20
"""About so much of a table's storage is one unit, or less: see ``share_bytes``."""
MAX_CHUNKS = 10_000

Range = tuple[str | None, str | None]
"""SQL literals of the first value and of the first value of the next chunk; None for no end."""


def make_plan(
    connection: Connection, tables: Sequence[MysqlTable], former: Plan | None, workers: int
) -> Plan:
    """Return the plan for ``tables``, see ``exporters.sql.chunk_plan``."""
    most_bytes = largest_chunk(tables, workers)
    return plan_tables(tables, former, lambda table: Cut(cut(connection, table, most_bytes)))


def largest_chunk(tables: Sequence[MysqlTable], workers: int) -> int:
    """Return how many bytes of storage a chunk of these tables has at most."""
    return min(CHUNK_BYTES, share_bytes((table.size_bytes for table in tables), workers))


def cut(connection: Connection, table: MysqlTable, most_bytes: int) -> tuple[Range, ...]:
    """Return a table's chunks of about so many bytes: one, where it is small or its key cannot be cut."""
    chunks = min(MAX_CHUNKS, round(table.size_bytes / most_bytes))
    column = next((c for c in table.columns if table.key and c.name == table.key[0]), None)
    if chunks < 2 or column is None or column.generated:
        return ((None, None),)
    try:
        bounds = _bounds(connection, table, column, chunks)
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        bounds = []  # whoever reads the rows will say so
    return tuple(zip([None, *bounds], [*bounds, None], strict=True))


def _bounds(connection: Connection, table: MysqlTable, column: MysqlColumn, chunks: int) -> list[str]:
    """Return ascending literals between the chunks: numbers spread evenly, other keys by walking along the index."""
    name = quote_name(column.name)
    if _INTEGER.match(column.sql_type):
        low, high = connection.rows(f"SELECT MIN({name}), MAX({name}) FROM {table.label}")[0]
        if low is None:
            return []
        low, high = int(low), int(high)
        return [str(v) for v in sorted({low + (high - low) * i // chunks for i in range(1, chunks)} - {low})]
    literal = _LITERALS.get(column.kind.name.partition(".")[0])
    if literal is None:
        return []
    step = max(1, table.estimate // chunks)
    bounds: list[str] = []
    for _ in range(chunks - 1):
        beyond = f" WHERE {name} > {bounds[-1]}" if bounds else ""
        digits = connection.value(
            f"SELECT {literal[0].format(name)} FROM {table.label}{beyond} ORDER BY {name} LIMIT 1 OFFSET {step}"
        )
        if digits is None:
            break
        bounds.append(literal[1].format(digits))
    return bounds


_INTEGER = re.compile(r"(tiny|small|medium|big)?int\b")
_LITERALS = {
    "text": ("HEX(CONVERT({} USING utf8mb4))", "_utf8mb4 X'{}'"),
    "hex": ("HEX({})", "X'{}'"),
    "decimal": ("CAST({}+0 AS CHAR)", "{}"),
    "date": ("CAST({} AS CHAR)", "'{}'"),
    "datetime": ("CAST({} AS CHAR)", "'{}'"),
    "utc": ("CAST({} AS CHAR)", "'{}'"),
}
"""By kind: how a key is asked for, and its literal. Both ends of every interval compare alike in any collation."""


def where_clause(table: MysqlTable, keys: Range) -> str:
    """Return the condition for an interval of keys, empty for the whole table."""
    if keys == (None, None):
        return ""
    name, (first, last) = quote_name(table.key[0]), keys
    conditions = [f"{name} >= {first}"] if first is not None else []
    conditions += [f"{name} < {last}"] if last is not None else []
    return " WHERE " + " AND ".join(conditions)


def row_select(table: MysqlTable, keys: Range = (None, None)) -> str:
    """Return the query with a column a value."""
    return f"SELECT {selected_values(table)} FROM {table.source}{where_clause(table, keys)}"


def selected_values(table: MysqlTable) -> str:
    """Return what a query for rows selects."""
    return ",".join(column.value for column in table.columns)
