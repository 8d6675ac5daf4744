"""Many small objects out of a MinIO, into a bundle on another one: moveout compared with rclone.

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
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.metadata.object_metadata import Description
from scripts.bench.ratios import note
from scripts.bench.turns import Command, Runs, as_installed, beside, take_turns
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
        size_bytes = seed(old, BUCKET, options.objects)
        print(f"{options.objects} objects, {size_bytes / 1e6:.0f} MB; {os.cpu_count()} cores", flush=True)
        runs = _compare(old, new, options)
    rates = {name: options.objects / measured.median for name, measured in runs.items()}
    print(f"\nmoveout {rates['moveout']:.0f}, rclone {rates['rclone']:.0f} objects a second")
    note(
        f"{options.objects:,} small objects, bucket to bundle",
        "rclone copy",
        rates["moveout"] / rates["rclone"],
    )
    print(f"moveout : rclone = {rates['moveout'] / rates['rclone']:.2f} x the objects a second")
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


def seed(old: S3Server, bucket: str, count: int, *, largest: int = 64 * KIB) -> int:
    """Make and fill a bucket with objects of 1 KiB to ``largest`` bytes, return its size."""
    old.client().create_bucket(Bucket=bucket)
    destination = open_destination_bucket(f"s3://{bucket}?profile={old.profile}")
    size_bytes = 0
    for written in destination.put_all(_objects(count, largest), window_bytes=8 * KIB * KIB):
        if written.error is not None:
            raise written.error
    for summary in destination.list():
        size_bytes += summary.size_bytes
    return size_bytes


def _objects(count: int, largest: int) -> Iterator[tuple[Description, bytes]]:
    rng = random.Random(1)
    block = rng.randbytes(KIB * KIB)
    for number in range(count):
        size_bytes = rng.randint(KIB, largest)
        start = rng.randrange(len(block) - size_bytes)
        key = f"user-{number % 97:02d}/photo-{number:06d}.jpg"
        metadata = {"number": str(number)}
        yield Description(key, {"content-type": "image/jpeg"}, metadata), block[start : start + size_bytes]


def _compare(old: S3Server, new: S3Server, options: argparse.Namespace) -> dict[str, Runs]:
    source = f"shop=s3://{BUCKET}?profile={old.profile}"
    moveout = as_installed()
    tools: dict[str, Command] = {
        "moveout": lambda to: [
            moveout, "export", source, "--to", f"s3://{to}/bundle?profile={new.profile}",
            "--workers", str(options.workers), "--quiet",
        ],
        "rclone": lambda to: [
            beside("rclone"), "copy", f"old:{BUCKET}", f"new:{to}", "--transfers", "32",
        ],
    }  # fmt: skip
    return take_turns(tools, old, new, rounds=options.runs)


if __name__ == "__main__":
    sys.exit(main())
