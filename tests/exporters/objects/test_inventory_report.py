"""A bucket held against an S3 Inventory report, made here as Amazon publishes them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.bucket_api import Fetched, ObjectSummary
from exporters.errors import SourceDamagedError, SourceGoneError, SourceUnreachableError, SourceUsageError
from exporters.objects.listing import s3_inventory_check, s3_inventory_report
from exporters.objects.listing.inventory import Totals
from exporters.objects.listing.s3_inventory_check import ReportComparison
from exporters.objects.source import ObjectExporter
from migrate.bundle.reader import BundleReader
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.exporters.objects.conftest import BucketHost

KEYS = ("a b+c%2F", "ünï/çödé", "plain", 'quo"ted', "line\nbreak", "sub/one", "sub/two", "\ufffd")
PARQUET = """message s3.inventory {
  required binary bucket (STRING);
  required binary key (STRING);
  optional binary version_id (STRING);
  optional boolean is_latest;
  optional boolean is_delete_marker;
  optional int64 size;
  optional int64 last_modified_date (TIMESTAMP(MILLIS,true));
  optional binary e_tag (STRING);
}"""
CSV = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, ETag"


class Host(BucketHost):
    def __init__(self, manifest):
        super().__init__()
        self._manifest = str(manifest)

    def inventory(self):
        return self._manifest


def listed(shop):
    """Every version and marker: (key, version, latest?, marker?, size, etag)."""
    found = []
    for page in shop.boto.get_paginator("list_object_versions").paginate(Bucket=shop.name):
        found += [
            (one["Key"], one["VersionId"], one["IsLatest"], False, one["Size"], one["ETag"].strip('"'))
            for one in page.get("Versions", ())
        ]
        found += [
            (one["Key"], one["VersionId"], one["IsLatest"], True, None, None)
            for one in page.get("DeleteMarkers", ())
        ]
    return found


def as_csv(rows, bucket, *, versions):
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for key, version, latest, marker, size, etag in rows:
        middle = [version.replace("null", ""), str(latest).lower(), str(marker).lower()] if versions else []
        writer.writerow([bucket, quote_plus(key), *middle, "" if size is None else size, etag or ""])
        if key == "\ufffd":
            writer.writerow([bucket, "%FF", *middle, size, "of a key that is not UTF-8"])
    schema = CSV if versions else CSV.replace("VersionId, IsLatest, IsDeleteMarker, ", "")
    return gzip.compress(out.getvalue().encode()), schema, "csv.gz"


def as_parquet(rows, bucket):
    names = ("key", "version_id", "is_latest", "is_delete_marker", "size", "e_tag")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    out = io.BytesIO()
    pq.write_table(pa.table({"bucket": [bucket] * len(rows), **columns}), out)
    return out.getvalue(), PARQUET, "parquet"


def publish(data, schema, ending, *, bucket, write, created=None, md5=None):
    """Write data file and manifest as S3 lays them out; return the manifest's key."""
    root = f"reports/{bucket}/daily"
    key = f"{root}/data/f4b2a1.{ending}"
    made = created or datetime.now(UTC)
    manifest = {
        "sourceBucket": bucket,
        "destinationBucket": "arn:aws:s3:::reports",
        "version": "2016-11-30",
        "creationTimestamp": str(int(made.timestamp() * 1000)),
        "fileFormat": "CSV" if ending == "csv.gz" else "Parquet",
        "fileSchema": schema,
        "files": [
            {"key": key, "size": len(data), "MD5checksum": md5 or hashlib.md5(data).hexdigest()},
        ],
    }
    write(key, data)
    where = f"{root}/2026-11-25T01-00Z/manifest.json"
    write(where, json.dumps(manifest).encode())
    return where


@pytest.fixture
def write(tmp_path):
    def write(key, data):
        path = tmp_path / "copied" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return write


@pytest.fixture
def filled(minio, make_shop):
    shop = make_shop(minio)
    for key in KEYS:
        shop.put(key, key.encode())
    return shop


def take(shop, manifest, location, prefix=""):
    url = f"s3://{shop.name}/{prefix}?profile={shop.server.profile}"
    source = ObjectExporter().open("shop", url, Host(manifest))
    outcome = export([source], open_location(str(location)), workers=2, progress=Silent())
    for source in outcome.broken:
        raise source.error
    found = BundleReader(open_location(str(location))).reconciliation()[0]
    counts = {one.how: one.count for one in found.summary.enumerations}
    return outcome, next(count for how, count in counts.items() if "S3 Inventory" in how), found


def losses(location):
    table = pq.read_table(location / "data/losses.parquet").to_pylist()
    return {row["item"]: row["reason"] for row in table if row["property"] == "S3 Inventory"}


@pytest.mark.parametrize("kind", ["csv", "csv of current versions", "parquet"])
def test_a_report_that_agrees_is_one_more_enumeration(filled, write, tmp_path, kind):
    """Keys of every kind, URL-encoded in CSV and not in Parquet."""
    rows = listed(filled)
    data = (
        as_parquet(rows, filled.name)
        if kind == "parquet"
        else as_csv(rows, filled.name, versions=kind == "csv")
    )
    manifest = publish(*data, bucket=filled.name, write=write)
    outcome, count, _ = take(filled, tmp_path / "copied" / manifest, tmp_path / "bundle")
    assert outcome.complete
    assert count == len(KEYS)
    assert losses(tmp_path / "bundle") == {}


def test_of_a_prefix_only_its_rows_count(filled, write, tmp_path):
    manifest = publish(*as_parquet(listed(filled), filled.name), bucket=filled.name, write=write)
    outcome, count, _ = take(filled, tmp_path / "copied" / manifest, tmp_path / "bundle", prefix="sub")
    assert (outcome.complete, count) == (True, 2)


@pytest.mark.parametrize("versions", [True, False], ids=["of versions", "of current ones"])
def test_versions_and_markers_are_held_against_it(filled, write, tmp_path, versions):
    """A report of current versions has nothing to say about older ones; those it has are compared."""
    filled.boto.put_bucket_versioning(Bucket=filled.name, VersioningConfiguration={"Status": "Enabled"})
    filled.put("plain", b"second")
    filled.put("plain", b"third")
    filled.boto.delete_object(Bucket=filled.name, Key="sub/one")
    rows = listed(filled)
    wanted = rows if versions else [row for row in rows if row[2] and not row[3]]
    data = as_csv(wanted, filled.name, versions=versions)
    manifest = publish(*data, bucket=filled.name, write=write)
    outcome, count, _ = take(filled, tmp_path / "copied" / manifest, tmp_path / "bundle")
    assert outcome.complete
    assert count == len(rows) == len(KEYS) + 3
    assert losses(tmp_path / "bundle") == {}


def test_what_the_listing_overlooks_makes_the_bundle_incomplete(filled, write, tmp_path):
    """MinIO lists no key below the name of another object; the report names it, and it is there."""
    rows = listed(filled)
    filled.put("plain/below", b"hidden")
    assert "plain/below" not in set(filled.keys()), (
        "this server lists it: the test needs another one that does not"
    )
    rows.append(("plain/below", "null", True, False, 6, hashlib.md5(b"hidden").hexdigest()))
    time.sleep(1.1)  # a listing is of whole seconds: what was there before it must be older
    manifest = publish(*as_parquet(rows, filled.name), bucket=filled.name, write=write)
    outcome, count, reconciliation = take(filled, tmp_path / "copied" / manifest, tmp_path / "bundle")
    assert outcome.exit_code == 3
    assert count == len(KEYS) + 1
    assert any("S3 Inventory" in reason for reason in reconciliation.reasons)
    assert "did not show it" in losses(tmp_path / "bundle")["plain/below"]


def test_what_was_deleted_since_or_is_younger_is_no_difference(filled, write, tmp_path):
    rows = [*listed(filled), ("gone", "null", True, False, 4, "0" * 32)]
    filled.put("new", b"new")
    manifest = publish(*as_parquet(rows, filled.name), bucket=filled.name, write=write)
    outcome, count, _ = take(filled, tmp_path / "copied" / manifest, tmp_path / "bundle")
    assert (outcome.complete, count) == (True, len(KEYS) + 1)
    assert losses(tmp_path / "bundle") == {}


def test_what_it_says_otherwise_of_older_objects_is_named(filled, write, tmp_path):
    """Made, so it says, in ten days: then all objects are old enough to be in it as they are."""
    rows = [
        row if row[0] != "plain" else (*row[:5], "f" * 32) for row in listed(filled) if row[0] != "sub/two"
    ]
    later = datetime.fromtimestamp(time.time() + 10 * 86400, UTC)
    data = as_csv(rows, filled.name, versions=False)
    manifest = publish(*data, bucket=filled.name, write=write, created=later)
    outcome, count, _ = take(filled, tmp_path / "copied" / manifest, tmp_path / "bundle")
    assert (outcome.complete, count) == (True, len(KEYS))
    lost = losses(tmp_path / "bundle")
    assert set(lost) == {"plain", "sub/two"}
    assert "another ETag" in lost["plain"]
    assert "does not name it" in lost["sub/two"]


def test_a_report_in_a_bucket_by_the_command(filled, make_shop, minio, tmp_path):
    reports = make_shop(minio)
    where = publish(*as_parquet(listed(filled), filled.name), bucket=filled.name, write=reports.put)
    profile = f"?profile={minio.profile}"
    words = ("--inventory", f"s3://{reports.name}/{where}{profile}", "--to", tmp_path / "bundle")
    ended = call("export", f"shop=s3://{filled.name}{profile}", *words)
    assert ended.code == 0, ended.err
    found = BundleReader(open_location(str(tmp_path / "bundle"))).reconciliation()[0]
    assert any("S3 Inventory" in one.how for one in found.summary.enumerations)


def test_a_damaged_file_is_found(filled, write, tmp_path):
    data = as_parquet(listed(filled), filled.name)
    manifest = publish(*data, bucket=filled.name, write=write, md5="0" * 32)
    with pytest.raises(SourceDamagedError, match="the manifest says"):
        take(filled, tmp_path / "copied" / manifest, tmp_path / "bundle")


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.torture)], ids=["some", "all"])
def test_a_report_whose_pages_are_damaged_is_not_read_as_an_empty_one(write, tmp_path, step):
    """Arrow returns no rows and no error for some of these bytes."""
    data, schema, ending = as_parquet([("a", "null", True, False, 1, "e")], "shop")
    for place in range(4, len(data), step):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        where = tmp_path / "copied" / publish(damaged, schema, ending, bucket="shop", write=write)
        files = s3_inventory_report.Files(str(where), None)
        with suppress(SourceDamagedError):
            assert len(list(s3_inventory_report.rows(files.manifest(), files))) == 1


def test_another_buckets_report_is_refused_before_anything_is_read(filled, write, tmp_path):
    manifest = publish(*as_parquet(listed(filled), "other"), bucket="other", write=write)
    with pytest.raises(SourceUsageError, match="inventory of other"):
        take(filled, tmp_path / "copied" / manifest, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "not a manifest"),
        ("no json", "not a manifest"),
        ('{"fileFormat": "ORC", "fileSchema": ""}', "ORC"),
    ],
)
def test_what_is_no_manifest_is_said(text, said):
    with pytest.raises(SourceUsageError, match=said):
        s3_inventory_report.parse(text.encode(), "here")


def test_a_manifest_without_its_files_says_what_is_missing(filled, write, tmp_path):
    manifest = publish(*as_parquet(listed(filled), filled.name), bucket=filled.name, write=write)
    next((tmp_path / "copied").rglob("*.parquet")).unlink()
    with pytest.raises(SourceGoneError, match="not next to it"):
        take(filled, tmp_path / "copied" / manifest, tmp_path / "bundle")


BEGUN = datetime(2026, 2, 1, 12, 0, 0, 500000, tzinfo=UTC)
"""When the listing began; the report was made a week before."""
MADE = BEGUN - timedelta(days=7)
OLD, YOUNG = MADE - timedelta(days=2), MADE - timedelta(days=2, microseconds=-1)


class Answers:
    """A bucket that answers about single objects: when they were written, or with an error; others are gone.
    ``listed``: delete markers that its listing shows.
    """

    name, prefix, url, server = "shop", "in/", "s3://shop", "memory"

    def __init__(self, written=(), listed=()):
        self.written, self.listed = dict(written), listed

    def heads(self, summaries):
        for summary in summaries:
            answer = self.written.get(summary.key, SourceGoneError("gone"))
            if isinstance(answer, Exception):
                yield Fetched(summary, error=answer)
            else:
                yield Fetched(summary, headers={"last-modified": format_datetime(answer)} if answer else {})

    def list_versions(self, *, after):
        assert after == ("in/", "")
        return iter(self.listed)


def compared(write, tmp_path, rows, inventory, *, bucket=None, versions=False):
    """Compare rows of a report with those of an inventory: (key, version, latest?, marker?, etag, modified)."""
    data, schema, ending = as_parquet([(*row[:4], 1, row[4]) for row in rows], "shop")
    manifest = publish(data, schema, ending, bucket="shop", write=write, created=MADE)
    totals = Totals(
        "id", 1, len(inventory), 1, 1, 1, True, BEGUN.isoformat(), BEGUN.isoformat(), versions=versions
    )  # fmt: skip
    found = ReportComparison(bucket or Answers(), totals, str(tmp_path / "copied" / manifest), None)
    names = ("key", "version_id", "is_latest", "is_delete_marker", "etag", "modified")
    columns = dict(zip(names, map(list, zip(*inventory, strict=True)), strict=True))
    if not versions:
        columns = {name: columns[name] for name in ("key", "etag", "modified")}
    found.compare(pa.table(columns))
    found.end()
    found.close()
    return found


def current(key, etag="e", modified=OLD):
    return (f"in/{key}", "null", True, False, etag, modified)


@pytest.mark.parametrize("block", [2, 3, 100])
def test_each_row_of_the_inventory_is_held_against_the_report(write, tmp_path, monkeypatch, block):
    monkeypatch.setattr(s3_inventory_check, "_BLOCK_ROWS", block)
    inventory = [
        current("differs", "other"),
        current("no etag here", ""),
        current("no etag there"),
        current("same"),
        current("same and young", modified=YOUNG),
        current("same too"),
        current("unnamed"),
        current("young and differs", "other", YOUNG),
        current("young and unnamed", modified=YOUNG),
    ]
    rows = [
        current("differs"),
        current("no etag here"),
        current("no etag there", ""),
        current("same"),
        current("same and young"),
        current("same too"),
        current("young and differs"),
        ("out/side", "null", True, False, "e", OLD),
        ("in/older version", "1", False, False, "e", OLD),
        ("in/marker", "2", True, True, None, OLD),
        *(current(f"only {name}") for name in ("gone", "there", "there too", "new", "timeless")),
    ]
    second = BEGUN.replace(microsecond=0)
    before = second - timedelta(seconds=1)
    written = {"there": before, "there too": before, "new": second, "timeless": None}
    bucket = Answers({f"in/only {name}": moment for name, moment in written.items()})
    found = compared(write, tmp_path, rows, inventory, bucket=bucket)
    assert (found.same, found.younger, found.deleted) == (5, 2, 1)
    assert (found.differing.first, found.unnamed.first) == (["in/differs"], ["in/unnamed"])
    assert found.overlooked.first == ["in/only there", "in/only there too", "in/only timeless"]
    counted = found.enumeration()
    assert (counted.what, counted.count) == ("objects", len(inventory) + 3)
    assert "the S3 Inventory of 2026-01-25 12:00 UTC" in counted.how
    assert [(loss.item, loss.property) for loss in found.losses()] == [
        (f"in/{name}", "S3 Inventory")
        for name in ("only there", "only there too", "only timeless", "differs", "unnamed")
    ]


def test_versions_and_delete_markers_are_told_apart(write, tmp_path):
    moment = BEGUN
    inventory = [
        ("in/a", "2", True, True, "", OLD),
        ("in/a", "1", False, False, "e", OLD),
        ("in/b", "null", True, False, "e", OLD),
        ("in/c", "1", True, False, "e", OLD),
    ]
    rows = [
        ("in/a", "2", True, True, None, OLD),
        ("in/a", "1", False, False, "e", OLD),
        ("in/b", "", True, False, "e", OLD),
        ("in/c", "1", True, False, "other", OLD),
        ("in/d", "1", True, True, None, OLD),
        ("in/d", "2", False, True, None, OLD),
        ("in/e", "1", True, False, "e", OLD),
    ]
    shown = ObjectSummary("in/d", 0, "", moment, version_id="2", is_delete_marker=True)
    found = compared(write, tmp_path, rows, inventory, bucket=Answers(listed=[shown]), versions=True)
    assert (found.same, found.deleted, found.unnamed.count) == (3, 2, 0)
    assert (found.differing.first, found.overlooked.first) == (["in/c (version 1)"], ["in/d (version 2)"])
    assert (found.enumeration().what, found.enumeration().count) == ("versions", 5)
    current_only = compared(write, tmp_path, [("in/b", "9", True, False, "e", OLD)], [inventory[2]])
    assert (current_only.same, current_only.enumeration().count) == (1, 1)


def test_of_very_many_differences_some_are_named_and_all_counted(write, tmp_path, monkeypatch):
    monkeypatch.setattr(s3_inventory_check, "_NAMED", 2)
    inventory = [current(str(number), "other") for number in range(3)]
    found = compared(write, tmp_path, [current(str(number)) for number in range(3)], inventory)
    assert [(loss.item, loss.reason.partition(":")[0]) for loss in found.losses()][2:] == [
        ("shop", "3 objects in all")
    ]
    assert [loss.item for loss in found.losses()][:2] == ["in/0", "in/1"]
    two = compared(write, tmp_path, [current(str(number)) for number in range(2)], inventory[:2])
    assert [loss.item for loss in two.losses()] == ["in/0", "in/1"]


def test_a_server_that_does_not_answer_about_an_object_is_an_error(write, tmp_path):
    bucket = Answers({"in/only": SourceUnreachableError("away")})
    with pytest.raises(SourceUnreachableError):
        compared(write, tmp_path, [current("a"), current("only")], [current("a")], bucket=bucket)
