"""CSV lines as the texts of rows: cut out of blocks, digested, and taken apart into values.

A row's line is what ``COPY (canonical SELECT) TO STDOUT (FORMAT csv)`` prints for it, without the newline that ends it.
"""

from __future__ import annotations

from exporters.row_digest import Tally, tally_texts

_LARGE_BYTES = 64 * 2**20


def tally_block(block: bytes) -> Tally:
    """Return the tally of whole lines, each ended by a newline."""
    return tally_texts(split_lines(block))


def split_lines(block: bytes, rows: int | None = None) -> list[bytes]:
    """Split whole lines at the newlines that are not inside quotes. ``rows``, where it is known, saves the look."""
    if rows is None and _has_quoted_newlines(block):
        return _split_quoted(block)
    lines = block.split(b"\n")
    lines.pop()
    return lines if rows is None or len(lines) == rows else _split_quoted(block)


def _has_quoted_newlines(block: bytes) -> bool:
    """Every second piece between quotes is inside. A large block may have too many pieces: then yes, to be sure."""
    if b'"' not in block:
        return False
    return len(block) > _LARGE_BYTES or b"\n" in b"".join(block.split(b'"')[1::2])


def _split_quoted(block: bytes) -> list[bytes]:
    """Inside a value a quote is written twice, so a line is whole exactly when it has an even number of quotes."""
    if len(block) > _LARGE_BYTES:
        return _split_sparingly(block)
    lines: list[bytes] = []
    pending: list[bytes] = []
    for piece in block.split(b"\n"):
        odd = piece.count(b'"') % 2 == 1
        if not pending and not odd:
            lines.append(piece)
            continue
        pending.append(piece)
        if odd and len(pending) > 1:
            lines.append(b"\n".join(pending))
            pending = []
    lines.pop()
    return lines


def _split_sparingly(block: bytes) -> list[bytes]:
    """The same, slower: nothing is copied but the lines. A large value may have millions of newlines."""
    lines: list[bytes] = []
    begin = position = odd = 0
    while (end := block.find(b"\n", position)) >= 0:
        odd ^= block.count(b'"', position, end) & 1
        position = end + 1
        if not odd:
            lines.append(block[begin:end])
            begin = position
    return lines


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
