"""Rows into the destination, part by part, several parts a transaction where they are small."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

from exporters.row_digest import Advance
from exporters.sql.parquet_read import READ_ERRORS
from exporters.sqlite.catalog import SqliteTable, read_catalog
from exporters.sqlite.identifiers import SCHEMA, is_own, label, quote_name
from exporters.sqlite.rows.parquet_parts import PartLong, read_part
from exporters.sqlite.rows.value_text import RawText, SqliteColumn
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.restore.common.table_parts import AttemptProgress, PartFile, missing_rows, parts_of, readable
from migrate.restore.common.table_restore import WrittenRows
from migrate.restore.sqlite.application_functions import StandIns
from migrate.restore.sqlite.context import SqliteRestore
from migrate.restore.sqlite.definitions import set_definition, without_expressions
from migrate.restore.sqlite.destination import SqliteDestination, mark_done, read_done
from migrate.restore.sqlite.long_rows import Names, insert_into, write_long
from migrate.restore.sqlite.utf16 import codec_of, kept, literal
from migrate.runtime.crash_points import durable

COMMIT_ROWS = 200_000
COMMIT_BYTES = 64 * 2**20


def bring_rows(
    job: SqliteRestore, destination: SqliteDestination, stand_ins: StandIns
) -> tuple[WrittenRows, list[str]]:
    """Insert the parts that are not done, SQLite's own tables last: loading others changes them. Returns a finding for
    each part that cannot be read, too. Raises ``DamageError`` and ``sqlite3.Error``.
    """
    damaged: list[str] = []
    run, connection = job.run, destination.connection
    connection.execute("PRAGMA ignore_check_constraints = ON")
    every = read_catalog(connection).tables
    tables = {table.name: table for table in every if table.name in job.names}
    stand_ins.lend_for_rows(tables.values())
    changed = _without_uncomputed(job, tables, stand_ins)
    for name, sql in changed.items():
        set_definition(connection, name, sql)

    def write(todo: Sequence[PartFile], advance: Advance) -> None:
        damaged.extend(_write_parts(run.reader, connection, tables, todo, advance))

    parts = parts_of(sorted(run.tables, key=lambda table: (is_own(table.name), table.number)))
    written = run.rows(parts, read_done(destination), write)
    for entry in job.entries:
        if entry.type == "table" and entry.name in changed:
            set_definition(connection, entry.name, entry.sql or "")
    return written, damaged


def _without_uncomputed(
    job: SqliteRestore, tables: Mapping[str, SqliteTable], stand_ins: StandIns
) -> dict[str, str]:
    """Return definitions of the tables with virtual columns that could not be computed for some row at the source:
    without these expressions. SQLite computes them when it inserts, and refuses the row. Stand-ins compute the others.
    """
    exported = {row.name: {column["name"] for column in row.details["columns"]} for row in job.run.tables}
    computed = {name for names in stand_ins.needed_by.values() for name in names}
    definitions = {}
    for entry in job.entries:
        if entry.type == "table" and entry.name in (exported.keys() & tables.keys()) - computed:
            virtual = {column.name for column in tables[entry.name].columns if column.virtual}
            if uncomputed := virtual - exported[entry.name]:
                definitions[entry.name] = without_expressions(entry.sql or "", uncomputed)
    return definitions


def _write_parts(
    reader: BundleReader,
    connection: sqlite3.Connection,
    tables: Mapping[str, SqliteTable],
    parts: Sequence[PartFile],
    advance: Advance,
) -> list[str]:
    """Insert every part and mark it as done in the same transaction; return findings about those that cannot be read,
    which are not marked: a later run tries them again.
    """
    rows = size_bytes = 0
    damaged: list[str] = []
    connection.execute("BEGIN IMMEDIATE")
    for part in parts:
        if part.table.name not in tables:
            raise DamageError(part.key, expected=f"a definition of {part.table.name}", found="none")
        shown = AttemptProgress(advance)
        connection.execute("SAVEPOINT part")
        try:
            mark_done(connection, part.name)
            # SQLite's own tables and the shadows of virtual ones are not empty even where nothing was inserted
            if part.first and (is_own(part.table.name) or part.table.details.get("shadow_of")):
                connection.execute(f"DELETE FROM {quote_name(part.table.name)}")
            _write(reader, connection, tables[part.table.name], part, shown)
        except DamageError as exc:
            connection.execute("ROLLBACK TO part")
            shown.take_back()
            damaged.append(missing_rows(label(SCHEMA, part.table.name), part, exc))
        connection.execute("RELEASE part")
        rows += part.rows
        size_bytes += part.size_bytes
        if rows >= COMMIT_ROWS or size_bytes >= COMMIT_BYTES:
            with durable("restore.sqlite.rows"):
                connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            rows = size_bytes = 0
    with durable("restore.sqlite.last_rows"):
        connection.execute("COMMIT")
    return damaged


def _write(
    reader: BundleReader,
    connection: sqlite3.Connection,
    table: SqliteTable,
    part: PartFile,
    shown: AttemptProgress,
) -> None:
    with reader.open(part.key) as file:
        for rows in readable(part, read_part(file), READ_ERRORS):
            is_stored = [not generated for generated in rows.shown.generated]
            names = list(compress(rows.shown.names, is_stored))
            if isinstance(rows, PartLong):
                write_long(connection, table, names, list(compress(rows.row.cells, is_stored)))
            else:
                insert_rows(connection, table, names, list(compress(rows.columns, is_stored)))
            shown.add(part, rows.rows)


def insert_rows(
    connection: sqlite3.Connection, table: SqliteTable, names: Names, columns: Sequence[SqliteColumn]
) -> None:
    """Insert rows, given by columns: by one statement for all, or, where text is not valid, by one each."""
    codec = codec_of(connection)
    values = [column.to_list() for column in columns]
    if codec is not None:
        values = [[kept(value, codec) for value in column] for column in values]
    rows = zip(*values, strict=True)
    if any(RawText in map(type, column) for column in values):
        for row in rows:
            bound = [value for value in row if type(value) is not RawText]
            connection.execute(_insert(table, names, row), bound)
    else:
        connection.executemany(_insert(table, names, [None] * len(names)), rows)


def _insert(table: SqliteTable, names: Names, row: Sequence[Any]) -> str:
    """Return the statement. Text that is not valid stands in it as a literal."""
    values = ", ".join(literal(value) if type(value) is RawText else "?" for value in row)
    return f"{insert_into(table, names)} VALUES ({values})"
