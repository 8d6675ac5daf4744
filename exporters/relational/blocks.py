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


class Counter:
    """Tallies pieces, as many at once as make a block."""

    def __init__(self, advance: Advance | None) -> None:
        self._advance = advance
        self._pieces: list[bytes] = []
        self._size = 0
        self.tally = Tally()

    def add(self, piece: bytes) -> None:
        """Take whole lines."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Count what was collected."""
        found = tally_block(b"".join(self._pieces))
        self.tally += found
        if self._advance is not None:
            self._advance(found.rows, self._size)
        self._pieces.clear()
        self._size = 0


def tally_stream(stream: Stream, advance: Advance | None) -> tuple[Tally, int]:
    """Return the tally of what ``stream`` delivers, and how many rows it says these were."""
    counter = Counter(advance)
    said = stream(counter.add)
    counter.flush()
    return counter.tally, said
