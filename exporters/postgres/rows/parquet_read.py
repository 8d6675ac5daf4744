"""Parts as CSV lines again: for restore, and for the digest of what is really in the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporters.postgres.rows.block_parser import digest_block
from exporters.postgres.rows.csv_rows import block_of, lines_of
from exporters.postgres.rows.long_lines import line_pieces
from exporters.row_digest import RowsDigest, digest_empty_rows, digest_pieces
from exporters.sql.columns import columns_in
from exporters.sql.large_values.long_values import LongRow
from exporters.sql.parquet_read import ParquetPart, open_part, rows_of


def blocks_of(file: ParquetPart, *, generated: bool = True) -> Iterator[tuple[bytes, int]]:
    """Yield text and number of rows, a few thousand rows at a time; the text of a long row in pieces, the last of which
    has the row.
    """
    for batch in rows_of(file):
        if isinstance(batch, LongRow):
            yield from ((piece, 0) for piece in line_pieces(batch, generated=generated))
            yield b"\n", 1
        else:
            yield block_of(batch, generated=generated), batch.num_rows


def texts_of(file: ParquetPart) -> Iterator[list[bytes]]:
    """Yield the lines of the rows, without their newlines, a few thousand at a time."""
    for batch in rows_of(file):
        if isinstance(batch, LongRow):
            yield [b"".join(line_pieces(batch))]
        else:
            yield lines_of(batch)


def digest_part(file: Any, rows: int, *, generated: bool = True) -> RowsDigest:
    """Return rows and digest of one part, from its values, those that the server computes included unless ``generated``
    is False. ``rows`` counts only where there are no columns.

    Raises ``pa.ArrowException`` or ``OSError`` where the file cannot be read.
    """
    part = open_part(file)
    if not columns_in(part.schema_arrow, generated=generated):
        return digest_empty_rows(rows)
    digest = RowsDigest()
    for batch in rows_of(part):
        if isinstance(batch, LongRow):
            digest += digest_pieces(line_pieces(batch, generated=generated))
        else:
            digest += digest_block(block_of(batch, generated=generated))
    return digest
