"""Parquet parts of PostgreSQL tables as CSV lines again: for restore, and for the digest of what is in the bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from exporters.engine import Texts
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.rows.csv_rows import block_of, csv_values, digest_block, lines_of
from exporters.postgres.rows.long_lines import line_pieces
from exporters.row_digest import RowsDigest, digest_empty_rows, digest_pieces
from exporters.sql.columns import columns_in
from exporters.sql.large_values.long_values import LongRow
from exporters.sql.parquet_read import READ_ERRORS, ParquetPart, open_part, rows_of


class PostgresPartReader:
    """The methods are those of ``PartReader``."""

    read_errors: tuple[type[Exception], ...] = READ_ERRORS

    def digest_part(self, file: Any, rows: int) -> RowsDigest:
        """Render the part back to the server's text."""
        return digest_part(file, rows)

    def part_columns(self, file: Any) -> Sequence[str]:
        """Return the table's own columns."""
        return list(columns_in(open_part(file).schema_arrow))

    def part_texts(self, file: Any) -> Iterator[Texts]:
        """Render the part back to the server's lines."""
        return texts_of(open_part(file))

    def split(self, text: bytes) -> list[bytes | None]:
        """Return the values of a CSV line."""
        return csv_values(text)

    def label(self, schema: str, name: str) -> str:
        """Return ``"schema"."name"``."""
        return quote_qualified(schema, name)


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
