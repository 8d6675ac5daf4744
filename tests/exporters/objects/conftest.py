"""Buckets with real, odd and large objects, and what the tests do with them again and again."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from exporters.bucket_api import Bucket
from exporters.objects.source import ObjectExporter
from exporters.selection import EVERYTHING, Selection
from migrate.bundle.reader import BundleReader
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.storage.s3.http import concurrent_requests
from migrate.storage.s3.source_bucket import S3Bucket, open_bucket
from scripts.servers import S3Server
from tests.tools.clients import boto_client
from tests.tools.http_proxy import Answer, Asked, HttpProxy
from tests.tools.profiles import extra_profile
from tests.tools.raw_s3 import raw_request

ODD_KEYS = (
    "a b?c%2F\nx",
    "..x",
    "plus+and&=",
    "ünï/çödé 日本",
    "emoji-😀",
    "q\"'<>",
    "*~!()",
    "space ",
    "x" * 250,
    "long/" * 60 + "end",
)

_HEADERS = {
    "CacheControl": "cache-control",
    "ContentDisposition": "content-disposition",
    "ContentEncoding": "content-encoding",
    "ContentLanguage": "content-language",
    "ContentType": "content-type",
    "Tagging": "x-amz-tagging",
}
"""What boto3 calls headers that are sent as they are."""
_IS_PLAIN = re.compile(r"[!-~]*(?:[ \n][!-~]+)*").fullmatch
"""Tells whether values are ASCII, with single spaces: others are signed otherwise than they are sent."""


@dataclass(frozen=True)
class Shop:
    """A bucket on a server, with a boto3 client for it."""

    server: S3Server
    name: str
    boto: Any

    @property
    def url(self) -> str:
        return f"s3://{self.name}?profile={self.server.profile}"

    def put(self, key: str, body: bytes = b"body", **more: Any) -> None:
        """Write an object. One with usual headers and metadata is sent as boto3 sends it, in a quarter of its time."""
        metadata = {f"x-amz-meta-{name}": value for name, value in more.get("Metadata", {}).items()}
        plain = {_HEADERS[name]: value for name, value in more.items() if name in _HEADERS}
        if more.keys() - _HEADERS.keys() - {"Metadata"} or not _IS_PLAIN("\n".join(metadata.values())):
            self.boto.put_object(Bucket=self.name, Key=key, Body=body, **more)
            return
        headers = {name: value.encode() for name, value in {**plain, **metadata}.items()}
        headers["x-amz-checksum-crc32"] = base64.b64encode(zlib.crc32(body).to_bytes(4, "big"))
        raw_request(self.server, "PUT", f"{self.name}/{key}", headers, body)

    def keys(self) -> list[str]:
        pages = self.boto.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]


MakeShop = Callable[[S3Server], Shop]
FilledShop = Callable[[S3Server], tuple[Shop, dict[str, bytes]]]


def bodies_of(location: Path) -> dict[str, bytes]:
    """What a bundle of one shop holds, by its index."""
    bodies = {}
    for row in ds.dataset(location / "data/shop/index", format="parquet").to_table().to_pylist():
        if row["disposition"] == "exported":
            body = (location / "data/shop" / (row["pack"] or row["large"])).read_bytes()
            start = row["offset"] or 0
            bodies[row["key"]] = body[start : start + row["length"]]
    return bodies


class BucketHost:
    """Lends buckets to the exporter, as the command line does."""

    def secret(self, name: str) -> str | None:
        return None

    def __init__(self, selection: Selection = EVERYTHING) -> None:
        self._selection = selection

    def bucket(self, url: str) -> Bucket:
        return open_bucket(url)

    def selection(self) -> Selection:
        return self._selection


@pytest.fixture(params=["minio", pytest.param("versitygw", marks=pytest.mark.torture)])
def server(request: pytest.FixtureRequest) -> S3Server:
    """Each of the S3 servers in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def make_shop(make_bucket: Callable[[S3Server], str]) -> MakeShop:
    """Make an empty bucket on a server."""

    def make(server: S3Server) -> Shop:
        return Shop(server, make_bucket(server), boto_client(server.profile))

    return make


@pytest.fixture
def shop(server: S3Server, make_shop: MakeShop) -> Shop:
    """An empty bucket on each of the servers."""
    return make_shop(server)


@pytest.fixture
def shops(minio: S3Server, other_minio: S3Server, make_shop: MakeShop) -> tuple[Shop, Shop]:
    """An empty bucket on a MinIO, and one on another MinIO."""
    return make_shop(minio), make_shop(other_minio)


def fill(shop: Shop, *, odd: bool = True) -> dict[str, bytes]:
    """Put objects of every kind, return them."""
    objects = {f"small/{number:03d}.bin": bytes([number]) * (number * 50) for number in range(15)}
    objects |= dict.fromkeys(ODD_KEYS if odd else (), b"odd")
    objects |= {"empty": b"", "large.bin": bytes(range(256)) * 40_000}
    for key, body in objects.items():
        shop.put(key, body, ContentType="application/x-thing", Metadata={"n": str(len(body)), "who": "me"})
    shop.put(
        "described",
        b"described",
        ContentType="text/plain; charset=utf-8",
        CacheControl="max-age=60",
        ContentDisposition='attachment; filename="x.txt"',
        ContentEncoding="gzip",
        ContentLanguage="de",
        Metadata={"some-name": "some value"},
        Tagging="project=blue%20sky&owner=me%2Byou",
    )
    return objects | {"described": b"described"}


@pytest.fixture(scope="module")
def filled(make_bucket: Callable[[S3Server], str]) -> FilledShop:
    """Return a bucket on a server that ``fill`` has filled, and its objects: always the same, for tests that only read
    it.
    """
    made: dict[str, tuple[Shop, dict[str, bytes]]] = {}

    def of(server: S3Server) -> tuple[Shop, dict[str, bytes]]:
        if server.profile not in made:
            shop = Shop(server, make_bucket(server), boto_client(server.profile))
            made[server.profile] = shop, fill(shop)
        return made[server.profile]

    return of


def take_out(shop_url: str, location: Path, *, selection: Selection = EVERYTHING) -> BundleReader:
    """Export a bucket into a bundle, return its reader."""
    source = ObjectExporter().open("shop", shop_url, BucketHost(selection))
    export([source], open_location(str(location)), workers=2, progress=Silent())
    return BundleReader(open_location(str(location)))


@dataclass(slots=True)
class Odd(HttpProxy):
    """Answers what ``answer`` gives; what it gives None for is handed on."""

    answer: Callable[[Asked], Answer | None] = lambda asked: None
    name: str = "odd"

    def handle(self, asked: Asked) -> Answer:
        answer = self.answer(asked)
        return self.forward(asked) if answer is None else answer


@dataclass(frozen=True, slots=True)
class OddShop:
    """A bucket, and the way to it."""

    shop: Shop
    proxy: Odd
    url: str

    def bucket(self) -> S3Bucket:
        return open_bucket(self.url)

    def careless(self, asked: Asked, **instead: str) -> Answer:
        """Hand on without If-Match, with other headers; answer without a checksum."""
        instead = {"if-match": "", **instead}
        headers = ((name, instead.get(name.lower(), value)) for name, value in asked.headers)
        kept = replace(asked, headers=tuple((name, value) for name, value in headers if value))
        answer = self.proxy.forward(kept)
        return replace(
            answer, headers=tuple(pair for pair in answer.headers if "checksum" not in pair[0].lower())
        )


@pytest.fixture
def odd(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[OddShop]:
    monkeypatch.setattr(concurrent_requests, "RETRY_SECONDS", 1.0)
    shop = make_shop(minio)
    with Odd(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        yield OddShop(shop, proxy, f"s3://{shop.name}?profile={profile}")


def reads(asked: Asked, key: str) -> bool:
    return asked.method == "GET" and asked.path.endswith(f"/{key}") and not asked.query


def asks(asked: Asked, what: str) -> bool:
    return asked.method == "GET" and what in asked.query


def upload(shop: Shop, key: str, *bodies: bytes) -> None:
    """Upload an object in parts, which the proxies below do not tell: then no checksum proves its bytes."""
    which = {"Bucket": shop.name, "Key": key}
    upload_id = shop.boto.create_multipart_upload(**which)["UploadId"]
    parts = []
    for number, body in enumerate(bodies, 1):
        part = shop.boto.upload_part(**which, UploadId=upload_id, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    shop.boto.complete_multipart_upload(**which, UploadId=upload_id, MultipartUpload={"Parts": parts})
