"""Payloads of rows as columns: the length-encoded strings of a text resultset, a whole block at a time.

All rows' first values are measured at once, then all second ones, and so on; Arrow copies values out of the block.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

NULL = 0xFB
WIDE = ((0xFC, 2), (0xFD, 3), (0xFE, 8))
"""How a string of 251 bytes or more begins, and in how many bytes its length follows."""
_LONGEST = 2**31 - 1
"""So far Arrow's offsets reach."""
_EVERY_SECOND = pa.array(range(0, 2**17, 2), pa.int64())


def columns_of(rows: Sequence[bytes], types: Sequence[pa.DataType]) -> list[pa.Array]:
    """Return the columns of rows' payloads: of type binary, or string where the values are known to be ASCII."""
    if sum(map(len, rows)) > _LONGEST:
        return _one_by_one(rows, types)
    _, offsets, buffer = pa.array(rows, pa.binary()).buffers()
    data = pa.Array.from_buffers(pa.uint8(), buffer.size, [None, buffer])
    position = pa.Array.from_buffers(pa.int32(), len(rows), [None, offsets]).cast(pa.int64())
    columns = []
    for data_type in types:
        start, end, valid = _measure(data, position)
        columns.append(_cut(buffer, start, end, valid, data_type))
        position = end
    return columns


def _measure(data: pa.Array, position: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array | None]:
    """Return where the strings at these positions start and end, and which are not NULL, if some are."""
    first = data.take(position)
    start = pc.add(position, 1)
    size = first.cast(pa.int64())
    if pc.max(first).as_py() < NULL:
        return start, pc.add(start, size), None
    null = pc.equal(first, pa.scalar(NULL, pa.uint8()))
    size = pc.if_else(null, 0, size)
    for mark, width in WIDE:
        here = pc.equal(first, pa.scalar(mark, pa.uint8()))
        if pc.any(here).as_py():
            size = pc.replace_with_mask(size, here, _number(data, start.filter(here), width))
            start = pc.if_else(here, pc.add(start, width), start)
    return start, pc.add(start, size), pc.invert(null) if pc.any(null).as_py() else None


def _number(data: pa.Array, position: pa.Array, width: int) -> pa.Array:
    """Return the little-endian numbers of so many bytes at these positions."""
    found = pa.array([0] * len(position), pa.int64())
    for place in range(width):
        byte = data.take(pc.add(position, place)).cast(pa.int64())
        found = pc.bit_wise_or(found, pc.shift_left(byte, 8 * place))
    return found


def _cut(
    buffer: pa.Buffer, start: pa.Array, end: pa.Array, valid: pa.Array | None, data_type: pa.DataType
) -> pa.Array:
    """Return what lies between starts and ends. Every start and its end are two offsets of one array; its second,
    fourth … value is what lies between two rows, and the others are taken.
    """
    pairs = pc.bit_wise_or(pc.shift_left(end, 32), start)
    _, offsets = pairs.buffers()
    slices = pa.Array.from_buffers(data_type, 2 * len(start) - 1, [None, offsets, buffer])
    found = slices.take(_even(len(start)))
    return found if valid is None else pc.if_else(valid, found, pa.scalar(None, data_type))


def _even(count: int) -> pa.Array:
    return (
        _EVERY_SECOND[:count] if count <= len(_EVERY_SECOND) else pa.array(range(0, 2 * count, 2), pa.int64())
    )


def _one_by_one(rows: Sequence[bytes], types: Sequence[pa.DataType]) -> list[pa.Array]:
    """The same for a block that is larger than Arrow's offsets reach."""
    values: list[list[bytes | None]] = [[] for _ in types]
    for row in rows:
        position = 0
        for column in values:
            value, position = value_at(row, position)
            column.append(value)
    return [pa.array(column, data_type) for column, data_type in zip(values, types, strict=True)]


def value_at(data: bytes, position: int) -> tuple[bytes | None, int]:
    """Return the length-encoded string at ``position`` (None for NULL) and where the next one begins."""
    first = data[position]
    if first == NULL:
        return None, position + 1
    width = dict(WIDE).get(first, 0)
    start = position + 1 + width
    size = int.from_bytes(data[position + 1 : start], "little") if width else first
    return data[start : start + size], start + size
