"""CSV lines as the texts of rows: collected into blocks worth splitting, and taken apart into values."""

from __future__ import annotations

from collections.abc import Callable

from exporters.relational.blocks import BLOCK_BYTES
from exporters.relational.digest import split_lines


class Splitter:
    """Takes pieces that end at a row's end and hands over lists of lines."""

    def __init__(self, take: Callable[[list[bytes]], None]) -> None:
        self._take = take
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        """Take whole lines, each ended by a newline."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand over what was collected."""
        if self._size:
            block = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._take(split_lines(block))


def csv_values(line: bytes) -> list[bytes | None]:
    """Return the values of one CSV line: nothing is NULL, two quotes are the empty text."""
    values: list[bytes | None] = []
    position = 0
    while True:
        if line[position : position + 1] == b'"':
            end = _closing(line, position + 1)
            values.append(line[position + 1 : end].replace(b'""', b'"'))
            end += 1
        else:
            end = line.find(b",", position)
            end = len(line) if end < 0 else end
            values.append(line[position:end] or None)
        if end >= len(line):
            return values
        position = end + 1


def _closing(line: bytes, position: int) -> int:
    """Return where the quote is that ends a value; those inside of it are doubled."""
    while True:
        position = line.index(b'"', position)
        if line[position + 1 : position + 2] != b'"':
            return position
        position += 2
