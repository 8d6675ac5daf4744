"""ACLs of objects: in the index where the server has them, given back where they name nobody, else in the ledger."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from migrate.storage.registry import open_location
from migrate.storage.s3.http import concurrent_requests
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, Shop, take_out
from tests.tools.acl_proxy import AclProxy
from tests.tools.bundles import restore_from
from tests.tools.http_proxy import Answer, Asked, refusal
from tests.tools.profiles import extra_profile


def test_acls_leave_and_come_back_where_they_name_nobody(
    minio: S3Server,
    other_minio: S3Server,
    make_shop: MakeShop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop, destination, plain = make_shop(minio), make_shop(other_minio), make_shop(other_minio)
    for key in ("private", "open", "signed", "shared", "large"):
        shop.put(key, bytes(9 * 2**20) if key == "large" else b"x")
    acls = {"open": "public-read", "signed": "authenticated-read", "shared": "named", "large": "public-read"}
    with (
        AclProxy(minio.endpoint, name="AmazonS3") as old,
        AclProxy(other_minio.endpoint, name="AmazonS3") as new,
    ):
        old.acls = {f"/{shop.name}/{key}": acl for key, acl in acls.items()}
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=old.endpoint)
        reader = take_out(f"s3://{shop.name}?profile={profile}", tmp_path / "bundle")
        profile = extra_profile(monkeypatch, tmp_path, other_minio, endpoint=new.endpoint)
        accounts = {}
        for name, url in (("acls", f"s3://{destination.name}?profile={profile}"), ("none", plain.url)):
            outcome = restore_from(reader, "shop", url, workers=2, report=open_location(str(tmp_path / name)))
            assert outcome.findings == ()
            rows = pq.read_table(tmp_path / name / "shop/losses.parquet").to_pylist()
            accounts[name] = {row["item"]: row["reason"] for row in rows if row["property"] == "ACL"}
    kept = {row["key"]: row["acl"] for batch in reader.index("shop") for row in batch.to_pylist()}
    assert kept["private"] is None
    assert len(json.loads(kept["shared"])["Grants"]) == 2
    assert {
        path.rpartition("/")[2]: acl for path, acl in new.acls.items() if "moveout-probe" not in path
    } == {key: acl for key, acl in acls.items() if acl != "named"}
    assert accounts["acls"].keys() == {"shared"}
    assert accounts["none"].keys() == acls.keys()


def test_servers_without_acls_are_not_asked(shop: Shop, tmp_path: Path) -> None:
    shop.put("a")
    reader = take_out(shop.url, tmp_path / "bundle")
    assert [row["acl"] for batch in reader.index("shop") for row in batch.to_pylist()] == [None]
    assert "ACL" not in {loss.property for _, loss in reader.losses()}


@dataclass(slots=True)
class FailingAcl(AclProxy):
    """The ACL of one object cannot be had."""

    refused: int = 0

    def handle(self, asked: Asked) -> Answer | None:
        if asked.path.endswith("/rotten") and "acl" in asked.query:
            self.refused += 1
            return refusal(500, "InternalError")
        return AclProxy.handle(self, asked)


def test_an_acl_that_the_server_fails_to_give_is_not_asked_for_as_long_as_an_object(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an object's bytes the same error is waited for two minutes."""
    monkeypatch.setattr(concurrent_requests, "SHORT_RETRY_SECONDS", 0.0)
    shop = make_shop(minio)
    for key in ("good", "rotten"):
        shop.put(key)
    with FailingAcl(minio.endpoint, name="AmazonS3") as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        reader = take_out(f"s3://{shop.name}?profile={profile}", tmp_path / "bundle")
    assert [loss.item for _, loss in reader.losses() if loss.property == "ACL"] == ["rotten"]
    assert reader.info.complete
    assert proxy.refused == 2


@pytest.mark.parametrize("status", [pytest.param(500, marks=pytest.mark.torture), 503])
def test_a_server_that_struggles_for_a_moment_has_acls_and_tags_all_the_same(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """One answer at the beginning decided it for the whole bucket, and nothing named what was left behind."""
    shop = make_shop(minio)
    for key in ("a", "b"):
        shop.put(key, Tagging="who=me")
    failed: set[str] = set()

    @dataclass(slots=True)
    class Struggling(AclProxy):
        def handle(self, asked: Asked) -> Answer | None:
            for question in {"acl", "tagging"} & asked.query.keys() - failed:
                failed.add(question)
                return refusal(status, "InternalError" if status == 500 else "SlowDown")
            answer = AclProxy.handle(self, asked)
            headers = tuple(pair for pair in answer.headers if pair[0].lower() != "x-amz-tagging-count")
            return replace(answer, headers=headers)

    with Struggling(minio.endpoint, name="Unknown") as proxy:
        proxy.acls = dict.fromkeys((f"/{shop.name}/a", f"/{shop.name}/b"), "public-read")
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        reader = take_out(f"s3://{shop.name}?profile={profile}", tmp_path / "bundle")
    rows = [row for batch in reader.index("shop") for row in batch.to_pylist()]
    assert failed == {"acl", "tagging"}
    assert [dict(row["tags"]) for row in rows] == 2 * [{"who": "me"}]
    assert all(row["acl"] for row in rows)
