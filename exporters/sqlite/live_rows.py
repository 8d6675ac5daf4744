"""The rows of a database file, one table at a time, to find the row that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporters.engine import Texts
from exporters.sqlite.address import SqliteAddress
from exporters.sqlite.catalog import SqliteTable, read_catalog
from exporters.sqlite.chunk_plan import Size, measure
from exporters.sqlite.files.backup import copies
from exporters.sqlite.files.connection_pool import Pool
from exporters.sqlite.files.directory import find
from exporters.sqlite.identifiers import SCHEMA, quote_name
from exporters.sqlite.rows.long_rows import LongCells, text_pieces
from exporters.sqlite.rows.parquet_parts import Layout
from exporters.sqlite.rows.row_batches import read_batches
from exporters.sqlite.rows.value_text import row_texts, values_of_text


class DirectoryRows:
    """See ``exporters.engine.LocatedRows``; schemas are files. One file is open at a time."""

    def __init__(self, files: Mapping[str, tuple[Path, str]]) -> None:
        self._files = files
        self._open: tuple[str, Pool, SqliteRows] | None = None

    def tables(self) -> Mapping[tuple[str, str], int]:
        """See ``LocatedRows``."""
        return {
            (schema, name): rows
            for schema in self._files
            for name, rows in self._rows(schema).estimates().items()
        }

    def table(self, schema: str, name: str) -> SqliteTable:
        """Return what the catalog says of a table that is there."""
        return self._rows(schema).table(name)

    def columns(self, schema: str, name: str) -> Sequence[str] | None:
        """See ``LiveRows.columns``."""
        return self._rows(schema).columns(schema, name) if schema in self._files else None

    def key(self, schema: str, name: str) -> Sequence[str]:
        """See ``LiveRows.key``."""
        return self._rows(schema).key(schema, name)

    def each(self, schema: str, name: str, take: Callable[[Texts], None]) -> None:
        """See ``LiveRows.each``."""
        self._rows(schema).each(schema, name, take)

    def each_located(self, schema: str, name: str, take: Callable[[Texts, Texts], None]) -> None:
        """See ``LocatedRows``: a row's values find it."""
        self.each(schema, name, lambda texts: take(texts, ()))

    def _rows(self, schema: str) -> SqliteRows:
        if self._open is None or self._open[0] != schema:
            self.close()
            path, where = self._files[schema]
            pool = Pool(path, where)
            self._open = (schema, pool, SqliteRows(pool))
        return self._open[2]

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


class SqliteRows:
    """See ``exporters.engine.LiveRows``. The file does not change meanwhile."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        with pool.connection() as connection:
            tables = read_catalog(connection).tables
            self._sizes: dict[str, Size] = measure(connection, tables)
        self._tables: dict[str, SqliteTable] = {table.name: table for table in tables}

    def estimates(self) -> Mapping[str, int]:
        """Return how many rows each table has."""
        return {name: self._sizes[name].rows for name in self._tables}

    def table(self, name: str) -> SqliteTable:
        """Return what the catalog says of a table that is there."""
        return self._tables[name]

    def columns(self, schema: str, name: str) -> Sequence[str] | None:
        """See ``LiveRows.columns``; the first one may be the hidden rowid."""
        del schema
        table = self._tables.get(name)
        return None if table is None else _names(table)

    def key(self, schema: str, name: str) -> Sequence[str]:
        """Return the primary key's columns, else the rowid."""
        del schema
        table = self._tables[name]
        with self._pool.connection() as connection:
            rows = connection.execute(f"PRAGMA table_xinfo({quote_name(name)})").fetchall()
        keys = [row[1] for row in sorted(rows, key=lambda row: int(row[5])) if row[5]]
        return keys or (_names(table)[:1] if table.hidden_rowid else [])

    def each(self, schema: str, name: str, take: Callable[[Texts], None]) -> None:
        """See ``LiveRows.each``."""
        del schema
        table = self._tables[name]
        largest = self._sizes[name].largest_bytes
        with self._pool.connection() as connection:
            for batch in read_batches(connection, table, (None, None), largest_bytes=largest):
                if isinstance(batch, LongCells):
                    take([b"".join(text_pieces(batch.cells))])
                else:
                    take(row_texts(batch.columns))


def _names(table: SqliteTable) -> list[str]:
    kinds = ["integer"] * len(table.selected)
    return [field.name for field in Layout.of(table, kinds).fields]


@contextmanager
def live_rows(address: SqliteAddress) -> Iterator[DirectoryRows]:
    """Open copies of the file, or of all files of a directory. Raises ``SourceError``."""
    if address.path.is_dir():
        addresses = {name: address.below(name) for name in find(address.path).databases}
    else:
        addresses = {SCHEMA: address}
    with copies(addresses) as copied:
        rows = DirectoryRows({name: (copy.path, addresses[name].url) for name, copy in copied.items()})
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
