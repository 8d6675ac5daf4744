"""A bucket of very many keys listed into an inventory, compared with a serial paginator.

    python -m scripts.bench.listing [--objects 100000] [--latency 25] [--runs 3] [--keep DIR]

The paginator is boto3's ``list_objects_v2``, which keeps nothing. moveout writes shards of Parquet to a directory. Both
list the same MinIO, directly and through a proxy that adds latency to each answer (milliseconds), as a host far away
does. They take turns. Told are the clock, the processor's seconds of client and server, requests, and how long one
takes. ``--keep``: where the server keeps its data from one run to the next, for ``scripts.bench.million`` too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3

from exporters.objects.listing import inventory
from migrate.storage.s3.source_bucket import open_bucket
from scripts.bench.population import BUCKET, populate
from scripts.cost import used_by
from scripts.metrics import requests
from scripts.servers import S3Server, Servers


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

    def listed(self, count: int) -> None:
        """Nobody watches."""


@dataclass(frozen=True, slots=True)
class ListingTime:
    """What one listing took: seconds of the clock and of both processors, and how often the server was asked."""

    seconds: float
    own_seconds: float
    server_seconds: float
    requests: int

    def __str__(self) -> str:
        each_ms = 1000 * self.server_seconds / max(self.requests, 1)
        processors = f"processor {self.own_seconds:5.2f} s, the server's {self.server_seconds:5.2f} s"
        return f"{self.seconds:6.2f} s, {processors}; {self.requests} requests of {each_ms:.1f} ms of it"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The bucket as it is reached by one endpoint."""

    endpoint: str
    server: S3Server
    scratch: Path

    def paginate(self) -> int:
        """List one page after the other; return the number of keys."""
        client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return sum(len(page.get("Contents", ())) for page in pages)

    def take(self) -> int:
        """Make an inventory; return the number of keys."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as shards:
            taken_inventory = inventory.take(open_bucket(f"s3://{BUCKET}"), _Directory(Path(shards)))
            print(
                f"  {taken_inventory.totals.shards} shards, {taken_inventory.totals.at_once} at once",
                flush=True,
            )
            return taken_inventory.totals.objects

    def measure(self, name: str, run: Callable[[], int], count: int) -> ListingTime:
        """Run one of both, and print what it took."""
        requests_before, used = _asked(self.server), used_by(self.server.child.popen.pid)
        before, started = time.process_time(), time.monotonic()
        if (key_count := run()) != count:
            raise SystemExit(f"{name} found {key_count} keys, not {count}")
        seconds, own_seconds = time.monotonic() - started, time.process_time() - before
        used = used_by(self.server.child.popen.pid) - used
        listed = ListingTime(seconds, own_seconds, used, _asked(self.server) - requests_before)
        print(f"  {name:10} {listed}", flush=True)
        return listed


def main() -> int:
    """Run the comparison."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=options.dir) as directory,
        Servers(options.keep or Path(directory)) as servers,
    ):
        minio = servers.minio("old")
        os.environ.update(servers.environment)
        populate(minio, options.objects)
        proxy = servers.toxiproxy().proxy(minio.endpoint)
        proxy.add("latency", latency=options.latency)
        for distance, endpoint in (
            ("directly", minio.endpoint),
            (f"{options.latency} ms away", proxy.endpoint),
        ):
            os.environ.update(_environment(minio, endpoint))
            print(f"\n{options.objects} keys, {distance}; {os.cpu_count()} cores", flush=True)
            _compare(Endpoints(endpoint, minio, Path(directory)), options.objects, options.runs)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--latency", type=int, default=25, help="milliseconds")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where the server keeps its data (default: the system's)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="of the server; reused")
    return parser.parse_args()


def _environment(server: S3Server, endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
    }


def _compare(endpoints: Endpoints, count: int, runs: int) -> None:
    rounds = [
        (
            endpoints.measure("paginator", endpoints.paginate, count),
            endpoints.measure("moveout", endpoints.take, count),
        )
        for _ in range(runs)
    ]
    for measure_name, of in (("the clock", _seconds), ("processors", _processors)):
        paginator_median, moveout_median = (
            statistics.median(map(of, column)) for column in zip(*rounds, strict=True)
        )
        ratio = paginator_median / moveout_median
        rates = (
            f"moveout {count / moveout_median:.0f}, paginator {count / paginator_median:.0f} keys a second"
        )
        print(f"by {measure_name}: {rates}: {ratio:.2f} x", flush=True)


def _seconds(timing: ListingTime) -> float:
    return timing.seconds


def _processors(timing: ListingTime) -> float:
    return timing.own_seconds + timing.server_seconds


def _asked(server: S3Server) -> int:
    return requests(server.endpoint)["ListObjectsV2"]


if __name__ == "__main__":
    sys.exit(main())
