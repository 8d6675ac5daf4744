"""A bundle's objects against a live bucket: each difference is named, by key and version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.runtime.progress import Silent
from migrate.verify import live_bucket
from migrate.verify.compare import ComparisonRequest
from migrate.verify.live_bucket import compare_bucket
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, Shop, fill, make_shop, take_out
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
