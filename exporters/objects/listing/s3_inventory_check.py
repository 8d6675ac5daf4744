"""Compares the inventory with an S3 Inventory report: a further count, independent of all listings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pyarrow as pa
from msgspec import Struct, field

from exporters.api import Enumeration, Loss
from exporters.bucket_api import Bucket, Fetched, ObjectSummary
from exporters.errors import SourceGoneError, SourceUsageError
from exporters.lossless_text import is_utf_8
from exporters.objects import changed_objects
from exporters.objects.listing import s3_inventory_report
from exporters.objects.listing.inventory import Totals
from exporters.objects.scratch_table import scratch_table

SETTLED = timedelta(days=2)
"""A report is "eventually consistent" (user guide): what is younger than this when it is made may be missing in it."""
_NAMED = 1000
_BLOCK_ROWS = 10_000


class _Names(Struct):
    """Some of the names that were counted."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(name)


def manifest_of(bucket: Bucket, files: s3_inventory_report.Files) -> s3_inventory_report.Report:
    """Return what the report's manifest says. Raises ``SourceUsageError`` where it is another bucket's."""
    manifest = files.manifest()
    if manifest.bucket != bucket.name:
        raise SourceUsageError(
            f"{manifest.url} is an inventory of {manifest.bucket}, not of {bucket.name}",
            next_step="give the manifest.json of this bucket's own report",
        )
    return manifest


class ReportComparison:
    """Takes the rows of the inventory out of the report. At the end it asks the bucket about what is left.

    Its count is what the listing should have: objects that both have, objects that only the listing has, and objects
    that only the report has and that still exist. It differs from the listing's count by the last of these.
    """

    def __init__(
        self, bucket: Bucket, totals: Totals, url: str, open_bucket: s3_inventory_report.OpenBucket
    ) -> None:
        self._bucket = bucket
        self._totals = totals
        files = s3_inventory_report.Files(url, open_bucket)
        self._report = manifest_of(bucket, files)
        self._since = datetime.fromisoformat(totals.listed_from)
        self._by_version = bool(totals.versions) and self._report.has_versions
        self.same = self.younger = self.deleted = 0
        self.differing, self.unnamed, self.overlooked = _Names(), _Names(), _Names()
        named = (
            (row.key, self._version(row.version), row.is_delete_marker, row.etag) for row in self._rows(files)
        )
        self._left = scratch_table(
            "CREATE TABLE left (key TEXT, version TEXT, marker INTEGER, etag TEXT, PRIMARY KEY (key, version))",
            "INSERT OR REPLACE INTO left VALUES (?, ?, ?, ?)",
            named,
        )

    def compare(self, shard: pa.Table) -> None:
        """Take in rows of the inventory (see ``Inventory.shard``)."""
        for start in range(0, shard.num_rows, _BLOCK_ROWS):
            self._compare(shard.slice(start, _BLOCK_ROWS))

    def end(self) -> None:
        """Look at what only the report names. Raises ``SourceError``."""
        unlisted = []
        for key, version, marker in self._left.execute("SELECT key, version, marker FROM left ORDER BY key"):
            unlisted.append(
                ObjectSummary(
                    key, 0, "", self._report.created, version_id=version, is_delete_marker=bool(marker)
                )
            )
            if len(unlisted) == _BLOCK_ROWS:
                self._look(unlisted)
                unlisted = []
        self._look(unlisted)

    def close(self) -> None:
        """Drop the file."""
        self._left.close()

    def enumeration(self) -> Enumeration:
        """Return the count, by the name of what the others count."""
        kind = "versions" if self._totals.versions else "objects"
        when = f"the S3 Inventory of {self._report.created:%Y-%m-%d %H:%M} UTC"
        count = self.same + self.differing.count + self.younger + self.unnamed.count + self.overlooked.count
        return Enumeration(kind, f"{when}, less what was deleted since, plus what it does not name", count)

    def losses(self) -> Iterator[Loss]:
        """Yield the differences, by name."""
        when = f"the S3 Inventory of {self._report.created:%Y-%m-%d}"
        for names, reason in (
            (self.overlooked, f"{when} names it and it is there, but the listing did not show it"),
            (self.differing, f"{when} has another ETag for it, though it is older"),
            (self.unnamed, f"{when} does not name it, though it is older"),
        ):
            for name in names.first:
                yield Loss(name, "S3 Inventory", reason)
            if names.count > len(names.first):
                yield Loss(self._bucket.name, "S3 Inventory", f"{names.count} objects in all: {reason}")

    def _compare(self, rows: pa.Table) -> None:
        columns = rows.column_names
        count = rows.num_rows
        plain = [""] * count
        versions = rows["version_id"].to_pylist() if "version_id" in columns else plain
        latest = rows["is_latest"].to_pylist() if "is_latest" in columns else [True] * count
        markers = rows["is_delete_marker"].to_pylist() if "is_delete_marker" in columns else [False] * count
        facts = zip(
            rows["key"].to_pylist(), versions, latest, markers, rows["etag"].to_pylist(), rows["modified"].to_pylist(),
            strict=True,
        )  # fmt: skip
        for key, version, is_latest, marker, etag, modified in facts:
            if not self._by_version and (marker or not is_latest):
                self.same += 1  # a report of current versions has nothing to say about it
                continue
            self._see(key, version, "" if marker else etag, modified)

    def _see(self, key: str, version: str, etag: str, modified: datetime) -> None:
        query = "DELETE FROM left WHERE key = ? AND version = ? RETURNING etag"
        row = self._left.execute(query, (key, self._version(version))).fetchone()
        name = f"{key} (version {version})" if version else key
        if modified > self._report.created - SETTLED and (row is None or row[0] != etag):
            self.younger += 1
        elif row is None:
            self.unnamed.add(name)
        elif row[0] and etag and row[0] != etag:
            self.differing.add(name)
        else:
            self.same += 1

    def _look(self, unlisted: Sequence[ObjectSummary]) -> None:
        """Count what only the report has as deleted since, or as overlooked by the listing."""
        markers = [summary for summary in unlisted if summary.is_delete_marker]
        listed_names = (
            changed_objects.still_listed(self._bucket, markers, ordered=self._totals.ordered)
            if markers
            else set()
        )
        for summary in markers:
            if summary.name in listed_names:
                self.overlooked.add(summary.name)
            else:
                self.deleted += 1
        objects = [summary for summary in unlisted if not summary.is_delete_marker]
        for summary, head in zip(objects, self._bucket.heads(objects), strict=True):
            if isinstance(head.error, SourceGoneError):
                self.deleted += 1
            elif head.error is not None:
                raise head.error
            elif _modified(head) < self._since.replace(microsecond=0):
                self.overlooked.add(summary.name)

    def _rows(self, files: s3_inventory_report.Files) -> Iterator[s3_inventory_report.Row]:
        for row in s3_inventory_report.rows(self._report, files):
            if not row.key.startswith(self._bucket.prefix) or not is_utf_8(row.key):
                continue  # a key that is not UTF-8 is a gap of the listing
            if self._by_version or (row.is_latest and not row.is_delete_marker):
                yield row

    def _version(self, version: str) -> str:
        return (version or "null") if self._by_version else ""


def _modified(head: Fetched) -> datetime:
    text = head.headers.get("last-modified")
    return parsedate_to_datetime(text) if text else datetime.min.replace(tzinfo=UTC)
