"""Rows as ``COPY … FROM STDIN (FORMAT binary)`` takes them: the server need not parse numbers and dates (PostgreSQL
documentation, COPY, "Binary Format"; the values are what each type's receive function reads, src/backend/utils/adt).

Not every type is written so: a table that has a column of another type, or a value in a side column, goes as CSV.
The compiled core makes the rows where it is built; without it Arrow makes the same, slower.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial

import pyarrow as pa
from msgspec import Struct

from exporters import _rows
from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.arrays import elements
from exporters.postgres.rows.text_codec.codecs import apart
from exporters.postgres.rows.text_codec.intervals import STORED as INTERVAL
from exporters.postgres.rows.text_codec.value_tokens import lists_of
from exporters.sql.column_groups import Pieces, compute_by_key
from exporters.sql.columns import EXACT_OF, GENERATED, KIND, TYPE
from exporters.sql.large_values.long_values import LongRow
from exporters.sql.parquet_read import ParquetPart, rows_of
from exporters.sql.value_codec import joined, same_text

_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
"""What stands before all rows, and behind them."""

Block = bytes | memoryview
Encode = Callable[[pa.Array], Pieces]
"""Makes what stands before values, and them."""


class _Kind(Struct, frozen=True):
    """How values of a kind are written where the column's type matches ``declared``: by Arrow, and by the compiled core
    if there is a ``letter`` for them (binary_rows.h), with its ``parameter``. ``prefix``: the bytes of each value that
    stand before what is stored.
    """

    declared: re.Pattern[str]
    encode: Encode
    letter: str = ""
    parameter: int = 0
    prefix: bytes = b""


class Encoder(Struct, frozen=True):
    """Writes a part's rows. ``columns``: which of a batch's are written, and how."""

    columns: Sequence[tuple[str, _Kind]]

    def blocks(self, file: ParquetPart) -> Iterator[tuple[Block, int]]:
        """Yield what COPY takes, and the number of rows in it."""
        yield _BEGIN, 0
        for batch in rows_of(file):
            if isinstance(batch, LongRow):
                yield from ((piece, 0) for piece in self._long_row(batch))
                yield b"", 1
            elif _rows.core is not None:
                yield self.rows_by_core(batch), batch.num_rows
            else:
                columns = [kind.encode(batch.column(name)) for name, kind in self.columns]
                yield self.rows_by_arrow(columns), batch.num_rows
        yield _END, 0

    def rows_by_core(self, batch: pa.RecordBatch) -> memoryview:
        """Return the rows of a batch, made by the compiled core."""
        assert _rows.core is not None
        columns = tuple(_core_column(kind, batch.column(name)) for name, kind in self.columns)
        return memoryview(_rows.core.binary_rows(columns, batch.num_rows))

    def rows_by_arrow(self, columns: Sequence[Pieces]) -> bytes:
        """Return the rows of columns that are encoded already."""
        head = pa.scalar(struct.pack(">h", len(self.columns)), pa.binary())
        return joined(_joined([head, *(piece for pieces in columns for piece in pieces)]))

    def _long_row(self, row: LongRow) -> Iterator[bytes]:
        """Yield a row with long values."""
        yield struct.pack(">h", len(self.columns))
        for name, kind in self.columns:
            if (value := row.long.get(name)) is not None:
                yield struct.pack(">i", len(kind.prefix) + value.size_bytes) + kind.prefix
                yield from value.pieces()
            else:
                text = _joined(kind.encode(row.batch.column(name)))
                yield text[0].as_py() if isinstance(text, pa.Array) else text.as_py()


def blocks_together(batches: Sequence[tuple[Encoder, pa.RecordBatch]]) -> Sequence[Block]:
    """Return the rows of several small batches, each batch by itself."""
    if _rows.core is not None:
        return [encoder.rows_by_core(batch) for encoder, batch in batches]
    columns = [(kind, batch.column(name)) for encoder, batch in batches for name, kind in encoder.columns]
    pieces = iter(compute_by_key(columns, lambda kind, values: kind.encode(values)))
    return [encoder.rows_by_arrow([next(pieces) for _ in encoder.columns]) for encoder, _ in batches]


def with_header(blocks: Sequence[Block]) -> bytes:
    """Return what COPY takes, of all rows."""
    return b"".join((_BEGIN, *blocks, _END))


def _core_column(
    kind: _Kind, values: pa.Array
) -> tuple[int, int, int, pa.Buffer | None, pa.Buffer | None, pa.Buffer]:
    """Return a column as the compiled core takes it."""
    letter, parameter = kind.letter, kind.parameter
    if not letter:
        letter, values = "r", _joined(kind.encode(values))
    elif letter in "tj":
        values = same_text(values)
        values = values if pa.types.is_string(values.type) else pc.cast(values, pa.binary())
    elif letter == "U":
        values = same_text(values)
    elif letter == "n":
        letter = _LETTERS[values.type.bit_width // 8]
    elif letter == "d":
        parameter = values.type.scale
    validity, *middle, data = values.buffers()
    offsets = middle[0] if middle else None
    return ord(letter), parameter, values.offset, validity, offsets, data or _NO_BYTES


def _joined(pieces: Pieces) -> pa.Array | pa.Scalar:
    """Return what the pieces make together; a piece that is NULL is nothing."""
    return pc.binary_join_element_wise(*pieces, b"", null_handling="replace", null_replacement=b"")


_NULL = b"\xff\xff\xff\xff"
_EPOCH_DAYS = 10957
_EPOCH_MICROS = _EPOCH_DAYS * 86_400_000_000
"""Dates and times count from 2000-01-01."""
_CODES = {1: "B", 2: "h", 4: "i", 8: "q"}
_LETTERS = {2: "h", 4: "i", 8: "l"}
"""The compiled core's for numbers of so many bytes."""
_NO_BYTES = pa.py_buffer(b"")
_MANY = 2**14
_MOST_DIGITS = 15
"""With up to three more, that whole digits of 10,000 stand behind the point, they fit into 64 bits."""


def encoder_of(schema: pa.Schema, types: Mapping[str, str]) -> Encoder | None:
    """Return what makes rows of batches of a part, a binary value each; None where they have to go as CSV. ``types``:
    of the destination's columns, by name, as ``format_type`` writes them.
    """
    columns: list[tuple[str, _Kind]] = []
    for field in schema:
        name, entries = field.name, field.metadata or {}
        if EXACT_OF in entries:
            return None
        if GENERATED in entries:
            continue
        declared = types.get(name, "")
        if declared != entries[TYPE].decode():
            return None
        kind = _kind_of(entries[KIND].decode(), field.type, declared)
        if kind is None:
            return None
        columns.append((name, kind))
    return Encoder(columns)


@lru_cache(1024)
def _kind_of(name: str, stored: pa.DataType, declared: str) -> _Kind | None:
    """Return how values of a kind are written into a column of a type; None where they have to go as CSV."""
    if name in _KINDS:
        if pa.types.is_decimal(stored) and stored.precision > _MOST_DIGITS:
            return None
        return next((kind for kind in _KINDS[name] if kind.declared.fullmatch(declared)), None)
    shape, inner = apart(name)
    if shape != "list" or not declared.endswith("[]"):
        return None
    element_type = declared.removesuffix("[]")
    element = _kind_of(inner[0], stored.value_type, element_type)
    oid = _OIDS.get(_MODIFIER.sub("", element_type))
    if element is None or oid is None:
        return None
    return _Kind(re.compile(re.escape(declared)), partial(_list, element, oid))


def _before(head: bytes, values: pa.Array) -> pa.Array | pa.Scalar:
    """Return what stands before a value: ``head``, or that it is NULL."""
    if not values.null_count:
        return pa.scalar(head, pa.binary())
    return pc.if_else(pc.is_valid(values), pa.scalar(head, pa.binary()), pa.scalar(_NULL, pa.binary()))


def _swapped(values: pa.Array) -> pa.Array:
    """Return numbers as bytes, the most significant first."""
    width = values.type.bit_width // 8
    numbers = array(_CODES[width])
    start = values.offset * width
    numbers.frombytes(memoryview(values.buffers()[1])[start : start + len(values) * width])
    numbers.byteswap()
    valid = (
        pa.concat_arrays([pc.is_valid(values), pa.array([], pa.bool_())]).buffers()[1]
        if values.null_count
        else None
    )
    offsets = _offsets(width, max(_MANY, len(values))).buffers()[1]
    return pa.Array.from_buffers(pa.binary(), len(values), [valid, offsets, pa.py_buffer(numbers)])


@lru_cache(maxsize=8)
def _offsets(width: int, rows: int) -> pa.Array:
    return pa.array(range(0, (rows + 1) * width, width), pa.int32())


def _number(values: pa.Array) -> Pieces:
    return [_before(struct.pack(">i", values.type.bit_width // 8), values), _swapped(values)]


def _date(values: pa.Array) -> Pieces:
    return _number(pc.subtract(values.cast(pa.int32()), pa.scalar(_EPOCH_DAYS, pa.int32())))


def _moment(values: pa.Array) -> Pieces:
    return _number(pc.subtract(values.cast(pa.int64()), _EPOCH_MICROS))


def _bool(values: pa.Array) -> Pieces:
    return [_before(struct.pack(">i", 1), values), pc.if_else(values, b"\1", b"\0").cast(pa.binary())]


def _bytes(values: pa.Array) -> Pieces:
    """Return the lengths of values, and them."""
    data = same_text(values).cast(pa.binary())
    return [_swapped(pc.fill_null(pc.binary_length(data), -1)), data]


def _jsonb(values: pa.Array) -> Pieces:
    """Text with the number of the format before it (``jsonb_recv``, jsonb.c)."""
    return _bytes(pc.binary_join_element_wise(_JSONB, same_text(values).cast(pa.binary()), b""))


def _uuid(values: pa.Array) -> Pieces:
    return [_before(struct.pack(">i", 16), values), same_text(values).cast(pa.binary())]


def _interval(values: pa.Array) -> Pieces:
    months, days, micros = (pc.struct_field(values, name) for name in INTERVAL.names)
    return [
        _before(struct.pack(">i", 16), values),
        _swapped(micros),
        _swapped(days),
        _swapped(months),
    ]


def _list(element: _Kind, oid: int, values: pa.Array) -> Pieces:
    """Arrays of one dimension that begins with 1, and those without elements, which have none (``array_recv``,
    arrayfuncs.c).
    """
    lengths = pc.list_value_length(values)
    coded = lengths.dictionary_encode()
    heads = [
        struct.pack(">iiiii", 1, 0, oid, length, 1) if length else struct.pack(">iii", 0, 0, oid)
        for length in coded.dictionary.to_pylist()
    ]
    words = lists_of(lengths, _joined(element.encode(elements(values))))
    head = pa.array(heads, pa.binary()).take(coded.indices)
    return _bytes(pc.binary_join_element_wise(head, pc.binary_join(words, b""), b""))


def _decimal(values: pa.Array) -> Pieces:
    """Digits of 10,000, as many for all: the server drops zeros in front and behind (``make_result``, numeric.c)."""
    scale = values.type.scale
    whole = pa.decimal128(38, 0)  # the same digits without the point
    buffers = values.buffers()
    unscaled = pa.Array.from_buffers(whole, len(values), buffers, values.null_count, values.offset).cast(
        pa.int64()
    )
    ends: Mapping[str, int | None] = pc.min_max(unscaled).as_py()
    negative = (ends["min"] or 0) < 0
    fill = 10 ** (-scale % 4)
    size = pc.multiply(pc.abs(unscaled) if negative else unscaled, fill)
    largest = max(abs(end or 0) for end in ends.values()) * fill
    if largest < 10**4:
        digits, words = 1, [size.cast(pa.int16())]
    elif largest < 10**8:
        digits, words = 2, [_two(size).cast(pa.int32())]
    elif largest < 10**16:
        digits, words = 4, [_four(size)]
    else:
        top = pc.divide(size, 10**16)
        digits, words = 8, [top, _four(pc.subtract(size, pc.multiply(top, 10**16)))]
    head = struct.pack(">ihh", 8 + 2 * digits, digits, digits - -(-scale // 4) - 1)
    signs = [struct.pack(">Hh", sign, scale) for sign in (0, 0x4000)]
    if not negative:
        return [_before(head + signs[0], values), *map(_swapped, words)]
    which = pc.less(unscaled, 0).cast(pa.int8())
    return [_before(head, values), pa.array(signs, pa.binary()).take(which), *map(_swapped, words)]


def _two(size: pa.Array) -> pa.Array:
    """Two digits in one number: the first one in the upper 16 bits."""
    return pc.add(size, pc.multiply(pc.divide(size, 10**4), 2**16 - 10**4))


def _four(size: pa.Array) -> pa.Array:
    upper = pc.divide(size, 10**8)
    lower = pc.subtract(size, pc.multiply(upper, 10**8))
    return pc.bit_wise_or(pc.shift_left(_two(upper), 32), _two(lower))


_JSONB = b"\1"
_MODIFIER = re.compile(r"\(\d+(,\d+)?\)")
_KINDS: Mapping[str, Sequence[_Kind]] = {
    "bool": [_Kind(re.compile("boolean"), _bool, "b")],
    "int": [_Kind(re.compile("smallint|integer|bigint|oid"), _number, "n")],
    "decimal": [_Kind(re.compile(r"numeric\(\d+,\d+\)"), _decimal, "d")],
    "float8": [_Kind(re.compile("double precision"), _number, "n")],
    "float4": [_Kind(re.compile("real"), _number, "n")],
    "single": [_Kind(re.compile("real"), _number, "n")],
    "date": [_Kind(re.compile("date"), _date, "i", _EPOCH_DAYS)],
    "time": [_Kind(re.compile(r"time(\(\d\))? without time zone"), _number, "n")],
    "timestamp": [_Kind(re.compile(r"timestamp(\(\d\))? without time zone"), _moment, "l", _EPOCH_MICROS)],
    "timestamptz": [_Kind(re.compile(r"timestamp(\(\d\))? with time zone"), _moment, "l", _EPOCH_MICROS)],
    "interval": [_Kind(re.compile("interval.*"), _interval)],
    "text": [_Kind(re.compile(r"text|character( varying)?(\(\d+\))?"), _bytes, "t")],
    "bytes": [_Kind(re.compile("bytea"), _bytes, "t")],
    "json": [_Kind(re.compile("json"), _bytes, "t"), _Kind(re.compile("jsonb"), _jsonb, "j", prefix=_JSONB)],
    "uuid": [_Kind(re.compile("uuid"), _uuid, "U")],
}
"""How values of each kind are written: the first whose type matches."""
_OIDS: Mapping[str, int] = {
    "boolean": 16,
    "bytea": 17,
    "bigint": 20,
    "smallint": 21,
    "integer": 23,
    "text": 25,
    "oid": 26,
    "real": 700,
    "double precision": 701,
    "character": 1042,
    "character varying": 1043,
    "date": 1082,
    "time without time zone": 1083,
    "timestamp without time zone": 1114,
    "timestamp with time zone": 1184,
    "interval": 1186,
    "numeric": 1700,
    "uuid": 2950,
}
"""The numbers of element types (src/include/catalog/pg_type.dat), without modifiers."""
