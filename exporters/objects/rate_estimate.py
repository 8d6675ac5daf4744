"""How long reading a bucket takes, from a sample of small objects and of ranges of large ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

from msgspec import Struct

from exporters.api import Estimate
from exporters.bucket_api import Bucket
from exporters.errors import SourceError, SourceUnreachableError
from exporters.objects.listing.inventory import SMALL_BYTES

_SMALL_SAMPLE = 20_000
_LARGE_SAMPLE = 8
_RANGE_BYTES = 8 * 2**20
_WINDOW_BYTES = 32 * 2**20
_PACKED_BYTES = 850
"""What a member of a pack takes besides its own bytes: its header, padding, and row of the index."""


class Census(Struct, frozen=True):
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

    def plus_all(self, sizes: Sequence[int]) -> Census:
        """Return the census with more objects."""
        large = [size for size in sizes if size > SMALL_BYTES]
        small_bytes = sum(sizes) - sum(large)
        return Census(
            self.small + len(sizes) - len(large),
            self.small_bytes + small_bytes,
            self.large + len(large),
            self.large_bytes + sum(large),
        )


class _Sample(Struct, frozen=True):
    items: int
    size_bytes: int
    seconds: float


def estimate(bucket: Bucket, census: Census, *, seconds: float) -> Estimate:
    """Read for about ``seconds``: half of it small objects, half of it ranges of large ones, where there
    are both.
    """
    kinds = bool(census.small) + bool(census.large)
    if not kinds:
        return Estimate(0.0, 0.0, 0.0)
    small = _read_small(bucket, seconds / kinds) if census.small else _Sample(0, 0, 0.0)
    large = _read_large(bucket, seconds / kinds) if census.large else _Sample(0, 0, 0.0)
    needed = _share(census.small, small.items, small.seconds)
    needed += _share(census.large_bytes, large.size_bytes, large.seconds)
    return Estimate(
        seconds=needed,
        items_rate=census.items / needed if needed else 0.0,
        bytes_rate=census.size_bytes / needed if needed else 0.0,
        bundle_share=1 + _PACKED_BYTES * census.small / census.size_bytes if census.size_bytes else None,
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
