"""Which chunks of which tables: decided once, kept in the workspace, used again after a crash.

A table keeps its number for the life of the bundle. Its chunks are half-open intervals of the first column of its
primary key, the first and the last without an end, so that every row, also one that appears later, lies in exactly
one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from exporters.base import Unit
from exporters.mysql.catalog import Column, Table
from exporters.mysql.connect import Connection
from exporters.mysql.identifiers import quote_name

CHUNK_BYTES = 64 * 2**20
"""About so much of a table's storage is one unit."""
MAX_CHUNKS = 10_000

Range = tuple[str | None, str | None]
"""SQL literals of the first value and of the first value of the next chunk; None for no end."""


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A table's number and chunks. ``fingerprint`` as ``Table.fingerprint``."""

    number: int
    name: str
    fingerprint: str
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


def make_plan(connection: Connection, tables: Sequence[Table], former: Plan | None) -> Plan:
    """Return the plan for ``tables``: what ``former`` says about a table holds as long as its fingerprint does."""
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
        planned.append(PlannedTable(number, table.name, table.fingerprint, cut(connection, table)))
    return Plan(tuple(sorted(planned, key=lambda table: table.number)))


def cut(connection: Connection, table: Table) -> tuple[Range, ...]:
    """Return a table's chunks: one, where it is small or its key cannot be cut."""
    chunks = min(MAX_CHUNKS, round(table.size_bytes / CHUNK_BYTES))
    column = next((c for c in table.columns if table.key and c.name == table.key[0]), None)
    if chunks < 2 or column is None or column.generated:
        return ((None, None),)
    bounds = _bounds(connection, table, column, chunks)
    return tuple(zip([None, *bounds], [*bounds, None], strict=True))


def _bounds(connection: Connection, table: Table, column: Column, chunks: int) -> list[str]:
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
    found: list[str] = []
    for _ in range(chunks - 1):
        beyond = f" WHERE {name} > {found[-1]}" if found else ""
        digits = connection.value(
            f"SELECT {literal[0].format(name)} FROM {table.label}{beyond} ORDER BY {name} LIMIT 1 OFFSET {step}"
        )
        if digits is None:
            break
        found.append(literal[1].format(digits))
    return found


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


def units(plan: Plan, tables: Sequence[Table]) -> Iterator[Unit]:
    """Yield the units of the plan; sizes and rows are the server's estimates, spread evenly."""
    by_name = {table.name: table for table in tables}
    for planned in plan.tables:
        table = by_name[planned.name]
        count = len(planned.ranges)
        for chunk in range(count):
            yield Unit(
                id=f"tables/{planned.number}/{chunk:06d}",
                items=table.estimate // count,
                size_bytes=table.size_bytes // count,
                spec=spec(planned, chunk),
            )


def spec(planned: PlannedTable, chunk: int) -> dict[str, Any]:
    """Return what a unit needs, and what must be the same for a finished one to count."""
    return {
        "table": planned.number,
        "chunk": chunk,
        "keys": list(planned.ranges[chunk]),
        "fingerprint": planned.fingerprint,
    }


def where_clause(table: Table, keys: Range) -> str:
    """Return the condition for an interval of keys, empty for the whole table."""
    if keys == (None, None):
        return ""
    name, (first, last) = quote_name(table.key[0]), keys
    conditions = [f"{name} >= {first}"] if first is not None else []
    conditions += [f"{name} < {last}"] if last is not None else []
    return " WHERE " + " AND ".join(conditions)


def line_select(table: Table, keys: Range = (None, None)) -> str:
    """Return the query whose one column is the row's line."""
    parts = ",',',".join(column.text for column in table.columns)
    return f"SELECT CONCAT({parts}) FROM {table.label}{where_clause(table, keys)}"


def wide_select(table: Table, keys: Range = (None, None)) -> str:
    """Return the query with a column a value, for lines that are too long for the server: see ``wide``."""
    parts = ",".join(quote_name(column.name) if column.raw else column.value for column in table.columns)
    return f"SELECT {parts} FROM {table.label}{where_clause(table, keys)}"
