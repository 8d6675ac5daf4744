"""The old host's data: a small social network in PostgreSQL and its media in a bucket. Always the same."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import boto3
import psycopg
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

SMALL_OBJECTS = 3_000
LARGE_OBJECTS = 3
LARGE_BYTES = 48 * 2**20
WORKERS = 16
ODD_KEYS = (
    "odd/with spaces and  two",
    "odd/what?x=1&y=2#z",
    "odd/50%2F50 %41",
    "odd/new\nline",
    "odd/..x",
    "odd/.hidden",
    "odd/Ünïcödé/日本/🎉.txt",
    "odd/e\u0301 decomposed",
    "odd/a folder/",
    "odd/empty",
    "odd/+plus & 'quotes' \"double\" <tag>",
    "odd/back\\slash*:|",
)
_TYPES = ("image/jpeg", "image/png", "video/mp4", "text/plain; charset=utf-8", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class SeedObject:
    """An object to be: its body comes from ``seed``, its headers are what ``put_object`` takes."""

    key: str
    size_bytes: int
    seed: int
    headers: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the bytes: noise, or for text something that compresses."""
        noise = random.Random(self.seed)
        if str(self.headers.get("ContentType", "")).startswith("text/"):
            return (f"post {self.seed}: " + "grüße aus der ferne\n" * 4000).encode()[: self.size_bytes]
        return noise.randbytes(self.size_bytes)


def seed_database(url: str) -> tuple[int, int]:
    """Fill an empty database, return its rows and its tables (partitions singly, materialized views not)."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
        counts = count_rows(connection)
        return sum(counts.values()), len(counts)


def count_rows(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Return the rows of every table that holds rows itself, by qualified name."""
    tables = connection.execute(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname = 'social' ORDER BY 1"
    ).fetchall()
    counts = {}
    for (table,) in tables:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        counts[table] = int(row[0]) if row else 0
    return counts


def objects(small: int = SMALL_OBJECTS, large: int = LARGE_OBJECTS) -> Iterator[SeedObject]:
    """Yield the objects, the large ones first: they take longest. ``small`` counts those of odd keys."""
    chance = random.Random(20261124)
    for number in range(large):
        headers = {"ContentType": "video/mp4", "Metadata": {"camera": f"cam-{number}", "take": "final"}}
        yield SeedObject(f"video/clip-{number}.mp4", LARGE_BYTES, 10**6 + number, headers, {"kind": "video"})
    for number in range(small - len(ODD_KEYS)):
        yield _photo(number, chance.randint(2**10, 2**16))
    for number, key in enumerate(ODD_KEYS):
        size_bytes = 0 if key.endswith(("/", "empty")) else 1000 + number
        headers = {"ContentType": "application/x-odd", "Metadata": {"number": str(number)}}
        yield SeedObject(key, size_bytes, 2 * 10**6 + number, headers, {"odd": "yes + no"})


def _photo(number: int, size_bytes: int) -> SeedObject:
    headers: dict[str, Any] = {"ContentType": _TYPES[number % len(_TYPES)]}
    if number % 3 == 0:
        headers["Metadata"] = {
            "author": f"user_{number % 8000 + 1}",
            "caption": f"picture no. {number}, 50% off",
        }
    if number % 4 == 0:
        headers["CacheControl"] = "public, max-age=86400"
    if number % 10 == 0:
        headers["ContentDisposition"] = f'attachment; filename="photo {number}.jpg"'
    if number % 25 == 0:
        headers["ContentLanguage"] = "sv"
    tags = {"album": f"a{number % 40}", "checked": "true"} if number % 8 == 0 else {}
    return SeedObject(f"media/{number % 30:02}/photo-{number:05}.jpg", size_bytes, number, headers, tags)


def seed_bucket(profile: str, bucket: str, seed_objects: Sequence[SeedObject]) -> tuple[int, int]:
    """Make the bucket and fill it, return objects and bytes."""
    config = Config(max_pool_connections=2 * WORKERS, request_checksum_calculation="when_required")
    client = boto3.Session(profile_name=profile).client("s3", config=config)
    client.create_bucket(Bucket=bucket)
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(lambda seed_object: _put(client, bucket, seed_object), seed_objects):
            pass
    return len(seed_objects), sum(seed_object.size_bytes for seed_object in seed_objects)


def make_buckets(profile: str, *buckets: str) -> None:
    """Make empty buckets."""
    client = boto3.Session(profile_name=profile).client("s3")
    for bucket in buckets:
        client.create_bucket(Bucket=bucket)


def _put(client: Any, bucket: str, seed_object: SeedObject) -> None:
    extra = {**seed_object.headers, **({"Tagging": urlencode(seed_object.tags)} if seed_object.tags else {})}
    if seed_object.size_bytes < LARGE_BYTES:
        client.put_object(Bucket=bucket, Key=seed_object.key, Body=seed_object.body(), **extra)
        return
    parts = TransferConfig(multipart_chunksize=8 * 2**20, max_concurrency=4)
    client.upload_fileobj(
        io.BytesIO(seed_object.body()), bucket, seed_object.key, ExtraArgs=extra, Config=parts
    )
