"""Rows and their digest: the sum of XXH3-128 over the rows' texts, modulo 2**128. Order does not matter, count does.

What the text of a row is, each engine says for itself (docs/FORMAT.md, "Digest").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from xxhash import xxh3_128, xxh3_128_intdigest

MODULUS = 1 << 128
_NOTHING = xxh3_128_intdigest(b"")

Advance = Callable[[int, int], None]
"""Called with rows and bytes that were read; thread-safe."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows and their digest; tallies of disjoint rows add up."""

    rows: int = 0
    digest: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.rows + other.rows, (self.digest + other.digest) % MODULUS)


def tally_texts(texts: Sequence[bytes]) -> Tally:
    """Return the tally of rows, given as their texts."""
    return Tally(len(texts), sum(map(xxh3_128_intdigest, texts)) % MODULUS)


def tally_pieces(pieces: Iterable[bytes]) -> Tally:
    """Return the tally of one row, given as pieces of its text."""
    hasher = xxh3_128()
    for piece in pieces:
        hasher.update(piece)
    return Tally(1, hasher.intdigest())


def tally_empty_rows(rows: int) -> Tally:
    """Return the tally of rows whose text is empty: those of a table without columns."""
    return Tally(rows, _NOTHING * rows % MODULUS)


def to_hex(digest: int) -> str:
    """Return the digest as 32 hex digits."""
    return f"{digest % MODULUS:032x}"
