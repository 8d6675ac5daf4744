"""CSV lines as the texts of rows, taken apart into values."""

from __future__ import annotations


def csv_values(line: bytes) -> list[bytes | None]:
    """Return the values of one CSV line: nothing is NULL, two quotes are the empty text."""
    return [unquoted(field) for field in csv_fields(line)]


def csv_fields(line: bytes) -> list[bytes]:
    """Return the fields of one CSV line as they stand in it, quotes included."""
    fields: list[bytes] = []
    position = 0
    while True:
        if line[position : position + 1] == b'"':
            end = _closing(line, position + 1) + 1
        else:
            end = line.find(b",", position)
            end = len(line) if end < 0 else end
        fields.append(line[position:end])
        if end >= len(line):
            return fields
        position = end + 1


def unquoted(field: bytes) -> bytes | None:
    """Return the value of a field, None for NULL."""
    return field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field or None


def _closing(line: bytes, position: int) -> int:
    """Return where the quote is that ends a value; those inside of it are doubled."""
    while True:
        position = line.index(b'"', position)
        if line[position + 1 : position + 2] != b'"':
            return position
        position += 2
