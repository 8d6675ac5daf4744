"""Many small objects out of a MinIO, into a bundle on another one: moveout beside rclone.

    python -m scripts.bench.objects [--runs 5] [--objects 20000] [--workers 4]

``moveout export`` and ``rclone copy --transfers 32`` take turns, each in a process of its own and into an
empty bucket of the other MinIO; both MinIOs run with the same settings. Printed are all times, the medians
and their ratio. moveout hashes every object by SHA-256, MD5 and CRC64NVME, keeps headers, metadata and tags,
lists the source twice, and seals; rclone copies object by object and compares sizes and MD5s.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3

from migrate.store.s3_bucket_write import Description, open_target_bucket
from scripts.servers import S3Server, Servers

BUCKET = "small-objects"
KIB = 1024


def main() -> int:
    """Run the comparison."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=options.dir) as directory,
        Servers(Path(directory)) as servers,
    ):
        old, new = servers.minio("old"), servers.minio("new")
        os.environ.update(servers.environment)
        size_bytes = _seed(old, options.objects)
        print(f"{options.objects} objects, {size_bytes / 1e6:.0f} MB; {os.cpu_count()} cores", flush=True)
        times = _compare(old, new, options)
    rates = {name: _report(name, seconds, options.objects) for name, seconds in times.items()}
    print(f"\nmoveout : rclone = {rates['moveout'] / rates['rclone']:.2f} x the objects a second")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--objects", type=int, default=20_000, help="number of objects of 1 to 64 KiB")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--dir", type=Path, help="where the servers keep their data (default: the system's)")
    return parser.parse_args()


def _seed(old: S3Server, count: int) -> int:
    """Fill the bucket, return its size."""
    boto3.Session(profile_name=old.profile).client("s3").create_bucket(Bucket=BUCKET)
    target = open_target_bucket(f"s3://{BUCKET}?profile={old.profile}")
    size_bytes = 0
    for written in target.put_all(_objects(count), window_bytes=8 * KIB * KIB):
        if written.error is not None:
            raise written.error
    for found in target.list():
        size_bytes += found.size_bytes
    return size_bytes


def _objects(count: int) -> Iterator[tuple[Description, bytes]]:
    rng = random.Random(1)
    block = rng.randbytes(KIB * KIB)
    for number in range(count):
        size_bytes = rng.randint(KIB, 64 * KIB)
        start = rng.randrange(len(block) - size_bytes)
        key = f"user-{number % 97:02d}/photo-{number:06d}.jpg"
        metadata = {"number": str(number)}
        yield Description(key, {"content-type": "image/jpeg"}, metadata), block[start : start + size_bytes]


def _compare(old: S3Server, new: S3Server, options: argparse.Namespace) -> dict[str, list[float]]:
    source = f"shop=s3://{BUCKET}?profile={old.profile}"
    tools: dict[str, Callable[[str], list[str]]] = {
        "moveout": lambda to: [
            _beside("moveout"), "export", source, "--to", f"s3://{to}/bundle?profile={new.profile}",
            "--workers", str(options.workers), "--quiet",
        ],
        "rclone": lambda to: [
            _beside("rclone"), "copy", f"old:{BUCKET}", f"new:{to}", "--transfers", "32",
        ],
    }  # fmt: skip
    environment = {**os.environ, **_remote("OLD", old), **_remote("NEW", new)}
    client = boto3.Session(profile_name=new.profile).client("s3")
    times: dict[str, list[float]] = {name: [] for name in tools}
    for number in range(options.runs):
        for name, command in tools.items():
            target = f"{name}-{number}"
            client.create_bucket(Bucket=target)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.monotonic()
            subprocess.run(command(target), env=environment, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.monotonic() - started)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"  run {number + 1}: {name:8} {times[name][-1]:6.2f} s, {cpu:6.2f} s of CPU", flush=True)
            _drop(client, target)
    return times


def _beside(program: str) -> str:
    """Return the path of a program in this Python's environment."""
    return str(Path(sys.executable).with_name(program))


def _remote(name: str, server: S3Server) -> dict[str, str]:
    """Return rclone's settings for a server."""
    values = {
        "TYPE": "s3",
        "PROVIDER": "Minio",
        "ENDPOINT": server.endpoint,
        "ACCESS_KEY_ID": server.access_key,
        "SECRET_ACCESS_KEY": server.secret_key,
    }
    return {f"RCLONE_CONFIG_{name}_{key}": value for key, value in values.items()}


def _drop(client: Any, bucket: str) -> None:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        if rows := [{"Key": row["Key"]} for row in page.get("Contents", ())]:
            client.delete_objects(Bucket=bucket, Delete={"Objects": rows, "Quiet": True})
    client.delete_bucket(Bucket=bucket)


def _report(name: str, seconds: list[float], count: int) -> float:
    """Print and return objects a second."""
    median = statistics.median(seconds)
    spread = f"({min(seconds):.2f}-{max(seconds):.2f} s)"
    print(f"{name:8} median {median:6.2f} s  {count / median:6.0f} objects/s  {spread}")
    return count / median


if __name__ == "__main__":
    sys.exit(main())
