"""A bucket as a source of an export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial

from msgspec.structs import replace

from exporters.api import (
    DoneUnit,
    Estimate,
    Host,
    Json,
    Outcome,
    Sink,
    SourceSummary,
    Survey,
    SurveyItem,
    Unit,
    Workspace,
)
from exporters.bucket_api import Bucket, ObjectSummary
from exporters.errors import SourceError, SourceGoneError
from exporters.limits import inventory_of, limits_of, note_of
from exporters.objects import bucket_survey, large_object, pack, unit_plan
from exporters.objects.archive import ARCHIVED, Thaw
from exporters.objects.bucket_survey import ObjectTotals, estimate
from exporters.objects.listing import inventory
from exporters.objects.listing.inventory import Totals
from exporters.objects.listing.s3_inventory_check import ReportComparison, manifest_of
from exporters.objects.listing.s3_inventory_report import Files
from exporters.objects.listing.second_listing import PagesAhead, Relisting
from exporters.objects.outage_detection import OutageDetector
from exporters.objects.source_summary import (
    FinishedUnits,
    NotedBucket,
    SummaryWriter,
    noted_bucket,
    tags_readable,
)
from exporters.selection import Selection

ReadReport = Callable[[Totals], ReportComparison]
"""Reads the S3 Inventory report that the listing is held against."""


class ObjectExporter:
    """See ``exporters.api.Exporter``; for ``s3://bucket/prefix`` URLs."""

    def open(self, name: str, url: str, host: Host) -> ObjectSource:
        """See ``Exporter.open``."""
        limits = limits_of(host)
        bucket = host.bucket(url)
        thaw = Thaw(bucket, limits.archive_tier, limits.deadline, note_of(host))
        manifest_url = inventory_of(host)
        if manifest_url is not None:
            manifest_of(bucket, Files(manifest_url, host.bucket))  # rather now than after hours
        report = (
            None
            if manifest_url is None
            else partial(ReportComparison, bucket, url=manifest_url, open_bucket=host.bucket)
        )
        return ObjectSource(name, bucket, host.selection(), thaw, report)


class ObjectSource:
    """See ``exporters.api.Source``."""

    def __init__(
        self,
        name: str,
        bucket: Bucket,
        selection: Selection,
        thaw: Thaw | None,
        report: ReadReport | None,
    ) -> None:
        self.name = name
        self.url = bucket.url
        self.identity = bucket.identity
        self._bucket = bucket
        self._selection = selection
        self._thaw = thaw or Thaw(bucket)
        self._report = report
        self._object_totals = ObjectTotals()

    def survey(self) -> Survey:
        """See ``Source.survey``."""
        seen, self._object_totals = bucket_survey.take(self._bucket, self._selection)
        counted = self._object_totals
        item = SurveyItem(
            self._bucket.name, "bucket", counted.items, counted.size_bytes, exact=not seen.goes_on
        )
        warnings = list(seen.warnings(self._bucket))
        return Survey([item], self._bucket.server, warnings, dict(seen.features), goes_on=seen.goes_on)

    def estimate(self, survey: Survey, *, seconds: float, workers: int) -> Estimate:
        """See ``exporters.api.Measurable``."""
        del survey, workers
        return estimate(self._bucket, self._object_totals, seconds=seconds)

    @contextmanager
    def snapshot(self, workspace: Workspace, *, workers: int) -> Iterator[ObjectSnapshot]:
        """See ``Source.snapshot``: lists the bucket, once, and asks for what is archived."""
        del workers
        listed = inventory.take(self._bucket, workspace, self._selection)
        self._thaw.ask_all(listed)
        snapshot = ObjectSnapshot(self._bucket, workspace, listed, self._thaw, self._report)
        try:
            yield snapshot
        finally:
            snapshot.close()

    @property
    def shareable(self) -> bool:
        """See ``exporters.api.Shareable``."""
        return True

    @contextmanager
    def join(self, workspace: Workspace, ticket: Json, *, workers: int) -> Iterator[ObjectSnapshot]:
        """See ``exporters.api.Shareable``: the inventory lies in the workspace."""
        del workers
        listed = inventory.existing(self._bucket, workspace, self._selection)
        if listed is None or listed.totals.id != ticket["inventory"]:
            raise SourceGoneError(f"{self._bucket.name}: there is no inventory {ticket['inventory']} here")
        next(iter(self._bucket.list()), None)  # raises where it cannot be read
        yield ObjectSnapshot(self._bucket, workspace, listed, self._thaw)

    def close(self) -> None:
        """Nothing is held open."""


class ObjectSnapshot:
    """See ``exporters.api.Snapshot``: the inventory, and reads pinned to the versions that it names."""

    def __init__(
        self,
        bucket: Bucket,
        workspace: Workspace,
        listed: inventory.Inventory,
        thaw: Thaw | None,
        report: ReadReport | None = None,
    ) -> None:
        self._bucket = bucket
        self._thaw = thaw or Thaw(bucket)
        self._report = report
        self._workspace = workspace
        self._inventory = listed
        self._outage = OutageDetector(bucket)
        self._pages_ahead: PagesAhead | None = None
        self._noted: NotedBucket | None = None
        totals = listed.totals
        self.position: Json = {"listed_from": totals.listed_from, "listed_to": totals.listed_to}
        self.ticket: Json = {"inventory": totals.id}

    def units(self) -> Iterator[Unit]:
        """See ``Snapshot.units``; what has to be waited for comes last."""
        cold: list[Unit] = []
        for unit in unit_plan.cut(self._inventory, self._bucket.name):
            if self._archived(unit):
                cold.append(unit)
            else:
                yield unit
        yield from cold

    def _archived(self, unit: Unit) -> list[ObjectSummary]:
        """Return the archived objects of a unit."""
        spec = unit.spec
        if "excluded" in spec or not self._inventory.has_class(spec["shard"], ARCHIVED):
            return []
        rows = self._inventory.included(spec["shard"], spec["start"], spec["rows"])
        return [
            summary
            for _, summary in rows
            if summary.storage_class in ARCHIVED and not summary.is_delete_marker
        ]

    def export(self, unit: Unit, sink: Sink) -> Outcome:
        """See ``Snapshot.export``."""
        if "excluded" in unit.spec:
            return unit_plan.name_excluded(unit, self._inventory)
        if cold := self._archived(unit):
            self._thaw.wait(cold)
        if "number" in unit.spec:
            return self._packing(sink).export(unit)
        return large_object.export(unit, self._bucket, self._inventory, sink, self._outage)

    def mend(self, done: DoneUnit, sink: Sink) -> Outcome:
        """See ``exporters.api.Mendable``: what failed of a pack goes into one more."""
        if "number" in done.unit.spec:
            return self._packing(sink).mend(done)
        return self.export(done.unit, sink)

    def _packing(self, sink: Sink) -> pack.Packing:
        return pack.Packing(self._bucket, self._inventory, sink, self._workspace, self._outage)

    def still_holds(self, done: DoneUnit) -> bool:
        """See ``Snapshot.still_holds``: whether it was made by the same inventory."""
        return bool(done.outcome.facts.get("inventory") == self._inventory.totals.id)

    @property
    def prepares_early(self) -> bool:
        """See ``exporters.api.PreparesFinish``: the second listing is to see what has changed meanwhile."""
        return False

    def begin_outline(self, workspace: Workspace) -> None:
        """See ``exporters.api.Outlined``: some requests at once, to a server that has just listed the bucket."""
        bucket = self._bucket
        noted = NotedBucket(
            bucket.name, bucket.prefix, bucket.server, not_utf_8=tuple(sorted(bucket.not_utf_8))
        )
        with ThreadPoolExecutor(1, thread_name_prefix="moveout-noted") as aside:
            asked = aside.submit(noted_bucket, workspace)
            with suppress(SourceError):
                settings = dict(bucket.configuration())
                readable = tags_readable(bucket, self._inventory)
                noted = replace(noted, settings=settings, are_tags_readable=readable)
        with suppress(SourceError):
            if (earlier := asked.result()) and noted.settings is None:
                noted = earlier  # which has more
            elif earlier:
                keys = tuple(sorted({*earlier.not_utf_8, *noted.not_utf_8}))
                noted = replace(noted, changed=earlier.changed_until(noted.settings or {}), not_utf_8=keys)
        self._noted = noted
        noted.note(workspace)

    def prepare_finish(self) -> None:
        """See ``exporters.api.PreparesFinish``: begins the second listing, for which servers need a while."""
        if self._inventory.totals.ordered:
            self._pages_ahead = PagesAhead(self._bucket, self._inventory.totals)

    def finish(self, done: Iterator[DoneUnit], sink: Sink) -> SourceSummary:
        """See ``Snapshot.finish``."""
        planned = unit_plan.cut(self._inventory, self._bucket.name)
        pages_ahead, self._pages_ahead = self._pages_ahead, None
        totals = self._inventory.totals
        with ExitStack() as stack:
            if pages_ahead is not None:
                stack.callback(pages_ahead.close)
            finished = stack.enter_context(closing(FinishedUnits(done)))
            relisting = stack.enter_context(closing(Relisting(self._bucket, totals, pages_ahead)))
            report = stack.enter_context(closing(self._report(totals))) if self._report else None
            writer = SummaryWriter(
                self._bucket,
                self._inventory,
                self._workspace,
                finished,
                relisting,
                report,
                noted=self._noted,
            )
            return writer.run(planned, sink)

    def close(self) -> None:
        """End what is under way."""
        if self._pages_ahead is not None:
            self._pages_ahead.close()
