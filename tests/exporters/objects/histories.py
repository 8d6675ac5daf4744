"""Buckets with a past, made and read with clients that know nothing of moveout."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from minio import Minio

from scripts.servers import S3Server
from tests.exporters.objects.conftest import Shop
from tests.tools.raw_s3 import raw_request

DAY = timedelta(days=1)


def make_history(shop: Shop, *, keys: int, versions: int, seed: int = 1, locks: bool = True) -> int:
    """Fill a bucket that keeps versions: overwrites, deletions, tags, metadata, locks. Return how many there are."""
    until = datetime.now(UTC) + 2 * DAY
    with ThreadPoolExecutor(4) as pool:
        makes = [
            pool.submit(
                _make_key, shop, number, versions, random.Random(f"{seed}/{number}"), until if locks else None
            )
            for number in range(keys)
        ]
        return sum(make.result() for make in makes)


def _make_key(shop: Shop, number: int, versions: int, rng: random.Random, until: datetime | None) -> int:
    key = f"user-{number % 7}/{number:05d}.bin"
    count, deleted = rng.randint(1, versions), True
    for version in range(count):
        if not deleted and rng.random() < 0.25:
            shop.boto.delete_object(Bucket=shop.name, Key=key)
            deleted = True
            continue
        deleted = False
        more: dict[str, Any] = {"Metadata": {"n": str(number), "version": str(version)}}
        if rng.random() < 0.4:
            more["Tagging"] = f"turn={version}&of=a%20b"
        if rng.random() < 0.5:
            more["CacheControl"] = f"max-age={version}"
        if until is not None and rng.random() < 0.15:
            more |= {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
        if until is not None and rng.random() < 0.1:
            more["ObjectLockLegalHoldStatus"] = "ON"
        shop.put(key, rng.randbytes(rng.choice([0, 10, 3000])), **more)
    return count


def read_history(server: S3Server, bucket: str, prefix: str = "") -> dict[str, list[tuple[Any, ...]]]:
    """Return what each key has been, oldest first: as the ``minio`` SDK sees it, in the order of MinIO's listing. The
    SDK loses that order, since it reads versions before delete markers; their times may be the same millisecond.
    Records of syncs are not read.
    """
    client = Minio(
        urlsplit(server.endpoint).netloc,
        server.access_key,
        server.secret_key,
        secure=False,
        region="us-east-1",
    )
    places = {version: place for place, version in enumerate(_listed_versions(server, bucket))}
    listed = [
        one
        for one in client.list_objects(bucket, prefix, recursive=True, include_version=True)
        if not one.object_name.startswith(".moveout-sync/")
    ]
    listed.sort(key=lambda one: places[one.object_name, one.version_id], reverse=True)
    found: dict[str, list[tuple[Any, ...]]] = {}
    with ThreadPoolExecutor(4) as pool:
        seen = pool.map(lambda one: tuple(_seen(client, bucket, one)), listed)
        for one, row in zip(listed, seen, strict=True):
            found.setdefault(one.object_name, []).append(row)
    return found


def _listed_versions(server: S3Server, bucket: str) -> Iterator[tuple[str, str]]:
    """Yield the key and the version id of each version and delete marker, newest first, page by page."""
    query = {"versions": ""}
    while True:
        root = ET.fromstring(raw_request(server, "GET", bucket, query=query).body)
        for element in root:
            if element.tag.endswith(("}Version", "}DeleteMarker")):
                yield element.findtext("{*}Key") or "", element.findtext("{*}VersionId") or ""
        if root.findtext("{*}IsTruncated") != "true":
            return
        query["key-marker"] = root.findtext("{*}NextKeyMarker") or ""
        query["version-id-marker"] = root.findtext("{*}NextVersionIdMarker") or ""


def _seen(client: Minio, bucket: str, one: Any) -> Iterator[Any]:
    yield one.is_delete_marker
    yield str(one.is_latest).lower()
    if one.is_delete_marker:
        return
    yield one.size
    yield one.etag
    body = client.get_object(bucket, one.object_name, version_id=one.version_id)
    try:
        kept = {name.lower(): value for name, value in body.headers.items()}
        data = body.read()
    finally:
        body.close()
        body.release_conn()
    yield {
        name: value
        for name, value in kept.items()
        if name.startswith(("x-amz-meta-", "x-amz-object-lock")) or name in {"cache-control", "content-type"}
    }
    tags = None
    if "x-amz-tagging-count" in kept:
        tags = client.get_object_tags(bucket, one.object_name, version_id=one.version_id)
    yield dict(tags or {})
    yield data
