"""All versions of a bucket leave, and come up again in their order."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from boto3.s3.transfer import TransferConfig

from exporters.objects.listing import inventory
from exporters.selection import Selection
from migrate.bundle.reader import BundleReader
from migrate.errors import NotEmptyError
from migrate.progress.meter import Meter
from migrate.restore.common.api import RestoreOutcome
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.storage.s3.source_bucket import open_bucket
from migrate.verify.compare import ComparisonRequest
from migrate.verify.live_bucket import compare_bucket
from migrate.verify.run import Level, verify
from scripts.servers import S3Server, Servers
from tests.exporters.objects.conftest import MakeShop, Shop, take_out
from tests.exporters.objects.histories import make_history, read_history
from tests.exporters.objects.workspaces import Workspace
from tests.tools.bundles import restore_from
from tests.tools.busy_proxy import BusyProxy, EveryThird
from tests.tools.clients import boto_client


def make_old_shop(server: S3Server, *, lock: bool = True) -> Shop:
    """Make a bucket that keeps versions."""
    name = f"history-{secrets.token_hex(6)}"
    client = boto_client(server.profile)
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
    enabled = {"Status": "Enabled"}
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration=enabled)
    return Shop(server, name, client)


def restore(reader: BundleReader, url: str, account: Path | None = None, **more: Any) -> RestoreOutcome:
    kept = open_location(str(account)) if account else None
    return restore_from(reader, "shop", url, workers=2, report=kept, **more)


def compare(reader: BundleReader, url: str) -> list[str]:
    """What differs. At the end the progress has come to all that is there, delete markers and others' objects too."""
    progress = Meter()
    differences = [
        str(one)
        for one in compare_bucket(
            ComparisonRequest(reader, "shop", url, workers=2, progress=progress)
        ).findings
    ]
    task = progress.current()
    assert task is not None
    assert task.items == task.total_items
    return differences


def losses(account: Path) -> list[tuple[str, str]]:
    rows = pq.read_table(account / "shop/losses.parquet").to_pylist()
    return [(row["item"], row["property"]) for row in rows]


def index(reader: BundleReader) -> list[dict[str, Any]]:
    return [row for batch in reader.index("shop") for row in batch.to_pylist()]


@pytest.mark.torture
def test_a_history_is_the_same_on_another_server(
    minio: S3Server, other_minio: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "SHARD_ROWS", 16)
    shop, destination = make_old_shop(minio), make_old_shop(other_minio)
    count = make_history(shop, keys=20, versions=6)
    reader = take_out(shop.url, tmp_path / "bundle")
    assert reader.info.complete, reader.reconciliation()[0].reasons
    assert len(index(reader)) == count
    assert verify(reader.store, Level.FULL, workers=2, progress=Silent()).findings == []
    outcome = restore(reader, destination.url, tmp_path / "account")
    assert (outcome.items, outcome.findings, outcome.notes) == (count, (), ())
    before, after = read_history(minio, shop.name), read_history(other_minio, destination.name)
    assert before == after
    assert losses(tmp_path / "account") == [
        (destination.name, "last modified"),
        (destination.name, "version ids"),
    ]
    assert compare(reader, destination.url) == compare(reader, shop.url) == []
    moved = pq.read_table(tmp_path / "account/shop/versions.parquet").to_pylist()
    assert {row["old_version_id"] for row in moved} == {row["version_id"] for row in index(reader)}
    for row in moved:
        if not row["is_delete_marker"]:
            wanted = {"Bucket": destination.name, "Key": row["key"], "VersionId": row["new_version_id"]}
            source = {"Bucket": shop.name, "Key": row["key"], "VersionId": row["old_version_id"]}
            assert destination.boto.head_object(**wanted)["ETag"] == shop.boto.head_object(**source)["ETag"]
    again = restore(reader, destination.url)
    assert (again.items, again.skipped_items, again.size_bytes) == (count, count, 0)
    assert read_history(other_minio, destination.name) == after


def test_a_restore_of_histories_goes_on_in_the_middle_of_a_key(
    minio: S3Server, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """What is there must be the beginning of what is to be; then the rest of it is written, nothing twice."""
    shop, destination = make_old_shop(minio), make_old_shop(other_minio, lock=False)
    for body in (b"one", b"two", b"three"):
        shop.put("a", body)
        shop.put("b", body)
    shop.boto.delete_object(Bucket=shop.name, Key="a")
    reader = take_out(shop.url, tmp_path / "bundle")
    destination.put("a", b"one")
    destination.put("b", b"other")
    with pytest.raises(NotEmptyError, match="'b'"):
        restore(reader, destination.url)
    outcome = restore(reader, destination.url, merge=True)
    assert (outcome.items, outcome.skipped_items, len(outcome.findings)) == (4, 1, 1)
    history = read_history(other_minio, destination.name)
    assert [row[-1] for row in history["a"]] == [b"one", b"two", b"three", "true"]
    assert [row[-1] for row in history["b"]] == [b"other"]
    assert all(one.startswith("b") for one in compare(reader, destination.url))


def test_a_destination_without_versions_has_the_current_ones(
    minio: S3Server, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """And the ledger has the others, before anything is written; what is locked is not locked there."""
    shop, destination = make_old_shop(minio), make_shop(other_minio)
    shop.put("a", b"old")
    shop.put("a", b"new", ObjectLockLegalHoldStatus="ON")
    shop.put("gone", b"x")
    shop.boto.delete_object(Bucket=shop.name, Key="gone")
    reader = take_out(shop.url, tmp_path / "bundle")
    destination.put("foreign", b"x")
    outcome = restore(reader, destination.url, tmp_path / "account", merge=True)
    assert destination.keys() == ["a", "foreign"]
    assert destination.boto.get_object(Bucket=destination.name, Key="a")["Body"].read() == b"new"
    assert "keeps no versions" in " ".join(outcome.notes)
    lost = losses(tmp_path / "account")
    versions = {row["version_id"]: row for row in index(reader)}
    named = {f"{row['key']} (version {version})" for version, row in versions.items() if row["key"] == "gone"}
    assert {item for item, what in lost if what in {"version", "delete marker"}} > named
    assert [what for _, what in lost].count("legal hold") == 1
    assert outcome.losses == len(lost)
    assert any("keeps no versions" in one for one in compare(reader, destination.url))


def test_only_current_versions_are_taken_where_that_is_chosen(minio: S3Server, tmp_path: Path) -> None:
    shop = make_old_shop(minio)
    for body in (b"one", b"two"):
        shop.put("a", body)
    shop.put("gone", b"x")
    shop.boto.delete_object(Bucket=shop.name, Key="gone")
    reader = take_out(shop.url, tmp_path / "bundle", selection=Selection(current_only=True))
    assert [row["key"] for row in index(reader)] == ["a"]
    assert reader.info.complete
    assert [loss.reason for _, loss in reader.losses() if loss.property == "versions"] == [
        "only the current version of each object is in the bundle, as was chosen"
    ]


def test_a_history_of_another_server(versitygw: S3Server, other_minio: S3Server, tmp_path: Path) -> None:
    """versitygw lists delete markers apart, and makes several in a row, which MinIO does not."""
    shop, destination = make_old_shop(versitygw), make_old_shop(other_minio)
    for key in ("a", "b"):
        for body in (b"one", b"two"):
            shop.put(key, body)
    for _ in range(2):
        shop.boto.delete_object(Bucket=shop.name, Key="a")
    shop.put("a", b"three")
    reader = take_out(shop.url, tmp_path / "bundle")
    assert reader.info.complete, reader.reconciliation()[0].reasons
    outcome = restore(reader, destination.url, tmp_path / "account")
    assert outcome.findings == ()
    history = read_history(other_minio, destination.name)
    assert [row[-1] for row in history["a"]] == [b"one", b"two", "false", b"three"]
    assert [what for _, what in losses(tmp_path / "account")].count("delete marker") == 1


@pytest.fixture
def apart(versitygw: S3Server, servers: Servers) -> tuple[Shop, Callable[[], None]]:
    """A bucket of a server that lists delete markers apart from versions, and what dates to one second all that was
    replaced.
    """
    shop = make_old_shop(versitygw, lock=False)

    def replaced_in_one_second() -> None:
        for path in (servers.directory / "versitygw/versions" / shop.name).rglob("*"):
            os.utime(path, (1e9, 1e9))

    return shop, replaced_in_one_second


def test_versions_and_delete_markers_of_one_second_are_in_order(
    apart: tuple[Shop, Callable[[], None]],
) -> None:
    shop, replaced_in_one_second = apart
    for _ in range(2):
        shop.put("a", b"x")
        shop.boto.delete_object(Bucket=shop.name, Key="a")
    replaced_in_one_second()
    listed = [one.is_delete_marker for one in open_bucket(shop.url).list_versions()]
    assert listed == [True, False, True, False]


def test_what_was_written_while_versioning_was_suspended_is_where_it_was(
    apart: tuple[Shop, Callable[[], None]], tmp_path: Path
) -> None:
    """Where the server does not say where that is, the ledger says so."""
    shop, replaced_in_one_second = apart

    def switch(status: Any) -> None:
        shop.boto.put_bucket_versioning(Bucket=shop.name, VersioningConfiguration={"Status": status})

    def lost() -> list[str]:
        reader = take_out(shop.url, tmp_path / secrets.token_hex(4))
        kinds[:] = [
            row["version_id"] if row["version_id"] == "null" else row["size"] for row in index(reader)
        ]
        return [str(loss) for _, loss in reader.losses() if loss.property == "order of versions"]

    kinds: list[Any] = []
    shop.put("a", b"1")
    switch("Suspended")
    shop.put("a", b"null")
    switch("Enabled")
    shop.put("a", b"333")
    shop.boto.delete_object(Bucket=shop.name, Key="a")
    shop.put("a", b"55555")
    assert (lost(), kinds) == ([], [5, 0, 3, "null", 1])
    shop.boto.delete_object(Bucket=shop.name, Key="a", VersionId="null")
    switch("Suspended")
    shop.put("b", b"null")
    switch("Enabled")
    for _ in range(2):
        shop.boto.delete_object(Bucket=shop.name, Key="b")
    replaced_in_one_second()
    (words,) = lost()
    assert "b (version null) counts as older than b (version " in words


def test_a_killed_inventory_of_versions_goes_on(minio: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the middle of a key that has more versions than a shard has rows."""
    monkeypatch.setattr(inventory, "SHARD_ROWS", 3)
    shop = make_old_shop(minio, lock=False)
    for key, count in (("a", 2), ("b", 8), ("c", 1)):
        for number in range(count):
            shop.put(key, bytes([number]))
    bucket = open_bucket(shop.url)
    whole = [one.name for one in bucket.list_versions()]
    for shards in range(1, 4):
        killed = Workspace()
        killed.fail_after = shards + 1
        with pytest.raises(KeyboardInterrupt):
            inventory.take(bucket, killed)
        killed.fail_after = 1 << 60
        taken = inventory.take(bucket, killed)
        names = [one.name for shard in range(taken.totals.shards) for one in taken.objects(shard, 0, 100)]
        assert names == whole


@pytest.mark.torture
def test_answers_that_are_lost_make_no_second_version(
    minio: S3Server, other_minio: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that had worked, and of which nobody heard, is not done again."""
    shop, destination = make_old_shop(minio), make_old_shop(other_minio)
    for number in range(6):
        for version in range(3):
            shop.put(f"k{number}", bytes([number, version]))
        shop.boto.delete_object(Bucket=shop.name, Key=f"k{number}")
        shop.put(f"k{number}", b"again")
    parts = TransferConfig(multipart_threshold=2**20, multipart_chunksize=11 * 2**20)
    shop.boto.upload_fileobj(io.BytesIO(bytes(33 * 2**20)), shop.name, "large", Config=parts)
    reader = take_out(shop.url, tmp_path / "bundle")
    lose = EveryThird({"PUT": 0, "DELETE": 0})
    with BusyProxy(other_minio.endpoint, lose=lose) as proxy, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", other_minio.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", other_minio.secret_key)
        outcome = restore(reader, f"s3://{destination.name}", tmp_path / "account")
    assert proxy.lost >= 8
    assert lose.asked["DELETE"] >= 6
    assert outcome.findings == ()
    assert read_history(other_minio, destination.name) == read_history(minio, shop.name)
    moved = pq.read_table(tmp_path / "account/shop/versions.parquet").to_pylist()
    assert {row["new_version_id"] for row in moved} == {
        one.version_id for one in open_bucket(destination.url).list_versions()
    }


def test_versions_that_change_or_vanish_after_the_listing_are_named(
    minio: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted for good: excluded, by version; written since: in the ledger; the bundle is complete."""
    shop = make_old_shop(minio, lock=False)
    for body in (b"one", b"two", b"three"):
        shop.put("a", body)
    shop.put("large", bytes(9 * 2**20))
    oldest = list(open_bucket(shop.url).list_versions())[2].version_id
    take = inventory.take

    def take_and_change(*args: Any) -> Any:
        taken = take(*args)
        for found in list(open_bucket(shop.url).list_versions()):
            if found.version_id == oldest or found.key == "large":
                shop.boto.delete_object(Bucket=shop.name, Key=found.key, VersionId=found.version_id)
        shop.put("a", b"four")
        shop.put("new", b"new")
        return taken

    monkeypatch.setattr(inventory, "take", take_and_change)
    reader = take_out(shop.url, tmp_path / "bundle")
    assert reader.info.complete, reader.reconciliation()[0].reasons
    rows = index(reader)
    assert [(row["key"], row["disposition"]) for row in rows] == [
        ("a", "exported"), ("a", "exported"), ("a", "excluded"), ("large", "excluded"),
    ]  # fmt: skip
    assert any(oldest in gap.item for _, gap in reader.gaps())
    changes = [loss.reason for _, loss in reader.losses() if loss.property == "changes during the export"]
    assert sorted(reason.split()[0] for reason in changes) == ["2", "2"]


@pytest.mark.torture
def test_a_large_history(
    minio: S3Server, other_minio: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several pages and shards: the same history by an independent reader, the ledger exactly the difference."""
    monkeypatch.setattr(inventory, "SHARD_ROWS", 400)
    shop, destination = make_old_shop(minio), make_old_shop(other_minio)
    count = make_history(shop, keys=400, versions=8)
    assert count > 1500
    reader = take_out(shop.url, tmp_path / "bundle")
    assert reader.info.complete, reader.reconciliation()[0].reasons
    assert len(index(reader)) == count
    outcome = restore(reader, destination.url, tmp_path / "account")
    assert (outcome.items, outcome.findings, outcome.notes) == (count, (), ())
    assert read_history(other_minio, destination.name) == read_history(minio, shop.name)
    assert losses(tmp_path / "account") == [
        (destination.name, "last modified"),
        (destination.name, "version ids"),
    ]
    assert compare(reader, destination.url) == []
