"""One large object, killed near the end of its way: into a bundle, from location to location. MOVEOUT_LARGE_MIB: its
size.

Its source and the last location are at a MinIO that compresses, so that twenty times as much needs no more disk than
once.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from migrate.storage.api import PART_BYTES
from scripts.metrics import received_bytes
from tests.tools.clients import boto_client
from tests.torture.command import killed_when, must

pytestmark = pytest.mark.torture

MIB = 2**20
LARGE_MIB = int(os.environ.get("MOVEOUT_LARGE_MIB", "1024"))
SHARE = 0.95
"""So much of it has arrived when the run is killed."""
WORKERS = 4
SLACK_BYTES = MIB
SEED_MIB = 64
KEY = "videos/one.bin"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket on a server."""

    server: Any
    name: str

    @property
    def client(self) -> Any:
        return boto_client(self.server.profile)

    def url(self, prefix: str = "") -> str:
        return f"s3://{self.name}{prefix}?profile={self.server.profile}"

    def sizes(self) -> dict[str, int]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {row["Key"]: row["Size"] for page in pages for row in page.get("Contents", ())}

    def large(self) -> str:
        return max(self.sizes().items(), key=lambda pair: pair[1])[0]

    def drop_large(self) -> None:
        self.client.delete_object(Bucket=self.name, Key=self.large())

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for block in self.client.get_object(Bucket=self.name, Key=self.large())["Body"].iter_chunks(MIB):
            digest.update(block)
        return digest.hexdigest()


@pytest.fixture(scope="module")
def squeezing(servers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIO_COMPRESSION_ENABLE", "on")
        patch.setenv("MINIO_COMPRESSION_EXTENSIONS", "")
        patch.setenv("MINIO_COMPRESSION_MIME_TYPES", "")
        return servers.minio("squeezing")


def body() -> Iterator[bytes]:
    """No two MiB of it are the same."""
    for start in range(0, LARGE_MIB, SEED_MIB):
        numbers = range(start, min(start + SEED_MIB, LARGE_MIB))
        yield b"".join(struct.pack(">Q", number) * (MIB // 8) for number in numbers)


@pytest.fixture
def source(squeezing, make_bucket):
    """The bucket, and the SHA-256 of its object."""
    bucket, digest, parts = Bucket(squeezing, make_bucket(squeezing)), hashlib.sha256(), []
    named = {"Bucket": bucket.name, "Key": KEY}
    named["UploadId"] = bucket.client.create_multipart_upload(**named)["UploadId"]
    client = bucket.client
    for number, piece in enumerate(body(), 1):
        digest.update(piece)
        etag = client.upload_part(**named, PartNumber=number, Body=piece)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    return bucket, digest.hexdigest()


def sent_again(words: tuple, to: Bucket) -> int:
    """Run a command, kill it near its end, run it again; return the bytes that the server received besides what it has
    now.
    """
    before = received_bytes(to.server.endpoint)

    def received() -> int:
        return received_bytes(to.server.endpoint) - before

    killed_when(lambda: received() >= SHARE * LARGE_MIB * MIB, *words)
    at_kill = received()
    ended = must(*words)
    print(f"{words[0]}: killed at {at_kill} bytes, received {received()} for {sum(to.sizes().values())}")  # noqa: T201
    print(f"{words[0]}: gone on with in {ended.seconds:.0f} s")  # noqa: T201
    return received() - sum(to.sizes().values())


def test_a_large_object_is_gone_on_with_near_its_end(
    source, squeezing, other_minio, make_bucket: Callable[[Any], str]
):
    bucket, sha256 = source
    first, second = Bucket(other_minio, make_bucket(other_minio)), Bucket(squeezing, make_bucket(squeezing))
    most = WORKERS * PART_BYTES + SLACK_BYTES

    export = ("export", f"media={bucket.url()}", "--to", first.url("/b"), "--workers", WORKERS)
    assert sent_again(export, first) <= most
    assert first.sha256() == sha256
    bucket.drop_large()

    transfer = ("transfer", first.url("/b"), second.url("/b"), "--workers", WORKERS)
    assert sent_again(transfer, second) <= most
    first.drop_large()
    assert second.sha256() == sha256
    second.drop_large()
