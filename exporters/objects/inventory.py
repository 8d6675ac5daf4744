"""The inventory: what a bucket held when it was listed, in shards that lie in the workspace.

It is made once; every later run goes by the same one. A run that was killed while listing goes on behind the
last shard. Memory holds one shard, however many objects there are.
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

SHARD_ROWS = 20_000
"""So many rows are in memory at once while listing and while the index is put together: tens of MB."""
SMALL_BYTES = 8 * 2**20
"""Objects up to this size travel in packs."""

_SUMMARY = "inventory.json"
_START = "inventory/start.json"
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("modified", pa.timestamp("us", tz="UTC")),
        ("storage_class", pa.string()),
    ]
)
_CACHED_SHARDS = 3


@dataclass(frozen=True, slots=True)
class Totals:
    """What the inventory came to. ``small`` are the objects that go into packs. Times are ISO 8601, UTC.
    ``ordered``: the server lists by key, as it should.
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


class Inventory:
    """A finished inventory. Thread-safe."""

    def __init__(self, workspace: Workspace, totals: Totals) -> None:
        self.totals = totals
        self._workspace = workspace
        self._lock = threading.Lock()
        self._cached = lru_cache(maxsize=_CACHED_SHARDS)(self._read)

    def shard(self, number: int) -> pa.Table:
        """Return a shard: key, size, etag, modified, storage_class."""
        with self._lock:
            return self._cached(number)

    def objects(self, shard: int, start: int, count: int) -> Iterator[ObjectSummary]:
        """Yield ``count`` rows of a shard from row ``start``."""
        for row in self.shard(shard).slice(start, count).to_pylist():
            yield ObjectSummary(row["key"], row["size"], row["etag"], row["modified"], row["storage_class"])

    def _read(self, number: int) -> pa.Table:
        data = self._workspace.read(_shard(number))
        if data is None:
            raise FileNotFoundError(f"the inventory's shard {number} is not in the workspace")
        return pq.read_table(io.BytesIO(data))


def take(bucket: Bucket, workspace: Workspace) -> Inventory:
    """Return the inventory: the one that is there, or a new one. Raises ``SourceError``."""
    written = workspace.read(_SUMMARY)
    if written is None:
        totals = _list(bucket, workspace)
        workspace.write(_SUMMARY, json.dumps(asdict(totals)).encode())
    else:
        totals = Totals(**json.loads(written))
    return Inventory(workspace, totals)


def _list(bucket: Bucket, workspace: Workspace) -> Totals:
    start = workspace.read(_START)
    begun = json.loads(start) if start is not None else {}
    if not begun:
        begun = {"id": secrets.token_hex(8), "listed_from": _now()}
        workspace.write(_START, json.dumps(begun).encode())
    tally = _Tally()
    for name in [name for name in workspace.names("inventory/") if name.endswith(".parquet")]:
        tally.add(pq.read_table(io.BytesIO(workspace.read(name) or b"")))
    for rows in _chunks(bucket.list(start_after=tally.last_key)):
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
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
    )


class _Tally:
    """Counts shards as they are written or found."""

    def __init__(self) -> None:
        self.shards = self.objects = self.size_bytes = self.small_objects = self.small_bytes = 0
        self.last_key = ""
        self.ordered = True

    def add(self, shard: pa.Table) -> None:
        for key, size in zip(shard["key"].to_pylist(), shard["size"].to_pylist(), strict=True):
            self.objects += 1
            self.size_bytes += size
            if size <= SMALL_BYTES:
                self.small_objects += 1
                self.small_bytes += size
            # S3 orders by UTF-8 bytes; Python's order of code points is the same.
            self.ordered = self.ordered and key > self.last_key
            self.last_key = key
        self.shards += 1


def _chunks(listing: Iterable[ObjectSummary]) -> Iterator[list[dict[str, Any]]]:
    rows = (
        {
            "key": found.key,
            "size": found.size_bytes,
            "etag": found.etag,
            "modified": found.modified,
            "storage_class": found.storage_class,
        }
        for found in listing
    )
    while chunk := list(islice(rows, SHARD_ROWS)):
        yield chunk


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def _shard(number: int) -> str:
    return f"inventory/{number:06d}.parquet"


def _now() -> str:
    return datetime.now(UTC).isoformat()
