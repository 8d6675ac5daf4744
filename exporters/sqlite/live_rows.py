"""The rows of a database file, one table at a time, to find the row that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from exporters.engine import Texts
from exporters.sqlite.address import SqliteAddress
from exporters.sqlite.catalog import SqliteTable, read_catalog
from exporters.sqlite.chunk_plan import Size, measure
from exporters.sqlite.files.backup import copies
from exporters.sqlite.files.connection_pool import Pool
from exporters.sqlite.files.directory import find
from exporters.sqlite.identifiers import SCHEMA, quote_name
from exporters.sqlite.rows.chunk_export import Layout
from exporters.sqlite.rows.long_rows import LongCells, text_pieces
from exporters.sqlite.rows.row_batches import read_batches
from exporters.sqlite.rows.value_text import row_texts, values_of_text


class _File(Struct, frozen=True):
    """A database file that is open: its tables, and how large they are."""

    pool: Pool
    tables: Mapping[str, SqliteTable]
    sizes: Mapping[str, Size]


class SqliteRows:
    """See ``exporters.engine.LocatedRows``. Schemas are files, which do not change meanwhile; one is open at a time."""

    def __init__(self, files: Mapping[str, tuple[Path, str]]) -> None:
        self._files = files
        self._open: tuple[str, _File] | None = None

    def tables(self) -> Mapping[tuple[str, str], int]:
        """See ``LocatedRows``."""
        return {
            (schema, name): size.rows
            for schema in self._files
            for name, size in self._file(schema).sizes.items()
        }

    def table(self, schema: str, name: str) -> SqliteTable:
        """Return what the catalog says of a table that is there."""
        return self._file(schema).tables[name]

    def columns(self, schema: str, name: str) -> Sequence[str] | None:
        """See ``LiveRows.columns``; the first one may be the hidden rowid."""
        table = self._file(schema).tables.get(name) if schema in self._files else None
        return None if table is None else _names(table)

    def key(self, schema: str, name: str) -> Sequence[str]:
        """Return the primary key's columns, else the rowid."""
        table = self.table(schema, name)
        with self._file(schema).pool.connection() as connection:
            rows = connection.execute(f"PRAGMA table_xinfo({quote_name(name)})").fetchall()
        keys = [row[1] for row in sorted(rows, key=lambda row: int(row[5])) if row[5]]
        return keys or (_names(table)[:1] if table.hidden_rowid else [])

    def each(self, schema: str, name: str, take: Callable[[Texts], None]) -> None:
        """See ``LiveRows.each``."""
        file = self._file(schema)
        table, largest = file.tables[name], file.sizes[name].largest_bytes
        with file.pool.connection() as connection:
            for batch in read_batches(connection, table, (None, None), largest_bytes=largest):
                if isinstance(batch, LongCells):
                    take([b"".join(text_pieces(batch.cells))])
                else:
                    take(row_texts(batch.columns))

    def each_located(self, schema: str, name: str, take: Callable[[Texts, Texts], None]) -> None:
        """See ``LocatedRows``: a row's values find it."""
        self.each(schema, name, lambda texts: take(texts, ()))

    def _file(self, schema: str) -> _File:
        if self._open is None or self._open[0] != schema:
            self.close()
            pool = Pool(*self._files[schema])
            with pool.connection() as connection:
                tables = read_catalog(connection).tables
                sizes = measure(connection, tables)
            self._open = (schema, _File(pool, {table.name: table for table in tables}, sizes))
        return self._open[1]

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].pool.close()
            self._open = None


def _names(table: SqliteTable) -> list[str]:
    kinds = ["integer"] * len(table.selected)
    return [field.name for field in Layout.of(table, kinds).fields]


@contextmanager
def live_rows(address: SqliteAddress) -> Iterator[SqliteRows]:
    """Open copies of the file, or of all files of a directory. Raises ``SourceError``."""
    if address.path.is_dir():
        addresses = {name: address.below(name) for name in find(address.path).databases}
    else:
        addresses = {SCHEMA: address}
    with copies(addresses) as copied:
        rows = SqliteRows({name: (copy.path, addresses[name].url) for name, copy in copied.items()})
        try:
            yield rows
        finally:
            rows.close()


def literals(text: bytes) -> list[bytes | None]:
    """Return a row's values, taken from its canonical text, as SQL literals: a text is never taken for a number."""
    return [_literal(value) for value in values_of_text(text)]


def _literal(value: Any) -> bytes | None:
    if value is None:
        return None
    if type(value) is str:
        return b"'" + value.encode().replace(b"'", b"''") + b"'"
    if isinstance(value, bytes):
        return (b"x'%s'" if type(value) is bytes else b"CAST(x'%s' AS TEXT)") % value.hex().encode()
    return repr(value).encode()
