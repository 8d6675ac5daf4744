"""The digest of rows: the sum of XXH3-128 over their lines, modulo 2**128. Order does not matter, count does.

A row's line is what ``COPY (canonical SELECT) TO STDOUT (FORMAT csv)`` prints for it, without the newline that ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xxhash import xxh3_128_intdigest

MODULUS = 1 << 128
_NOTHING = xxh3_128_intdigest(b"")


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows and their digest; tallies of disjoint rows add up."""

    rows: int = 0
    digest: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.rows + other.rows, (self.digest + other.digest) % MODULUS)


def tally_block(block: bytes) -> Tally:
    """Return the tally of whole lines, each ended by a newline."""
    return tally_lines(split_lines(block))


def tally_lines(lines: Sequence[bytes]) -> Tally:
    """Return the tally of lines without their newlines."""
    return Tally(len(lines), sum(map(xxh3_128_intdigest, lines)) % MODULUS)


def tally_empty_rows(rows: int) -> Tally:
    """Return the tally of rows without columns: empty lines."""
    return Tally(rows, _NOTHING * rows % MODULUS)


def split_lines(block: bytes) -> list[bytes]:
    """Split whole lines at the newlines that are not inside quotes."""
    if b'"' in block and b"\n" in b"".join(block.split(b'"')[1::2]):
        return _split_quoted(block)
    lines = block.split(b"\n")
    lines.pop()
    return lines


def _split_quoted(block: bytes) -> list[bytes]:
    """Inside a value a quote is written twice, so a line is whole exactly when it has an even number of quotes."""
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


def to_hex(digest: int) -> str:
    """Return the digest as 32 hex digits."""
    return f"{digest % MODULUS:032x}"
