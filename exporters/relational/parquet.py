"""A table's Parquet parts as text again: for restore, and for the digest of what is really in the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.relational.digest import split_lines, tally_block
from exporters.relational.render import lines_of, names_of
from exporters.relational.words import joined
from exporters.tally import Tally, tally_empty_rows

_BATCH_ROWS = 8192
_BATCH_BYTES = 8 * 2**20
"""So many rows and bytes are decoded at once; the rest of the row group stays as it is in the file."""
_BUFFER_BYTES = 2**20
_BUFFERS_BYTES = 32 * 2**20
"""What is read ahead of each column, and of all of them."""


def column_names(file: pq.ParquetFile, *, generated: bool) -> list[str]:
    """Return the table's own columns in the order of the text."""
    return list(names_of(file.schema_arrow, generated=generated))


def open_part(file: Any) -> pq.ParquetFile:
    """Open a part, to be read in pieces; ``file`` is a path or a random-access file."""
    whole = pq.ParquetFile(file, memory_map=False, pre_buffer=False)
    ahead = min(_BUFFER_BYTES, _BUFFERS_BYTES // max(whole.metadata.num_columns, 1))
    return pq.ParquetFile(
        file, metadata=whole.metadata, memory_map=False, pre_buffer=False, buffer_size=max(ahead, 2**14)
    )


def batches_of(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows, a few thousand at a time: in memory there is never a whole row group."""
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        fit = group.num_rows * _BATCH_BYTES // max(group.total_byte_size, 1)
        rows = max(1, min(_BATCH_ROWS, fit))
        yield from file.iter_batches(rows, row_groups=[number], use_threads=False)


def blocks_of(file: pq.ParquetFile, *, generated: bool = True) -> Iterator[tuple[bytes, int]]:
    """Yield text and number of rows, a few thousand rows at a time."""
    for batch in batches_of(file):
        yield joined(lines_of(batch, generated=generated)), batch.num_rows


def texts_of(file: pq.ParquetFile) -> Iterator[list[bytes]]:
    """Yield the lines of the rows, without their newlines, a few thousand at a time."""
    for block, rows in blocks_of(file):
        yield split_lines(block, rows)


def tally_part(file: Any, rows: int) -> Tally:
    """Return rows and digest of one part, from its values. ``rows`` counts only where the table has no columns.

    Raises ``pa.ArrowException`` or ``OSError`` where the file cannot be read.
    """
    part = open_part(file)
    if not column_names(part, generated=True):
        return tally_empty_rows(rows)
    found = Tally()
    for block, _ in blocks_of(part):
        found += tally_block(block)
    return found


READ_ERRORS = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What a damaged part can raise: the metadata of its fields may be gone too."""
