"""The rows of a table in batches of bounded size, by columns."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

from exporters import _rows
from exporters import arrow_functions as pc
from exporters.row_digest import Advance, RowsDigest, digest_of_core
from exporters.sql.columns import array_of
from exporters.sql.large_values.long_values import LONG_BYTES
from exporters.sqlite.catalog import SqliteTable, select
from exporters.sqlite.chunk_plan import kinds_of
from exporters.sqlite.files.immutable_file import ImmutableFile
from exporters.sqlite.rows.damaged_pages import Stretch
from exporters.sqlite.rows.group_concat_blocks import Blocks, Bounds
from exporters.sqlite.rows.long_rows import LongCells, between, held, read_row, rowids
from exporters.sqlite.rows.typed_columns import KINDS
from exporters.sqlite.rows.value_text import ARROW, RawText, SqliteColumn, digest_columns, to_text

BATCH_ROWS = 8192
BATCH_BYTES = 8 * 2**20
"""A batch ends once it holds so much text and blobs, whatever its rows."""
_BATCH_VALUES = 400_000
_AT_ONCE_BYTES = 32 * 2**20
_BLOCK_ROWS = 64
"""With fewer rows at once blocks are not worthwhile."""
_NUMBER_BYTES = 8
_LEAST = -(2**63)
UTF_16_CODECS = {"UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}


class Batch(Struct, frozen=True):
    """Some rows. ``size_bytes``: of their values, about; ``known``: their digest, where who read them has made it."""

    rows: int
    columns: tuple[SqliteColumn, ...]
    size_bytes: int
    known: RowsDigest | None = None

    def digest(self) -> RowsDigest:
        """Return rows and digest."""
        return digest_columns(self.columns, self.rows) if self.known is None else self.known


def read_batches(
    connection: sqlite3.Connection,
    table: SqliteTable,
    bounds: Bounds,
    *,
    largest_bytes: int,
) -> Iterator[Batch | LongCells]:
    """Yield a chunk's rows. ``largest_bytes``: no row of the table is larger. Raises ``sqlite3.Error``."""
    encoding = connection.execute("PRAGMA encoding").fetchone()[0]
    if largest_bytes <= LONG_BYTES or encoding != "UTF-8" or not table.rowid:
        yield from _read_batches(connection, table, bounds, largest_bytes, encoding)
        return
    long_rowids = rowids(connection, table, bounds)
    for position, some in enumerate(between(long_rowids, bounds)):
        yield from _read_batches(connection, table, some, LONG_BYTES, encoding)
        if position < len(long_rowids):
            yield read_row(connection, table, long_rowids[position])


def _read_batches(
    connection: sqlite3.Connection, table: SqliteTable, bounds: Bounds, largest_bytes: int, encoding: str
) -> Iterator[Batch | LongCells]:
    classes = [KINDS[kind] for kind in kinds_of(connection, table)] if encoding == "UTF-8" else []
    if classes and largest_bytes <= LONG_BYTES and isinstance(connection, ImmutableFile):
        most = max(1, min(BATCH_ROWS, _BATCH_VALUES // len(classes)))
        for block in fetched_blocks(connection, select(table, bounds), classes, most):
            if block is None:
                break
            yield _batch(block.columns, block.digest)
        else:
            return
    most = min(BATCH_ROWS, BATCH_BYTES // max(largest_bytes, 1))
    if classes and table.rowid and most >= _BLOCK_ROWS:
        blocks = Blocks(connection, table, classes)
        if blocks.worthwhile:
            yield from map(_batch, blocks.read(bounds, most))
            return
    codec = _codec(table, encoding, connection)
    yield from _row_by_row(
        connection, select(table, bounds, raw_text=codec is not None), largest_bytes, codec
    )


def read_stretch(
    connection: sqlite3.Connection, table: SqliteTable, stretch: Stretch, *, largest_bytes: int
) -> Iterator[Batch | LongCells]:
    """Yield the rows of a table between damaged pages. Raises ``sqlite3.Error``."""
    codec = _codec(table, connection.execute("PRAGMA encoding").fetchone()[0], connection)
    query = select(table, (stretch.first, None), raw_text=codec is not None)
    # Without a limit SQLite goes on to the next row, on a damaged page, before it sees that it is one too many.
    yield from _row_by_row(
        connection, f"{query} ORDER BY {table.rowid} LIMIT {stretch.rows}", largest_bytes, codec
    )


def in_order(table: SqliteTable, batches: Iterator[Batch | LongCells]) -> Iterator[Batch | LongCells]:
    """Yield the same batches. Raises ``sqlite3.DatabaseError`` where rowids do not rise: pages lead to some twice."""
    if table.rowid not in table.selected:
        yield from batches
        return
    position, last = table.selected.index(table.rowid), _LEAST - 1
    for batch in batches:
        if isinstance(batch, LongCells):
            numbers = pa.array([batch.cells[position]], pa.int64())
        else:
            column = batch.columns[position]
            numbers = pa.array(column.to_list(), pa.int64()) if column.array is None else column.array
        if numbers[0].as_py() <= last or pc.any(pc.less_equal(numbers[1:], numbers[:-1])).as_py():
            error = sqlite3.DatabaseError("pages lead to some rows more than once")
            error.sqlite_errorname = "SQLITE_CORRUPT"
            raise error
        last = numbers[-1].as_py()
        yield batch


def _batch(columns: tuple[SqliteColumn, ...], known: RowsDigest | None = None) -> Batch:
    rows = columns[0].rows
    numbers = sum(_NUMBER_BYTES for column in columns if column.of not in {str, bytes})
    return Batch(rows, columns, sum(column.octets for column in columns) + numbers * rows, known)


def _codec(table: SqliteTable, encoding: str, connection: sqlite3.Connection) -> str | None:
    """Return how texts are decoded here, None where SQLite does that."""
    limit = connection.getlimit(sqlite3.SQLITE_LIMIT_COLUMN)
    return UTF_16_CODECS.get(encoding) if len(table.selected) * 2 <= limit else None


def _row_by_row(
    connection: sqlite3.Connection, query: str, largest_bytes: int, codec: str | None
) -> Iterator[Batch | LongCells]:
    connection.text_factory = to_text
    for rows, size_bytes in _slices(connection.execute(query), largest_bytes):
        if len(rows) == 1 and size_bytes > LONG_BYTES:
            yield held(_decoded(rows[0], codec))
            continue
        columns: Sequence[Sequence[Any]] = [[row[i] for row in rows] for i in range(len(rows[0]))]
        if codec is not None:
            columns = [
                [_decode(value, codec) if text else value for text, value in zip(*pair, strict=True)]
                for pair in zip(columns[::2], columns[1::2], strict=True)
            ]
        yield Batch(len(rows), tuple(map(SqliteColumn.of_values, columns)), size_bytes)


def _decoded(row: Sequence[Any], codec: str | None) -> Sequence[Any]:
    if codec is None:
        return row
    pairs = zip(row[::2], row[1::2], strict=True)
    return [_decode(value, codec) if text else value for text, value in pairs]


def _slices(cursor: sqlite3.Cursor, largest_bytes: int) -> Iterator[tuple[list[tuple[Any, ...]], int]]:
    """Yield rows and their bytes; rows that may be large are taken few by few, and weighed."""
    columns = len(cursor.description)
    most = max(1, min(BATCH_ROWS, _BATCH_VALUES // columns))
    at_once = max(
        1, min(most, (_AT_ONCE_BYTES if largest_bytes <= LONG_BYTES else 0) // max(largest_bytes, 1))
    )
    if at_once == most:
        while rows := cursor.fetchmany(most):
            yield rows, _weight(rows[:32]) * len(rows) // len(rows[:32])
        return
    pending: list[tuple[Any, ...]] = []
    weight = 0
    while rows := cursor.fetchmany(at_once):
        heavy = _weight(rows)
        if pending and heavy > LONG_BYTES:
            yield pending, weight
            pending, weight = [], 0
        pending += rows
        weight += heavy
        if weight >= BATCH_BYTES or len(pending) >= most:
            yield pending, weight
            pending, weight = [], 0
    if pending:
        yield pending, weight


def _weight(rows: Sequence[Sequence[Any]]) -> int:
    return sum(
        len(value) if isinstance(value, (str, bytes)) else _NUMBER_BYTES for row in rows for value in row
    )


def _decode(data: bytes, codec: str) -> str | RawText:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return RawText(data)


def digest_table(
    connection: sqlite3.Connection,
    table: SqliteTable,
    bounds: Bounds = (None, None),
    *,
    largest_bytes: int,
    advance: Advance | None = None,
) -> RowsDigest:
    """Return rows and digest of a chunk. Raises ``sqlite3.Error``."""
    digest = RowsDigest()
    for batch in read_batches(connection, table, bounds, largest_bytes=largest_bytes):
        digest += batch.digest()
        if advance is not None:
            advance(batch.rows, batch.size_bytes)
    return digest


FIRST_ROWS = 500
"""The rows of the first block: few, so that a chunk is proved with all of them."""
_KINDS = {int: b"l\0\0", float: b"R\0\0", str: b"st\0", bytes: b"sb\0"}
"""The core's letters (``columns.h``)."""


class FetchedBlock(Struct, frozen=True):
    """Some rows by columns, and their digest."""

    columns: tuple[SqliteColumn, ...]
    digest: RowsDigest


def fetched_blocks(
    file: ImmutableFile, query: str, classes: Sequence[type], most_rows: int
) -> Iterator[FetchedBlock | None]:
    """Yield the rows of a query in blocks; only None where they have to be read by ``sqlite3``. ``classes``: what the
    values of every column are expected to be. Raises ``sqlite3.Error``.
    """
    kinds, most, is_last = b"".join(_KINDS[of] for of in classes), FIRST_ROWS, False
    with file.prepared(query) as pointers:
        if _rows.core is None or pointers is None:
            yield None
            return
        while not is_last:
            block, is_last = _rows.core.sqlite_rows(pointers, kinds, most)
            if block is None:
                raise _error_of(file, query)
            rows, digest, columns = block
            if rows:
                made = [_column(of, rows, *column) for of, column in zip(classes, columns, strict=True)]
                yield FetchedBlock(tuple(made), digest_of_core(rows, digest))
            most = most_rows


def _error_of(file: ImmutableFile, query: str) -> sqlite3.Error:
    """Return why the rows of a query cannot be fetched, as ``sqlite3`` says it."""
    try:
        for _ in file.execute(query):
            pass
    except sqlite3.Error as exc:
        return exc
    return sqlite3.DataError("a row is too large")


def _column(
    of: type, rows: int, is_raw: bool, validity: Any, offsets: Any, values: Any, nulls: int
) -> SqliteColumn:
    """Return a column that the core has filled; one with another class in it has the text of each value."""
    buffers = [validity, offsets, values]
    if not is_raw:
        return SqliteColumn.of_array(of, array_of(ARROW[of], rows, buffers, nulls))
    return SqliteColumn(None, None, texts=array_of(pa.binary(), rows, buffers, nulls))
