"""The version without an id (``null``), of a bucket that keeps no versions any more: it is replaced, not added to."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from migrate.sync.bucket_settings import SUSPEND_LATER, SettingsPolicy
from scripts.servers import S3Server
from tests.exporters.objects.conftest import Shop
from tests.exporters.objects.test_history import make_old_shop
from tests.sync.conftest import Move
from tests.sync.test_history import bodies
from tests.sync.test_large import upload
from tests.sync.test_sync import At
from tests.tools.clients import boto_client


@pytest.fixture
def suspended(minio: S3Server, other_minio: S3Server) -> Move:
    """Of the key ``a`` there is a version without an id, and one with an id above it; versions are suspended."""
    client = boto_client(minio.profile)
    shop = Shop(minio, f"suspended-{secrets.token_hex(6)}", client)
    client.create_bucket(Bucket=shop.name)
    shop.put("a", b"before")
    set_versioning(shop, "Enabled")
    shop.put("a", b"one")
    set_versioning(shop, "Suspended")
    return Move(shop, make_old_shop(other_minio, lock=False))


def set_versioning(shop: Shop, status: str) -> None:
    shop.boto.put_bucket_versioning(Bucket=shop.name, VersioningConfiguration={"Status": status})


def told(move: Move, **more: Any) -> Any:
    """A pass that removes what the source has not, and proves."""
    done = move.run(history=True, delete=True, cutover=True, **more)
    assert (done.unproven, done.gaps, done.exit_code) == ("", (), 0)
    return done


def test_the_destination_is_not_suspended_while_histories_are_copied(suspended: Move) -> None:
    """Not even where its settings are replaced: the next run would find no versions there."""
    for _ in range(2):
        done = suspended.run(history=True, settings=SettingsPolicy.REPLACE)
        assert (done.settings, done.exit_code) == ({"versioning": SUSPEND_LATER}, 0)
    shop = suspended.destination
    assert shop.boto.get_bucket_versioning(Bucket=shop.name)["Status"] == "Enabled"


def test_it_can_be_replaced(suspended: Move) -> None:
    """What it was stays at the destination as an older version, unless told."""
    assert suspended.run(history=True).copied == 2
    suspended.source.put("a", b"after")
    done = suspended.run(history=True)
    assert (done.copied, done.extra) == (1, 1)
    assert bodies(suspended.destination, "a") == [b"before", b"one", b"after"]
    assert told(suspended).deleted == 1
    assert bodies(suspended.destination, "a") == [b"one", b"after"]


def test_it_can_be_replaced_by_the_same_bytes(suspended: Move) -> None:
    """With other metadata: the same ETag, another version."""
    suspended.run(history=True)
    suspended.source.put("a", b"before", Metadata={"n": "2"})
    done = told(suspended)
    assert (done.copied, done.deleted) == (1, 1)
    assert bodies(suspended.destination, "a") == [b"one", b"before"]
    assert [row["version_id"] == "null" for row in suspended.record_rows()] == [False, True]


def test_a_delete_marker_without_an_id_replaces_it_and_is_replaced(suspended: Move) -> None:
    shop = suspended.source
    suspended.run(history=True)
    shop.boto.delete_object(Bucket=shop.name, Key="a")
    assert told(suspended).deleted == 1
    assert bodies(suspended.destination, "a") == [b"one", None]
    shop.put("a", b"back")
    assert told(suspended).deleted == 1
    assert bodies(suspended.destination, "a") == [b"one", b"back"]


@pytest.mark.parametrize("large", [pytest.param(False, marks=pytest.mark.torture), True])
def test_it_is_replaced_while_it_is_copied(suspended: Move, large: bool) -> None:
    """What it is now belongs on top, not where it stood when it was listed; the next pass puts it there."""
    shop = suspended.source
    if large:
        upload(shop, "a", bytes(11 * 2**20), 6 * 2**20)
        set_versioning(shop, "Enabled")
        shop.put("a", b"two")
        set_versioning(shop, "Suspended")
    replaces = At("copy", lambda: shop.put("a", b"after"))
    done = suspended.with_progress(replaces).run(history=True)
    assert (done.copied, done.excluded, done.exit_code) == (2 if large else 1, 1, 0)
    assert "replaced at the source" in done.gaps[0].reason
    assert told(suspended).copied == 1
    assert bodies(suspended.destination, "a") == [b"one", *([b"two"] if large else []), b"after"]


@pytest.mark.torture
def test_it_is_deleted_while_it_is_copied(suspended: Move) -> None:
    shop = suspended.source
    deletes = At("copy", lambda: shop.boto.delete_object(Bucket=shop.name, Key="a"))
    done = suspended.with_progress(deletes).run(history=True)
    assert (done.copied, done.excluded, done.failed) == (1, 1, 0)
    assert told(suspended).copied == 1
    assert bodies(suspended.destination, "a") == [b"one", None]


@pytest.mark.torture
def test_it_is_replaced_between_listing_and_removal(suspended: Move) -> None:
    """What the source has again since is not removed."""
    shop = suspended.source
    suspended.run(history=True)
    shop.put("a", b"after")
    shop.put("b", b"1")
    again = At("remove at the destination", lambda: shop.put("a", b"again"))
    done = suspended.with_progress(again).run(history=True, delete=True)
    assert done.deleted == 1
    assert told(suspended).deleted == 1
    assert bodies(suspended.destination, "a") == [b"one", b"again"]
