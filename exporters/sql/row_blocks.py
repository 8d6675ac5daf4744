"""What the connections of engines yield apart from blocks of rows: long rows in pieces, and how many rows there
were.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

from msgspec import Struct
from xxhash import xxh3_128

from exporters.errors import SourceError
from exporters.row_digest import RowsDigest


class LongRowText(Struct, frozen=True):
    """The text of a row that is too long to be held. Its pieces are read before the next block is asked for."""

    pieces: Iterator[bytes]


class SentRows(Struct, frozen=True):
    """How many rows the server says it sent. It comes last."""

    count: int


RowBlocks = Generator[bytes | bytearray | LongRowText | SentRows, None, None]
"""Whole lines, each ended by a newline; long lines, without it; the server's count at the end."""


def together(sources: Iterable[RowBlocks]) -> RowBlocks:
    """Yield the rows of several queries as those of one: the sum of their counts comes last."""
    sent_rows = 0
    for source in sources:
        with closing(source):
            for block in source:
                if isinstance(block, SentRows):
                    sent_rows += block.count
                else:
                    yield block
    yield SentRows(sent_rows)


BLOCK_BYTES = 2**20
"""Text that is parsed at once: fits the processor's cache (splitting 8 MB costs nearly twice as much a row)."""


def in_blocks(source: RowBlocks) -> Generator[bytes | bytearray | LongRowText | SentRows, None, None]:
    """Join blocks until they are worth the work. Long rows do not wait for them."""
    pieces: list[bytes | bytearray] = []
    size_bytes = 0
    for block in source:
        if isinstance(block, LongRowText):
            yield block
            continue
        if not isinstance(block, SentRows):
            pieces.append(block)
            size_bytes += len(block)
        if size_bytes >= BLOCK_BYTES or (pieces and isinstance(block, SentRows)):
            yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            size_bytes = 0
        if isinstance(block, SentRows):
            yield block


def text_of(source: RowBlocks) -> bytes:
    """Return the lines of few rows."""
    return b"".join(block for block in source if not isinstance(block, LongRowText | SentRows))


class SmallRows(Struct, frozen=True):
    """The rows of a query that has few: their lines, and how many the server says it sent."""

    block: bytes
    sent_rows: int


def small_rows(source: RowBlocks) -> list[SmallRows]:
    """Return the rows of several queries of few rows, each of which ends with its count. Raises ``SourceError`` for a
    long row.
    """
    queries: list[SmallRows] = []
    blocks: list[bytes | bytearray] = []
    for block in source:
        if isinstance(block, LongRowText):
            raise SourceError("a row is longer than its table")
        if isinstance(block, SentRows):
            queries.append(SmallRows(b"".join(blocks), block.count))
            blocks.clear()
        else:
            blocks.append(block)
    return queries


def digest_long(text: LongRowText) -> tuple[int, RowsDigest]:
    """Return the bytes of a row, and its digest."""
    hasher, size_bytes = xxh3_128(), 0
    for piece in text.pieces:
        hasher.update(piece)
        size_bytes += len(piece)
    return size_bytes, RowsDigest(1, hasher.intdigest())
