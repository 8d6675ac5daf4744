"""The text of rows, whose digest ``exporters.row_digest`` sums up.

A row's line is what ``COPY (canonical SELECT) TO STDOUT (FORMAT csv)`` prints for it, without the newline that ends it.
"""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa

from exporters.row_digest import Tally, tally_texts

_LARGE_BYTES = 64 * 2**20


def tally_block(block: bytes) -> Tally:
    """Return the tally of whole lines, each ended by a newline."""
    return tally_texts(split_lines(block))


def values_of(array: pa.Array) -> list[bytes]:
    """Return the values of a binary array that has no NULLs; quicker than its ``to_pylist``."""
    _, starts, data = array.buffers()
    if data is None or not len(array):
        return [b""] * len(array)
    ends = memoryview(starts).cast("i")[array.offset : array.offset + len(array) + 1].tolist()
    raw = data.to_pybytes()
    return [raw[begin:end] for begin, end in pairwise(ends)]


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
