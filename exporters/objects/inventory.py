"""The inventory: what a bucket held when it was listed, in shards that lie in the workspace.

It is made once; every later run goes by the same one. A run that was killed while listing goes on behind the
last shard. Memory holds one shard, however many objects there are. Where the bucket keeps versions, it is the
listing of versions: delete markers are rows too, and a key's rows follow each other, newest first.
"""

from __future__ import annotations

import io
import json
import secrets
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.base import Workspace
from exporters.bucket import Bucket, ObjectSummary
from exporters.errors import SourceUsageError
from exporters.selection import EVERYTHING, Selection

SHARD_ROWS = 20_000
"""So many rows are in memory at once while listing and while the index is put together: tens of MB."""
SMALL_BYTES = 8 * 2**20
"""Objects up to this size travel in packs."""

_SUMMARY = "inventory.json"
_START = "inventory/start.json"
_MODIFIED = pa.field("modified", pa.timestamp("us", tz="UTC"))
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        _MODIFIED,
        ("storage_class", pa.string()),
    ]
)
_VERSIONS = (
    pa.field("version_id", pa.string()),
    pa.field("is_latest", pa.bool_()),
    pa.field("is_delete_marker", pa.bool_()),
)
_CHOICE = pa.field("excluded", pa.string())
"""Why a row is not wanted; only where there is a choice."""
_CACHED_SHARDS = 3


@dataclass(frozen=True, slots=True)
class Totals:
    """What the inventory came to. ``objects`` are all rows, what is not wanted (``excluded``) and delete markers
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


class Inventory:
    """A finished inventory. Thread-safe."""

    def __init__(self, workspace: Workspace, totals: Totals, selection: Selection = EVERYTHING) -> None:
        self.totals = totals
        self.selection = selection
        self._workspace = workspace
        self._lock = threading.Lock()
        self._cached = lru_cache(maxsize=_CACHED_SHARDS)(self._read)

    def shard(self, number: int) -> pa.Table:
        """Return a shard: key, size, etag, modified, storage_class; of versions also version_id, is_latest,
        is_delete_marker; where something may be excluded also excluded.
        """
        with self._lock:
            return self._cached(number)

    def objects(self, shard: int, start: int, count: int) -> Iterator[ObjectSummary]:
        """Yield ``count`` rows of a shard from row ``start``."""
        table = self.shard(shard).slice(start, count)
        if _CHOICE.name in table.column_names:
            table = table.drop_columns([_CHOICE.name])
        columns = [
            _moments(column) if column.type == _MODIFIED.type else column.to_pylist()
            for column in table.columns
        ]
        for row in zip(*columns, strict=True):
            yield ObjectSummary(*row)

    def wanted(self, shard: int, start: int, count: int) -> Iterator[tuple[int, ObjectSummary]]:
        """Yield the rows among these that are not excluded, each with its number."""
        numbered = enumerate(self.objects(shard, start, count), start)
        if not self.totals.excluded:
            yield from numbered
            return
        reasons = self.shard(shard)[_CHOICE.name].slice(start, count).to_pylist()
        for (row, summary), reason in zip(numbered, reasons, strict=True):
            if reason is None:
                yield row, summary

    def excluded(self, shard: int) -> Iterator[tuple[int, ObjectSummary, str]]:
        """Yield the rows of a shard that are not wanted, each with its number and the reason."""
        table = self.shard(shard)
        if _CHOICE.name in table.column_names:
            reasons = table[_CHOICE.name].to_pylist()
            for row, summary in enumerate(self.objects(shard, 0, table.num_rows)):
                if reasons[row] is not None:
                    yield row, summary, reasons[row]

    def sizes(self, shard: int) -> list[int | None]:
        """Return the sizes of a shard's rows, None for those that are not wanted."""
        table = self.shard(shard)
        found: list[int | None] = table["size"].to_pylist()
        if _CHOICE.name not in table.column_names:
            return found
        reasons = table[_CHOICE.name].to_pylist()
        return [size if reason is None else None for size, reason in zip(found, reasons, strict=True)]

    def _read(self, number: int) -> pa.Table:
        data = self._workspace.read(_shard(number))
        if data is None:
            raise FileNotFoundError(f"the inventory's shard {number} is not in the workspace")
        return pq.read_table(io.BytesIO(data))


def take(bucket: Bucket, workspace: Workspace, selection: Selection = EVERYTHING) -> Inventory:
    """Return the inventory: the one that is there, or a new one. Raises ``SourceError``, among them
    ``SourceUsageError`` where the one that is there was made for another choice.
    """
    written = workspace.read(_SUMMARY)
    if written is None:
        totals = _list(bucket, workspace, selection)
        workspace.write(_SUMMARY, json.dumps(asdict(totals)).encode())
    else:
        totals = Totals(**json.loads(written))
        _check_choice(totals.choice, selection, bucket)
    return Inventory(workspace, totals, selection)


def _check_choice(before: str, selection: Selection, bucket: Bucket) -> None:
    if before != selection.describe():
        raise SourceUsageError(
            f"{bucket.name}: this export was begun with another choice of objects ({before or 'everything'})",
            next_step="run it with the same options again, or export to another place",
        )


def _list(bucket: Bucket, workspace: Workspace, selection: Selection) -> Totals:
    begun = _begin(bucket, workspace, selection)
    tally = _Tally()
    for name in [name for name in workspace.names("inventory/") if name.endswith(".parquet")]:
        tally.add(pq.read_table(io.BytesIO(workspace.read(name) or b"")))
    versions = bool(begun["versions"])
    fields = [*_SCHEMA, *(_VERSIONS if versions else ()), *((_CHOICE,) if selection.filters else ())]
    choose = _Chooser(selection, bucket.prefix) if selection.filters else None
    for chunk in _chunks(_listing(bucket, tally, versions=versions), whole_keys=versions):
        table = _table(chunk, pa.schema(fields), choose)
        workspace.write(_shard(tally.shards), _parquet(table))
        tally.add(table)
    return Totals(
        id=begun["id"],
        shards=tally.shards,
        objects=tally.objects,
        size_bytes=tally.size_bytes,
        small_objects=tally.small_objects,
        small_bytes=tally.small_bytes,
        ordered=tally.ordered,
        listed_from=begun["listed_from"],
        listed_to=_now(),
        versions=begun["versions"],
        delete_markers=tally.delete_markers,
        excluded=tally.excluded,
        choice=selection.describe(),
    )


def _begin(bucket: Bucket, workspace: Workspace, selection: Selection) -> dict[str, Any]:
    """Return what the inventory is begun with: written once, the same for every later run."""
    start = workspace.read(_START)
    begun: dict[str, Any] = json.loads(start) if start is not None else {}
    if begun:
        _check_choice(begun.get("choice", ""), selection, bucket)
        return {"versions": False} | begun
    versions = False if selection.current_only else bucket.keeps_versions()
    begun = {
        "id": secrets.token_hex(8),
        "listed_from": _now(),
        "versions": versions,
        "choice": selection.describe(),
    }
    workspace.write(_START, json.dumps(begun).encode())
    return begun


def _listing(bucket: Bucket, tally: _Tally, *, versions: bool) -> Iterator[ObjectSummary]:
    """Yield what comes behind the last shard."""
    if not versions:
        yield from bucket.list(start_after=tally.last_key)
        return
    known = set(tally.last_versions)
    after = (tally.last_key, tally.last_versions[-1] if tally.last_versions else "")
    for found in bucket.list_versions(after=after):
        # The version that is to be gone on behind may be gone itself; then the server begins with the key.
        if found.key != after[0] or found.version_id not in known:
            yield found


class _Chooser:
    """Tells of each row why it is not wanted."""

    def __init__(self, selection: Selection, prefix: str) -> None:
        self._selection = selection
        self._prefix_length = len(prefix)

    def reason(self, found: ObjectSummary) -> str | None:
        size_bytes = None if found.is_delete_marker else found.size_bytes
        return self._selection.excludes(found.key[self._prefix_length :], size_bytes, found.modified)


class _Tally:
    """Counts shards as they are written or found."""

    def __init__(self) -> None:
        self.shards = self.objects = self.size_bytes = self.small_objects = self.small_bytes = 0
        self.delete_markers = self.excluded = 0
        self.last_key = ""
        self.last_versions: list[str] = []
        self.ordered = True

    def add(self, shard: pa.Table) -> None:
        names = shard.column_names
        chosen = shard[_CHOICE.name].to_pylist() if _CHOICE.name in names else None
        keys, sizes = shard["key"].to_pylist(), shard["size"].to_pylist()
        previous = self.last_key
        for row, (key, size) in enumerate(zip(keys, sizes, strict=True)):
            # S3 orders by UTF-8 bytes; Python's order of code points is the same.
            self.ordered = self.ordered and (key > previous or (key == previous and "version_id" in names))
            previous = key
            if chosen is not None and chosen[row] is not None:
                self.excluded += 1
                continue
            self.size_bytes += size
            if size <= SMALL_BYTES:
                self.small_objects += 1
                self.small_bytes += size
        self.objects += len(keys)
        self.shards += 1
        if "version_id" in names:
            self._note_versions(keys, shard)
        self.last_key = previous

    def _note_versions(self, keys: list[str], shard: pa.Table) -> None:
        self.delete_markers += sum(shard["is_delete_marker"].to_pylist())
        versions = shard["version_id"].to_pylist()
        last = [version for key, version in zip(keys, versions, strict=True) if key == keys[-1]]
        self.last_versions = [*self.last_versions, *last] if keys[-1] == self.last_key else last


def _moments(column: pa.ChunkedArray) -> list[datetime]:
    """Return a column of times, ten times as fast as ``to_pylist``; a float holds the microseconds of 285 years."""
    return [datetime.fromtimestamp(value / 1e6, UTC) for value in column.cast(pa.int64()).to_pylist()]


def _chunks(listing: Iterable[ObjectSummary], *, whole_keys: bool) -> Iterator[list[ObjectSummary]]:
    """Cut a listing into shards. ``whole_keys``: all versions of a key in one, unless they are very many."""
    rows = iter(listing)
    kept: list[ObjectSummary] = []
    while chunk := kept + list(islice(rows, SHARD_ROWS - len(kept))):
        kept = []
        if whole_keys and len(chunk) == SHARD_ROWS:
            for following in rows:
                if following.key != chunk[-1].key or len(chunk) >= 2 * SHARD_ROWS:
                    kept = [following]
                    break
                chunk.append(following)
        yield chunk


def _table(chunk: list[ObjectSummary], schema: pa.Schema, choose: _Chooser | None) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "key": [found.key for found in chunk],
        "size": [found.size_bytes for found in chunk],
        "etag": [found.etag for found in chunk],
        "modified": [found.modified for found in chunk],
        "storage_class": [found.storage_class for found in chunk],
    }
    if _VERSIONS[0].name in schema.names:
        columns["version_id"] = [found.version_id for found in chunk]
        columns["is_latest"] = [found.is_latest for found in chunk]
        columns["is_delete_marker"] = [found.is_delete_marker for found in chunk]
    if choose is not None:
        columns[_CHOICE.name] = [choose.reason(found) for found in chunk]
    return pa.table(columns, schema=schema)


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def _shard(number: int) -> str:
    return f"inventory/{number:06d}.parquet"


def _now() -> str:
    return datetime.now(UTC).isoformat()
