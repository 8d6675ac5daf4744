"""The keys of tables, and rows that are found by their keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import psycopg
from msgspec.structs import replace

from exporters.postgres.catalog import PostgresColumn, PostgresTable
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.touched_rows import RowKey

_KEYS = """
SELECT i.indexrelid::int8, a.attname FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, position)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = %(table)s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND k.position <= {columns}
  AND NOT EXISTS (SELECT FROM pg_attribute n WHERE n.attrelid = i.indrelid AND n.attnum = ANY(i.indkey::int2[])
    AND NOT n.attnotnull)
ORDER BY i.indisprimary DESC, i.indexrelid, k.position
"""
"""The primary key first, else a unique index over columns that are never NULL."""
_INCLUDED_VERSION = 110000
"""From here on an index may have columns that are no part of its key."""
_EXACT = re.compile(
    r"boolean|smallint|integer|bigint|oid|uuid|bytea|date|text|character varying(\(\d+\))?|character\(\d+\)"
    r"|numeric\(\d+,\d+\)|time(stamp)?(\(\d\))? with(out)? time zone"
)
"""Types, as the server spells them, of which equal values have one text. Numbers without a declared scale have many."""
_EXACT_COLLATIONS = frozenset({"", "C", "POSIX"})
"""Others may be nondeterministic, so that different texts are equal. Those of databases never are."""


def key_columns(connection: psycopg.Connection[Any], table: PostgresTable) -> list[str]:
    """Return the columns that identify a table's rows, none where there are no such. Raises the driver's errors."""
    columns = "i.indnkeyatts" if connection.info.server_version >= _INCLUDED_VERSION else "i.indnatts"
    rows = connection.execute(_KEYS.format(columns=columns).encode(), {"table": table.oid}).fetchall()
    return [column for index, column in rows if index == rows[0][0]]


def has_exact_keys(table: PostgresTable, columns: Sequence[str]) -> bool:
    """Tell whether equal values of some columns have one text, and a condition finds the table's rows by them."""
    known = {column.name: column for column in table.columns}
    is_plain = not (table.condition or table.refusal or table.view)
    return is_plain and all(name in known and _is_exact(known[name]) for name in columns)


def with_keys(table: PostgresTable, columns: Sequence[str], keys: Sequence[RowKey]) -> PostgresTable:
    """Return a table whose rows are those that have one of the keys."""
    types = {column.name: column.sql_type for column in table.columns}
    arrays = ", ".join(
        f"{_array(values)}::{types[name]}[]"
        for name, values in zip(columns, zip(*keys, strict=True), strict=True)
    )
    names = ", ".join(f"k{number}" for number in range(len(columns)))
    quoted = ", ".join(map(quote_name, columns))
    rows = f"SELECT {names} FROM unnest({arrays}) AS k({names})"  # qualified it takes one array only
    return replace(table, condition=f"WHERE ({quoted}) IN ({rows})")


def _is_exact(column: PostgresColumn) -> bool:
    return bool(_EXACT.fullmatch(column.sql_type)) and column.collation in _EXACT_COLLATIONS


def _array(values: Sequence[bytes]) -> str:
    elements = (value.decode().replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return quote_literal("{" + ",".join(f'"{element}"' for element in elements) + "}")
