"""Which rows differ between a table's source and its destination, and what makes the destination equal.

Rows fall into buckets by their hash, on both sides into the same. First each bucket's count and sum of hashes is
compared; buckets that agree hold the same rows. Then only the rows of the others are read. They are laid on disk in
partitions, by key where the table has one, so memory holds one partition at a time. No order is needed, and no key:
rows without a key are compared as a multiset.
"""

from __future__ import annotations

import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import IO, NamedTuple, Protocol

from xxhash import xxh3_64_intdigest, xxh3_128_intdigest

from exporters.engine import Texts

MOST_BUCKETS = 1 << 16
FEWEST_BUCKETS = 1 << 8
_ROWS_A_BUCKET = 8
PARTITION_BYTES = 32 * 2**20
"""About so many bytes of rows that may differ are held at once."""
MOST_PARTITIONS = 256
_HEAD = struct.Struct("<BQI")

Key = tuple[bytes | None, ...]
KeyOf = Callable[[bytes], Key]
TakeRows = Callable[[Texts, Texts], None]
"""Takes the texts of some rows, and where each of them is; no places where the side has none."""


class LocatedRow(NamedTuple):
    """A row's text, and where the destination has it, as its engine says; b"" where the text alone finds it."""

    text: bytes
    place: bytes = b""


@dataclass(slots=True)
class BucketSums:
    """Rows, sum of hashes and bytes of rows by bucket. There are as many buckets as numbers, a power of two."""

    rows: list[int]
    sums: list[int]
    size_bytes: int = 0

    @staticmethod
    def of(buckets: int) -> BucketSums:
        """Return those of no rows."""
        return BucketSums([0] * buckets, [0] * buckets)

    def differing(self, other: BucketSums) -> frozenset[int]:
        """Return the buckets that do not hold the same rows."""
        return frozenset(
            bucket
            for bucket, (mine, yours) in enumerate(
                zip(
                    zip(self.rows, self.sums, strict=True),
                    zip(other.rows, other.sums, strict=True),
                    strict=True,
                )
            )
            if mine != yours
        )


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


@dataclass(frozen=True, slots=True)
class HashedSide:
    """A side whose rows are hashed here. ``read`` hands over all rows."""

    read: Callable[[TakeRows], None]

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


@dataclass(slots=True)
class RowChanges:
    """What makes some rows of a destination equal to the source's: ``gone`` are removed, ``new`` are added. A row that
    has changed is in both. ``changed``: how many such there are, as far as keys tell.
    """

    gone: list[LocatedRow] = field(default_factory=list)
    new: list[bytes] = field(default_factory=list)
    changed: int = 0


def count_buckets(rows: int) -> int:
    """Return into how many buckets about so many rows are put."""
    return min(MOST_BUCKETS, max(FEWEST_BUCKETS, 1 << (rows // _ROWS_A_BUCKET).bit_length()))


def row_differences(
    source: RowSide, destination: RowSide, *, rows: int, key_of: KeyOf | None
) -> Iterator[RowChanges]:
    """Yield what makes the destination's rows equal to the source's, nothing where they are. ``rows``: how many there
    are, about. ``key_of`` takes the key out of a row's text: the old and the new row of a key are in the same changes.
    """
    buckets = count_buckets(rows)
    there, here = destination.sums(buckets), source.sums(buckets)
    among = here.differing(there)
    if not among:
        return
    share = _share(here, among), _share(there, among)
    size_bytes = here.size_bytes * share[0] + there.size_bytes * share[1]
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


def _changes(here: Sequence[bytes], there: Sequence[LocatedRow], key_of: KeyOf | None) -> RowChanges:
    unmatched = Counter(here)
    changes = RowChanges()
    for row in there:
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


_SOURCE, _DESTINATION = 0, 1


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
        self._add(_SOURCE, texts, places)

    def add_destination(self, texts: Texts, places: Texts) -> None:
        """Take rows of the destination."""
        self._add(_DESTINATION, texts, places)

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
        here: list[bytes] = []
        there: list[LocatedRow] = []
        for side, row in self._files[number].rows():
            if side == _SOURCE:
                here.append(row.text)
            else:
                there.append(row)
        return here, there
