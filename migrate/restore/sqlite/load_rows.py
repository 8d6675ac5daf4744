"""Rows into the destination, part by part, several parts a transaction where they are small."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from typing import Any

from exporters.row_digest import Advance
from exporters.sqlite.catalog import SqliteTable, read_catalog
from exporters.sqlite.identifiers import SCHEMA, is_own, label, quote_name
from exporters.sqlite.rows.parquet_parts import READ_ERRORS, PartLong, PartRows, read_part
from exporters.sqlite.rows.value_text import RawText
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.restore.common.table_parts import PartFile, Shown, missing_rows, parts_of, readable
from migrate.restore.common.table_restore import WrittenRows
from migrate.restore.sqlite.application_functions import Lent
from migrate.restore.sqlite.context import SqliteRestore
from migrate.restore.sqlite.destination import SqliteDestination, mark_done, read_done
from migrate.restore.sqlite.long_rows import write_long
from migrate.restore.sqlite.utf16 import codec_of, kept, literal

COMMIT_ROWS = 200_000
COMMIT_BYTES = 64 * 2**20


def bring_rows(
    job: SqliteRestore, destination: SqliteDestination, lent: Lent
) -> tuple[WrittenRows, list[str]]:
    """Insert the parts that are not done, SQLite's own tables last: loading others changes them. Returns a finding for
    each part that cannot be read, too. Raises ``DamageError`` and ``sqlite3.Error``.
    """
    damaged: list[str] = []
    run, connection = job.run, destination.connection
    connection.execute("PRAGMA ignore_check_constraints = ON")
    every = read_catalog(connection).tables
    tables = {table.name: table for table in every if table.name in job.names}
    lent.lend_for_rows(tables.values())

    def write(todo: Sequence[PartFile], advance: Advance) -> None:
        damaged.extend(_write_parts(run.reader, connection, tables, todo, advance))

    parts = parts_of(sorted(run.tables, key=lambda table: (is_own(table.name), table.number)))
    written = run.rows(parts, read_done(destination), write)
    return written, damaged


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
        shown = Shown(advance)
        connection.execute("SAVEPOINT part")
        try:
            mark_done(connection, part.name)
            # SQLite's own tables and the shadows of virtual ones are not empty even where nothing was inserted
            if part.first and (is_own(part.table.name) or part.table.details.get("shadow_of")):
                connection.execute(f"DELETE FROM {quote_name(part.table.name)}")
            _write(reader, connection, tables[part.table.name], part, shown.add)
        except DamageError as exc:
            connection.execute("ROLLBACK TO part")
            shown.take_back()
            damaged.append(missing_rows(label(SCHEMA, part.table.name), part, exc))
        connection.execute("RELEASE part")
        rows += part.rows
        size_bytes += part.size_bytes
        if rows >= COMMIT_ROWS or size_bytes >= COMMIT_BYTES:
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            rows = size_bytes = 0
    connection.execute("COMMIT")
    return damaged


def _write(
    reader: BundleReader, connection: sqlite3.Connection, table: SqliteTable, part: PartFile, advance: Advance
) -> None:
    codec = codec_of(connection)
    for some in _read(reader, part):
        is_stored = [not generated for generated in some.shown.generated]
        shown = list(compress(some.shown.names, is_stored))
        names = [table.rowid if name is None else quote_name(name) for name in shown]
        if isinstance(some, PartLong):
            write_long(connection, table, shown, list(compress(some.row.cells, is_stored)))
            advance(1, part.size_bytes // max(part.rows, 1))
            continue
        columns = list(compress(some.columns, is_stored))
        values = [column.to_list() for column in columns]
        if codec is not None:
            values = [[kept(value, codec) for value in column] for column in values]
        rows = zip(*values, strict=True)
        statement = _insert(table, names, [None] * len(names))
        if any(RawText in map(type, column) for column in values):
            for row in rows:
                bound = [value for value in row if type(value) is not RawText]
                connection.execute(_insert(table, names, row), bound)
        else:
            connection.executemany(statement, rows)
        advance(some.rows, part.size_bytes * some.rows // max(part.rows, 1))


def _insert(table: SqliteTable, names: Sequence[str], row: Sequence[Any]) -> str:
    """Return the statement. Text that is not valid stands in it as a literal."""
    values = ", ".join(literal(value) if type(value) is RawText else "?" for value in row)
    return f"INSERT INTO {quote_name(table.name)} ({', '.join(names)}) VALUES ({values})"


def _read(reader: BundleReader, part: PartFile) -> Iterator[PartRows | PartLong]:
    with reader.open(part.key) as file:
        yield from readable(part, read_part(file), READ_ERRORS)
