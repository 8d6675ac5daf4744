"""One chunk of rows: lines from a session, Parquet parts out; and lines only, for digests of what lives in a server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from exporters.base import Sink
from exporters.mysql.catalog import Column, Table
from exporters.mysql.feed import Encode, Feed, LineTooLongError, OnBlock
from exporters.mysql.plan import Range, line_select, wide_select
from exporters.postgres.copy import BLOCK_BYTES, Copied, copy_chunk
from exporters.postgres.digest import tally_block
from exporters.postgres.parse import Layout
from exporters.tally import Advance, Tally

_Result = TypeVar("_Result")


def export_rows(feed: Feed, table: Table, keys: Range, *, layout: Layout, sink: Sink, stem: str) -> Copied:
    """Export the rows of an interval. Raises ``SourceError``."""
    return _either(feed, table, keys, lambda stream: copy_chunk(stream, layout, sink, stem))


def tally_rows(feed: Feed, table: Table, keys: Range, advance: Advance | None = None) -> Tally:
    """Return rows and digest of an interval."""

    def count(stream: Callable[[OnBlock], int]) -> Tally:
        counter = _Counter(advance)
        stream(counter.add)
        counter.flush()
        return counter.tally

    return _either(feed, table, keys, count)


def _either(
    feed: Feed, table: Table, keys: Range, work: Callable[[Callable[[OnBlock], int]], _Result]
) -> _Result:
    """Do the work with lines of the server's making, or, where one would be too long for it, of ours. Both are the same
    lines.
    """
    if not table.long:
        with contextlib.suppress(LineTooLongError):
            return work(lambda take: feed.copy(line_select(table, keys), take))
    encoders = encoders_of(table.columns)
    return work(lambda take: feed.copy_wide(wide_select(table, keys), encoders, take))


def encoders_of(columns: Sequence[Column]) -> list[Encode]:
    """Return what makes a value's part of the line, column by column."""
    return [
        (_hexadecimal if column.kind.name == "hex" else _quoted) if column.raw else bytes
        for column in columns
    ]


def _quoted(value: bytes) -> bytes:
    return b'"' + value.replace(b'"', b'""') + b'"'


def _hexadecimal(value: bytes) -> bytes:
    return b"\\x" + value.hex().upper().encode()


class _Counter:
    """Collects pieces until a block is worth splitting."""

    def __init__(self, advance: Advance | None) -> None:
        self._advance = advance
        self._pieces: list[bytes] = []
        self._size = 0
        self.tally = Tally()

    def add(self, piece: bytes) -> None:
        """Take whole lines."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Count what was collected."""
        found = tally_block(b"".join(self._pieces))
        self.tally += found
        if self._advance is not None:
            self._advance(found.rows, self._size)
        self._pieces.clear()
        self._size = 0
