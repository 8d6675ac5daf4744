"""One chunk of rows: lines from a session, Parquet parts out; and lines only, for digests of what lives in a server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from exporters.base import Sink
from exporters.mysql.catalog import Column, Table
from exporters.mysql.feed import Encode, Feed, LineTooLongError
from exporters.mysql.plan import Range, line_select, wide_select
from exporters.relational.blocks import Stream, tally_stream
from exporters.relational.chunk import Copied, copy_chunk
from exporters.relational.layout import Layout
from exporters.tally import Advance, Tally

_Result = TypeVar("_Result")


def export_rows(feed: Feed, table: Table, keys: Range, *, layout: Layout, sink: Sink, stem: str) -> Copied:
    """Export the rows of an interval. Raises ``SourceError``."""
    return _either(feed, table, keys, lambda stream: copy_chunk(stream, layout, sink, stem))


def tally_rows(feed: Feed, table: Table, keys: Range, advance: Advance | None = None) -> Tally:
    """Return rows and digest of an interval."""
    return _either(feed, table, keys, lambda stream: tally_stream(stream, advance)[0])


def _either(feed: Feed, table: Table, keys: Range, work: Callable[[Stream], _Result]) -> _Result:
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
