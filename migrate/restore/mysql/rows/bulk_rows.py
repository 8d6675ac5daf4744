"""Rows of Parquet as a MariaDB takes them in bulk: each value is its text, so the server parses no SQL."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pymysql.constants import FIELD_TYPE

from exporters import arrow_functions as pc
from exporters.mysql.rows.arrow_to_rows import encoded_length, field_text
from exporters.mysql.rows.column_types import GEOMETRIES
from exporters.mysql.rows.row_columns import NULL, WIDE
from exporters.sql.columns import CHARACTERS, KIND, TYPE
from migrate.restore.mysql.rows.insert_statements import JoinedRows, written_columns

_VALUE, _NULL = b"\0", b"\1"
"""What each value begins with (MariaDB, "COM_STMT_BULK_EXECUTE")."""
_SHORT = pa.array([_VALUE + bytes([size]) for size in range(NULL)], pa.binary())
_TWO_BYTES = WIDE[0][0]
_TWO_BYTES_MOST = 2**16
_BYTES, _INTEGER = b"hex", b"int"
_NUMBERED = (b"enum", b"set", b"bit")
"""Columns whose numbers would be taken for labels or bits if they came as texts."""
_UNSIGNED = 0x80


def bulk_rows(batch: pa.RecordBatch, without: Sequence[str]) -> JoinedRows | None:
    """Return rows; None where only SQL says what a value is: characters next to bytes that are none, and shapes."""
    types, pieces = b"", list[pa.Array | bytes]()
    for field, values, side_name in written_columns(batch, without):
        side = None if side_name is None else batch.column(side_name)
        name, is_bytes = field.metadata.get(TYPE, b""), field.metadata[KIND] == _BYTES
        has_bytes = side is not None and CHARACTERS in field.metadata and side.null_count < len(side)
        if has_bytes or name.decode() in GEOMETRIES:
            return None
        if field.metadata[KIND] == _INTEGER and name.startswith(_NUMBERED):
            types += bytes([FIELD_TYPE.LONGLONG, _UNSIGNED])
            pieces += _numbers(values)
            continue
        types += bytes([FIELD_TYPE.BLOB if is_bytes else FIELD_TYPE.STRING, 0])
        text = values if is_bytes else field_text(field, values, side)
        pieces += [_begins(text), text]
    if not pieces:
        return None
    joined = pc.binary_join_element_wise(*pieces, b"", null_handling="replace", null_replacement=b"")
    return JoinedRows(joined, types)


def _numbers(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return what stands before numbers, and the numbers in eight bytes, the lowest first."""
    numbers = pc.cast(values, pa.uint64())
    begins = pc.if_else(pc.is_valid(numbers), _VALUE, _NULL)
    return begins, pc.if_else(pc.is_valid(numbers), _little_endian(numbers), None)


def _little_endian(numbers: pa.Array) -> pa.Array:
    """Return the bytes of numbers, the lowest first; any where one is NULL."""
    width = numbers.type.bit_width // 8
    whole = pc.fill_null(numbers, 0)
    return pc.cast(
        pa.Array.from_buffers(pa.binary(width), len(whole), [None, whole.buffers()[1]], offset=whole.offset),
        pa.binary(),
    )


def _begins(text: pa.Array) -> pa.Array | bytes:
    """Return what stands before each text, or before all of them: whether it is NULL, and its length."""
    sizes = pc.binary_length(text)
    ends = pc.min_max(sizes).as_py()
    longest = ends["max"] or 0
    if longest == ends["min"] and not text.null_count:
        return _VALUE + encoded_length(longest)
    if longest < NULL:
        begins = pc.take(_SHORT, sizes)
    elif longest < _TWO_BYTES_MOST:
        is_short = pc.less(sizes, NULL)
        short = pc.take(_SHORT, pc.if_else(is_short, sizes, 0))
        begins = pc.if_else(is_short, short, _two_bytes(sizes))
    else:
        lengths = sizes.to_pylist()
        begins = pa.array(
            [None if size is None else _VALUE + encoded_length(size) for size in lengths], pa.binary()
        )
    return pc.fill_null(begins, _NULL)


def _two_bytes(sizes: pa.Array) -> pa.Array:
    """Return what stands before texts of these sizes, each in two bytes."""
    begin = _VALUE + bytes([_TWO_BYTES])
    return pc.binary_join_element_wise(
        begin, _little_endian(pc.cast(pc.fill_null(sizes, 0), pa.uint16())), b""
    )
