"""What connections yield besides blocks of rows: long rows in pieces, and the server's count of rows at the end."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from msgspec import Struct
from xxhash import xxh3_128

from exporters.row_digest import RowsDigest


class LongRowText(Struct, frozen=True):
    """The text of a row that is too long to be held. Its pieces are read before the next block is asked for."""

    pieces: Iterator[bytes]


class SentRows(Struct, frozen=True):
    """How many rows the server says it sent. It comes last."""

    count: int


RowBlocks = Generator[bytes | bytearray | LongRowText | SentRows, None, None]
"""Whole lines, each ended by a newline; long lines, without it; the server's count at the end."""


def digest_long(text: LongRowText) -> tuple[int, RowsDigest]:
    """Return the bytes of a row, and its digest."""
    hasher, size_bytes = xxh3_128(), 0
    for piece in text.pieces:
        hasher.update(piece)
        size_bytes += len(piece)
    return size_bytes, RowsDigest(1, hasher.intdigest())
