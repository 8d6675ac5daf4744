"""Rows of Parquet as INSERTs: as value lists, whole columns at a time, joined to statements that are long enough to be
worth a round trip, and short enough for the server.
"""

from __future__ import annotations

from binascii import hexlify
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial, reduce
from itertools import chain

import pyarrow as pa
from msgspec import Struct

from exporters import arrow_functions as pc
from exporters.errors import SourceUsageError
from exporters.mysql.identifiers import quote_name
from exporters.mysql.rows.arrow_to_rows import field_text
from exporters.mysql.rows.column_types import GEOMETRIES
from exporters.sql.columns import CHARACTERS, EXACT_OF, GENERATED, KIND, TYPE, sides_of
from exporters.sql.large_values.long_values import LongRow, LongValue, batch_of
from migrate.restore.mysql.rows.json_decimals import with_decimals, with_paths

_BEGIN, _END = b"(", b"),"
"""How a row begins and ends."""
_NUMBERS = {"int", "decimal"}
_MARK = b"\\x"
_BYTES_IN_SIDE = "charset"
_JSON = b"json"
"""The type as MySQL has it; MariaDB's is a text."""
_STATEMENT_BYTES = 2**20
"""About so long is one INSERT, where the server takes as much."""
MOST_BYTES = 2**30
"""The largest max_allowed_packet that a server can have."""


class JoinedRows(Struct, frozen=True):
    """Rows, each as one binary value. ``types``: of their columns as the protocol has them, where they go in bulk."""

    joined: pa.Array
    types: bytes = b""

    def end_of(self, begin: int, size_bytes: int) -> int:
        """Return up to which row those from ``begin`` on are no longer than so many bytes."""
        bounds = bounds_of(self.joined)
        return bisect_right(bounds, bounds[begin] + size_bytes, begin, len(self.joined) + 1) - 1

    def text(self, begin: int, end: int) -> memoryview:
        """Return some rows, one behind the other."""
        bounds = bounds_of(self.joined)
        return memoryview(self.joined.buffers()[2])[bounds[begin] : bounds[end]]


def bounds_of(text: pa.Array) -> memoryview:
    """Return where each value begins, and behind them where the last one ends."""
    return memoryview(text.buffers()[1]).cast("i")[text.offset : text.offset + len(text) + 1]


def generated_of(schema: pa.Schema) -> list[str]:
    """Return the columns that the source has computed."""
    return [field.name for field in schema if _has(field, GENERATED)]


def columns_of(schema: pa.Schema, without: Collection[str]) -> list[str]:
    """Return the columns that are written: no side columns, and not ``without``."""
    return [field.name for field in schema if _is_written(field, without)]


def literals_of(
    rows: pa.RecordBatch | LongRow, without: Sequence[str], *, decimals: bool
) -> Iterator[Values | LongValues]:
    """Yield rows as ``…,…``, those with long values alone. ``decimals``: whether the server keeps decimals in JSON."""
    for never_set, part in _by_set(
        batch_of(rows), {*without, *(rows.long if isinstance(rows, LongRow) else ())}
    ):
        if not part.num_rows:
            continue
        if isinstance(rows, LongRow):
            yield LongValues(LongRow(part, rows.long), without, never_set, decimals)
        else:
            yield Values(_joined(part, without, decimals=decimals), never_set=never_set)


def _by_set(batch: pa.RecordBatch, besides: Collection[str]) -> Iterator[tuple[bool, pa.RecordBatch]]:
    """Yield the rows whose shapes were all set, and those of which some never were, with NULL for these. Such shapes
    are without a byte: MariaDB has them where NULL came into a column that is NOT NULL. No server takes that for a
    value.
    """
    empty = {
        number: pc.fill_null(pc.equal(pc.binary_length(batch.column(number)), 0), fill_value=False)
        for number, field in enumerate(batch.schema)
        if field.metadata.get(TYPE, b"").decode() in GEOMETRIES and field.name not in besides
    }
    some = reduce(pc.or_, empty.values()) if empty else None
    if some is None or not pc.any(some, min_count=0).as_py():
        yield False, batch
        return
    if pc.any(pc.invert(some)).as_py():
        yield False, batch.filter(pc.invert(some))
    columns = list(batch.columns)
    for number, mask in empty.items():
        columns[number] = pc.if_else(mask, pa.scalar(None, columns[number].type), columns[number])
    yield True, pa.RecordBatch.from_arrays(columns, schema=batch.schema).filter(some)


class Values(JoinedRows, frozen=True):
    """Rows as ``(…,…),``, as behind VALUES; of shapes that were ``never_set`` with NULL for these."""

    never_set: bool = False

    @property
    def rows(self) -> list[bytes]:
        """Each row as ``…,…``."""
        return [row[len(_BEGIN) : -len(_END)] for row in self.joined.to_pylist()]


class LongValues(Struct, frozen=True):
    """A row with long values, without these columns; ``never_set`` and ``decimals`` as above."""

    row: LongRow
    without: Sequence[str]
    never_set: bool = False
    decimals: bool = False

    def pieces(self) -> Iterator[bytes]:
        """Yield it as ``…,…``."""
        for number, (field, values, side) in enumerate(written_columns(self.row.batch, self.without)):
            if number:
                yield b","
            if side is not None and (bytes_ := self.row.long.get(side)) is not None:
                yield from _long_bytes(field, bytes_)
            elif (value := self.row.long.get(field.name)) is not None:
                quoted = _quoted(value, b"'" if _has(field, CHARACTERS) else b"_binary'")
                exact = self.decimals and field.metadata[TYPE] == _JSON
                yield from with_paths(quoted, value.pieces()) if exact else quoted
            else:
                side_values = None if side is None else self.row.batch.column(side)
                text = _literal(field, values, side_values, decimals=self.decimals)
                yield text[0].as_py() or b"NULL"


def _quoted(value: LongValue, begin: bytes) -> Iterator[bytes]:
    yield begin
    for piece in value.pieces():
        yield piece.replace(b"\\", b"\\\\").replace(b"'", b"''")
    yield b"'"


def _long_bytes(field: pa.Field, value: LongValue) -> Iterator[bytes]:
    """Yield what is no UTF-8; see ``_side_bytes``."""
    yield b"X'"
    digits = field.metadata[KIND].decode() == _BYTES_IN_SIDE
    for number, piece in enumerate(value.pieces()):
        digits = digits and (number > 0 or piece.startswith(_MARK))
        if not digits:
            yield hexlify(piece)
        else:
            yield piece if number else piece[len(_MARK) :]
    yield b"'"


def _is_written(field: pa.Field, without: Collection[str]) -> bool:
    return not (_has(field, EXACT_OF) or field.name in without)


def written_columns(
    batch: pa.RecordBatch, without: Collection[str]
) -> Iterator[tuple[pa.Field, pa.Array, str | None]]:
    """Yield the columns that are written, with their values and the name of their side column."""
    sides = sides_of(batch.schema)
    for field in batch.schema:
        if _is_written(field, without):
            yield field, batch.column(field.name), sides.get(field.name)


def _joined(batch: pa.RecordBatch, without: Collection[str], *, decimals: bool) -> pa.Array:
    """Return the rows of ``Values``. Quotes and commas are put between the values by the same call that joins them."""
    pieces: list[pa.Array | bytes] = []
    between = _BEGIN
    for field, values, side in written_columns(batch, without):
        side_values = None if side is None else batch.column(side)
        begin, text, end = _literal_parts(field, values, side_values, decimals=decimals)
        if text.null_count and begin:
            begin, text, end = b"", pc.binary_join_element_wise(begin, text, end, b""), b""
        pieces += [between + begin, text]
        between = end + b","
    if not pieces:
        return pa.array([_BEGIN + _END] * batch.num_rows, pa.binary())
    pieces.append(between[:-1] + _END)
    return pc.binary_join_element_wise(*pieces, b"", null_handling="replace", null_replacement=b"NULL")


def _literal(field: pa.Field, values: pa.Array, side: pa.Array | None, *, decimals: bool = False) -> pa.Array:
    begin, text, end = _literal_parts(field, values, side, decimals=decimals)
    return pc.binary_join_element_wise(begin, text, end, b"") if begin else text


def _literal_parts(
    field: pa.Field, values: pa.Array, side: pa.Array | None, *, decimals: bool
) -> tuple[bytes, pa.Array, bytes]:
    """Return literals: what each begins with, what is their own, and what each ends with; NULL for NULL."""
    kind = field.metadata[KIND].decode()
    if _has(field, CHARACTERS):
        plain = field_text(field, values, None)
        has_decimals = decimals and field.metadata[TYPE] == _JSON
        if side is None and not has_decimals:
            return b"'", _escaped(plain), b"'"
        text = pc.binary_join_element_wise(b"'", _escaped(plain), b"'", b"")
        if has_decimals:
            text = with_decimals(plain, text)
        return b"", text if side is None else pc.coalesce(_side_bytes(kind, side), text), b""
    if kind == "hex":
        return b"_binary'", _escaped(values), b"'"
    text = field_text(field, values, side)
    return (b"", text, b"") if kind in _NUMBERS else (b"'", text, b"'")


def _escaped(text: pa.Array) -> pa.Array:
    """Quotes and backslashes are doubled. Neither is part of any other character in UTF-8, which the session speaks; so
    bytes that are none stand there as well, in half the length of their digits.
    """
    bytes_ = _bytes_of(text)
    for mark in (b"'", b"\\"):
        if mark in bytes_:
            text = pc.replace_substring(text, pattern=mark, replacement=mark + mark)
    return text


def _bytes_of(text: pa.Array) -> bytes:
    """Return the bytes of all texts, also where one is NULL: to look into them takes less than into each."""
    bounds = bounds_of(text)
    return bytes(memoryview(text.buffers()[2])[bounds[0] : bounds[-1]]) if bounds[-1] else b""


def _side_bytes(kind: str, side: pa.Array) -> pa.Array:
    r"""Return what is no UTF-8 as binary literals: the bytes themselves, or those that ``\x…`` spells."""
    values: list[bytes | None] = []
    for value in side.cast(pa.binary()).to_pylist():
        if value is None:
            values.append(None)
        elif kind == _BYTES_IN_SIDE and value.startswith(_MARK):
            values.append(b"X'" + value[len(_MARK) :] + b"'")
        else:
            values.append(b"X'" + value.hex().encode() + b"'")
    return pa.array(values, pa.binary())


def _has(field: pa.Field, key: bytes) -> bool:
    return field.metadata is not None and key in field.metadata


class Statement(Struct, frozen=True):
    """An INSERT in pieces: with how many rows, and about how long. With ``types`` they are rows in bulk."""

    pieces: Iterable[bytes | memoryview]
    rows: int
    size_bytes: int
    types: bytes = b""


def insert_head(table: str, columns: Iterable[str]) -> str:
    """Return how an INSERT into these columns begins."""
    return f"INSERT INTO {quote_name(table)} ({', '.join(map(quote_name, columns))}) "


def insert_statements(
    table: str, columns: Iterable[str], batches: Iterable[JoinedRows | LongValues], allowed_bytes: int
) -> Iterator[Statement]:
    """Join rows to INSERTs, far shorter than ``allowed_bytes`` where rows are. Those with long values are statements of
    their own. So are those with shapes that were never set: a SELECT of NULL is what lets MariaDB have them.
    """
    head = insert_head(table, columns).encode()
    together = _RowsTogether(head, min(_STATEMENT_BYTES, allowed_bytes // 2))
    for batch in batches:
        if isinstance(batch, LongValues):
            yield _alone(head, batch.pieces, never_set=batch.never_set)
        elif isinstance(batch, Values) and batch.never_set:
            yield from (_alone(head, partial(iter, [row]), never_set=True) for row in batch.rows)
        else:
            yield from together.add(batch)
    yield from together.rest()


class RowTooLargeError(SourceUsageError):
    """A row takes ``size_bytes`` as a statement, which is more than the server takes (``allowed_bytes``)."""

    def __init__(self, about: str, size_bytes: int, allowed_bytes: int) -> None:
        self.size_bytes = size_bytes
        limit = f"the server's max_allowed_packet is {allowed_bytes:,}"
        super().__init__(
            f"a row takes {size_bytes:,} bytes as a statement, "
            + (f"no server takes more than {MOST_BYTES:,}" if self.is_for_good else limit),
            about=about,
            next_step=f"SET GLOBAL max_allowed_packet = {min(MOST_BYTES, 2 * size_bytes)} there, then the same command"
            " again",
        )

    @property
    def is_for_good(self) -> bool:
        """Whether no setting lets a server take the row."""
        return self.size_bytes >= MOST_BYTES


def fitting(statement: Statement, about: str, allowed_bytes: int) -> Statement:
    """Return a statement that the server takes: from a longer one it would hang up. Raises ``RowTooLargeError``."""
    if statement.size_bytes < allowed_bytes:
        return statement
    raise RowTooLargeError(about, statement.size_bytes, allowed_bytes)


class _RowsTogether:
    """Joins rows to INSERTs of up to ``most_bytes``; a longer row is one of its own."""

    def __init__(self, head: bytes, most_bytes: int) -> None:
        self._head, self._most_bytes = head, most_bytes
        self._pieces: list[memoryview] = []
        self._types = b""
        self._size_bytes = self._rows = 0

    def add(self, values: JoinedRows) -> Iterator[Statement]:
        """Take rows; yield the statements that are full."""
        if values.types != self._types:
            yield from self.rest()
            self._types = values.types
        begin, count = 0, len(values.joined)
        while begin < count:
            end = values.end_of(begin, self._most_bytes - self._size_bytes)
            if end == begin and self._pieces:
                yield from self.rest()
                continue
            end = max(end, begin + 1)
            self._pieces.append(values.text(begin, end))
            self._size_bytes += len(self._pieces[-1])
            self._rows += end - begin
            begin = end

    def rest(self) -> Iterator[Statement]:
        """Yield what was taken and is in no statement yet."""
        if self._pieces:
            pieces: list[bytes | memoryview] = [*self._pieces]
            if not self._types:
                *others, last = pieces
                pieces = [b"".join([self._head, b"VALUES ", *others, last[:-1]])]  # without the last comma
            yield Statement(pieces, self._rows, sum(map(len, pieces)), self._types)
            self._pieces = []
            self._size_bytes = self._rows = 0


def _alone(head: bytes, pieces: Callable[[], Iterable[bytes]], *, never_set: bool) -> Statement:
    """Return a statement of one row."""
    begin, end = (head + b"SELECT ", b"") if never_set else (head + b"VALUES (", b")")
    return Statement(chain([begin], pieces(), [end]), 1, len(begin) + 1 + sum(map(len, pieces())))
