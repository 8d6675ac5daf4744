"""A bucket's settings travel; what a destination does not take is said, with the reason."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

from migrate.restore.objects.bucket_settings import Settings
from migrate.storage.registry import open_location
from migrate.storage.s3.destination_bucket import DestinationBucket
from migrate.storage.s3.metadata.bucket_configuration import renamed, same_setting
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, Shop, take_out
from tests.tools.bundles import restore_from
from tests.tools.clients import boto_client

LIFECYCLE = {
    "Rules": [
        {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 30}},
        {
            "ID": "versions",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 90},
        },
    ]
}


def policy(bucket: str) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/public/*"],
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def make_locked(server: S3Server) -> Shop:
    name = f"locked-{secrets.token_hex(6)}"
    client = boto_client(server.profile)
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return Shop(server, name, client)


def configured(server: S3Server) -> Shop:
    shop = make_locked(server)
    shop.put("public/a")
    shop.boto.put_bucket_policy(Bucket=shop.name, Policy=policy(shop.name))
    shop.boto.put_bucket_tagging(Bucket=shop.name, Tagging={"TagSet": [{"Key": "team", "Value": "blue"}]})
    shop.boto.put_bucket_lifecycle_configuration(Bucket=shop.name, LifecycleConfiguration=LIFECYCLE)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    shop.boto.put_object_lock_configuration(
        Bucket=shop.name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    return shop


def restored(shop: Shop, destination: Shop, tmp_path: Path) -> dict[str, str]:
    """Return what the ledger says of the bucket's settings."""
    reader = take_out(shop.url, tmp_path / "bundle")
    account = tmp_path / "account"
    outcome = restore_from(reader, "shop", destination.url, workers=2, report=open_location(str(account)))
    assert outcome.findings == ()
    rows = pq.read_table(account / "shop/losses.parquet").to_pylist()
    rows += json.loads((account / "shop/report.json").read_text())["settings"]
    return {row["property"]: row["reason"] for row in rows if row["property"].startswith("bucket ")}


def test_settings_come_along_and_the_policy_names_the_new_bucket(
    minio: S3Server, other_minio: S3Server, tmp_path: Path
) -> None:
    shop, destination = configured(minio), make_locked(other_minio)
    assert restored(shop, destination, tmp_path) == {}
    assert destination.name in destination.boto.get_bucket_policy(Bucket=destination.name)["Policy"]
    assert shop.name not in destination.boto.get_bucket_policy(Bucket=destination.name)["Policy"]
    rules = destination.boto.get_bucket_lifecycle_configuration(Bucket=destination.name)["Rules"]
    assert {rule["ID"] for rule in rules} == {"old", "versions"}
    lock = destination.boto.get_object_lock_configuration(Bucket=destination.name)["ObjectLockConfiguration"]
    assert lock["Rule"] == {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}


def test_what_a_destination_does_not_take_is_said(
    minio: S3Server, versitygw: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    lost = restored(configured(minio), make_shop(versitygw), tmp_path)
    assert "bucket lifecycle" in lost
    assert "without object lock" in lost["bucket object-lock"]
    assert all(lost.values())


def test_policies_mean_the_same_in_another_order() -> None:
    one = {"Policy": policy("old")}
    other = json.loads(policy("new"))
    other["Statement"][0] |= {"Principal": {"AWS": "*"}, "Action": "s3:GetObject"}
    assert same_setting("policy", renamed("policy", one, "old", "new"), {"Policy": json.dumps(other)})
    assert not same_setting("policy", one, {"Policy": json.dumps(other)})
    assert "older/" in renamed("policy", {"Policy": policy("older")}, "old", "new")["Policy"]


@pytest.mark.parametrize(
    ("key", "is_accounts"),
    [
        ("arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab", True),
        ("1234abcd-12ab-34cd-56ef-1234567890ab", True),
        ("mrk-1234abcd12ab34cd56ef1234567890ab", True),
        ("arn:aws:kms:moveout", False),  # as MinIO writes the name of a key
        ("moveout", False),
    ],
)
def test_a_bucket_does_not_encrypt_by_a_key_of_the_old_account(key: str, *, is_accounts: bool) -> None:
    """With the account that key may end, and with it all that it has encrypted at the new host."""

    def encryption(**key_option: str) -> dict[str, Any]:
        default = {"SSEAlgorithm": "aws:kms", **key_option}
        rule = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}
        return {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}

    given = encryption(KMSMasterKeyID=key)
    new = renamed("encryption", given, "old", "new")
    assert new == (encryption() if is_accounts else given)
    settings = Settings({"encryption": given}, "old", cast("DestinationBucket", SimpleNamespace(name="new")))
    losses = [f"{loss.property}: {loss.reason}" for loss in settings.losses_before()]
    assert [key in line for line in losses] == [True] * is_accounts


def with_ownership(server: S3Server, ownership: str) -> Shop:
    name = f"owned-{secrets.token_hex(6)}"
    client = boto_client(server.profile)
    client.create_bucket(Bucket=name, ObjectOwnership=ownership)
    return Shop(server, name, client)


@pytest.mark.parametrize("acl", ["public-read", pytest.param("public-read-write", marks=pytest.mark.torture)])
def test_an_acl_of_the_bucket_that_names_nobody_comes_back(
    versitygw: S3Server, acl: str, tmp_path: Path
) -> None:
    """Granted to everybody it means the same at any host."""
    shop, destination = (with_ownership(versitygw, "BucketOwnerPreferred") for _ in range(2))
    shop.put("a")
    shop.boto.put_bucket_acl(Bucket=shop.name, ACL=acl)
    outcome = restored(shop, destination, tmp_path)
    assert "bucket acl" not in outcome
    before, after = (one.boto.get_bucket_acl(Bucket=one.name)["Grants"] for one in (shop, destination))
    assert len(before) > 1
    assert after == before


def test_a_destination_without_acls_says_so(
    versitygw: S3Server, minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    shop = with_ownership(versitygw, "BucketOwnerPreferred")
    shop.put("a")
    shop.boto.put_bucket_acl(Bucket=shop.name, ACL="public-read")
    outcome = restored(shop, make_shop(minio), tmp_path)
    assert "does not take it" in outcome["bucket acl"]
