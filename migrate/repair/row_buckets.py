"""A table's rows in buckets by their hash: the sums of each bucket at one side, and the rows of some buckets.

Equal rows fall into the same bucket at both sides. Buckets with equal counts and sums hold the same rows, so only the
rows of the others need be compared. That takes no order and no key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct
from xxhash import xxh3_128_intdigest

from exporters.engine import Texts

MOST_BUCKETS = 1 << 16
FEWEST_BUCKETS = 1 << 8
_ROWS_A_BUCKET = 8

TakeTexts = Callable[[Texts], None]
"""Takes the texts of some rows."""
TakeRows = Callable[[Texts, Texts], None]
"""Takes the texts of some rows, and where each of them is; no places where the side has none."""


def count_buckets(rows: int) -> int:
    """Return into how many buckets about so many rows are put."""
    return min(MOST_BUCKETS, max(FEWEST_BUCKETS, 1 << (rows // _ROWS_A_BUCKET).bit_length()))


class BucketSums(Struct):
    """Rows, sum of hashes and bytes of rows by bucket. There are as many buckets as numbers, a power of two."""

    rows: list[int]
    sums: list[int]
    size_bytes: int = 0

    @staticmethod
    def of(buckets: int) -> BucketSums:
        """Return those of no rows."""
        return BucketSums([0] * buckets, [0] * buckets)

    def differing(self, other: BucketSums) -> list[int]:
        """Return the buckets that do not hold the same rows, in order."""
        buckets = zip(self.rows, other.rows, self.sums, other.sums, strict=True)
        return [
            bucket
            for bucket, (rows, other_rows, total, other_total) in enumerate(buckets)
            if rows != other_rows or total != other_total
        ]


class RowSide(Protocol):
    """The rows of one table at one side, as of one moment. Both sides put equal rows into the same bucket. Methods
    raise errors of ``exporters.errors`` and, for a bundle, of ``migrate.errors``.
    """

    def sums(self, buckets: int) -> BucketSums:
        """Return the sums of all rows."""
        ...

    def each(self, take: TakeRows, buckets: int, among: frozenset[int]) -> None:
        """Hand over the rows that fall into some of the buckets, some at a time, in any order."""
        ...


class HashedSide(Struct, frozen=True):
    """A side whose rows are hashed here. ``read`` hands over all rows."""

    read: Callable[[TakeRows], None]

    @staticmethod
    def of_texts(read: Callable[[TakeTexts], None]) -> HashedSide:
        """Return a side whose rows have no places."""
        return HashedSide(lambda take: read(lambda texts: take(texts, ())))

    def sums(self, buckets: int) -> BucketSums:
        """See ``RowSide``."""
        result = BucketSums.of(buckets)
        rows, sums, mask = result.rows, result.sums, buckets - 1

        def take(texts: Texts, places: Texts) -> None:
            del places
            for number in map(xxh3_128_intdigest, texts):
                bucket = number & mask
                sums[bucket] += number
                rows[bucket] += 1
            result.size_bytes += sum(map(len, texts))

        self.read(take)
        return result

    def each(self, take: TakeRows, buckets: int, among: frozenset[int]) -> None:
        """See ``RowSide``."""
        mask = buckets - 1

        def choose(texts: Texts, places: Texts) -> None:
            chosen = [
                index for index, number in enumerate(map(xxh3_128_intdigest, texts)) if number & mask in among
            ]
            if chosen:
                take([texts[i] for i in chosen], [places[i] for i in chosen] if places else ())

        self.read(choose)
