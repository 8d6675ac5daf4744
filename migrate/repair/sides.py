"""The two sides of a comparison of rows: Parquet parts of a bundle, and tables of live databases."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

from msgspec import Struct

from exporters.engine import HashedRows, LiveRows, LocatedRows, PartReader
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.repair.row_buckets import BucketSums, HashedSide, RowSide, TakeRows, TakeTexts


class BundleRows:
    """A table's Parquet parts. ``part`` is the part of the rows that are handed over at the moment, "" for none."""

    def __init__(self, part_reader: PartReader, reader: BundleReader, table: CatalogRow) -> None:
        self.part = ""
        self._part_reader = part_reader
        self._reader = reader
        self._keys = [layout.source_file(table.source, str(part["name"])) for part in table.details["parts"]]

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


def live_sides(source: LiveRows, destination: LocatedRows, schema: str, name: str) -> tuple[RowSide, RowSide]:
    """Return a table at two live databases as sides, hashed by the servers where both can do the same."""
    if isinstance(source, HashedRows) and isinstance(destination, HashedRows):
        hash_name = source.hash_name(schema, name)
        if hash_name and hash_name == destination.hash_name(schema, name):
            return ServerSide(source, schema, name), ServerSide(destination, schema, name)
    return HashedSide.of_texts(partial(source.each, schema, name)), located_side(destination, schema, name)
