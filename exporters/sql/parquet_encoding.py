"""How columns are encoded and compressed in Parquet."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_SAMPLE_ROWS = 20_000
_FEW = 0.05
"""A column whose sample has at most this share of distinct values is written with a dictionary."""
_INTEGER_DECIMAL_DIGITS = 18
"""Parquet keeps decimals of so many digits as integers."""
_ENCODINGS = {"integer": "DELTA_BINARY_PACKED", "text": "DELTA_LENGTH_BYTE_ARRAY"}
"""Smaller than plain and quicker to write, since less is left for zstd (measured: half the time for keys and
amounts).
"""


def encoded(table: pa.Table, *, dictionaries: Sequence[str] = (), plain: Collection[str] = ()) -> pa.Buffer:
    """Return a whole Parquet file with the rows of ``table`` as one row group, or none where it has no rows. Columns of
    ``dictionaries`` have one; those of ``plain`` are not encoded at all.
    """
    encodings = {
        column.name: _ENCODINGS.get(_physical(column.type))
        for column in table.schema
        if column.name not in dictionaries
    }
    encodings |= dict.fromkeys(plain, "PLAIN")
    out = pa.BufferOutputStream()
    with pq.ParquetWriter(
        out,
        table.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=list(dictionaries),
        column_encoding={name: encoding for name, encoding in encodings.items() if encoding} or None,
        store_decimal_as_integer=True,
    ) as writer:
        if table.num_rows:
            writer.write_table(table, row_group_size=table.num_rows)
    return out.getvalue()


def with_few_values(table: pa.Table) -> list[str]:
    """Return the columns of few distinct values, judged by the first rows; a dictionary is good for them."""
    head = table[:_SAMPLE_ROWS]
    return [
        field.name
        for field, values in zip(head.schema, head.columns, strict=True)
        if not pa.types.is_nested(field.type) and _distinct(values) <= _FEW * len(values)
    ]


def _distinct(values: pa.ChunkedArray) -> int:
    chunks = [one.storage if isinstance(one, pa.ExtensionArray) else one for one in values.chunks]
    found: int = pc.count_distinct(pa.chunked_array(chunks)).as_py()
    return found


def small_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which values take less memory and become the same Parquet, where that costs nothing.

    What a cast of decimals takes is saved when they are written; a dictionary of texts takes more than it saves.
    """
    if pa.types.is_decimal128(kind) and kind.precision <= _INTEGER_DECIMAL_DIGITS:
        return pa.decimal64(kind.precision, kind.scale)
    return kind


def _physical(data_type: pa.DataType) -> str:
    """Return how Parquet keeps a type, as far as an encoding hangs on it."""
    data_type = data_type.storage_type if isinstance(data_type, pa.BaseExtensionType) else data_type
    if pa.types.is_decimal(data_type):
        return "integer" if data_type.precision <= _INTEGER_DECIMAL_DIGITS else ""
    if pa.types.is_string(data_type) or pa.types.is_binary(data_type):
        return "text"
    whole = pa.types.is_integer(data_type) or pa.types.is_date(data_type)
    return "integer" if whole or pa.types.is_timestamp(data_type) or pa.types.is_time(data_type) else ""
