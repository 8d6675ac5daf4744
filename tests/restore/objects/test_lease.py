"""A restore holds its destination while it lasts."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.bundle import layout, lease
from migrate.errors import BusyError
from migrate.restore.objects import copy
from migrate.restore.objects.lease import RestoreFolder
from migrate.runtime.process_identity import uptime
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.storage.s3.destination_bucket import open_destination_bucket
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, OddShop, Shop, take_out
from tests.tools.bundles import restore_from
from tests.tools.counting import Notes
from tests.tools.http_proxy import Asked, refusal

LEASE = f".moveout-restore/{layout.LEASE}"
ENABLED = {"Status": "Enabled"}


@pytest.fixture
def old(minio: S3Server, make_shop: MakeShop) -> Shop:
    shop = make_shop(minio)
    shop.put("a", b"some")
    return shop


def test_a_restore_that_hung_writes_nothing_more_once_another_machine_has_taken_over(
    old: Shop, odd: OddShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has brought everything and gone, and the application may have written since."""
    for number in range(6):
        old.put(f"{number}")
    reader = take_out(old.url, tmp_path / "bundle")
    store = open_location(RestoreFolder(open_destination_bucket(odd.url)).url)
    read: list[str] = []
    intact = copy.is_intact

    def after_hanging(job: copy.ObjectWrite, body: bytes) -> bool:
        read.append(job.key)
        if len(read) == 2:
            woke = uptime() + 60
            monkeypatch.setattr(lease, "uptime", lambda: woke)
            store.delete(layout.LEASE)
        return intact(job, body)

    monkeypatch.setattr(copy, "is_intact", after_hanging)
    with pytest.raises(BusyError, match="the lease of this run is gone") as caught:
        restore_from(reader, "shop", odd.url)
    assert ".moveout-restore" not in str(caught.value)
    assert read == ["0", "1"]
    assert len(odd.shop.keys()) <= 2


def test_nothing_of_the_lease_is_left_where_versions_are_kept(
    old: Shop, odd: OddShop, tmp_path: Path
) -> None:
    odd.shop.boto.put_bucket_versioning(Bucket=odd.shop.name, VersioningConfiguration=ENABLED)
    puts: list[str] = []

    def watch(asked: Asked) -> None:
        if asked.method == "PUT":
            puts.append(asked.path.partition("/")[2])

    odd.proxy.answer = watch
    restore_from(take_out(old.url, tmp_path / "bundle"), "shop", odd.url)
    assert any(LEASE in path for path in puts)
    listed = odd.shop.boto.list_object_versions(Bucket=odd.shop.name)
    assert [one["Key"] for one in listed["Versions"]] == ["a"]
    assert "DeleteMarkers" not in listed


def test_what_hides_older_versions_of_the_lease_is_removed_last(odd: OddShop) -> None:
    """Where both were removed at once, versitygw showed an older lease again: the next restore was refused."""
    boto, name = odd.shop.boto, odd.shop.name
    boto.put_bucket_versioning(Bucket=name, VersioningConfiguration=ENABLED)
    below: list[int] = []

    def watch(asked: Asked) -> None:
        if asked.method == "DELETE" and "versionId" in asked.query:
            listed = boto.list_object_versions(Bucket=name)
            markers = {marker["VersionId"] for marker in listed.get("DeleteMarkers", ())}
            if asked.query["versionId"][0] in markers:
                below.append(len(listed.get("Versions", ())))

    odd.proxy.answer = watch
    with RestoreFolder(open_destination_bucket(odd.url)).held(Silent(), alone=True) as held:
        held._beat()
        held._beat()
    assert below == [0]


def test_a_lease_that_may_not_be_removed_is_named(old: Shop, odd: OddShop, tmp_path: Path) -> None:
    denied = refusal(403, "AccessDenied")
    odd.proxy.answer = lambda asked: denied if asked.method == "DELETE" else None
    notes = Notes()
    restore_from(take_out(old.url, tmp_path / "bundle"), "shop", odd.url, progress=notes)
    (line,) = notes.lines
    assert ".moveout-restore/?profile=" in line
    assert "this restore could not" in line
    assert {LEASE, "a"} <= {*odd.shop.keys()}


def test_a_server_without_conditional_writes_is_filled_without_a_lease(
    old: Shop, odd: OddShop, tmp_path: Path
) -> None:
    unable = refusal(501, "NotImplemented")
    odd.proxy.answer = lambda asked: unable if asked.header("if-none-match") else None
    notes = Notes()
    restore_from(take_out(old.url, tmp_path / "bundle"), "shop", odd.url, progress=notes)
    assert "takes no lease" in str(notes.lines)
    assert odd.shop.keys() == ["a"]
