"""Rows and their digest: the sum of XXH3-128 over the rows' texts, modulo 2**128. Order does not matter, count does.

What the text of a row is, each engine says for itself (docs/FORMAT.md, "Digest").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct
from xxhash import xxh3_128, xxh3_128_digest

MODULUS = 1 << 128
_NOTHING = int.from_bytes(xxh3_128_digest(b""))
_GAP = bytes(4)
_DIGIT_BITS = 8 * (16 + len(_GAP))

Advance = Callable[[int, int], None]
"""Called with rows and bytes that were read; thread-safe."""


class RowsDigest(Struct, frozen=True):
    """Rows and their digest; digests of disjoint rows add up."""

    rows: int = 0
    digest: int = 0

    def __add__(self, other: RowsDigest) -> RowsDigest:
        return RowsDigest(self.rows + other.rows, (self.digest + other.digest) % MODULUS)

    def __sub__(self, other: RowsDigest) -> RowsDigest:
        return RowsDigest(self.rows - other.rows, (self.digest - other.digest) % MODULUS)


def digest_of_core(rows: int, digest: bytes) -> RowsDigest:
    """Return the digest of rows that the compiled core has added up, its lowest byte first."""
    return RowsDigest(rows, int.from_bytes(digest, "little"))


def digest_texts(texts: Sequence[bytes]) -> RowsDigest:
    """Return the digest of rows, given as their texts.

    All digests are the digits of one number, each with room for 2**32 of them, and its halves are added until one digit
    is left. Half of what it costs to make an integer of each.
    """
    total, digits = int.from_bytes(_GAP.join(map(xxh3_128_digest, texts))), len(texts)
    while digits > 1:
        digits -= digits // 2
        bits = digits * _DIGIT_BITS
        total = (total >> bits) + (total & ((1 << bits) - 1))
    return RowsDigest(len(texts), total % MODULUS)


def digest_pieces(pieces: Iterable[bytes]) -> RowsDigest:
    """Return the digest of one row, given as pieces of its text."""
    hasher = xxh3_128()
    for piece in pieces:
        hasher.update(piece)
    return RowsDigest(1, hasher.intdigest())


def digest_empty_rows(rows: int) -> RowsDigest:
    """Return the digest of rows whose text is empty: those of a table without columns."""
    return RowsDigest(rows, _NOTHING * rows % MODULUS)


def to_hex(digest: int) -> str:
    """Return the digest as 32 hex digits."""
    return f"{digest % MODULUS:032x}"
