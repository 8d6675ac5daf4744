"""A bucket of very many keys listed into an inventory, beside a serial paginator.

    python -m scripts.bench.listing [--objects 200000] [--latency 25] [--runs 3]

The paginator is boto3's ``list_objects_v2``, which keeps nothing. moveout writes shards of Parquet to a directory. Both
list the same MinIO, directly and through a proxy that adds latency to each answer (milliseconds), as a host far away
does.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import boto3

from exporters.objects import inventory
from migrate.store.s3_bucket import open_bucket
from migrate.store.s3_bucket_write import open_target_bucket
from migrate.store.s3_description import Description
from migrate.store.s3_snowball import Member, put
from scripts.servers import S3Server, Servers

BUCKET = "many-keys"
_EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
_TAR_MEMBERS = 5000


class _Directory:
    """A workspace in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes | None:
        path = self._root / name
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, data: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def names(self, prefix: str = "") -> Sequence[str]:
        return sorted(
            name
            for path in self._root.rglob("*")
            if (name := str(path.relative_to(self._root))).startswith(prefix)
        )

    def delete(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)


def main() -> int:
    """Run the comparison."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=options.dir) as directory,
        Servers(Path(directory)) as servers,
    ):
        minio = servers.minio("old")
        os.environ.update(servers.environment)
        _seed(minio, options.objects)
        proxy = servers.toxiproxy().proxy(minio.endpoint)
        proxy.add("latency", latency=options.latency)
        for where, endpoint in (("directly", minio.endpoint), (f"{options.latency} ms away", proxy.endpoint)):
            os.environ.update(_environment(minio, endpoint))
            print(f"\n{options.objects} keys, {where}; {os.cpu_count()} cores", flush=True)
            _compare(endpoint, options.objects, options.runs, Path(directory))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--latency", type=int, default=25, help="milliseconds")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where the server keeps its data (default: the system's)")
    return parser.parse_args()


def _environment(server: S3Server, endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
    }


def _keys(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"user-{number * 97 // count:02d}/photo-{number:07d}.jpg"


def _seed(server: S3Server, count: int) -> None:
    """Fill the bucket with empty objects, thousands at once."""
    boto3.Session(profile_name=server.profile).client("s3").create_bucket(Bucket=BUCKET)
    target = open_target_bucket(f"s3://{BUCKET}?profile={server.profile}")
    now, members, made = int(time.time()), [], 0
    for key in _keys(count):
        members.append(Member(Description(key, {"content-type": "image/jpeg"}), b"", _EMPTY_MD5, now))
        if len(members) == _TAR_MEMBERS:
            made, members = made + len(put(target, members)), []
    made += len(put(target, members)) if members else 0
    if made != count:
        raise SystemExit(f"only {made} of {count} objects were made")


def _compare(endpoint: str, count: int, runs: int, directory: Path) -> None:
    def paginate() -> int:
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return sum(len(page.get("Contents", ())) for page in pages)

    def take() -> int:
        with tempfile.TemporaryDirectory(dir=directory) as shards:
            taken = inventory.take(open_bucket(f"s3://{BUCKET}"), _Directory(Path(shards)))
            print(f"  {taken.totals.shards} shards, {taken.totals.at_once} at once", flush=True)
            return taken.totals.objects

    medians = {}
    for name, run in (("paginator", paginate), ("moveout", take)):
        seconds = [_timed(name, run, count) for _ in range(runs)]
        medians[name] = statistics.median(seconds)
    print(
        f"moveout {count / medians['moveout']:.0f}, paginator {count / medians['paginator']:.0f} keys a second:"
        f" {medians['paginator'] / medians['moveout']:.2f} x"
    )


def _timed(name: str, run: Callable[[], int], count: int) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.monotonic()
    if (found := run()) != count:
        raise SystemExit(f"{name} found {found} keys, not {count}")
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rss = after.ru_maxrss / 1024
    print(f"  {name:10} {seconds:6.2f} s, processor {processor:5.2f} s, largest {rss:.0f} MB", flush=True)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
