"""Buckets whose requester pays: each request of the source says so where its URL does, none of the destination."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import MakeShop, upload
from tests.tools.http_proxy import Answer, Asked, HttpProxy, refusal
from tests.tools.profiles import extra_profile


class Paid(HttpProxy):
    """As Amazon answers: 403 without a word to who does not say that they pay."""

    def handle(self, asked: Asked) -> Answer:
        return super().handle(asked) if asked.header("x-amz-request-payer") else refusal(403, "AccessDenied")


class Free(HttpProxy):
    """Refuses requests that say who pays."""

    def handle(self, asked: Asked) -> Answer:
        return (
            refusal(400, "InvalidRequest") if asked.header("x-amz-request-payer") else super().handle(asked)
        )


def test_a_bucket_whose_requester_pays_leaves_where_its_url_says_so(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, new = make_shop(minio), make_shop(minio)
    old.put("a", b"a", Tagging="k=v")
    upload(old, "parts", bytes(5 * 2**20), b"end")
    with Paid(minio.endpoint, name="AmazonS3") as paid, Free(minio.endpoint) as free:
        here = (
            f"s3://{old.name}?profile={extra_profile(monkeypatch, tmp_path, minio, endpoint=paid.endpoint)}"
        )
        there = (
            f"s3://{new.name}?profile={extra_profile(monkeypatch, tmp_path, minio, endpoint=free.endpoint)}"
        )
        refused = call("sync", f"shop={here}", f"shop={there}")
        assert (refused.code, "add request_payer=requester to the URL" in refused.err) == (4, True), refused
        here += "&request_payer=requester"
        done = call("sync", f"shop={here}", f"shop={there}", "--cutover")
        assert done.code == 0, done
        assert call("export", f"shop={here}", "--to", tmp_path / "bundle", "--quiet").code == 0
        assert call("verify", tmp_path / "bundle", "--against", f"shop={here}", "--quiet").code == 0
    assert [key for key in map(str, new.keys()) if not key.startswith(".moveout")] == ["a", "parts"]


def test_another_payer_is_refused() -> None:
    refused = call("sync", "s3://old?request_payer=me", "s3://new")
    assert (refused.code, "write request_payer=requester" in refused.err) == (2, True), refused
