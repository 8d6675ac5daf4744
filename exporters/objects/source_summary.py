"""The last step, once all units are done: one index over all objects, the bucket's settings, and the summary. For a
bucket that is gone before that, they come from the inventory, and from the settings noted after the listing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import pairwise
from typing import Any, BinaryIO, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, field

from exporters import arrow_functions as pc
from exporters.api import (
    OUTLINE,
    CatalogEntry,
    DoneUnit,
    Enumeration,
    Gap,
    Loss,
    Sink,
    SourceSummary,
    Unit,
    Workspace,
)
from exporters.bucket_api import NULL_VERSION, Bucket, ObjectSummary
from exporters.errors import SourceError, reading_state
from exporters.objects import changed_objects, index_rows, unit_plan
from exporters.objects.listing import inventory
from exporters.objects.listing.hidden_objects import BENEATH, gaps_not_utf_8, lists_no_keys_beneath
from exporters.objects.listing.inventory import SMALL_BYTES, Inventory
from exporters.objects.listing.s3_inventory_check import ReportComparison
from exporters.objects.listing.second_listing import Relisting
from exporters.objects.pack import rows_file
from exporters.objects.scratch_table import scratch_table
from exporters.objects.server_quirks import Trait, has
from exporters.structs import as_dict

INDEX_ROWS = 1_000_000
"""At most so many rows in one file of the index."""
_GROUP_ROWS = 50_000
CONFIGURATION = "bucket.json"
_TAG_SHARDS, _TAG_SAMPLES = 4, 6
_UNREAD = {"denied", "failing"}
"""Entries next to the settings: the names of those that could not be read."""
_NAMED_GAPS = 100_000
"""At most so many missing objects are recorded one by one, since they are held in memory."""


class FinishedUnits:
    """Which units are done, and the index rows of the large ones. On disk once they are many."""

    def __init__(self, done: Iterable[DoneUnit]) -> None:
        self._packs: dict[str, str] = {}
        self._large = scratch_table(
            "CREATE TABLE large (id TEXT PRIMARY KEY, row TEXT)",
            "INSERT OR REPLACE INTO large VALUES (?, ?)",
            self._large_objects(done),
        )

    def _large_objects(self, done: Iterable[DoneUnit]) -> Iterator[tuple[str, str]]:
        for done_unit in done:
            if "row" in done_unit.outcome.facts:
                yield done_unit.unit.id, json.dumps(done_unit.outcome.facts["row"])
            else:
                self._packs[done_unit.unit.id] = rows_file(done_unit)

    def pack(self, unit_id: str) -> str | None:
        """Return the name of the workspace file with a pack's index rows, or None where its unit is not done."""
        return self._packs.get(unit_id)

    def large(self, unit_id: str) -> dict[str, Any] | None:
        """Return the work row of a large object, or None where its unit is not done."""
        row = self._large.execute("SELECT row FROM large WHERE id = ?", (unit_id,)).fetchone()
        return None if row is None else index_rows.from_json(json.loads(row[0]))

    def close(self) -> None:
        """Drop the file."""
        self._large.close()


class ObjectCounts(Struct):
    """What the index holds."""

    rows: int = 0
    exported: int = 0
    size_bytes: int = 0
    files: int = 0
    reread: int = 0
    gaps: list[Gap] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    """Of single objects."""


class SummaryWriter(Struct, frozen=True):
    """The end of an export of one bucket. ``relisting``: its second listing; ``report_comparison``: with an inventory
    report, where there is one. ``counts`` fills up. ``noted``: what was noted of the bucket when it had been listed.
    """

    bucket: Bucket
    inventory: Inventory
    workspace: Workspace
    finished: FinishedUnits
    relisting: Relisting
    report_comparison: ReportComparison | None = None
    counts: ObjectCounts = field(default_factory=ObjectCounts)
    noted: NotedBucket | None = None

    def run(self, planned: Iterable[Unit], sink: Sink) -> SourceSummary:
        """Write the index and the settings, return the summary. Raises ``SourceError``."""
        with ThreadPoolExecutor(2, thread_name_prefix="moveout-settings") as aside:
            settings = aside.submit(self.bucket.configuration)
            readable = aside.submit(tags_readable, self.bucket, self.inventory)
            _write_index(self._tables(planned), sink, self.counts)
            self.relisting.end()
            self.counts.gaps.extend(self.relisting.gaps())
            self.counts.gaps.extend(gaps_not_utf_8(self.bucket, self.inventory.selection))
            configuration = settings.result()
        with sink.create(CONFIGURATION) as file:
            file.write(json.dumps(configuration, indent=2, sort_keys=True, default=str).encode() + b"\n")
        if self.report_comparison is not None:
            self.report_comparison.end()
        losses = self._losses(configuration, tags_readable=readable.result())
        return self._summary([*losses, *self.counts.losses, *self.relisting.losses()])

    def _tables(self, planned: Iterable[Unit]) -> Iterator[pa.Table]:
        """Yield the index rows of one shard after the other, in the order of the listing."""
        for shard, gathered in _by_shard(planned):
            # Nothing of a shard may be held here while its successor is made: each takes tens of MB.
            yield self._compared(shard, self._rows(gathered))

    def _rows(self, gathered: Iterable[Unit]) -> pa.Table:
        """Return the work rows of a shard's units, in the order of the listing."""
        parts = [self._unit_rows(unit) for unit in gathered]
        table = pa.concat_tables(parts)
        return pc.take(table, pc.sort_indices(table, sort_keys=[("position", "ascending")]))

    def _compared(self, shard: int, table: pa.Table) -> pa.Table:
        """Compare a shard's work rows with the listings; return its rows of the index."""
        listed = self.inventory.shard(shard)
        before = listed["etag"].to_pylist()
        etags = list(before)
        self.counts.reread += _put_read(etags, table)
        versions = listed["version_id"].to_pylist() if self.inventory.totals.versions else [""] * len(etags)
        self.relisting.compare(listed["key"].to_pylist(), versions, etags, before)
        if self.report_comparison is not None:
            self.report_comparison.compare(listed)
        if self.inventory.totals.delete_markers and has(self.bucket.server, Trait.MARKERS_APART):
            self.counts.losses += _lost_order(self.inventory, shard)
        return table.drop_columns(["position"])

    def _unit_rows(self, unit: Unit) -> pa.Table:
        spec = unit.spec
        if "excluded" in spec:
            return unit_plan.excluded_rows(self.inventory, self.bucket.name, spec["shard"])
        if "number" in spec:
            if (name := self.finished.pack(unit.id)) is not None:
                data = self.workspace.read(name)
                if data is not None:
                    return index_rows.from_state(data, name)
        elif (row := self.finished.large(unit.id)) is not None:
            return index_rows.to_table([row])
        return self._missing(unit)

    def _missing(self, unit: Unit) -> pa.Table:
        """Return rows that say that a unit was not done, and note each object as a gap, so that the summary adds up; of
        very many the whole unit as one.
        """
        spec = unit.spec
        small = "number" in spec
        listed = self.inventory.included(spec["shard"], spec["start"], spec["rows"])
        missing = [(row_number, summary) for row_number, summary in listed if _belongs(summary, small=small)]
        reason = f"the export ended before it was read (unit {unit.id})"
        gaps = [Gap(summary.name, "failed", reason) for _, summary in missing]
        name = self.bucket.name
        table = index_rows.to_table(
            index_rows.missing(name, row_number, summary, gap)
            for (row_number, summary), gap in zip(missing, gaps, strict=True)
        )
        if len(gaps) > 1 and len(self.counts.gaps) + len(gaps) > _NAMED_GAPS:
            item = f"{len(gaps)} objects from {gaps[0].item!r} to {gaps[-1].item!r}"
            gaps = [Gap(item, "failed", reason)]
        self.counts.gaps += gaps
        return table

    def _summary(self, losses: Sequence[Loss]) -> SourceSummary:
        totals, counts = self.inventory.totals, self.counts
        relisting, report_comparison = self.relisting, self.report_comparison
        name = self.bucket.name + (f"/{self.bucket.prefix}" if self.bucket.prefix else "")
        entry = CatalogEntry(
            kind="bucket",
            number=0,
            schema="",
            name=name,
            items=counts.exported,
            size_bytes=counts.size_bytes,
            digest="",
            details={
                "bucket": self.bucket.name,
                "prefix": self.bucket.prefix,
                "index_files": counts.files,
                "newer_than_listed": counts.reread,
                "history": bool(totals.versions),
                "delete_markers": totals.delete_markers,
                "choice": totals.choice,
            },
        )
        kind = "versions" if totals.versions else "objects"
        unnamed = len(self.bucket.not_utf_8)  # of which there are no rows anywhere
        enumerations = (
            [] if relisting.refusal else [Enumeration(kind, relisting.how, relisting.count + unnamed)]
        )
        enumerations += [report_comparison.enumeration()] if report_comparison else []
        return SourceSummary(
            entries=[entry],
            enumerations=[
                Enumeration(kind, "the listing", totals.objects + unnamed),
                Enumeration(kind, "rows of the index", counts.rows + unnamed),
                *enumerations,
            ],
            gaps=counts.gaps,
            losses=[*losses, *(report_comparison.losses() if report_comparison else ())],
            positions=[{"listed_from": totals.listed_from, "listed_to": totals.listed_to}],
            server=self.bucket.server,
        )

    def _losses(self, configuration: Mapping[str, Any], *, tags_readable: bool) -> Iterator[Loss]:
        name = self.bucket.name
        for denied in configuration.get("denied", ()):
            yield Loss(name, f"bucket {denied}", "these credentials may not read it")
        for failing in configuration.get("failing", ()):
            yield Loss(name, f"bucket {failing}", "the server answers with an error when it is asked for it")
        for changed in self.noted.changed_until(configuration) if self.noted else ():
            reason = "it was changed during the export, and is in the bundle as it was at the end"
            yield Loss(name, f"bucket {changed}", reason)
        yield from self._lost_versions(configuration)
        if lists_no_keys_beneath(self.bucket.server):
            yield Loss(name, "keys below the names of objects", BENEATH)
        if not tags_readable:
            yield Loss(name, "tags", "the objects' tags may not, or cannot, be read")

    def _lost_versions(self, configuration: Mapping[str, Any]) -> Iterator[Loss]:
        name, totals = self.bucket.name, self.inventory.totals
        if totals.versions is None:
            yield Loss(name, "versions", "these credentials may not know whether there are older versions")
        elif not totals.versions and configuration.get("versioning", {}).get("Status"):
            only = "only the current version of each object is in the bundle"
            yield Loss(
                name, "versions", f"{only}, as was chosen" if "current_only" in totals.choice else only
            )


def _lost_order(inventory: Inventory, shard: int) -> Iterator[Loss]:
    """Yield a loss where a delete marker of a shard stands next to a version, and it is not known which is older."""
    listed = inventory.shard(shard)
    markers = listed["is_delete_marker"].to_pylist()
    for number in (number for number, is_marker in enumerate(markers) if is_marker):
        first = max(number - 1, 0)
        rows = list(inventory.objects(shard, first, number + 2 - first))
        for pair in pairwise(rows):
            if _has_no_order(*pair):
                newer, older = (row.name for row in pair)
                reason = f"{older} counts as older than {newer}: they were replaced in one second"
                yield Loss(pair[1].key, "order of versions", reason)


def _has_no_order(newer: ObjectSummary, older: ObjectSummary) -> bool:
    """Tell whether neighbours in a listing may be in the wrong order; see ``Trait.MARKERS_APART``."""
    is_one_key = newer.key == older.key and not newer.is_latest
    is_mixed = newer.is_delete_marker != older.is_delete_marker and NULL_VERSION in {
        newer.version_id,
        older.version_id,
    }
    return is_one_key and is_mixed and int(newer.modified.timestamp()) == int(older.modified.timestamp())


def tags_readable(bucket: Bucket, inventory: Inventory) -> bool:
    """Tell whether the tags of some objects may be read, from all over the bucket: a policy may deny them below a
    prefix, and servers that count tags say nothing of them then.
    """
    samples = [
        summary
        for shard in _spread(inventory.totals.shards, _TAG_SHARDS)
        for row in _spread(inventory.shard(shard).num_rows, _TAG_SAMPLES)
        for summary in inventory.objects(shard, row, 1)
        if not summary.is_delete_marker  # which has none, and servers say of it that there is no such call
    ]
    return bucket.tags_readable(samples)


def _spread(count: int, most: int) -> Iterable[int]:
    """Return numbers below ``count``, at most as many, at even distances."""
    return range(0, count, -(-count // most) or 1)


def _put_read(etags: list[str | None], table: pa.Table) -> int:
    """Put the ETags of what was read in the place of those that were listed, None for what was deleted
    meanwhile. Return how many objects were read in a newer version.
    """
    newer = 0
    columns = (table[name].to_pylist() for name in ("position", "etag", "disposition", "reason"))
    for position, etag, disposition, reason in zip(*columns, strict=True):
        if disposition == "exported":
            newer += bool(etag) and etag != etags[position]
            etags[position] = etag or ""
        elif reason == changed_objects.DELETED:
            etags[position] = None
    return newer


def _belongs(summary: ObjectSummary, *, small: bool) -> bool:
    return not small or summary.size_bytes <= SMALL_BYTES


def _by_shard(units: Iterable[Unit]) -> Iterator[tuple[int, list[Unit]]]:
    shard, gathered = -1, list[Unit]()
    for unit in units:
        if unit.spec["shard"] != shard and gathered:
            yield shard, gathered
            gathered = []
        shard = unit.spec["shard"]
        gathered.append(unit)
    if gathered:
        yield shard, gathered


def _write_index(tables: Iterator[pa.Table], sink: Sink, counts: ObjectCounts) -> None:
    """Write tables as files of at most ``INDEX_ROWS`` rows; an empty bucket has one file without rows."""
    left: list[pa.Table] = [next(tables, index_rows.INDEX.empty_table())]
    while left:
        with sink.create(f"index/objects-{counts.files:06d}.parquet") as file:
            left = _write_file(left.pop(), tables, file, counts)
        counts.files += 1


def _write_file(
    first: pa.Table, tables: Iterator[pa.Table], file: BinaryIO, counts: ObjectCounts
) -> list[pa.Table]:
    """Return the table that did not go into the file, if there is one."""
    written = 0
    table: pa.Table | None = first
    del first
    with pq.ParquetWriter(file, index_rows.INDEX, compression="zstd") as writer:
        while table is not None and written + table.num_rows <= INDEX_ROWS:
            writer.write_table(table, row_group_size=_GROUP_ROWS)
            written += table.num_rows
            _count(table, counts)
            table = None  # before the next one is made
            table = next(tables, None)
    return [] if table is None else [table]


def _count(table: pa.Table, counts: ObjectCounts) -> None:
    counts.rows += table.num_rows
    sizes = pc.filter(table["size"], pc.equal(table["disposition"], "exported"))
    counts.exported += len(sizes)
    counts.size_bytes += pc.sum(sizes).as_py() or 0


class NotedBucket(Struct, frozen=True):
    """What the summary asks of a ``Bucket``. ``settings``: None where they have not been read. ``changed``: the names
    of those that were others at an earlier run.
    """

    name: str
    prefix: str
    server: str
    settings: dict[str, Any] | None = None
    are_tags_readable: bool = True
    changed: tuple[str, ...] = ()
    not_utf_8: tuple[str, ...] = ()

    def configuration(self) -> dict[str, Any]:
        """See ``Bucket.configuration``."""
        return {"failing": ["settings"]} if self.settings is None else self.settings

    def tags_readable(self, samples: Sequence[ObjectSummary]) -> bool:
        """See ``Bucket.tags_readable``."""
        del samples
        return self.are_tags_readable

    def note(self, workspace: Workspace) -> None:
        """Write it."""
        workspace.write(OUTLINE, json.dumps(as_dict(self), default=str).encode())

    def changed_until(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the settings that are others by now, or were at an earlier run. What could not be read
        then, or cannot now, may be the same.
        """
        if self.settings is None:
            return self.changed
        noted, now = self.settings, json.loads(json.dumps(settings, default=str))
        unread = _UNREAD.union(*(read.get(kind, ()) for read in (noted, now) for kind in _UNREAD))
        others = {
            name for name in {*noted, *now} - unread if _ordered(noted.get(name)) != _ordered(now.get(name))
        }
        return tuple(sorted({*self.changed, *others}))


def _ordered(setting: Any) -> Any:
    """Return a setting with its lists in one order, those in the text of a policy, too: MinIO and versitygw have
    another one in each answer.
    """
    if isinstance(setting, dict):
        return {name: _ordered(value) for name, value in setting.items()}
    if isinstance(setting, list):
        return sorted(map(_ordered, setting), key=lambda value: json.dumps(value, sort_keys=True))
    if isinstance(setting, str) and setting.startswith("{"):
        with suppress(ValueError):
            return _ordered(json.loads(setting))
    return setting


def noted_bucket(workspace: Workspace) -> NotedBucket | None:
    """Return what was noted of the bucket, None where nothing was. Raises ``SourceStateError``."""
    data = workspace.read(OUTLINE)
    if data is None:
        return None
    with reading_state(OUTLINE):
        return msgspec.convert(json.loads(data), NotedBucket)


def summary_of_gone(
    workspace: Workspace, done: Iterable[DoneUnit], sink: Sink, error: SourceError
) -> SourceSummary | None:
    """See ``exporters.engine.SummaryOfGone``."""
    noted, listed = noted_bucket(workspace), inventory.read_inventory(workspace)
    if noted is None or listed is None:
        return None
    bucket = cast("Bucket", noted)
    own_units = (unit for unit in done if unit.outcome.facts.get("inventory") == listed.totals.id)
    planned = unit_plan.cut(listed, bucket.name)
    relisting = Relisting(bucket, listed.totals, refusal=error)
    with closing(FinishedUnits(own_units)) as finished:
        return SummaryWriter(bucket, listed, workspace, finished, relisting, noted=noted).run(planned, sink)
