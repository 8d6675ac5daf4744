"""Payloads of rows as columns: the length-encoded strings of a text resultset, a whole block at a time.

All rows' first values are measured at once, then all second ones, and so on; Arrow copies values out of the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pyarrow as pa
from msgspec import Struct

from exporters import arrow_functions as pc
from exporters.errors import SourceError
from exporters.sql.columns import Kind, Layout, Typed, typed_block
from exporters.sql.value_codec import merged_sides, parse_exactly, split_utf8

NULL = 0xFB
WIDE = ((0xFC, 2), (0xFD, 3), (0xFE, 8))
"""How a string of 251 bytes or more begins, and in how many bytes its length follows."""
_ONE = pa.scalar(1, pa.int64())
_HALF = pa.scalar(32, pa.int64())
"""Numbers that Arrow would create again for every column."""


def columns_of(rows: Sequence[bytes], types: Sequence[pa.DataType]) -> list[pa.Array]:
    """Return the columns of rows' payloads: of type binary, or string where the values are known to be ASCII. Raises
    ``SourceError`` where rows have other columns.
    """
    packed = pa.array(rows, pa.binary())
    _, offsets, buffer = packed.buffers()
    data = pa.Array.from_buffers(pa.uint8(), buffer.size, [None, buffer])
    bounds = pa.Array.from_buffers(pa.int32(), len(rows) + 1, [None, offsets]).cast(pa.int64())
    position, columns = bounds[:-1], []
    try:
        for _ in types:
            columns.append(_measure(data, position))
            position = columns[-1].end
    except IndexError:
        raise _other_columns() from None
    if not position.equals(bounds[1:]):
        raise _other_columns()
    return [_cut(buffer, spans, data_type) for spans, data_type in zip(columns, types, strict=True)]


def _other_columns() -> SourceError:
    return SourceError(
        "the server sent rows that have other columns than the table",
        next_step="run the same command again; if it stays so, please report it",
    )


class _Spans(Struct, frozen=True):
    """Where a column's strings start and end, and which are not NULL, if some are."""

    start: pa.Array
    end: pa.Array
    valid: pa.Array | None


def _measure(data: pa.Array, position: pa.Array) -> _Spans:
    """Return where the strings at these positions are. Raises ``IndexError`` where there is none."""
    first = data.take(position)
    start = pc.add(position, _ONE)
    size = first.cast(pa.int64())
    if pc.max(first).as_py() < NULL:
        return _Spans(start, pc.add(start, size), None)
    null = pc.equal(first, pa.scalar(NULL, pa.uint8()))
    size = pc.if_else(null, 0, size)
    for mark, width in WIDE:
        is_long = pc.equal(first, pa.scalar(mark, pa.uint8()))
        if pc.any(is_long).as_py():
            size = pc.replace_with_mask(size, is_long, _number(data, start.filter(is_long), width))
            start = pc.if_else(is_long, pc.add(start, width), start)
    return _Spans(start, pc.add(start, size), pc.invert(null) if pc.any(null).as_py() else None)


def _number(data: pa.Array, position: pa.Array, width: int) -> pa.Array:
    """Return the little-endian numbers of so many bytes at these positions."""
    numbers = pa.array([0] * len(position), pa.int64())
    for byte_number in range(width):
        byte = data.take(pc.add(position, byte_number)).cast(pa.int64())
        numbers = pc.bit_wise_or(numbers, pc.shift_left(byte, 8 * byte_number))
    return numbers


def _cut(buffer: pa.Buffer, spans: _Spans, data_type: pa.DataType) -> pa.Array:
    """Return what lies between starts and ends. Every start and its end are two offsets of one array; its second,
    fourth … value is what lies between two rows, and the others are taken.
    """
    pairs = pc.bit_wise_or(pc.shift_left(spans.end, _HALF), spans.start)
    _, offsets = pairs.buffers()
    slices = pa.Array.from_buffers(data_type, 2 * len(pairs) - 1, [None, offsets, buffer])
    values = pc.take(slices, _even(len(pairs)), boundscheck=False)
    return values if spans.valid is None else pc.if_else(spans.valid, values, pa.scalar(None, data_type))


def _even(count: int) -> pa.Array:
    numbers = _even_numbers()
    return numbers[:count] if count <= len(numbers) else pa.array(range(0, 2 * count, 2), pa.int32())


@cache
def _even_numbers() -> pa.Array:
    """Return what ``_even`` is cut from. Where the core cuts columns, nobody asks, and it takes 7 ms to make."""
    return pa.array(range(0, 2**17, 2), pa.int32())


def value_at(data: bytes, position: int) -> tuple[bytes | None, int]:
    """Return the length-encoded string at ``position`` (None for NULL) and where the next one begins."""
    first = data[position]
    if first == NULL:
        return None, position + 1
    width = dict(WIDE).get(first, 0)
    start = position + 1 + width
    size = int.from_bytes(data[position + 1 : start], "little") if width else first
    return data[start : start + size], start + size


def parse_columns(values: Sequence[pa.Array], layout: Layout, *, exactly: bool = False) -> Typed:
    """Type columns of text. Only a column with a value that its type cannot hold goes the slow way; all do where
    ``exactly`` says so.
    """
    columns = [
        parse_text(column.kind, raw, exactly=exactly)
        for column, raw in zip(layout.columns, values, strict=True)
    ]
    return typed_block(columns, layout, len(values[0]))


def parse_text(kind: Kind, raw: pa.Array, *, exactly: bool) -> tuple[pa.Array, pa.Array | None]:
    """Type a column of text; return the text of values that its type cannot hold, too. ``exactly``: see
    ``parse_columns``.
    """
    if kind.direct:
        return raw, None
    as_bytes = pa.types.is_binary(raw.type) and not pa.types.is_binary(kind.parsed)
    text, bad = split_utf8(raw) if as_bytes else (raw, None)
    if bad is None and not kind.compared and not exactly:
        try:
            return kind.codec.parse(text, kind.stored), None
        except pa.ArrowInvalid:
            pass
    typed, side = parse_exactly(kind.codec, text, kind.stored)
    return typed, merged_sides(side, bad)
