"""A bucket of very many small objects that several measurements share: made once, by tars that MinIO unpacks.

What is in an object follows from its number, so what should be there is known without reading it.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.tar_upload import Member, put
from scripts.servers import S3Server

BUCKET = "population"
LEAST_BYTES, MOST_BYTES = 200, 2000
_PER_PREFIX = 333
_MEMBERS = 4000
_BLOCK = random.Random(1).randbytes(2**20)


def key_of(number: int) -> str:
    """Return an object's key; the order of numbers is that of keys."""
    return f"tenant-{number // _PER_PREFIX:05d}/invoices/{number:08d}.json"


def body_of(number: int) -> bytes:
    """Return an object's bytes."""
    rng = random.Random(number)
    size_bytes = rng.randint(LEAST_BYTES, MOST_BYTES)
    start = rng.randrange(len(_BLOCK) - size_bytes)
    return _BLOCK[start : start + size_bytes]


def total_bytes(count: int) -> int:
    """Return the bytes of so many objects."""
    return sum(random.Random(number).randint(LEAST_BYTES, MOST_BYTES) for number in range(count))


def populate(server: S3Server, count: int) -> None:
    """Make the bucket, unless a call before has made it of so many objects already (it says so next to the data)."""
    marker_file = server.directory.with_name("populated")
    if marker_file.exists() and marker_file.read_text() == str(count):
        return
    client = server.client()
    if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=BUCKET)
    destination = open_destination_bucket(f"s3://{BUCKET}?profile={server.profile}")
    members, started, made_count = _members(count, _begun(client)), time.monotonic(), 0
    while batch := list(islice(members, _MEMBERS)):
        if len(put(destination, batch)) != len(batch):
            raise SystemExit(f"not all objects from {batch[0].described.key} on were made")
        made_count += len(batch)
        if made_count % (25 * _MEMBERS) == 0:
            print(
                f"  {made_count} objects made, {made_count / (time.monotonic() - started):.0f} a second",
                flush=True,
            )
    marker_file.write_text(str(count))


def _begun(client: Any) -> int:
    """Return how many objects, from the first on, a call that was interrupted has surely made."""
    last = -1
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    for page in pages:
        for row in page.get("Contents", ()):
            last = int(row["Key"].rpartition("/")[2].removesuffix(".json"))
    return max(0, (last + 1) // _MEMBERS * _MEMBERS)


def _members(count: int, start: int) -> Iterator[Member]:
    now = int(time.time())
    for number in range(start, count):
        body = body_of(number)
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        described = Description(key_of(number), {"content-type": "application/json"}, {"number": str(number)})
        yield Member(described, body, md5, now)
