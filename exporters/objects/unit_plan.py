"""The inventory cut into units: packs of small objects, large objects by themselves, and what is excluded.
Pure and deterministic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from exporters.api import Gap, Outcome, Unit
from exporters.objects import index_rows
from exporters.objects.listing.inventory import SMALL_BYTES, Inventory, Totals

PACK_OBJECTS = 10_000
"""At most so many objects a pack: what an interruption can cost stays small."""
SMALLEST_PACK_BYTES = 16 * 2**20
LARGEST_PACK_BYTES = 256 * 2**20
_PACKS_WANTED = 32
"""So that small buckets, too, give several workers something to do."""


def pack_bytes(totals: Totals) -> int:
    """Return the size at which a pack is full."""
    return min(max(totals.small_bytes // _PACKS_WANTED, SMALLEST_PACK_BYTES), LARGEST_PACK_BYTES)


def cut(inventory: Inventory, bucket: str) -> Iterator[Unit]:
    """Yield all units. A pack is a run of the listing within one shard, without the large objects in it; its
    spec names shard, first row and number of rows. What is excluded is a unit for each shard, which only names it.
    """
    full_bytes = pack_bytes(inventory.totals)
    number = 0
    for shard in range(inventory.totals.shards):
        table = inventory.shard(shard)
        sizes = inventory.sizes(shard)
        for start, end in runs(sizes, full_bytes):
            small = [size for size in sizes[start:end] if size is not None and size <= SMALL_BYTES]
            spec = {"shard": shard, "start": start, "rows": end - start, "number": number}
            yield Unit(f"packs/{number:06d}", len(small), sum(small), spec)
            number += 1
        for row, size in enumerate(sizes):
            if size is not None and size > SMALL_BYTES:
                key = table["key"][row].as_py()
                version = table["version_id"][row].as_py() if inventory.totals.versions else ""
                spec = {"shard": shard, "start": row, "rows": 1}
                yield Unit(f"large/{large_id(bucket, key, version)}", 1, size, spec)
        if excluded := sizes.count(None):
            yield Unit(f"excluded/{shard:06d}", 0, 0, {"shard": shard, "excluded": excluded})


def name_excluded(unit: Unit, inventory: Inventory) -> Outcome:
    """Do a unit of excluded objects: each is a gap with its name."""
    gaps = [
        Gap(summary.name, "excluded", reason) for _, summary, reason in inventory.excluded(unit.spec["shard"])
    ]
    return Outcome(0, 0, gaps=gaps, facts={"inventory": inventory.totals.id})


def excluded_rows(inventory: Inventory, bucket: str, shard: int) -> pa.Table:
    """Return the work rows of what the selection excludes from a shard."""
    return index_rows.to_table(
        index_rows.missing(bucket, row_number, summary, Gap(summary.name, "excluded", reason))
        for row_number, summary, reason in inventory.excluded(shard)
    )


def runs(sizes: Sequence[int | None], destination_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield half-open row ranges whose small objects make one pack each; ranges without any are left out."""
    start = count = filled = 0
    for row, size in enumerate(sizes):
        if size is None or size > SMALL_BYTES:
            continue
        if count and (filled + size > destination_bytes or count == PACK_OBJECTS):
            yield start, row
            start, count, filled = row, 0, 0
        count += 1
        filled += size
    if count:
        yield start, len(sizes)


def large_id(bucket: str, key: str, version: str) -> str:
    """Return the name of a large object's file: a hash of bucket, key and version."""
    return hashlib.sha256(f"{bucket}\0{key}\0{version}".encode()).hexdigest()[:40]
