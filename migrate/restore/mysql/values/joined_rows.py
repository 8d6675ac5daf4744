"""Rows as texts that stand one behind the other in memory, from which statements are cut."""

from __future__ import annotations

from bisect import bisect_right

import pyarrow as pa
from msgspec import Struct


class JoinedRows(Struct, frozen=True):
    """Rows, each as one binary value."""

    joined: pa.Array

    def end_of(self, begin: int, size_bytes: int) -> int:
        """Return up to which row those from ``begin`` on are no longer than so many bytes."""
        bounds = bounds_of(self.joined)
        return bisect_right(bounds, bounds[begin] + size_bytes, begin, len(self.joined) + 1) - 1

    def text(self, begin: int, end: int) -> memoryview:
        """Return some rows, one behind the other."""
        bounds = bounds_of(self.joined)
        return memoryview(self.joined.buffers()[2])[bounds[begin] : bounds[end]]


def bounds_of(text: pa.Array) -> memoryview:
    """Return where each value begins, and behind them where the last one ends."""
    return memoryview(text.buffers()[1]).cast("i")[text.offset : text.offset + len(text) + 1]
