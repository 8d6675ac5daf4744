"""Tables that inherit, with their columns in the source's order.

A parent that gets a column gives it to its children as their last one. In a script the child comes after the parent,
and all inherited columns come first. So such a table is made on its own, with every column, and inherits afterwards, as
``pg_dump --binary-upgrade`` does it (dumpTableSchema in src/bin/pg_dump/pg_dump.c).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from msgspec import Struct

from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from migrate.restore.postgres.definitions.dump_script import QUALIFIED, DumpEntry, Name
from migrate.restore.postgres.definitions.optional_clauses import parse_statement

Orders = Mapping[Name, Sequence[str]]
"""The names of tables' columns, as the source has them."""

_ORDER = """
SELECT n.nspname, c.relname, pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY a.attnum)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND NOT c.relispartition
  AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)
GROUP BY n.nspname, c.relname ORDER BY n.nspname, c.relname
"""
_COLUMNS = """
SELECT a.attname, pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
  || coalesce(' COLLATE ' || pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname), '')
  || CASE WHEN d.oid IS NULL THEN ''
    WHEN {generated} <> '' THEN ' GENERATED ALWAYS AS (' || pg_catalog.pg_get_expr(d.adbin, d.adrelid) || ')'
      || CASE {generated} WHEN 's' THEN ' STORED' ELSE '' END
    ELSE ' DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid) END
  || CASE WHEN a.attnotnull AND NOT {named} THEN ' NOT NULL' ELSE '' END, a.attislocal
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation AND a.attcollation <> t.typcollation
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""
_CONSTRAINTS = """
SELECT conname, 'CONSTRAINT ' || pg_catalog.quote_ident(conname) || ' ' || pg_catalog.pg_get_constraintdef(oid),
  conislocal
FROM pg_catalog.pg_constraint WHERE conrelid = pg_catalog.to_regclass(%s) AND contype IN ('c', 'n') ORDER BY conname
"""
_GENERATED_VERSION = 120000
_NAMED_VERSION = 180000
"""From here on NOT NULL of a column is a constraint with a name."""
_INHERITS = re.compile(rb"\A\)\s*INHERITS \((" + QUALIFIED + rb"(?:, " + QUALIFIED + rb")*)\)")


class Reordered(Struct, frozen=True):
    """How a table is made with its columns in order. ``inherited``: columns that are its own then, and were
    its parents' alone; ``as_inherited`` makes these, and such constraints, so again, as a superuser may.
    """

    sql: bytes
    inherited: Sequence[str]
    as_inherited: bytes


def misordered(connection: psycopg.Connection[Any], orders: Orders) -> dict[Name, Sequence[str]]:
    """Return the tables that have the columns of ``orders``, but in another order, and in which."""
    columns_of_table: dict[Name, Sequence[str]] = {}
    for row in connection.execute(_ORDER.encode()).fetchall():
        schema, name, columns = _text(row[0]), _text(row[1]), list(map(_text, row[2]))
        order = list(orders.get((schema, name), columns))
        if order != columns and sorted(order) == sorted(columns):
            columns_of_table[schema, name] = columns
    return columns_of_table


def reordered(
    connection: psycopg.Connection[Any], entry: DumpEntry, order: Sequence[str]
) -> Reordered | None:
    """Return how an entry's table, which is there, is made in this order; None where that is unknown."""
    statement = parse_statement(entry)
    if statement is None:
        return None
    end_of_list = b"".join(clause.sql for clause in statement.after)
    if (inherits := _INHERITS.match(end_of_list)) is None:
        return None
    label = quote_qualified(entry.schema, entry.name)
    version = connection.info.server_version
    query = _COLUMNS.format(
        generated="a.attgenerated" if version >= _GENERATED_VERSION else "''",
        named="true" if version >= _NAMED_VERSION else "false",
    )
    rows = connection.execute(query.encode(), (label,)).fetchall()
    columns = {_text(name): (_bytes(sql), local) for name, sql, local in rows}
    if sorted(columns) != sorted(order):
        return None
    constraints = connection.execute(_CONSTRAINTS.encode(), (label,)).fetchall()
    elements = [*(columns[name][0] for name in order), *(_bytes(sql) for _, sql, _ in constraints)]
    body = b",\n    ".join(elements)
    alter = b"\nALTER TABLE ONLY " + label.encode() + b" INHERIT "
    parents = b"".join(alter + parent + b";" for parent in re.findall(QUALIFIED, inherits[1]))
    after = b"\n)" + end_of_list[inherits.end() :] + statement.ending()
    sql = statement.before + b"\n    " + body + after + parents + b"\n"
    inherited = [name for name in order if not columns[name][1]]
    names = [_text(name) for name, _, local in constraints if not local]
    return Reordered(sql, inherited, _as_inherited(label, inherited, names))


def _as_inherited(label: str, columns: Sequence[str], constraints: Sequence[str]) -> bytes:
    table = f"pg_catalog.to_regclass({quote_literal(label)})"
    statements = [
        f"UPDATE pg_catalog.pg_attribute SET attislocal = false WHERE attrelid = {table}"
        f" AND attname = {quote_literal(name)};"
        for name in columns
    ]
    statements += [
        f"UPDATE pg_catalog.pg_constraint SET conislocal = false WHERE conrelid = {table}"
        f" AND conname = {quote_literal(name)};"
        for name in constraints
    ]
    return "\n".join(statements).encode()


def _text(value: str | bytes) -> str:
    """Return what comes as bytes where the session has no encoding."""
    return value if isinstance(value, str) else value.decode(errors="replace")


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def describe_order(columns: Sequence[str]) -> str:
    """Return columns as shown to users."""
    return f"({', '.join(map(quote_name, columns))})"
