"""The rows of a table at one side of a comparison: a live database, or the Parquet parts of a bundle.

A side puts its rows into buckets by their hash. Equal rows fall into the same bucket at both sides, and buckets with
equal counts and sums hold the same rows. So only the rows of the others need be compared. That takes no order and no
key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import NamedTuple, Protocol

from msgspec import Struct
from xxhash import xxh3_128_intdigest

from exporters.engine import HashedRows, LiveRows, LocatedRows, PartReader, Texts
from exporters.row_digest import MODULUS, RowsDigest
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader

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

    @property
    def total(self) -> RowsDigest:
        """Rows and digest of all buckets."""
        return RowsDigest(sum(self.rows), sum(self.sums) % MODULUS)

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


class TableSides(NamedTuple):
    """A table at both sides. ``hash_name``: the servers' hash by which its rows are summed, "" for that of bundles."""

    source: RowSide
    destination: RowSide
    hash_name: str = ""


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


class BundleRows:
    """A table's Parquet parts. ``part`` is the part of the rows that are handed over at the moment, "" for none."""

    def __init__(self, part_reader: PartReader, reader: BundleReader, table: CatalogRow) -> None:
        self.part = ""
        self._part_reader = part_reader
        self._reader = reader
        self._keys = [layout.source_file(table.source, str(part["name"])) for part in table.parts]

    @cached_property
    def columns(self) -> Sequence[str]:
        """The names of the columns in the order of the row's text, none where there are no parts."""
        if not self._keys:
            return ()
        with self._reader.open(self._keys[0]) as file:
            return self._part_reader.part_columns(file)

    def each(self, take: TakeTexts, parts: frozenset[str] | None = None) -> None:
        """Read the parts, or some of them."""
        for key in self._keys:
            if parts is None or key in parts:
                self.part = key
                with self._reader.open(key) as file:
                    for texts in self._part_reader.part_texts(file):
                        take(texts)


class ServerSide(Struct, frozen=True):
    """A side whose rows are hashed by its server."""

    rows: HashedRows
    schema: str
    name: str

    def sums(self, buckets: int) -> BucketSums:
        """See ``RowSide``."""
        result = BucketSums.of(buckets)
        for bucket, rows, total, size_bytes in self.rows.bucket_sums(self.schema, self.name, buckets):
            result.rows[bucket], result.sums[bucket] = rows, total
            result.size_bytes += size_bytes
        return result

    def each(self, take: TakeRows, buckets: int, among: frozenset[int]) -> None:
        """See ``RowSide``."""
        self.rows.each_in_buckets(self.schema, self.name, take, buckets, among)


def located_side(rows: LocatedRows, schema: str, name: str) -> RowSide:
    """Return a table of a destination as a side."""
    return HashedSide(lambda take: rows.each_located(schema, name, take))


def live_sides(source: LiveRows, destination: LocatedRows, schema: str, name: str) -> TableSides:
    """Return a table at two live databases as sides, hashed by the servers where both can do the same."""
    if isinstance(source, HashedRows) and isinstance(destination, HashedRows):
        hash_name = source.hash_name(schema, name)
        if hash_name and hash_name == destination.hash_name(schema, name):
            return TableSides(
                ServerSide(source, schema, name), ServerSide(destination, schema, name), hash_name
            )
    here = HashedSide.of_texts(partial(source.each, schema, name))
    return TableSides(here, located_side(destination, schema, name))
