"""CSV lines as the texts of rows, taken apart into values."""

from __future__ import annotations


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
