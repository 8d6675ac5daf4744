"""``moveout sync`` of all buckets of an account: each is a sync of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.tools.clients import boto_client

LOCKED = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}


@pytest.fixture
def corp(minio: S3Server, other_minio: S3Server) -> str:
    """The prefix of three buckets of an account: ``media``, ``empty``, and ``kept`` with object lock; the new account
    has ``media`` already.
    """
    prefix = f"corp{uuid4().hex[:8]}"
    old, new = boto_client(minio.profile), boto_client(other_minio.profile)
    for name in ("media", "empty"):
        old.create_bucket(Bucket=f"{prefix}-{name}")
    old.create_bucket(Bucket=f"{prefix}-kept", ObjectLockEnabledForBucket=True)
    old.put_object(Bucket=f"{prefix}-media", Key="a", Body=b"12345")
    old.put_object(Bucket=f"{prefix}-kept", Key="b", Body=b"123")
    new.create_bucket(Bucket=f"{prefix}-media")
    return prefix


def names(server: S3Server, prefix: str) -> list[str]:
    listed = boto_client(server.profile).list_buckets()["Buckets"]
    return [
        bucket["Name"].removeprefix(f"{prefix}-") for bucket in listed if bucket["Name"].startswith(prefix)
    ]


def words(result: dict[str, Any], prefix: str) -> dict[str, str]:
    return {line["source"].removeprefix(f"{prefix}-"): line["word"] for line in result["summary"]}


def test_an_account_is_copied_bucket_by_bucket(corp: str, minio: S3Server, other_minio: S3Server) -> None:
    """Missing buckets are made as they were; one that is refused does not stop the others."""
    pair = (f"s3://{corp}-*?profile={minio.profile}", f"s3://*?profile={other_minio.profile}")
    foreseen = call("sync", *pair, "--dry-run")
    assert foreseen.code == 0, foreseen.err
    assert foreseen.out.count("would be made") == 2, foreseen.out
    assert "3 of 3 buckets looked at; nothing was touched" in foreseen.out
    assert names(other_minio, corp) == ["media"]

    new = boto_client(other_minio.profile)
    new.create_bucket(Bucket=f"{corp}-kept", ObjectLockEnabledForBucket=True)
    new.put_object_lock_configuration(Bucket=f"{corp}-kept", ObjectLockConfiguration=LOCKED)
    ended = call("sync", *pair, "--json")
    assert ended.code == 3, ended.err
    assert words(ended.json["result"], corp) == {"empty": "yes", "media": "yes", "kept": "no"}
    new.delete_bucket(Bucket=f"{corp}-kept")
    ended = call("sync", *pair, "--cutover", "--json")
    assert ended.code == 0, ended.err
    assert set(words(ended.json["result"], corp).values()) == {"yes"}
    proofs = {name: bucket["proof"]["objects"] for name, bucket in ended.json["result"]["buckets"].items()}
    assert proofs == {f"{corp}-empty": 0, f"{corp}-kept": 1, f"{corp}-media": 1}
    assert new.get_object(Bucket=f"{corp}-kept", Key="b")["Body"].read() == b"123"
    assert new.get_object_lock_configuration(Bucket=f"{corp}-kept")["ObjectLockConfiguration"]


def test_a_case_says_where_its_buckets_go(
    corp: str, minio: S3Server, other_minio: S3Server, tmp_path: Path
) -> None:
    case = tmp_path / "moveout.toml"
    case.write_text(f"""
[[source]]
name = "app"
url = "postgresql://me@127.0.0.1:1/app"
[[source]]
url = "s3://{corp}-*?profile={minio.profile}"
[[source]]
name = "lost"
url = "s3://{corp}-none?profile={minio.profile}"
[[left_out]]
url = "s3://{corp}-kept?profile={minio.profile}"
reason = "nobody needs it"
[[destination]]
from = "s3://?profile={minio.profile}"
to = "s3://?profile={other_minio.profile}"
""")
    boto_client(other_minio.profile).put_object(Bucket=f"{corp}-media", Key="theirs", Body=b"1")
    ended = call("sync", "-c", case, "--record", tmp_path / "records")
    assert ended.code == 3, ended.err
    assert "1 object copied, 0 were there already; 1 object only at the destination: --delete" in ended.out
    assert "2 of 3 buckets synced" in ended.out
    assert f"not synced: there is no bucket '{corp}-none'" in " ".join(ended.out.split()), ended.out
    assert "not synced, for they are no buckets: app" in ended.err
    assert names(other_minio, corp) == ["empty", "media"]
    assert (tmp_path / "records" / f"{corp}-media" / "sync.json").is_file()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("s3://*?profile={old}", "new=s3://all?profile={new}"), "would come to s3://all"),
        (("s3://*/photos?profile={old}", "s3://*?profile={new}"), "takes no prefix"),
        (("s3://none-*?profile={old}", "s3://*?profile={new}"), "nothing matches"),
    ],
)
def test_patterns_that_mean_no_syncs(
    pair: tuple[str, ...], message: str, minio: S3Server, other_minio: S3Server
) -> None:
    ended = call("sync", *(word.format(old=minio.profile, new=other_minio.profile) for word in pair))
    assert (ended.code in {2, 7}, message in " ".join(ended.err.split())) == (True, True), ended.err


def test_one_missing_bucket_is_made_if_told(corp: str, minio: S3Server, other_minio: S3Server) -> None:
    pair = (f"a=s3://{corp}-empty?profile={minio.profile}", f"b=s3://{corp}-x?profile={other_minio.profile}")
    assert call("sync", *pair).code == 7
    refused = call("sync", *pair, "--create", "--history")
    assert (refused.code, "keeps no versions" in refused.err, names(other_minio, corp)) == (
        2,
        True,
        ["media"],
    )
    assert call("sync", *pair, "--create").code == 0
    assert names(other_minio, corp) == ["media", "x"]
