"""The inventory: what a bucket held when it was listed, in shards that lie in the workspace.

It is made once; every later run goes by the same one. A run that was killed while listing lists what no shard has.
Memory holds a shard for each part that is listed at once, however many objects there are. Where the bucket keeps
versions, it is the listing of versions: delete markers are rows too, and a key's rows follow each other, newest first.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import le, lt
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from exporters import arrow_functions as pc
from exporters.api import Workspace
from exporters.bucket_api import Bucket, ObjectSummary
from exporters.errors import SourceUsageError, reading_state
from exporters.objects.index_rows import from_state
from exporters.objects.listing import shards
from exporters.objects.listing.lister import Listing, OutOfOrderError, Range
from exporters.objects.listing.shards import CHOICE, ShardRange
from exporters.selection import EVERYTHING, Selection
from exporters.structs import as_dict

SHARD_ROWS = 20_000
"""How many rows are in memory at once while listing and while the index is put together: tens of MB."""
SMALL_BYTES = 8 * 2**20
"""Objects up to this size travel in packs."""

_SUMMARY = "inventory.json"
_START = "inventory/start.json"
_CACHED_SHARDS = 3


class Totals(Struct, frozen=True):
    """What the inventory came to. ``objects`` are all rows, the excluded ones (``excluded``) and delete markers
    included; ``small`` are the objects that go into packs. Times are ISO 8601, UTC. ``ordered``: the server lists
    by key, as it should. ``versions``: it is a listing of versions; None where these credentials may not know
    whether there are any. ``choice`` is ``Selection.describe``.
    """

    id: str
    shards: int
    objects: int
    size_bytes: int
    small_objects: int
    small_bytes: int
    ordered: bool
    listed_from: str
    listed_to: str
    versions: bool | None = False
    delete_markers: int = 0
    excluded: int = 0
    choice: str = ""
    order: Sequence[int] = ()
    """The numbers of the shards, in the order of their keys; empty where that is the order of their numbers."""
    at_once: int = 1
    """How many listings at once were worth it."""
    ends: Sequence[str] = ()
    """Keys at which shards end, at even distances."""


class Inventory:
    """A finished inventory. Thread-safe."""

    def __init__(self, workspace: Workspace, totals: Totals, selection: Selection) -> None:
        self.totals = totals
        self.selection = selection
        self.workspace = workspace
        self._lock = threading.Lock()
        self._cached = lru_cache(maxsize=_CACHED_SHARDS)(self._read)

    def shard(self, number: int) -> pa.Table:
        """Return a shard: key, size, etag, modified, storage_class; of versions also version_id, is_latest,
        is_delete_marker; where something may be excluded also excluded.
        """
        with self._lock:
            return self._cached(number)

    def has_class(self, shard: int, classes: Collection[str]) -> bool:
        """Tell whether a shard has rows of one of these storage classes."""
        return not set(classes).isdisjoint(pc.unique(self.shard(shard)["storage_class"]).to_pylist())

    def objects(self, shard: int, start: int, count: int) -> Iterator[ObjectSummary]:
        """Yield ``count`` rows of a shard from row ``start``."""
        table = self.shard(shard).slice(start, count)
        if CHOICE.name in table.column_names:
            table = table.drop_columns([CHOICE.name])
        columns = [
            _moments(column) if pa.types.is_timestamp(column.type) else column.to_pylist()
            for column in table.columns
        ]
        for row in zip(*columns, strict=True):
            yield ObjectSummary(*row)

    def included(self, shard: int, start: int, count: int) -> Iterator[tuple[int, ObjectSummary]]:
        """Return the rows among these that are not excluded, each with its number."""
        numbered = enumerate(self.objects(shard, start, count), start)
        if not self.totals.excluded:
            return numbered
        reasons = self.shard(shard)[CHOICE.name].slice(start, count).to_pylist()
        return (pair for pair, reason in zip(numbered, reasons, strict=True) if reason is None)

    def excluded(self, shard: int) -> Iterator[tuple[int, ObjectSummary, str]]:
        """Yield the rows of a shard that are excluded, each with its number and the reason."""
        table = self.shard(shard)
        if CHOICE.name in table.column_names:
            reasons = table[CHOICE.name].to_pylist()
            for row, summary in enumerate(self.objects(shard, 0, table.num_rows)):
                if reasons[row] is not None:
                    yield row, summary, reasons[row]

    def sizes(self, shard: int) -> list[int | None]:
        """Return the sizes of a shard's rows, None for those that are excluded."""
        table = self.shard(shard)
        column: list[int | None] = table["size"].to_pylist()
        if CHOICE.name not in table.column_names:
            return column
        reasons = table[CHOICE.name].to_pylist()
        return [size if reason is None else None for size, reason in zip(column, reasons, strict=True)]

    def _read(self, number: int) -> pa.Table:
        name = shards.name(self.totals.order[number] if self.totals.order else number)
        data = self.workspace.read(name)
        if data is None:
            raise FileNotFoundError(f"the inventory's {name} is not in the workspace")
        return from_state(data, name)


def take(bucket: Bucket, workspace: Workspace, selection: Selection = EVERYTHING) -> Inventory:
    """Return the inventory that an earlier run has made, or list the bucket. Raises ``SourceError``, among them
    ``SourceUsageError`` where the earlier one was made for another choice.
    """
    inventory = existing(bucket, workspace, selection)
    if inventory is not None and (inventory.totals.objects or not bucket.prefix):
        return inventory  # where nothing was under the prefix, there may be something by now
    totals = _list(bucket, workspace, selection)
    workspace.write(_SUMMARY, json.dumps(as_dict(totals)).encode())
    return Inventory(workspace, totals, selection)


def existing(bucket: Bucket, workspace: Workspace, selection: Selection) -> Inventory | None:
    """Return the inventory of an earlier run, None where none is finished. Raises ``SourceUsageError`` as ``take``
    does.
    """
    inventory = read_inventory(workspace, selection)
    if inventory is not None:
        _check_choice(inventory.totals.choice, selection, bucket)
    return inventory


def read_inventory(workspace: Workspace, selection: Selection = EVERYTHING) -> Inventory | None:
    """Return the inventory in a workspace, whatever its choice was; None where none is finished."""
    written = workspace.read(_SUMMARY)
    if written is None:
        return None
    with reading_state(_SUMMARY):
        totals = msgspec.convert(json.loads(written), Totals)
    return Inventory(workspace, totals, selection)


def _check_choice(before: str, selection: Selection, bucket: Bucket) -> None:
    if before != selection.describe():
        raise SourceUsageError(
            f"{bucket.name}: this export was begun with another choice of objects ({before or 'everything'})",
            next_step="run it with the same options again, or export to another location",
        )


def _list(bucket: Bucket, workspace: Workspace, selection: Selection) -> Totals:
    parameters = _begin(bucket, workspace, selection)
    try:
        counts, shard_ranges, at_once = _list_shards(bucket, workspace, selection, parameters)
    except OutOfOrderError:
        for name in workspace.names(shards.FOLDER):
            workspace.delete(name)
        parameters = _begin(bucket, workspace, selection, in_order=False)
        counts, shard_ranges, at_once = _list_shards(bucket, workspace, selection, parameters)
    return Totals(
        id=parameters["id"],
        shards=len(shard_ranges),
        objects=counts.objects,
        size_bytes=counts.size_bytes,
        small_objects=counts.small_objects,
        small_bytes=counts.small_bytes,
        ordered=parameters["in_order"] or counts.ordered,
        listed_from=parameters["listed_from"],
        listed_to=_now(),
        versions=parameters["versions"],
        delete_markers=counts.delete_markers,
        excluded=counts.excluded,
        choice=selection.describe(),
        order=[each.number for each in shard_ranges],
        at_once=at_once,
        ends=[each.upto[0] for each in shard_ranges if each.upto and not each.upto[1]] if at_once > 1 else (),
    )


def _list_shards(
    bucket: Bucket, workspace: Workspace, selection: Selection, parameters: Mapping[str, Any]
) -> tuple[_ListedCounts, list[ShardRange], int]:
    """List what the shards of earlier runs lack. Return the counts, all shards, and how many listings at once were
    worth it.
    """
    counts, earlier_ranges, known = _ListedCounts(), list[ShardRange](), dict[str, set[str]]()
    for name in workspace.names(shards.FOLDER):
        if name.endswith(".parquet"):
            table = from_state(workspace.read(name) or b"", name)
            shard_range = shards.range_of(table, name)
            if shard_range is None:
                workspace.delete(name)
                continue
            earlier_ranges.append(shard_range)
            counts.add(table)
            if shard_range.upto is not None and shard_range.upto[1]:
                known.setdefault(shard_range.upto[0], set()).update(_versions_of(table, shard_range.upto[0]))
    in_order = bool(parameters["in_order"])
    if in_order:
        earlier_ranges = shards.ordered(earlier_ranges)
        left = shards.gaps(earlier_ranges)
    else:
        left = [(earlier_ranges[-1].upto or shards.START if earlier_ranges else shards.START, None)]
    ranges = [
        Range(after, until, frozenset(known.get(after[0], ())) if after[1] else frozenset())
        for after, until in left
    ]
    listing = Listing(
        bucket=bucket,
        workspace=workspace,
        counter=counts,
        selection=selection,
        versions=bool(parameters["versions"]),
        in_order=in_order,
        shard_rows=SHARD_ROWS,
    )
    shard_ranges = listing.run(earlier_ranges, ranges)
    return counts, shard_ranges, listing.concurrency.worth if bucket.lists_from_anywhere else 1


def _versions_of(table: pa.Table, key: str) -> list[str]:
    rows = zip(table["key"].to_pylist(), table["version_id"].to_pylist(), strict=True)
    return [version for row_key, version in rows if row_key == key]


def _begin(
    bucket: Bucket, workspace: Workspace, selection: Selection, *, in_order: bool = True
) -> dict[str, Any]:
    """Return what the inventory is begun with: written once, the same for every later run, save that it begins anew
    where the server turns out not to list in order.
    """
    start = workspace.read(_START) if in_order else None
    with reading_state(_START):
        parameters: dict[str, Any] = dict(json.loads(start)) if start is not None else {}
    if parameters:
        _check_choice(parameters.get("choice", ""), selection, bucket)
        return {"versions": False, "in_order": False} | parameters
    versions = False if selection.current_only else bucket.keeps_versions()
    parameters = {
        "id": secrets.token_hex(8),
        "listed_from": _now(),
        "versions": versions,
        "choice": selection.describe(),
        "in_order": in_order and bucket.lists_in_order,
    }
    workspace.write(_START, json.dumps(parameters).encode())
    return parameters


class _ListedCounts:
    """Counts shards as they are written or found. Not thread-safe."""

    def __init__(self) -> None:
        self.objects = self.size_bytes = self.small_objects = self.small_bytes = 0
        self.delete_markers = self.excluded = 0
        self.ordered = True
        self._last = ""

    def add(self, shard: pa.Table) -> None:
        """Count the rows of a shard."""
        self.objects += shard.num_rows
        names = shard.column_names
        self._see_order(shard["key"].to_pylist(), strictly="version_id" not in names)
        if "version_id" in names:
            self.delete_markers += pc.sum(shard["is_delete_marker"]).as_py() or 0
        if CHOICE.name in names:
            chosen = shard.filter(pc.is_null(shard[CHOICE.name]))
            self.excluded += shard.num_rows - chosen.num_rows
            shard = chosen
        small = pc.filter(shard, pc.less_equal(shard["size"], SMALL_BYTES))
        self.size_bytes += pc.sum(shard["size"]).as_py() or 0
        self.small_objects += small.num_rows
        self.small_bytes += pc.sum(small["size"]).as_py() or 0

    def _see_order(self, keys: list[str], *, strictly: bool) -> None:
        # S3 orders by UTF-8 bytes; Python's order of code points is the same.
        if keys:
            before = lt if strictly else le
            self.ordered = self.ordered and all(map(before, [self._last, *keys], keys))
            self._last = keys[-1]


def _moments(column: pa.ChunkedArray) -> list[datetime]:
    """Return a column of times, ten times as fast as ``to_pylist``; a float holds the microseconds of 285 years."""
    return [datetime.fromtimestamp(value / 1e6, UTC) for value in pc.cast(column, pa.int64()).to_pylist()]


def _now() -> str:
    return datetime.now(UTC).isoformat()
