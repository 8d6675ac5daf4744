"""Which rows differ between a table's source and its destination, and what makes the destination equal.

Only rows in buckets that differ are read (``row_sides``). They are laid on disk in partitions, by key where the table
has one, so memory holds one partition at a time. Rows without a key are compared as a multiset.
"""

from __future__ import annotations

import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import IO, NamedTuple

from msgspec import Struct, field
from xxhash import xxh3_64_intdigest

from exporters.engine import PartReader, Texts
from exporters.row_digest import RowsDigest
from migrate.repair.row_sides import BucketSums, RowSide, count_buckets

Key = tuple[bytes | None, ...]
KeyOf = Callable[[bytes], Key]
PARTITION_BYTES = 32 * 2**20
"""About so many bytes of rows that may differ are held at once."""
MOST_PARTITIONS = 256
_HEAD = struct.Struct("<BQI")
SOURCE, DESTINATION = 0, 1


def key_reader(part_reader: PartReader, columns: Sequence[str], key: Sequence[str]) -> KeyOf:
    """Return what takes the key out of a row's text."""
    indexes = [list(columns).index(name) for name in key]

    def key_of(text: bytes) -> Key:
        values = part_reader.split(text)
        return tuple(values[index] for index in indexes)

    return key_of


class LocatedRow(NamedTuple):
    """A row's text, and where the destination has it, as its engine says; b"" where the text alone finds it."""

    text: bytes
    place: bytes = b""


class RowChanges(Struct):
    """What makes some rows of a destination equal to the source's: ``gone`` are removed, ``new`` are added. A row that
    has changed is in both. ``changed``: how many such there are, as far as keys tell.
    """

    gone: list[LocatedRow] = field(default_factory=list)
    new: list[bytes] = field(default_factory=list)
    changed: int = 0


def row_differences(
    source: RowSide,
    destination: RowSide,
    *,
    rows: int,
    key_of: KeyOf | None,
    take_totals: Callable[[RowsDigest, RowsDigest], None] = lambda *_: None,
) -> Iterator[RowChanges]:
    """Yield what makes the destination's rows equal to the source's, nothing where they are. ``rows``: how many there
    are, about. ``key_of`` takes the key out of a row's text: the old and the new row of a key are in the same changes.
    ``take_totals`` gets the digests of the source and of the destination before.
    """
    buckets = count_buckets(rows)
    destination_sums, source_sums = destination.sums(buckets), source.sums(buckets)
    take_totals(source_sums.total, destination_sums.total)
    among = frozenset(source_sums.differing(destination_sums))
    if not among:
        return
    size_bytes = sum(sums.size_bytes * _share(sums, among) for sums in (source_sums, destination_sums))
    partitions = min(MOST_PARTITIONS, max(1, -(-int(size_bytes) // PARTITION_BYTES)))
    with closing(_Partitions(partitions, key_of)) as files:
        source.each(files.add_source, buckets, among)
        destination.each(files.add_destination, buckets, among)
        for number in range(partitions):
            changes = _changes(*files.read(number), key_of)
            if changes.gone or changes.new:
                yield changes


def _share(sums: BucketSums, among: frozenset[int]) -> float:
    """Return which share of all rows lies in some buckets."""
    return sum(sums.rows[bucket] for bucket in among) / max(1, sum(sums.rows))


def _changes(
    source_texts: Sequence[bytes], destination_rows: Sequence[LocatedRow], key_of: KeyOf | None
) -> RowChanges:
    unmatched = Counter(source_texts)
    changes = RowChanges()
    for row in destination_rows:
        if unmatched[row.text] > 0:
            unmatched[row.text] -= 1
        else:
            changes.gone.append(row)
    changes.new = list(unmatched.elements())
    if key_of is not None:
        keys = {key_of(row.text) for row in changes.gone}
        changes.changed = sum(key_of(text) in keys for text in changes.new)
    return changes


class RowFile:
    """Rows on disk, to be read once in the order in which they came."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by ``close``

    def write(self, side: int, texts: Texts, places: Texts = ()) -> None:
        """Append rows of a side."""
        for index, text in enumerate(texts):
            place = places[index] if places else b""
            self._file.write(_HEAD.pack(side, len(text), len(place)))
            self._file.write(text)
            self._file.write(place)

    def rows(self) -> Iterator[tuple[int, LocatedRow]]:
        """Yield the rows with their sides."""
        self._file.seek(0)
        while head := self._file.read(_HEAD.size):
            side, size, place_size = _HEAD.unpack(head)
            yield side, LocatedRow(self._file.read(size), self._file.read(place_size))

    def close(self) -> None:
        """Remove it."""
        self._file.close()


class _Partitions:
    """Rows of both sides on disk, those with the same key, or without a key the same text, in the same file."""

    def __init__(self, count: int, key_of: KeyOf | None) -> None:
        self._files = [RowFile() for _ in range(count)]
        self._key_of = key_of

    def close(self) -> None:
        """Remove the files."""
        for file in self._files:
            file.close()

    def add_source(self, texts: Texts, places: Texts) -> None:
        """Take rows of the source."""
        self._add(SOURCE, texts, places)

    def add_destination(self, texts: Texts, places: Texts) -> None:
        """Take rows of the destination."""
        self._add(DESTINATION, texts, places)

    def _add(self, side: int, texts: Texts, places: Texts) -> None:
        if len(self._files) == 1:
            self._files[0].write(side, texts, places)
            return
        for index, text in enumerate(texts):
            self._file_of(text).write(side, [text], places[index : index + 1])

    def _file_of(self, text: bytes) -> RowFile:
        if self._key_of is None:
            return self._files[xxh3_64_intdigest(text) % len(self._files)]
        return self._files[hash(self._key_of(text)) % len(self._files)]

    def read(self, number: int) -> tuple[list[bytes], list[LocatedRow]]:
        """Return the rows of one partition at the source and at the destination."""
        source_texts: list[bytes] = []
        destination_rows: list[LocatedRow] = []
        for side, row in self._files[number].rows():
            if side == SOURCE:
                source_texts.append(row.text)
            else:
                destination_rows.append(row)
        return source_texts, destination_rows
