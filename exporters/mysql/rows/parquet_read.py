"""Parts as the texts of rows again: for the digest of what is really in the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporters.mysql.rows.arrow_to_rows import texts_of
from exporters.mysql.rows.long_rows import payload_pieces
from exporters.row_digest import RowsDigest, digest_pieces, digest_texts
from exporters.sql.large_values.long_values import LongRow
from exporters.sql.parquet_read import open_part, rows_of


def digest_part(file: Any) -> RowsDigest:
    """Return rows and digest of one part, from its values. Raises what ``sql.parquet_read.READ_ERRORS`` lists."""
    digest = RowsDigest()
    for some in rows_of(open_part(file)):
        long = isinstance(some, LongRow)
        digest += digest_pieces(payload_pieces(some)) if long else digest_texts(texts_of(some))
    return digest


def part_texts(file: Any) -> Iterator[list[bytes]]:
    """Yield the texts of the rows, a few thousand at a time."""
    for some in rows_of(open_part(file)):
        yield [b"".join(payload_pieces(some))] if isinstance(some, LongRow) else texts_of(some)
