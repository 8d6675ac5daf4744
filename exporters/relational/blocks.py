"""Blocks of rows: what the engines' feeds hand over, as lines of text or by columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from exporters.relational.digest import tally_block
from exporters.tally import Advance, Tally

OnBlock = Callable[[bytes], None]
"""Called with whole lines, each ended by a newline."""
Stream = Callable[[OnBlock], int]
"""Delivers rows as blocks; returns how many the server says they are."""

OnColumns = Callable[[Sequence[pa.Array], Sequence[bytes]], None]
"""Called with rows: the texts of every column's values, string or binary, NULL for NULL; and the texts of the rows."""
ColumnStream = Callable[[OnColumns], int]
"""Delivers rows by columns; returns how many the server says they are."""

BLOCK_BYTES = 2**20
"""Text that is parsed at once: fits the processor's cache (splitting 8 MB costs nearly twice as much a row)."""


def in_blocks(stream: Stream, take: OnBlock) -> int:
    """Collect what ``stream`` delivers, and hand it to ``take`` in blocks that are worth the work. Return how many rows
    the stream says they are.
    """
    blocks = _Blocks(take)
    said = stream(blocks.add)
    blocks.flush()
    return said


class _Blocks:
    def __init__(self, take: OnBlock) -> None:
        self._take = take
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._size:
            block = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._take(block)


def tally_stream(stream: Stream, advance: Advance | None) -> tuple[Tally, int]:
    """Return the tally of what ``stream`` delivers, and how many rows it says these were."""
    tally = Tally()

    def count(block: bytes) -> None:
        nonlocal tally
        found = tally_block(block)
        tally += found
        if advance is not None:
            advance(found.rows, len(block))

    said = in_blocks(stream, count)
    return tally, said
