"""Rows into the target, part by part, several parts a transaction where they are small."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from exporters.sqlite.catalog import Table
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.parquet import READ_ERRORS, PartRows, read_part
from exporters.sqlite.values import RawText
from exporters.tally import Advance
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.restore.sqlite.target import mark_done

COMMIT_ROWS = 200_000
COMMIT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class PartFile:
    """A part of a table: ``name`` relative to ``data/<source>/``, unique within the source. ``first``: of its table."""

    table: CatalogRow
    name: str
    rows: int
    first: bool

    @property
    def key(self) -> str:
        """Its key in the bundle."""
        return layout.source_file(self.table.source, self.name)

    @property
    def size_bytes(self) -> int:
        """Its share of the table's bytes."""
        return self.table.size_bytes * self.rows // max(self.table.items, 1)


def parts_of(tables: Sequence[CatalogRow]) -> list[PartFile]:
    """Return all parts, SQLite's own tables last: loading others changes them."""
    ordered = sorted(tables, key=lambda table: (table.name.startswith("sqlite_"), table.number))
    return [
        PartFile(table, part["name"], part["rows"], first=not position)
        for table in ordered
        for position, part in enumerate(table.details["parts"])
    ]


def write_parts(
    reader: BundleReader,
    connection: sqlite3.Connection,
    tables: Mapping[str, Table],
    parts: Sequence[PartFile],
    advance: Advance,
) -> None:
    """Insert every part and mark it as done in the same transaction. Raises ``DamageError`` and ``sqlite3.Error``."""
    rows = size_bytes = 0
    connection.execute("BEGIN IMMEDIATE")
    for part in parts:
        if part.table.name not in tables:
            raise DamageError(part.key, expected=f"a definition of {part.table.name}", found="none")
        mark_done(connection, part.name)
        if part.first and part.table.name.startswith("sqlite_"):
            connection.execute(f"DELETE FROM {quote_name(part.table.name)}")
        _write(reader, connection, tables[part.table.name], part, advance)
        rows += part.rows
        size_bytes += part.size_bytes
        if rows >= COMMIT_ROWS or size_bytes >= COMMIT_BYTES:
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            rows = size_bytes = 0
    connection.execute("COMMIT")


def _write(
    reader: BundleReader, connection: sqlite3.Connection, table: Table, part: PartFile, advance: Advance
) -> None:
    for some in _read(reader, part):
        wanted = [not generated for generated in some.generated]
        names = [quote_name(name) if name else table.rowid for name in compress(some.names, wanted)]
        columns = list(compress(some.columns, wanted))
        rows = zip(*(column.to_list() for column in columns), strict=True)
        statement = _insert(table, names, [None] * len(names))
        if any(column.values is not None and RawText in map(type, column.values) for column in columns):
            for row in rows:
                bound = [value for value in row if type(value) is not RawText]
                connection.execute(_insert(table, names, row), bound)
        else:
            connection.executemany(statement, rows)
        advance(some.rows, part.size_bytes * some.rows // max(part.rows, 1))


def _insert(table: Table, names: Sequence[str], row: Sequence[Any]) -> str:
    """Return the statement. Text that is not valid stands in it as a literal: only then SQLite takes the bytes for
    text in the database's own encoding, as they are.
    """
    values = ", ".join(f"CAST(x'{value.hex()}' AS TEXT)" if type(value) is RawText else "?" for value in row)
    return f"INSERT INTO {quote_name(table.name)} ({', '.join(names)}) VALUES ({values})"


def _read(reader: BundleReader, part: PartFile) -> Iterator[PartRows]:
    try:
        with reader.open(part.key) as file:
            yield from read_part(file)
    except READ_ERRORS as exc:
        raise DamageError(
            part.key, expected="a table's Parquet file", found=f"something else ({exc})"
        ) from exc
