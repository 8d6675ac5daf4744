"""Servers that refuse every header of a checksum, as Backblaze B2 does: they are sources, destinations and locations
like others.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from migrate.storage.registry import open_location
from migrate.storage.s3.source_bucket import open_bucket
from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import MakeShop, upload
from tests.tools.http_proxy import Answer, Asked, HttpProxy
from tests.tools.profiles import extra_profile

MIB = 2**20


class NoChecksumsProxy(HttpProxy):
    """Refuses what names a checksum. ``unproved`` counts what is put without an MD5."""

    unproved = 0

    def handle(self, asked: Asked) -> Answer:
        named = next((name for name, _ in asked.headers if name.lower().startswith("x-amz-checksum")), None)
        if named is not None:
            text = f"Unsupported header '{named}' received for this API call."
            body = f"<Error><Code>InvalidArgument</Code><Message>{text}</Message></Error>"
            return Answer(400, (), b"" if asked.method == "HEAD" else body.encode())
        if asked.method == "PUT" and asked.body:
            self.unproved += asked.header("content-md5") is None
        answer = self.forward(asked)
        kept = tuple(pair for pair in answer.headers if not pair[0].lower().startswith("x-amz-checksum"))
        return Answer(answer.status, kept, answer.body, answer.size_bytes)


def test_such_a_server_is_a_source_a_destination_and_a_location(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shops = [make_shop(minio) for _ in range(4)]
    source, _, restored, synced = shops
    for number in range(5):
        source.put(f"small/{number}", b"%d" % number, Metadata={"n": str(number)})
    source.put("large", bytes(range(256)) * 17 * 4096)
    upload(source, "parts", bytes(5 * MIB), b"end")
    with NoChecksumsProxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        urls = [f"s3://{shop.name}?profile={profile}" for shop in shops]
        for words in (
            ("export", f"shop={urls[0]}", "--to", urls[1]),
            ("verify", urls[1], "--level", "complete"),
            ("restore", urls[1], f"shop={urls[2]}"),
            ("verify", urls[1], "--against", f"shop={urls[2]}"),
            ("sync", f"shop={urls[0]}", f"shop={urls[3]}", "--cutover"),
        ):
            ended = call(*words)
            assert ended.code == 0, (words, ended)
    assert proxy.unproved == 0
    assert restored.keys() == source.keys() == [key for key in synced.keys() if not key.startswith(".")]  # noqa: SIM118


class OlderProxy(HttpProxy):
    """A MinIO that knows checksums, and not CRC64NVME."""

    def handle(self, asked: Asked) -> Answer:
        if asked.header("x-amz-checksum-algorithm") == "CRC64NVME":
            body = b"<Error><Code>InvalidArgument</Code><Message>Invalid checksum provided.</Message></Error>"
            return Answer(400, (), body)
        return self.forward(asked)


def test_objects_in_parts_come_to_a_server_that_knows_other_checksums_only(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It refuses to begin an upload; what else it says of checksums is still asked for."""
    source, location, destination = (make_shop(minio) for _ in range(3))
    sha256 = base64.b64encode(hashlib.sha256(b"note").digest()).decode()
    source.put("note", b"note", ChecksumSHA256=sha256)
    upload(source, "parts", bytes(5 * MIB), b"end")
    with OlderProxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        assert open_location(f"s3://{location.name}?profile={profile}").begin("large")
        ended = call(
            "sync", f"shop={source.url}", f"shop=s3://{destination.name}?profile={profile}", "--cutover"
        )
        assert ended.code == 0, ended
        bucket = open_bucket(f"s3://{destination.name}?profile={profile}")
        heads = {fetched.summary.key: fetched.headers for fetched in bucket.heads(bucket.list())}
    assert heads["note"]["x-amz-checksum-sha256"] == sha256
    assert heads["parts"]["etag"].endswith('-2"')
