"""Rows with long values, of which SQLite hands over a piece at a time (https://sqlite.org/c3ref/blob_open.html)."""

from __future__ import annotations

import codecs
import sqlite3
from binascii import hexlify, unhexlify
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa
from msgspec import Struct

from exporters.row_digest import RowsDigest, digest_pieces
from exporters.sql.columns import Typed
from exporters.sql.large_values.long_values import (
    LONG_BYTES,
    PIECE_BYTES,
    SHORT_BYTES,
    LongRow,
    LongValue,
    Spool,
    Spooled,
)
from exporters.sqlite.catalog import SqliteTable, where
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.rows.typed_columns import KINDS, from_typed, to_typed
from exporters.sqlite.rows.value_text import TAGS, RawText, SqliteColumn, to_text, value_pieces

_SIDE_TAGS: Mapping[type, bytes] = {str: b"t", bytes: b"b", RawText: b"x"}
_FALLBACK_BYTES = 16 * PIECE_BYTES

Bounds = tuple[int | None, int | None]


class Cell(Struct, frozen=True):
    """A long value of a row, and its class."""

    of: type
    value: LongValue

    def side_pieces(self) -> Iterator[bytes]:
        """Yield it as it stands in a side column; see ``typed``."""
        pieces = self.value.pieces()
        return chain([_SIDE_TAGS[self.of]], pieces if self.of is str else map(hexlify, pieces))


class LongCells(Struct, frozen=True):
    """A row: its values, ``Cell`` in place of the long ones."""

    cells: Sequence[Any]
    rows: int = 1

    @property
    def size_bytes(self) -> int:
        """About so many bytes are its values."""
        return sum(octets(cell) for cell in self.cells)

    def digest(self) -> RowsDigest:
        """Return its digest."""
        return digest_pieces(text_pieces(self.cells))


def octets(cell: Any) -> int:
    """Return the bytes of a text or blob."""
    if isinstance(cell, Cell):
        return cell.value.size_bytes
    return len(cell.encode() if isinstance(cell, str) else cell) if isinstance(cell, (str, bytes)) else 0


def text_pieces(cells: Sequence[Any]) -> Iterator[bytes]:
    """Yield the canonical text of a row; see ``values``."""
    for number, cell in enumerate(cells):
        if number:
            yield b","
        if isinstance(cell, Cell):
            yield b"%s%d:" % (TAGS[cell.of], cell.value.size_bytes)
            yield from cell.value.pieces()
        else:
            yield from value_pieces(cell)


def rowids(connection: sqlite3.Connection, table: SqliteTable, bounds: Bounds) -> list[int]:
    """Return the rowids of the long rows of a chunk, in their order. Raises ``sqlite3.Error``.

    SQLite's limit on the length of a value is lowered meanwhile: a row that it refuses has a long value.
    """
    first, last = bounds
    long_rowids: list[int] = []
    usual = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONG_BYTES)
    try:
        while True:
            last_rowid = None
            try:
                for rowid, size in connection.execute(_sizes(table, (first, last))):
                    last_rowid = rowid
                    if size > LONG_BYTES:
                        long_rowids.append(rowid)
            except sqlite3.DataError:
                after = first if last_rowid is None else last_rowid + 1
                query = f"SELECT min({table.rowid}) FROM {quote_name(table.name)} NOT INDEXED"
                long_rowids.append(connection.execute(query + where(table, (after, last))).fetchone()[0])
                first = long_rowids[-1] + 1
            else:
                return long_rowids
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, usual)


def _sizes(table: SqliteTable, bounds: Bounds) -> str:
    sizes = " + ".join(f"coalesce(length(CAST({name} AS BLOB)), 0)" for name in table.selected)
    source = f"FROM {quote_name(table.name)} NOT INDEXED{where(table, bounds)}"
    return f"SELECT {table.rowid}, {sizes} {source} ORDER BY {table.rowid}"


def between(long_rowids: Sequence[int], bounds: Bounds) -> Iterator[Bounds]:
    """Yield what is left of a chunk without these rowids: before, between and after them."""
    first, last = bounds
    for rowid in long_rowids:
        yield first, rowid
        first = rowid + 1
    yield first, last


def read_row(connection: sqlite3.Connection, table: SqliteTable, rowid: int) -> LongCells:
    """Return a row of a database in UTF-8. Its long values are read when they are asked for, by the same connection.
    Raises ``sqlite3.Error``.
    """
    source = f"FROM {quote_name(table.name)} NOT INDEXED WHERE {table.rowid} = {rowid}"
    connection.text_factory = to_text
    cells: list[Any] = []
    if table.hidden_rowid:
        cells.append(rowid)
    for column, selected in zip(table.columns, table.selected[len(cells) :], strict=True):
        of = _CLASSES.get(_value(connection, f"SELECT typeof({selected}) {source}"))
        stored: LongValue | None = None
        if of is not None and column.generated:
            size = _value(connection, f"SELECT length(CAST({selected} AS BLOB)) {source}")
            stored = _Computed(connection, selected, source, size)
        elif of is not None:
            with connection.blobopen(table.name, column.name, rowid, readonly=True) as blob:
                stored = _Stored(connection, table.name, column.name, rowid, len(blob))
        if stored is None or stored.size_bytes <= SHORT_BYTES:
            cells.append(_value(connection, f"SELECT {selected} {source}"))
        else:
            cells.append(cell_of(of or bytes, stored))
    return LongCells(cells)


_CLASSES = {"text": str, "blob": bytes}


def _value(connection: sqlite3.Connection, query: str) -> Any:
    return connection.execute(query).fetchone()[0]


def cell_of(of: type, value: LongValue) -> Cell:
    """Return a long text or blob; text that is not valid is of another class."""
    return Cell(RawText if of is str and not _is_utf8(value) else of, value)


class Held(Struct, frozen=True):
    """A long value that is in memory."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        """See ``LongValue``."""
        return len(self.data)

    def pieces(self) -> Iterator[bytes]:
        """See ``LongValue``."""
        for start in range(0, len(self.data), PIECE_BYTES):
            yield self.data[start : start + PIECE_BYTES]


def held(row: Sequence[Any]) -> LongCells:
    """Return a row that is in memory."""
    return LongCells([_held(value) if octets(value) > SHORT_BYTES else value for value in row])


def _held(value: str | bytes) -> Cell:
    return Cell(type(value), Held(value.encode() if isinstance(value, str) else value))


def _is_utf8(value: LongValue) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in value.pieces():
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


class _Stored(Struct, frozen=True):
    """A value as it lies in the file."""

    connection: sqlite3.Connection
    table: str
    column: str
    rowid: int
    size_bytes: int

    def pieces(self) -> Iterator[bytes]:
        with self.connection.blobopen(self.table, self.column, self.rowid, readonly=True) as blob:
            while piece := blob.read(PIECE_BYTES):
                yield piece


class _Computed(Struct, frozen=True):
    """A value of a generated column, which SQLite makes as a whole."""

    connection: sqlite3.Connection
    selected: str
    source: str
    size_bytes: int

    def pieces(self) -> Iterator[bytes]:
        for start in range(1, self.size_bytes + 1, _FALLBACK_BYTES):
            part = f"substr(CAST({self.selected} AS BLOB), {start}, {_FALLBACK_BYTES})"
            yield self.connection.execute(f"SELECT {part} {self.source}").fetchone()[0]


def to_parquet(
    row: LongCells, kinds: Sequence[str], fields: Sequence[tuple[str, str]], spool: Spool
) -> tuple[Typed, dict[str, Spooled]]:
    """Return a row for Parquet: typed, with an empty value in place of each long one, and these by name of field.
    ``fields``: the names of every column and of its side column.
    """
    columns: list[pa.Array] = []
    sides: dict[int, pa.Array] = {}
    long: dict[str, Spooled] = {}
    for i, (cell, kind, (name, side)) in enumerate(zip(row.cells, kinds, fields, strict=True)):
        if not isinstance(cell, Cell):
            main, other = to_typed(SqliteColumn.of_values([cell]), kind)
        elif cell.of is KINDS[kind]:
            main, other = to_typed(SqliteColumn.of_values([cell.of()]), kind)
            long[name] = spool.keep(cell.value.pieces())
        else:
            main, other = to_typed(SqliteColumn.of_values([None]), kind)[0], pa.array([""])
            long[side] = spool.keep(cell.side_pieces())
        columns.append(main)
        if other is not None:
            sides[i] = other
    return Typed(tuple(columns), sides, 1), long


def from_parquet(row: LongRow, columns: Sequence[tuple[str, str | None, str]]) -> LongCells:
    """Return a row that ``to_parquet`` made. ``columns``: name, name of the side column where there is one, and kind.
    Raises ``ValueError`` for a side column that makes no sense.
    """
    cells: list[Any] = []
    for name, side, kind in columns:
        if side is not None and side in row.long:
            cells.append(_from_side(row.long[side]))
        elif name in row.long:
            cells.append(Cell(KINDS[kind], row.long[name]))
        else:
            exact_texts = None if side is None else row.batch.column(side)
            cells += from_typed(row.batch.column(name), exact_texts, kind).to_list()
    return LongCells(cells)


def _from_side(value: LongValue) -> Cell:
    tag = next(value.pieces())[:1]
    for of, other in _SIDE_TAGS.items():
        if tag == other:
            return Cell(of, _FromSide(value, is_text=of is str))
    raise ValueError(f"{tag!r} is not a class")


class _FromSide(Struct, frozen=True):
    """A value that stands in a side column: after a letter, bytes in hexadecimal."""

    value: LongValue
    is_text: bool

    @property
    def size_bytes(self) -> int:
        size = self.value.size_bytes - 1
        return size if self.is_text else size // 2

    def pieces(self) -> Iterator[bytes]:
        pieces = self.value.pieces()
        odd = b""
        for number, piece in enumerate(pieces):
            rest = piece if number else piece[1:]
            if self.is_text:
                yield rest
            else:
                digits = odd + rest
                even = len(digits) & ~1
                odd = digits[even:]
                yield unhexlify(digits[:even])
