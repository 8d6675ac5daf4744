"""What a sync says of itself, beside its record: what is where, what is missing, what was lost, and what was
removed.

    account.json, REPORT.html         what the last run came to
    gaps.parquet                      what the source has and the target has not, with the reason; as in a bundle
    losses.parquet                    what the target does not have of the objects and of the bucket; as in a bundle
    extra.parquet                     what only the target has
    deleted/<time>-….parquet          what was removed at the target then
    capabilities.json, cutover.json   what was found out about the target; the last proof that both sides were equal
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.base import Gap, Loss
from exporters.objects.losses import BENEATH, lists_no_keys_beneath
from migrate.bundle import canonical
from migrate.bundle.catalog import write_gaps, write_losses
from migrate.errors import DamageError, GoneError
from migrate.store.base import MultipartStore
from migrate.store.s3_canary import Capabilities
from migrate.store.s3_configuration import same_setting
from migrate.store.writer import FileWriter
from migrate.sync.compare import Do, Step
from migrate.sync.outcome import Removed, SyncOutcome
from migrate.sync.page import page
from migrate.sync.plan import Sides

CAPABILITIES = "capabilities.json"
GAPS, EXTRA, PROOF = "gaps.parquet", "extra.parquet", "cutover.json"
_OBJECTS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
    ]
)
_BATCH = 20_000
_TAG_SAMPLES = 3
_HOLDS = timedelta(days=1)
_OF_EVERY_BUCKET = {"location", "request-payment", "acl", "ownership", "denied", "versioning"}
"""Settings that every bucket has, or that say nothing about objects that are current."""


class Account:
    """The account at the record's store."""

    def __init__(self, store: MultipartStore, sides: Sides) -> None:
        self._store, self._sides = store, sides
        self._stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        self._files = 0
        self._written = {info.key for name in (GAPS, EXTRA) for info in store.list(name)}

    def write_losses(self, losses: Iterable[Loss]) -> int:
        """Write the loss ledger, return its rows."""
        with FileWriter(self._store, "losses.parquet") as file:
            return write_losses(cast("Any", file), ((self._sides.name, loss) for loss in losses))

    def write_removed(self, removed: Sequence[Removed]) -> None:
        """Write what was removed at the target."""
        self._files += 1
        rows = ((one.key, one.size_bytes, one.etag) for one in removed)
        self._write_objects(f"deleted/{self._stamp}-{self._files:03d}.parquet", rows)

    def write_gaps(self, steps: Iterable[Step], gaps: Iterable[Gap]) -> None:
        """Write what of the source is not at the target: excluded by the plan, or a gap since."""
        excluded = (Gap(step.key, "excluded", step.why) for step in steps if step.do == Do.EXCLUDED)
        rows = ((self._sides.name, gap) for one in (excluded, gaps) for gap in one)
        if (first := next(rows, None)) is None:
            self._drop(GAPS)
            return
        self._written.add(GAPS)
        with FileWriter(self._store, GAPS) as file:
            write_gaps(cast("Any", file), chain([first], rows))

    def write_extra(self, steps: Iterable[Step], removed: frozenset[str]) -> None:
        """Write what only the target has."""
        rows = (
            (step.key, step.target.size_bytes, step.target.etag)
            for step in steps
            if step.do == Do.EXTRA and step.target is not None and step.key not in removed
        )
        if (first := next(rows, None)) is None:
            self._drop(EXTRA)
            return
        self._written.add(EXTRA)
        self._write_objects(EXTRA, chain([first], rows))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one of the small files."""
        self._store.put(name, canonical.encode_pretty({"version": 1, **value}))

    def capabilities(self, keys: set[str], classes: set[str]) -> Capabilities | None:
        """Return what was found out about the target less than a day ago, where these were tried out then."""
        try:
            kept = canonical.decode(self._store.read(CAPABILITIES), CAPABILITIES)
        except (GoneError, DamageError):
            return None
        tried = kept.get("tried", {})
        known = keys <= set(tried.get("keys", ())) and classes <= set(tried.get("classes", ()))
        found = Capabilities(**{name: kept[name] for name in Capabilities.__slots__ if name in kept})
        fresh = datetime.now(UTC) - datetime.fromisoformat(found.at) < _HOLDS
        same = (found.url, found.server) == (self._sides.target.url, self._sides.target.server)
        return found if known and fresh and same else None

    def write_capabilities(self, found: Capabilities, keys: set[str], classes: set[str]) -> None:
        """Keep what was found out, and what was tried."""
        tried = {"keys": sorted(keys), "classes": sorted(classes)}
        self.write_json(CAPABILITIES, found.as_json() | {"tried": tried})

    def close(self, outcome: SyncOutcome) -> None:
        """Say what the command came to."""
        self.write_json("account.json", outcome.as_json())
        self._store.put("REPORT.html", page(outcome))

    def _drop(self, name: str) -> None:
        if name in self._written:
            self._store.delete(name)
            self._written.discard(name)

    def _write_objects(self, name: str, rows: Iterable[tuple[str, int, str]]) -> None:
        source = iter(rows)
        with (
            FileWriter(self._store, name) as file,
            pq.ParquetWriter(cast("Any", file), _OBJECTS, compression="zstd") as writer,
        ):
            while batch := list(islice(source, _BATCH)):
                columns = zip(zip(*batch, strict=True), _OBJECTS, strict=True)
                arrays = [pa.array(list(column), field.type) for column, field in columns]
                writer.write_batch(pa.record_batch(arrays, schema=_OBJECTS))


def bucket_losses(sides: Sides) -> Iterator[Loss]:
    """Yield what a sync does not bring to the target, whatever the objects are."""
    source, name = sides.source, sides.source.name
    yield Loss(name, "last modified", "every object has the time at which it was copied")
    if source.keeps_versions():
        yield Loss(name, "versions", "a sync copies current versions; a bundle has the whole history")
    if not source.server.lower().startswith("minio"):
        yield Loss(name, "object ACLs", "not read object by object; objects are as the target makes them")
    if lists_no_keys_beneath(source.server):
        yield Loss(name, "keys below the names of objects", BENEATH)
    if not source.tags_readable(list(islice(source.list(), _TAG_SAMPLES))):
        yield Loss(name, "tags", "these credentials may not read the objects' tags")
    if not sides.source.prefix and not sides.target.prefix:
        yield from _settings(sides)


def _settings(sides: Sides) -> Iterator[Loss]:
    wanted = sides.source.configuration()
    there = sides.target.configuration()
    for name, value in sorted(wanted.items()):
        if name not in _OF_EVERY_BUCKET and not same_setting(name, there.get(name), value):
            reason = "a sync copies objects; a restore of a bundle writes settings, or set it at the target"
            yield Loss(sides.source.name, f"bucket {name}", reason)
    for name in wanted.get("denied", ()):
        yield Loss(sides.source.name, f"bucket {name}", "these credentials may not read it")
