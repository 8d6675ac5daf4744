"""Headers arrive as their bytes, on every path: small, large, in parts, locked, of every version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import MakeShop, Shop, take_out
from tests.exporters.objects.test_history import compare, make_old_shop, restore
from tests.sync.conftest import Move
from tests.tools.raw_s3 import raw_request

NAME = 'attachment; filename="ä.txt"'
DESCRIPTIONS: dict[str, dict[str, bytes]] = {
    "plain": {"content-encoding": b"gzip, br", "content-language": b"de,en"},
    "utf-8": {
        "content-disposition": NAME.encode(),
        "content-type": 'text/plain; x="ü"'.encode(),
        "x-amz-meta-name": "größe".encode(),
    },
    "latin-1": {"content-disposition": NAME.encode("latin-1"), "cache-control": b"max-age=1"},
    # A server may sign these spaces as plain ones; they stay what they are.
    "spaces": {"content-disposition": "x\u00a0y\u3000z".encode()},
}
SIZES = {"small": 10, "large": 9 * 2**20}


def described(shop: Shop, *, versions: bool = False) -> dict[tuple[str, str], dict[str, bytes]]:
    """Return what a server says of each object, as bytes."""
    listed = shop.boto.list_object_versions(Bucket=shop.name)["Versions"]
    found = {}
    for number, one in enumerate(reversed(listed)):
        query = {"versionId": one["VersionId"]} if versions else {}
        answer = raw_request(shop.server, "HEAD", f"{shop.name}/{one['Key']}", query=query)
        name = one["Key"], str(number if versions else "")
        found[name] = {
            header: value
            for header, value in answer.headers.items()
            if header in {*(key for it in DESCRIPTIONS.values() for key in it)}
        }
    return found


def put_all(shop: Shop) -> None:
    for name, headers in DESCRIPTIONS.items():
        for size, count in SIZES.items():
            if size == "small" or name == "utf-8":
                raw_request(shop.server, "PUT", f"{shop.name}/{name}/{size}", headers, bytes(count))
        begun = raw_request(shop.server, "POST", f"{shop.name}/{name}/parts", headers, query={"uploads": ""})
        upload = begun.body.partition(b"<UploadId>")[2].partition(b"<")[0].decode()
        where: dict[str, Any] = {"Bucket": shop.name, "Key": f"{name}/parts", "UploadId": upload}
        parts = [
            {"PartNumber": n, "ETag": shop.boto.upload_part(**where, PartNumber=n, Body=body)["ETag"]}
            for n, body in ((1, bytes(5 * 2**20)), (2, b"rest"))
        ]
        shop.boto.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})


def test_headers_beyond_ascii_keep_their_bytes(
    server: S3Server, other_minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    shop = make_shop(server)
    put_all(shop)
    wanted = described(shop)
    reader = take_out(shop.url, tmp_path / "bundle")
    assert reader.info.complete, reader.reconciliation()[0].reasons
    restored = make_shop(other_minio)
    assert restore(reader, restored.url).findings == ()
    assert compare(reader, restored.url) == []
    move = Move(shop, make_shop(other_minio))
    outcome = move.run(cutover=True)
    assert (outcome.failed, outcome.proof is not None) == (0, True)
    again = move.run(recheck=True)
    assert (again.copied, again.failed) == (0, 0)
    for destination in (restored, move.destination):
        found = {
            name: it
            for name, it in described(destination).items()
            if not name[0].startswith(".moveout-sync/")
        }
        if server.profile == "versitygw":  # MinIO sends metadata beyond ASCII encoded, as S3 does
            for each in (wanted, found):
                for it in each.values():
                    it.pop("x-amz-meta-name", None)
        assert found == wanted


def test_headers_of_versions_and_in_locked_buckets_keep_their_bytes(
    minio: S3Server, other_minio: S3Server, tmp_path: Path
) -> None:
    old = Move(make_old_shop(minio), make_old_shop(other_minio))
    for headers in DESCRIPTIONS.values():
        raw_request(minio, "PUT", f"{old.source.name}/key", headers, b"body")
    wanted = described(old.source, versions=True)
    assert len(wanted) == len(DESCRIPTIONS)
    outcome = old.run(history=True, cutover=True)
    assert (outcome.failed, outcome.proof is not None) == (0, True)
    restored = make_old_shop(other_minio)
    assert restore(take_out(old.source.url, tmp_path / "bundle"), restored.url).findings == ()
    assert described(restored, versions=True) == wanted
    description = described(old.destination, versions=True)
    assert [it for name, it in description.items() if name[0] == "key"] == list(wanted.values())


@pytest.mark.parametrize("value", [NAME, "latin \udce4", "x\u00a0y"])
def test_verify_tells_a_header_that_arrived_as_another_one(
    value: str, minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """Encoded texts are the same only in user metadata (RFC 2047, as S3 sends them)."""
    shop, destination = make_shop(minio), make_shop(minio)
    sent = value.encode("utf-8", "surrogateescape")
    raw_request(minio, "PUT", f"{shop.name}/key", {"content-disposition": sent}, b"body")
    raw_request(
        minio, "PUT", f"{destination.name}/key", {"content-disposition": b"=?utf-8?b?w6Q=?="}, b"body"
    )
    [finding] = compare(take_out(shop.url, tmp_path / "bundle"), destination.url)
    assert "another content-disposition" in finding
    assert finding.encode()


def test_a_header_that_the_destination_drops_is_named_and_no_other_object(
    versitygw: S3Server, minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """MinIO keeps no redirects. Nothing said so; a second restore called it damage, each recheck sent it again."""
    shop, restored, synced = make_shop(versitygw), make_shop(minio), make_shop(minio)
    shop.put("page", b"page", WebsiteRedirectLocation="/other", CacheControl="no-cache")
    shop.put("plain", b"plain", CacheControl="no-cache")
    bundle, record = tmp_path / "bundle", tmp_path / "record"
    assert call("export", f"shop={shop.url}", "--to", bundle, "--quiet").code == 0
    for _ in range(2):
        ended = call("restore", bundle, f"shop={restored.url}")
        assert (ended.code, "header" in ended.out) == (0, True), ended
    words = ("sync", f"shop={shop.url}", f"shop={synced.url}", "--record", record)
    assert call(*words).code == 0
    again = call(*words, "--recheck")
    assert (again.code, again.out.startswith("0 objects copied")) == (0, True), again
    rows = pq.read_table(record / "losses.parquet").to_pylist()
    assert [row["item"] for row in rows if row["property"] == "header"] == ["page"]
    for destination in (restored, synced):
        head = destination.boto.head_object(Bucket=destination.name, Key="page")
        assert head["CacheControl"] == "no-cache"
