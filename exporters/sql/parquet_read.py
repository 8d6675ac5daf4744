"""A table's Parquet parts, read a few thousand rows at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.sql.bounded_parquet import check_columns
from exporters.sql.columns import EXACT_OF, KIND
from exporters.sql.large_values.long_values import SHORT_BYTES, LongRow, LongValue
from exporters.sql.large_values.parquet_splice import long_value
from exporters.sql.whole_parquet import read_errors, whole_batches

READ_ERRORS = read_errors()
"""What a damaged part can raise."""
_BATCH_ROWS = 8192
_BATCH_BYTES = 8 * 2**20
"""How many rows and bytes are decoded at once; the rest of the row group stays as it is in the file."""
_BUFFER_BYTES = 2**20
_BUFFERS_BYTES = 32 * 2**20
"""What is read ahead of each column, and of all of them."""
_WHOLE_BYTES = 2**20
"""A file up to this size is read at once: a read of each column and of the footer takes longer than its values."""


class ParquetPart(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """An open part; ``raw`` is the file itself."""

    def __init__(self, raw: Any, metadata: pq.FileMetaData | None, buffer_bytes: int) -> None:
        super().__init__(raw, metadata=metadata, memory_map=False, pre_buffer=False, buffer_size=buffer_bytes)
        self.raw = raw

    @cached_property
    def schema_arrow(self) -> pa.Schema:
        """The schema with the metadata of its fields. pyarrow would read it from the file's each time."""
        return super().schema_arrow


def open_part(file: Any) -> ParquetPart:
    """Open a part, to be read in pieces; ``file`` is a path or a random-access file. Raises what ``READ_ERRORS``
    lists.
    """
    raw = pa.OSFile(os.fspath(file)) if isinstance(file, (str, os.PathLike)) else file
    size_bytes = raw.seek(0, os.SEEK_END)
    raw.seek(0)
    if size_bytes <= _WHOLE_BYTES:
        part = ParquetPart(pa.BufferReader(raw.read()), None, 0)
    else:
        whole = pq.ParquetFile(raw, memory_map=False, pre_buffer=False)
        ahead = min(_BUFFER_BYTES, _BUFFERS_BYTES // max(whole.metadata.num_columns, 1))
        part = ParquetPart(raw, whole.metadata, max(ahead, 2**14))
    _check_fields(part.schema_arrow)
    return part


def _check_fields(schema: pa.Schema) -> None:
    """Raise ``ValueError`` where a column is there twice, or lacks what the format says of it."""
    if len(set(schema.names)) < len(schema.names):
        name, _ = Counter(schema.names).most_common(1)[0]
        raise ValueError(f"the column {name!r} is there twice")
    for field in schema:
        metadata = field.metadata or {}
        of = metadata.get(EXACT_OF)
        if of is None and KIND not in metadata:
            raise ValueError(f"the column {field.name!r} lacks {KIND.decode()}")
        if of is not None and of.decode(errors="replace") not in schema.names:
            raise ValueError(f"the column {field.name!r} is the exact text of none")


def rows_of(file: ParquetPart) -> Iterator[pa.RecordBatch | LongRow]:
    """Yield the rows, a few thousand at a time, and those with long values alone: in memory there is never a whole row
    group. Raises what ``READ_ERRORS`` lists.
    """
    is_checked = False
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        if group.num_rows == 1 and group.total_byte_size > SHORT_BYTES:
            if not is_checked:
                check_columns(file.raw)
                is_checked = True
            row = _long_row(file, number)
            if row is not None:
                yield row
                continue
        fit = group.num_rows * _BATCH_BYTES // max(group.total_byte_size, 1)
        rows = max(1, min(_BATCH_ROWS, fit))
        for batch in whole_batches(file, rows, [number], use_threads=False):
            batch.validate(full=True)  # Parquet does not check that a text is UTF-8
            yield batch


def leaves_of(schema: pa.Schema) -> dict[str, range]:
    """Return the numbers of the column chunks that hold each field."""
    leaves, leaf = {}, 0
    for field in schema:
        leaves[field.name] = range(leaf, leaf := leaf + _count_leaves(field.type))
    return leaves


def _count_leaves(data_type: pa.DataType) -> int:
    data_type = data_type.storage_type if isinstance(data_type, pa.BaseExtensionType) else data_type
    return sum(_count_leaves(data_type.field(i).type) for i in range(data_type.num_fields)) or 1


def _long_row(file: ParquetPart, number: int) -> LongRow | None:
    group, schema = file.metadata.row_group(number), file.schema_arrow
    leaves = leaves_of(schema)
    long: dict[str, LongValue] = {}
    for field in schema:
        if field.type.num_fields == 0:
            chunk = group.column(leaves[field.name][0])
            if (value := long_value(file.raw, chunk)) is not None:
                long[field.name] = value
    if not long:
        return None
    rest = [leaf for field in schema if field.name not in long for leaf in leaves[field.name]]
    short_columns = iter(file.reader.read_row_group(number, column_indices=rest, use_threads=False).columns)
    arrays = [
        _empty(field.type) if field.name in long else next(short_columns).combine_chunks() for field in schema
    ]
    return LongRow(pa.RecordBatch.from_arrays(arrays, schema=schema), long)


def _empty(data_type: pa.DataType) -> pa.Array:
    """Return one empty value."""
    if isinstance(data_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(data_type, _empty(data_type.storage_type))
    return pa.array([b""], pa.binary()).cast(data_type)
