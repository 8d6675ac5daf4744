"""Archived objects are asked for first, waited for, and read last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore.exceptions
import pytest

from exporters.limits import Limits
from exporters.objects import archive, unit_plan
from exporters.objects.source import ObjectExporter
from migrate.bundle.reader import BundleReader
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from scripts.servers import S3Server
from tests.exporters.objects.conftest import BucketHost, MakeShop, Shop
from tests.tools.archive_proxy import ArchiveProxy
from tests.tools.clients import boto_client
from tests.tools.profiles import extra_profile

HOUR = timedelta(hours=1)


class PatientHost(BucketHost):
    """A host that says how archived objects are to be had."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits
        self.notes: list[str] = []

    def limits(self) -> Limits:
        return self._limits

    def note(self, message: str) -> None:
        self.notes.append(message)


def fill(shop: Shop) -> dict[str, bytes]:
    bodies = {f"k{number}": bytes([number]) * 100 for number in range(9)} | {"large": bytes(9 * 2**20)}
    for number, (key, body) in enumerate(bodies.items()):
        shop.put(key, body, StorageClass="REDUCED_REDUNDANCY" if number % 3 == 0 else "STANDARD")
    return bodies


def take_out(url: str, location: Path, limits: Limits) -> tuple[BundleReader, list[str]]:
    host = PatientHost(limits)
    export(
        [ObjectExporter().open("shop", url, host)], open_location(str(location)), workers=2, progress=Silent()
    )
    return BundleReader(open_location(str(location))), host.notes


def test_archived_objects_are_asked_for_and_waited_for(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_FIRST_WAIT", 0.1)
    monkeypatch.setattr(unit_plan, "PACK_OBJECTS", 2)
    shop = make_shop(minio)
    bodies = fill(shop)
    with ArchiveProxy(minio.endpoint, seconds=0.7) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        url = f"s3://{shop.name}?profile={profile}"
        deadline = datetime.now(UTC) + 12 * HOUR
        reader, notes = take_out(url, tmp_path / "bundle", Limits(deadline=deadline))
        assert reader.info.complete, reader.reconciliation()[0].reasons
        assert {path.rpartition("/")[2] for path, _, _ in proxy.requests} == {"k0", "k3", "k6", "large"}
        assert {tier for _, tier, _ in proxy.requests} == {"Standard"}
        assert proxy.early == 0
        assert any("4 archived objects" in one for one in notes)
        rows = [row for batch in reader.index("shop") for row in batch.to_pylist()]
        assert {row["key"] for row in rows if row["disposition"] == "exported"} == set(bodies)
        assert {row["storage_class"] for row in rows} == {"STANDARD", "GLACIER"}


def test_what_is_not_to_be_brought_back_is_a_gap(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(minio)
    fill(shop)
    with ArchiveProxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        url = f"s3://{shop.name}?profile={profile}"
        reader, _ = take_out(url, tmp_path / "bundle", Limits(archive_tier="no"))
        assert not proxy.requests
        failed = {gap.item: gap.reason for _, gap in reader.gaps()}
        assert failed.keys() == {"k0", "k3", "k6", "large"}
        assert all("archived" in reason for reason in failed.values())


def test_a_plan_is_made_of_what_can_be_read(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large object that is archived is no part of the sample, and does not end the plan."""
    shop = make_shop(minio)
    for key, storage_class in (("cold", "REDUCED_REDUNDANCY"), ("warm", "STANDARD")):
        shop.put(key, bytes(9 * 2**20), StorageClass=storage_class)
    with ArchiveProxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        source = ObjectExporter().open("shop", f"s3://{shop.name}?profile={profile}", BucketHost())
        assert source.estimate(source.survey(), seconds=0.3, workers=1).bytes_rate > 0


def test_the_tier_is_the_cheapest_in_time() -> None:
    tier = archive.tier_for
    assert tier("GLACIER", "auto", None) == "Standard"
    assert tier("GLACIER", "auto", 30 * HOUR) == "Bulk"
    assert tier("GLACIER", "auto", 12 * HOUR) == "Standard"
    assert tier("GLACIER", "auto", 3 * HOUR) == "Expedited"
    assert tier("DEEP_ARCHIVE", "auto", 3 * HOUR) == "Standard"
    assert tier("DEEP_ARCHIVE", "auto", 200 * HOUR) == "Bulk"
    assert tier("DEEP_ARCHIVE", "Expedited", None) == "Standard"
    assert tier("GLACIER", "Bulk", HOUR) == "Bulk"


def test_the_fake_archive_does_what_s3_does(minio: S3Server, make_shop: MakeShop) -> None:
    shop = make_shop(minio)
    shop.put("cold", b"x", StorageClass="REDUCED_REDUNDANCY")
    shop.put("warm", b"x")
    with ArchiveProxy(minio.endpoint, seconds=3600, storage_class="DEEP_ARCHIVE") as proxy:
        s3 = boto_client(minio.profile, endpoint_url=proxy.endpoint)
        listed = {one["Key"]: one["StorageClass"] for one in s3.list_objects_v2(Bucket=shop.name)["Contents"]}
        assert listed == {"cold": "DEEP_ARCHIVE", "warm": "STANDARD"}
        assert s3.get_object(Bucket=shop.name, Key="warm")["Body"].read() == b"x"
        with pytest.raises(botocore.exceptions.ClientError, match="InvalidObjectState"):
            s3.get_object(Bucket=shop.name, Key="cold")
        wish = {"Days": 1, "GlacierJobParameters": {"Tier": "Expedited"}}
        with pytest.raises(botocore.exceptions.ClientError, match="InvalidRequest"):
            s3.restore_object(Bucket=shop.name, Key="cold", RestoreRequest=wish)
        wish["GlacierJobParameters"] = {"Tier": "Bulk"}
        s3.restore_object(Bucket=shop.name, Key="cold", RestoreRequest=wish)
        with pytest.raises(botocore.exceptions.ClientError, match="RestoreAlreadyInProgress"):
            s3.restore_object(Bucket=shop.name, Key="cold", RestoreRequest=wish)
        assert s3.head_object(Bucket=shop.name, Key="cold")["Restore"] == 'ongoing-request="true"'
        proxy.bring_back()
        assert s3.head_object(Bucket=shop.name, Key="cold")["Restore"] == 'ongoing-request="false"'
        assert s3.get_object(Bucket=shop.name, Key="cold")["Body"].read() == b"x"
