"""What a bucket holds, by a look at its listing: how much, and what some destination may not take; and how long reading
it takes, from a sample of small objects and of ranges of large ones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from msgspec import Struct, field

from exporters.api import Estimate
from exporters.bucket_api import Bucket, ObjectSummary
from exporters.errors import SourceError, SourceUnreachableError
from exporters.objects import pax_headers
from exporters.objects.archive import ARCHIVED
from exporters.objects.key_oddities import Oddities
from exporters.objects.listing.hidden_objects import BENEATH, lists_no_keys_beneath, nothing_under
from exporters.objects.listing.inventory import SMALL_BYTES
from exporters.selection import Selection

LOOKED_AT = 200_000
"""How many rows are looked at one by one; those behind are counted only."""
COUNT_SECONDS = 60.0
"""A survey counts for so long, then reports that there are more."""
OBJECT_LOCK = "object lock"
OLDER = "older versions"
MARKERS = "delete markers"
CLASS = "storage class "


class ListedBucket(Struct):
    """What the listing showed. ``features``: oddities of keys, storage classes and the like, by how often. ``goes_on``:
    it was not listed to its end.
    """

    rows: int = 0
    goes_on: bool = False
    excluded: int = 0
    no_file_names: int = 0
    archived: int = 0
    features: Counter[str] = field(default_factory=Counter)

    def warnings(self, bucket: Bucket) -> Iterator[str]:
        """Yield sentences for people."""
        name = bucket.name
        if not self.rows and (nothing := nothing_under(bucket)):
            yield nothing
        if self.goes_on:
            yield f"{name}: more objects than could be counted in a minute; all times are at least what is said"
        elif self.rows > LOOKED_AT:
            yield f"{name}: the first {LOOKED_AT} objects were looked at one by one, the rest was counted"
        if self.no_file_names:
            odd = self.no_file_names
            yield f"{name}: keys that are no file names: {odd}; the bundle keeps them, some destinations refuse them"
        if self.archived:
            yield f"{name}: archived objects: {self.archived}; the export has them brought back, and waits"
        if self.features[OLDER] or self.features[MARKERS]:
            old, markers = self.features[OLDER], self.features[MARKERS]
            yield f"{name}: older versions ({old}) and delete markers ({markers}) leave too"
        if self.excluded:
            yield f"{name}: objects that are not selected and stay: {self.excluded}"
        if odd_keys := bucket.not_utf_8:
            yield f"{name}: keys that are not UTF-8: {len(odd_keys)}, such as {min(odd_keys)}; these objects stay"
        if lists_no_keys_beneath(bucket.server):
            yield f"{name}: {BENEATH}"


def take(
    bucket: Bucket, selection: Selection, *, seconds: float | None = None
) -> tuple[ListedBucket, ObjectTotals]:
    """List a bucket, for ``seconds`` at most, or ``COUNT_SECONDS``. Raises ``SourceError``."""
    most_seconds = COUNT_SECONDS if seconds is None else seconds
    seen, counted, kinds = ListedBucket(), ObjectTotals(), Oddities()
    versions = not selection.current_only and bucket.keeps_versions()
    start, last, start_time = len(bucket.prefix), "", time.monotonic()
    for page in bucket.pages(versions=bool(versions), until=lambda: None):
        if time.monotonic() - start_time > most_seconds:
            seen.goes_on = True
            break
        seen.rows += len(page.keys)
        if seen.rows > LOOKED_AT and not selection.filters:
            counted = counted.plus_all(page.sizes)
            continue
        for summary in page.rows():
            if selection.filters and _is_excluded(summary, start, selection):
                seen.excluded += 1
                continue
            counted = counted.plus_all([summary.size_bytes])
            if seen.rows <= LOOKED_AT:
                _note(seen, summary, kinds, last)
                last = summary.key
    if versions and bucket.configuration().get("object-lock"):
        seen.features[OBJECT_LOCK] += 1
    return seen, counted


def _is_excluded(summary: ObjectSummary, start: int, selection: Selection) -> bool:
    size_bytes = None if summary.is_delete_marker else summary.size_bytes
    return selection.excludes(summary.key[start:], size_bytes, summary.modified) is not None


def _note(seen: ListedBucket, summary: ObjectSummary, kinds: Oddities, last: str) -> None:
    if summary.is_delete_marker:
        seen.features[MARKERS] += 1
    elif not summary.is_latest:
        seen.features[OLDER] += 1
    if summary.storage_class != "STANDARD":
        seen.features[CLASS + summary.storage_class] += 1
        seen.archived += summary.storage_class in ARCHIVED
    if summary.key != last:
        seen.features.update(kinds.of(summary.key, summary.size_bytes))
        seen.no_file_names += pax_headers.member_name(summary.key) != summary.key


_SMALL_SAMPLE = 20_000
_LARGE_SAMPLE = 8
_RANGE_BYTES = 8 * 2**20
_WINDOW_BYTES = 32 * 2**20
_PACKED_BYTES = 850
"""What a member of a pack takes besides its own bytes: its header, padding, and row of the index."""


class ObjectTotals(Struct, frozen=True):
    """How many small and large objects there are, and their bytes."""

    small: int = 0
    small_bytes: int = 0
    large: int = 0
    large_bytes: int = 0

    @property
    def items(self) -> int:
        """All objects."""
        return self.small + self.large

    @property
    def size_bytes(self) -> int:
        """All bytes."""
        return self.small_bytes + self.large_bytes

    def plus_all(self, sizes: Sequence[int]) -> ObjectTotals:
        """Return the totals with more objects."""
        large = [size for size in sizes if size > SMALL_BYTES]
        small_bytes = sum(sizes) - sum(large)
        return ObjectTotals(
            self.small + len(sizes) - len(large),
            self.small_bytes + small_bytes,
            self.large + len(large),
            self.large_bytes + sum(large),
        )


class _Sample(Struct, frozen=True):
    items: int
    size_bytes: int
    seconds: float


def estimate(bucket: Bucket, totals: ObjectTotals, *, seconds: float) -> Estimate:
    """Read for about ``seconds``: half of it small objects, half of it ranges of large ones, where there
    are both.
    """
    kinds = bool(totals.small) + bool(totals.large)
    if not kinds:
        return Estimate(0.0, 0.0, 0.0)
    small = _read_small(bucket, seconds / kinds) if totals.small else _Sample(0, 0, 0.0)
    large = _read_large(bucket, seconds / kinds) if totals.large else _Sample(0, 0, 0.0)
    needed = _share(totals.small, small.items, small.seconds)
    needed += _share(totals.large_bytes, large.size_bytes, large.seconds)
    return Estimate(
        seconds=needed,
        items_rate=totals.items / needed if needed else 0.0,
        bytes_rate=totals.size_bytes / needed if needed else 0.0,
        bundle_share=1 + _PACKED_BYTES * totals.small / totals.size_bytes if totals.size_bytes else None,
    )


def _share(total: int, sampled: int, seconds: float) -> float:
    return seconds * total / sampled if sampled else 0.0


def _read_small(bucket: Bucket, seconds: float) -> _Sample:
    small = (summary for summary in bucket.list() if summary.size_bytes <= SMALL_BYTES)
    sample = list(islice(small, _SMALL_SAMPLE))
    started = time.monotonic()
    items = size_bytes = 0
    for fetched in bucket.fetch(sample, window_bytes=_WINDOW_BYTES):
        items += 1
        size_bytes += len(fetched.body)
        if time.monotonic() - started > seconds:
            break
    return _Sample(items, size_bytes, time.monotonic() - started)


def _read_large(bucket: Bucket, seconds: float) -> _Sample:
    large = list(
        islice((summary for summary in bucket.list() if summary.size_bytes > SMALL_BYTES), _LARGE_SAMPLE)
    )
    started = time.monotonic()
    size_bytes = 0
    for summary in large:
        try:
            for start in range(0, summary.size_bytes, _RANGE_BYTES):
                length = min(_RANGE_BYTES, summary.size_bytes - start)
                size_bytes += len(bucket.read_range(summary, start, length))
                if time.monotonic() - started > seconds:
                    return _Sample(0, size_bytes, time.monotonic() - started)
        except SourceUnreachableError:
            raise
        except SourceError:
            continue  # deleted since, archived, encrypted by a key that is not here: the export names it
    return _Sample(0, size_bytes, time.monotonic() - started)
