"""A bundle's objects against a live bucket: each difference is named, by key and version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from exporters.bucket_api import Fetched
from exporters.errors import SourceItemError, SourceUnreachableError
from migrate.bundle.findings import Finding
from migrate.bundle.object_index import ObjectRow
from migrate.bundle.reader import BundleReader
from migrate.runtime.progress import Silent
from migrate.verify import live_bucket
from migrate.verify.compare import ComparisonRequest
from migrate.verify.live_bucket import compare_bucket
from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import MakeShop, Shop, fill, make_shop, take_out
from tests.exporters.objects.test_history import make_old_shop
from tests.tools.clients import boto_client

__all__ = ["make_shop"]


def compare(reader: BundleReader, shop: Shop, *, read_all: bool = False) -> Sequence[Finding]:
    return compare_bucket(
        ComparisonRequest(reader, "shop", shop.url, workers=2, progress=Silent(), read_all=read_all)
    ).findings


def test_every_difference_is_found(minio: S3Server, make_shop: MakeShop, tmp_path: Path) -> None:
    shop = make_shop(minio)
    fill(shop, odd=False)
    reader = take_out(shop.url, tmp_path / "bundle")
    assert compare(reader, shop) == []
    shop.put("new")
    shop.boto.delete_object(Bucket=shop.name, Key="small/001.bin")
    shop.put(
        "small/002.bin", b"z" * 100, ContentType="application/x-thing", Metadata={"n": "100", "who": "me"}
    )
    shop.put("small/003.bin", b"longer than before" * 100)
    shop.boto.put_object_tagging(
        Bucket=shop.name, Key="described", Tagging={"TagSet": [{"Key": "project", "Value": "red"}]}
    )
    different = ["described", "described", "new", "small/001.bin", "small/002.bin", "small/003.bin"]
    for read_all in (False, True):
        assert sorted(one.key for one in compare(reader, shop, read_all=read_all)) == different


@pytest.fixture
def old_shop(minio: S3Server) -> Shop:
    """A bucket that keeps versions and locks; it stays, for a locked version cannot be deleted."""
    name = f"compared-{datetime.now(UTC):%H%M%S%f}"
    client = boto_client(minio.profile)
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return Shop(minio, name, client)


def test_every_difference_of_versions_and_locks_is_found(old_shop: Shop, tmp_path: Path) -> None:
    shop, in_an_hour = old_shop, datetime.now(UTC) + timedelta(hours=1)
    shop.put("held", ObjectLockLegalHoldStatus="ON")
    shop.put("locked", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=in_an_hour)
    for key in ("same", "longer", "marked", "gone"):
        shop.put(key, b"one")
        shop.put(key, b"two")
    shop.boto.delete_object(Bucket=shop.name, Key="same")
    reader = take_out(shop.url, tmp_path / "bundle")
    assert compare(reader, shop) == []

    of_shop = {"Bucket": shop.name}
    shop.boto.put_object_legal_hold(**of_shop, Key="held", LegalHold={"Status": "OFF"})
    later = {"Mode": "GOVERNANCE", "RetainUntilDate": in_an_hour + timedelta(hours=1)}
    shop.boto.put_object_retention(**of_shop, Key="locked", Retention=later)
    shop.put("longer", b"two")
    versions = shop.boto.list_object_versions(**of_shop)["Versions"]
    for version in versions:
        if version["Key"] == "gone" or (version["Key"] == "marked" and version["IsLatest"]):
            shop.boto.delete_object(**of_shop, Key=version["Key"], VersionId=version["VersionId"])
    shop.boto.delete_object(**of_shop, Key="marked")
    problems = {
        one.key.partition(" ")[0]: (one.what, one.expected, one.found) for one in compare(reader, shop)
    }
    assert problems.pop("locked")[0] == "has another retention"
    assert problems == {
        "gone": ("is not in the bucket", "", ""),
        "held": ("has another legal hold", "on", "off"),
        "longer": ("has another number of versions", "2", "3"),
        "marked": ("is another thing", "a version", "a delete marker"),
    }


def test_markers_that_hide_nothing_are_no_difference(minio: S3Server, tmp_path: Path) -> None:
    """MinIO makes none before every version of a key, and none right after another one; others do."""
    old, new = make_old_shop(minio, lock=False), make_old_shop(minio, lock=False)
    for key in ("lone", "twice", "whole"):
        made = [old.boto.put_object(Bucket=old.name, Key=key, Body=b"%d" % number) for number in range(2)]
        old.boto.delete_object(Bucket=old.name, Key=key)
        if key == "twice":
            made = [made[0], old.boto.put_object(Bucket=old.name, Key=key, Body=b"x")]
            old.boto.delete_object(Bucket=old.name, Key=key)
            made = made[1:]
        for version in [] if key == "whole" else made:
            old.boto.delete_object(Bucket=old.name, Key=key, VersionId=version["VersionId"])
    bundle, words = str(tmp_path / "bundle"), f"shop={new.url}"
    assert call("export", f"shop={old.url}", "--to", bundle).code == 0
    assert call("restore", bundle, words).code == 0
    compared = call("verify", bundle, "--against", words)
    note = "2 delete markers of shop not in the bucket: they would hide nothing, and some servers make none"
    assert (compared.code, note in " ".join(compared.err.split())) == (0, True), compared
    new.put("lone")
    different = call("verify", bundle, "--against", words)
    assert (different.code, "lone" in different.out) == (6, True), different
    assert "2 delete markers" not in different.err


def test_the_record_of_a_sync_is_no_difference(minio: S3Server, make_shop: MakeShop, tmp_path: Path) -> None:
    """A bucket is exported for good, and moved by a sync."""
    old, new = make_shop(minio), make_shop(minio)
    old.put("a")
    assert call("export", f"shop={old.url}", "--to", tmp_path / "bundle").code == 0
    assert call("sync", f"shop={old.url}", f"shop={new.url}").code == 0
    words = ("verify", tmp_path / "bundle", "--against", f"shop={new.url}")
    compared = call(*words)
    assert (compared.code, len(new.keys()) > 1) == (0, True), compared
    new.put("strange")
    compared = call(*words)
    assert (compared.code, "strange: is in the bucket" in compared.out) == (6, True), compared


def test_where_all_is_to_be_read_an_etag_is_not_believed() -> None:
    row = SimpleNamespace(content="what it had", sha256="of the bundle")
    summary = SimpleNamespace(name="a")

    def look(sha256: str, *, holds: bool, read_all: bool) -> list[Finding]:
        destination = SimpleNamespace(holds=lambda *_: holds, sha256=lambda _: sha256)
        return list(live_bucket._content(destination, summary, row, read_all=read_all))

    different = [Finding("a", "has another SHA-256", "of the bundle", "another")]
    assert look("another", holds=True, read_all=False) == []
    assert look("another", holds=True, read_all=True) == different
    assert look("another", holds=False, read_all=False) == different
    assert look("of the bundle", holds=False, read_all=True) == []


def test_of_a_bucket_without_versions_the_current_ones_are_compared_and_what_lacks_is_named(
    monkeypatch,
) -> None:
    rows = [
        object_row("a", is_latest=False),
        object_row("b", is_delete_marker=True),
        object_row("c"),
        object_row("lost"),
        object_row("d"),
    ]
    monkeypatch.setattr(live_bucket, "object_rows", lambda *_: iter(rows))
    there = {f"p/{key}": (key,) for key in "abcd"}
    marked: list[tuple[str, str]] = []
    listed = SimpleNamespace(find=there.get, mark=lambda *mark: marked.append(mark))
    matches = list(live_bucket._matched_objects(SimpleNamespace(reader=None, source="shop"), "p/", listed))
    assert matches == [("c", rows[2]), Finding("p/lost", "is not in the bucket"), ("d", rows[4])]
    assert marked == [("p/c", "known"), ("p/d", "known")]


def object_row(key: str, **more: object) -> ObjectRow:
    return ObjectRow(key, 3, "aa", "bb", "cc", None, "", 0, **more)


def described(row: ObjectRow, **fetched: object) -> list[Finding]:
    return list(live_bucket._described(row, Fetched(SimpleNamespace(name="a"), **fetched)))


def test_an_object_that_cannot_be_read_is_a_finding_and_a_server_that_is_away_an_error() -> None:
    (finding,) = described(object_row("a"), error=SourceItemError("locked"))
    assert finding.what.startswith("cannot be read (locked")
    with pytest.raises(SourceUnreachableError):
        described(object_row("a"), error=SourceUnreachableError("away"))


SOON, LATER, PAST = (datetime.now(UTC) + timedelta(days=days) for days in (1, 2, -1))


@pytest.mark.parametrize(
    ("expected", "found", "differs"),
    [
        (("GOVERNANCE", SOON), ("GOVERNANCE", SOON), False),
        (("GOVERNANCE", SOON), ("GOVERNANCE", LATER), True),
        (("GOVERNANCE", SOON), ("COMPLIANCE", SOON), True),
        (("GOVERNANCE", SOON), ("", None), True),
        (("", None), ("GOVERNANCE", SOON), True),
        (("GOVERNANCE", PAST), ("", None), False),
        (("", None), ("GOVERNANCE", PAST), False),
        (("GOVERNANCE", PAST), ("GOVERNANCE", SOON), True),
        (("", None), ("", None), False),
    ],
)
def test_locks_that_still_hold_are_compared(expected, found, differs) -> None:
    texts = [(mode, "" if until is None else until.isoformat()) for mode, until in (expected, found)]
    row = object_row("a", lock_mode=texts[0][0], lock_until=texts[0][1])
    headers = {live_bucket.LOCK_MODE: texts[1][0], live_bucket.LOCK_UNTIL: texts[1][1]}
    findings = list(live_bucket._locks("a", row, headers))
    assert [finding.what for finding in findings] == ["has another retention"] * differs


@pytest.mark.parametrize(("bundle", "bucket"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_legal_hold_is_compared(bundle, bucket) -> None:
    headers = {live_bucket.LEGAL_HOLD: "ON" if bucket else "OFF"}
    findings = list(live_bucket._locks("a", object_row("a", legal_hold=bundle), headers))
    words = {True: "on", False: "off"}
    expected = [Finding("a", "has another legal hold", words[bundle], words[bucket])]
    assert findings == (expected if bundle != bucket else [])


def test_each_header_and_each_tag_that_differs_is_named() -> None:
    row = object_row(
        "a", headers={"content-type": "text/plain", "cache-control": "no-store"}, tags={"x": "1", "y": "2"}
    )
    headers = {"content-type": "text/html", "cache-control": "no-store"}
    assert described(row, headers=headers, tags={"y": "3", "z": "4"}) == [
        Finding("a", "has another content-type", "text/plain", "text/html"),
        Finding("a", "has other tags: x", "1", "nothing"),
        Finding("a", "has other tags: y", "2", "3"),
        Finding("a", "has other tags: z", "nothing", "4"),
    ]


@pytest.mark.parametrize("count", [0, 2, 3, 4, 9])
def test_so_many_objects_that_the_bundle_has_not_are_named_and_more_are_said_to_be_there(
    monkeypatch, count
) -> None:
    monkeypatch.setattr(live_bucket, "_NAMED_EXTRA", 3)
    listed = SimpleNamespace(unmarked=lambda: map(str, range(count)))
    what = "is in the bucket, but not in the bundle"
    more = [Finding("…", f"more than 3 objects {what.replace('is in', 'are in')}")] if count > 3 else []
    more.append(Finding("%FF", f"{what}; its key is not UTF-8, and percent-encoded here"))
    destination = SimpleNamespace(prefix="", reader=SimpleNamespace(not_utf_8={"%FF"}))
    assert (
        list(live_bucket._extra(destination, listed))
        == [Finding(str(number), what) for number in range(min(count, 3))] + more
    )
