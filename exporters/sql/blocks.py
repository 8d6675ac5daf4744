"""Blocks of rows: what the engines' feeds hand over, as lines of text or by columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import pyarrow as pa
from xxhash import xxh3_128

from exporters.row_digest import Advance, Tally
from exporters.sql.row_text import tally_block


class LongText(Protocol):
    """Takes the text of one row that is too long to be held."""

    def write(self, piece: bytes, /) -> None:
        """Take more of it."""
        ...

    def close(self) -> None:
        """That was all."""
        ...


OnBlock = Callable[[bytes], None]
"""Called with whole lines, each ended by a newline."""
OnLong = Callable[[], LongText]
"""Called where a long row begins; its text comes without the newline at its end."""
Stream = Callable[[OnBlock, OnLong], int]
"""Delivers rows as blocks, long ones in pieces; returns how many the server says they are."""

OnColumns = Callable[[Sequence[pa.Array], Sequence[bytes]], None]
"""Called with rows: the texts of every column's values, string or binary, NULL for NULL; and the texts of the rows."""
ColumnStream = Callable[[OnColumns, OnLong], int]
"""Delivers rows by columns, long ones in pieces of their text; returns how many the server says they are."""

BLOCK_BYTES = 2**20
"""Text that is parsed at once: fits the processor's cache (splitting 8 MB costs nearly twice as much a row)."""


def in_blocks(stream: Stream, take: OnBlock, long: OnLong) -> int:
    """Collect what ``stream`` delivers, and hand it to ``take`` in blocks that are worth the work; long rows go to
    ``long``. Return how many rows the stream says they are.
    """
    blocks = _Blocks(take)
    said = stream(blocks.add, long)
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

    def add(found: Tally, size_bytes: int) -> None:
        nonlocal tally
        tally += found
        if advance is not None:
            advance(found.rows, size_bytes)

    said = in_blocks(stream, lambda block: add(tally_block(block), len(block)), lambda: TallyText(add))
    return tally, said


class TallyText:
    """Digests the text of one row; ``done`` gets its tally, and its bytes."""

    def __init__(self, done: Callable[[Tally, int], None]) -> None:
        self._done = done
        self._hash, self._size = xxh3_128(), 0

    def write(self, piece: bytes, /) -> None:
        """See ``LongText``."""
        self._hash.update(piece)
        self._size += len(piece)

    def close(self) -> None:
        """See ``LongText``."""
        self._done(Tally(1, self._hash.intdigest()), self._size)


class WholeText:
    """Puts the text of one row together all the same; ``done`` gets it."""

    def __init__(self, done: Callable[[bytes], None]) -> None:
        self._done = done
        self._pieces: list[bytes] = []

    def write(self, piece: bytes, /) -> None:
        """See ``LongText``."""
        self._pieces.append(piece)

    def close(self) -> None:
        """See ``LongText``."""
        self._done(b"".join(self._pieces))
