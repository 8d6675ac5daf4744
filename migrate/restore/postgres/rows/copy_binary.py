"""Rows as ``COPY … FROM STDIN (FORMAT binary)`` takes them: the server need not parse numbers and dates (PostgreSQL
documentation, COPY, "Binary Format"; the values are what each type's receive function reads, src/backend/utils/adt).

Not every type is written so: a table that has a column of another type, or a value in a side column, goes as CSV.
The compiled core makes the rows where it is built; without it Arrow makes the same, slower.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial

import pyarrow as pa
from msgspec import Struct

from exporters import _rows
from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.codecs import apart
from exporters.sql.columns import EXACT_OF, GENERATED, KIND, TYPE, Pieces, compute_by_key
from exporters.sql.large_values.long_values import LongRow
from exporters.sql.parquet_read import ParquetPart, rows_of
from exporters.sql.value_codec import DECIMAL, joined, storage_of
from migrate.restore.postgres.rows import binary_values
from migrate.restore.postgres.rows.binary_values import Make, together, with_lengths

_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
"""What stands before all rows, and behind them."""

Block = bytes | memoryview
Encode = Callable[[pa.Array], Pieces]
"""Makes what stands before values, and them."""


class _Kind(Struct, frozen=True):
    """How values of a kind are written where the column's type matches ``declared``: by Arrow, and by the compiled core
    with a ``letter`` (binary_rows.h) and its ``parameter``. ``make``: what makes the bytes of values first, where these
    are not what is stored. ``prefix``: the bytes of each value that stand before what is stored.
    """

    declared: re.Pattern[str]
    encode: Encode
    letter: str
    parameter: int = 0
    prefix: bytes = b""
    make: Make | None = None


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
        return joined(together([head, *(piece for pieces in columns for piece in pieces)]))

    def _long_row(self, row: LongRow) -> Iterator[bytes]:
        """Yield a row with long values."""
        yield struct.pack(">h", len(self.columns))
        for name, kind in self.columns:
            value = row.long.get(name)
            if value is not None and kind.make is None:
                yield struct.pack(">i", len(kind.prefix) + value.size_bytes) + kind.prefix
                yield from value.pieces()
            else:
                values = row.batch.column(name)
                if value is not None:
                    values = pa.array([b"".join(value.pieces())], pa.binary()).cast(values.type)
                text = together(kind.encode(values))
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
    if kind.make is not None:
        values = kind.make(values)
    elif letter == "d" and not _are_short(values):
        letter, values = "t", _long_decimals(values)
    if letter in "tj":
        values = storage_of(values)
        values = values if pa.types.is_string(values.type) else pc.cast(values, pa.binary())
    elif letter == "U":
        values = storage_of(values)
    elif letter == "n":
        letter = _LETTERS[values.type.bit_width // 8]
    elif letter == "d":
        parameter = values.type.scale
    validity, *middle, data = values.buffers()
    offsets = middle[0] if middle else None
    return ord(letter), parameter, values.offset, validity, offsets, data or _NO_BYTES


_LETTERS = {2: "h", 4: "i", 8: "l"}
"""The compiled core's for numbers of so many bytes."""
_NO_BYTES = pa.py_buffer(b"")
_MOST_DIGITS = 15
"""With up to three more, that whole digits of 10,000 stand behind the point, they fit into 64 bits."""


def _decimal(values: pa.Array) -> Pieces:
    return binary_values.decimal(values) if _are_short(values) else with_lengths(_long_decimals(values))


def _are_short(values: pa.Array) -> bool:
    """Tell whether decimals have so few digits, whatever their type allows."""
    if values.type.precision <= _MOST_DIGITS:
        return True
    ends = pc.min_max(values).as_py().values()
    return all(end is None or abs(end.scaleb(values.type.scale)) < 10**_MOST_DIGITS for end in ends)


def _long_decimals(values: pa.Array) -> pa.Array:
    return binary_values.numeric(DECIMAL.render(values))


def _jsonb(values: pa.Array) -> Pieces:
    """Text with the number of the format before it (``jsonb_recv``, jsonb.c)."""
    return with_lengths(pc.binary_join_element_wise(_JSONB, pc.cast(storage_of(values), pa.binary()), b""))


def encoder_of(
    schema: pa.Schema, types: Mapping[str, str], bases: Mapping[str, str] | None = None
) -> Encoder | None:
    """Return what makes rows of batches of a part, a binary value each; None where they have to go as CSV. ``types``:
    of the destination's columns, by name, as ``format_type`` writes them. ``bases``: what those are received as that
    users have made (``ColumnTypes``).
    """
    columns: list[tuple[str, _Kind]] = []
    for field in schema:
        name, entries = field.name, field.metadata or {}
        if EXACT_OF in entries:
            return None
        if GENERATED in entries:
            continue
        declared = types.get(name, "")
        if TYPE not in entries or KIND not in entries or declared != entries[TYPE].decode():
            return None
        kind = _kind_of(entries[KIND].decode(), field.type, (bases or {}).get(name, declared))
        if kind is None:
            return None
        columns.append((name, kind))
    return Encoder(columns)


@lru_cache(1024)
def _kind_of(name: str, stored: pa.DataType, declared: str) -> _Kind | None:
    """Return how values of a kind are written into a column of a type; None where they have to go as CSV."""
    if name in _KINDS:
        if name == "int" and declared != _INTEGERS[stored]:
            return None
        kind = next((kind for kind in _KINDS[name] if kind.declared.fullmatch(declared)), None)
        return None if kind and kind.make and pa.types.is_binary(stored) else kind
    shape, inner = apart(name)
    make: Make | None = None
    if shape == "list" and declared.endswith("[]"):
        make = _list_of(inner[0], stored.value_type, declared.removesuffix("[]"))
    elif shape == "range" and declared in _RANGES:
        bound = _kind_of(inner[0], stored[0].type, _RANGES[declared])
        make = partial(binary_values.range_of, bound.encode) if bound else None
    elif shape == "struct" and declared.startswith("struct("):
        make = _struct_of(inner, stored, apart(declared)[1])
    return _made(re.escape(declared), make) if make else None


def _list_of(name: str, stored: pa.DataType, declared: str) -> Make | None:
    element, oid = _kind_of(name, stored, declared), _oid(declared)
    return partial(binary_values.list_of, oid, element.encode) if element and oid else None


def _struct_of(names: Sequence[str], stored: pa.StructType, declared: Sequence[str]) -> Make | None:
    if len(declared) != len(names):
        return None
    kinds = [
        _kind_of(name, field.type, each) for name, field, each in zip(names, stored, declared, strict=True)
    ]
    fields = [(_oid(each), kind.encode) for each, kind in zip(declared, kinds, strict=True) if kind]
    if len(fields) < len(names) or not all(oid for oid, _ in fields):
        return None
    return partial(binary_values.struct_of, fields)


def _oid(declared: str) -> int:
    """Return the number of a type, whatever its modifier, 0 where it is not among ``_OIDS``."""
    return _OIDS.get(_MODIFIER.sub("", declared), 0)


def _made(declared: str, make: Make) -> _Kind:
    return _Kind(re.compile(declared), lambda values: with_lengths(make(values)), "t", make=make)


_JSONB = b"\1"
_MODIFIER = re.compile(r"\(\d+(,-?\d+)?\)")
_INTEGERS = {pa.int16(): "smallint", pa.int32(): "integer", pa.int64(): "bigint", pa.uint32(): "oid"}
_NUMBER = binary_values.number
_KINDS: Mapping[str, Sequence[_Kind]] = {
    "bool": [_Kind(re.compile("boolean"), binary_values.boolean, "b")],
    "int": [_Kind(re.compile("smallint|integer|bigint|oid"), _NUMBER, "n")],
    "decimal": [_Kind(re.compile(r"numeric\(\d+,\d+\)"), _decimal, "d")],
    "float8": [_Kind(re.compile("double precision"), _NUMBER, "n")],
    "float4": [_Kind(re.compile("real"), _NUMBER, "n")],
    "single": [_Kind(re.compile("real"), _NUMBER, "n")],
    "date": [_Kind(re.compile("date"), binary_values.date, "i", binary_values.EPOCH_DAYS)],
    "time": [_Kind(re.compile(r"time(\(\d\))? without time zone"), _NUMBER, "n")],
    "timetz": [_made(r"time(\(\d\))? with time zone", binary_values.time_with_zone)],
    **{
        name: [_Kind(re.compile(declared), binary_values.moment, "l", binary_values.EPOCH_MICROS)]
        for name, declared in {
            "timestamp": r"timestamp(\(\d\))? without time zone",
            "timestamptz": r"timestamp(\(\d\))? with time zone",
        }.items()
    },
    "interval": [_made("interval.*", binary_values.interval)],
    "text": [
        _Kind(re.compile(r"text|name|character( varying)?(\(\d+\))?"), with_lengths, "t"),
        _made(r"numeric(\(\d+,-?\d+\))?", binary_values.numeric),
        _made(r"bit( varying)?(\(\d+\))?", binary_values.bits),
        _made("inet|cidr", binary_values.address),
        _made("macaddr8?", binary_values.hardware_address),
        _made("point", partial(binary_values.floats, 2)),
        _made("line|circle", partial(binary_values.floats, 3)),
        _made("lseg|box", partial(binary_values.floats, 4)),
        _made("tsvector", binary_values.text_search),
    ],
    "bytes": [_Kind(re.compile("bytea"), with_lengths, "t")],
    "json": [
        _Kind(re.compile("json"), with_lengths, "t"),
        _Kind(re.compile("jsonb"), _jsonb, "j", prefix=_JSONB),
    ],
    "uuid": [_Kind(re.compile("uuid"), binary_values.uuid, "U")],
}
"""How values of each kind are written: the first whose type matches."""
_RANGES: Mapping[str, str] = {
    "int4range": "integer",
    "int8range": "bigint",
    "numrange": "numeric",
    "daterange": "date",
    "tsrange": "timestamp without time zone",
    "tstzrange": "timestamp with time zone",
}
_OIDS: Mapping[str, int] = {
    "boolean": 16,
    "bytea": 17,
    "name": 19,
    "bigint": 20,
    "smallint": 21,
    "integer": 23,
    "text": 25,
    "oid": 26,
    "json": 114,
    "point": 600,
    "cidr": 650,
    "real": 700,
    "double precision": 701,
    "macaddr": 829,
    "inet": 869,
    "character": 1042,
    "character varying": 1043,
    "date": 1082,
    "time without time zone": 1083,
    "timestamp without time zone": 1114,
    "timestamp with time zone": 1184,
    "interval": 1186,
    "numeric": 1700,
    "uuid": 2950,
    "jsonb": 3802,
}
"""The numbers of types of elements and fields (src/include/catalog/pg_type.dat), without modifiers."""
