"""Shards of the inventory: Parquet files, each of which says what part of the bucket's keys it has.

A shard covers everything between two positions of the listing, so what is listed already is what the shards say,
whoever wrote them and in whatever order.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from exporters.bucket_api import ObjectSummary, Page, Position
from exporters.selection import Selection

PLAIN = pa.schema(
    [
        ("key", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("modified", pa.timestamp("us", tz="UTC")),
        ("storage_class", pa.string()),
    ]
)
VERSIONS = pa.schema(
    [*PLAIN, ("version_id", pa.string()), ("is_latest", pa.bool_()), ("is_delete_marker", pa.bool_())]
)
CHOICE = pa.field("excluded", pa.string())
"""Why a row is excluded; only where there is a selection."""
FOLDER = "inventory/"
START: Position = ("", "")
_RANGE = b"moveout.cover"


class ShardRange(Struct, frozen=True):
    """What a shard has: everything behind ``after`` up to ``upto``, to the end where that is None. ``number`` names
    its file; shards in the middle of one key's versions are numbered in their order.
    """

    number: int
    after: Position
    upto: Position | None


def name(number: int) -> str:
    """Return the name of a shard in the workspace."""
    return f"{FOLDER}{number:06d}.parquet"


def encode(
    pages: Iterable[Page], shard_range: ShardRange, selection: Selection, prefix_length: int
) -> tuple[pa.Table, bytes]:
    """Return the table of these rows, and the file."""
    pages = list(pages)
    columns = [list(chain.from_iterable(column)) for column in zip(*map(_columns, pages), strict=True)]
    schema = VERSIONS if len(columns) == len(VERSIONS) else PLAIN
    if selection.filters:
        rows = chain.from_iterable(page.rows() for page in pages)
        columns.append([_reason(row, selection, prefix_length) for row in rows])
        schema = schema.append(CHOICE)
    range_json = json.dumps([shard_range.after, shard_range.upto]).encode()
    table = pa.table(
        dict(zip(schema.names, columns, strict=True)), schema=schema.with_metadata({_RANGE: range_json})
    )
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return table, out.getvalue()


def range_of(table: pa.Table, name: str) -> ShardRange | None:
    """Return the part of the keys that the shard of this name records; None where it records none."""
    range_json = (table.schema.metadata or {}).get(_RANGE)
    if range_json is None:
        return None
    after, upto = json.loads(range_json)
    number = int(name.removeprefix(FOLDER).partition(".")[0])
    return ShardRange(number, (after[0], after[1]), None if upto is None else (upto[0], upto[1]))


def ordered(shard_ranges: Iterable[ShardRange]) -> list[ShardRange]:
    """Return shards in the order of their keys."""
    return sorted(
        shard_ranges,
        key=lambda each: (each.after[0], not each.after[1], each.number),
    )


def gaps(shard_ranges: Sequence[ShardRange]) -> list[tuple[Position, str | None]]:
    """Return what these shards, in order, do not have: from behind a position up to and with all of a key (None: to the
    end).
    """
    ranges: list[tuple[Position, str | None]] = []
    position: Position | None = START
    for shard_range in shard_ranges:
        if position is not None and shard_range.after != position and shard_range.after[0] >= position[0]:
            ranges.append((position, shard_range.after[0]))
        position = shard_range.upto
    if position is not None:
        ranges.append((position, None))
    return ranges


def _columns(page: Page) -> list[Sequence[Any]]:
    columns: list[Sequence[Any]] = [page.keys, page.sizes, page.etags, page.modified, page.classes]
    return [*columns, page.versions, page.latest, page.markers] if page.versions else columns


def _reason(row: ObjectSummary, selection: Selection, prefix_length: int) -> str | None:
    size_bytes = None if row.is_delete_marker else row.size_bytes
    return selection.excludes(row.key[prefix_length:], size_bytes, row.modified)
