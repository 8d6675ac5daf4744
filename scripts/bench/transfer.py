"""A sealed bundle from one MinIO to another: moveout compared with rclone.

    python -m scripts.bench.transfer [--runs 5] [--large 6] [--large-mib 256] [--small 300] [--workers 8]

The bundle is made once. Then the tools take turns, each in a process of its own and into an empty bucket; printed are
all times, the medians and their ratio. moveout checks the SHA-256 of every file on the way, has the destination check
the CRC64NVME of every part and every whole file, and seals last. rclone compares sizes and, where it can, MD5s. rclone
runs twice: as it comes, and with more transfers and larger parts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from migrate.bundle.bundle_json import FORMAT
from migrate.bundle.layout import VERSION
from migrate.storage.api import MultipartStore
from migrate.storage.file_writer import FileWriter
from migrate.storage.registry import open_location
from scripts.bench.ratios import note
from scripts.bench.turns import Command, Runs, as_installed, beside, take_turns
from scripts.servers import S3Server, Servers

MIB = 2**20
BUCKET = "bench"
_IDENTITY = {
    "format": FORMAT,
    "version": VERSION,
    "id": "bench",
    **dict.fromkeys(("created", "sealed"), "2026-01-01T00:00:00Z"),
    "software": "moveout",
    "complete": True,
    "continues": [],
    "sources": [],
}
TUNED = ("--transfers", "16", "--s3-chunk-size", "16M", "--s3-upload-concurrency", "4")


def main() -> int:
    """Run the comparison."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=options.dir) as directory,
        Servers(Path(directory)) as servers,
    ):
        old, new = servers.minio("old"), servers.minio("new")
        os.environ.update(servers.environment)
        old.client().create_bucket(Bucket=BUCKET)
        size_bytes, files = _make_bundle(old, options)
        print(f"bundle: {files} files, {size_bytes / MIB:.0f} MiB; {os.cpu_count()} cores")
        runs = _compare(old, new, options)
    moveout = runs["moveout"].median
    rclone = min(runs[name].median for name in ("rclone", "rclone tuned"))
    note(
        f"bundle of {files} files, bucket to bucket", "rclone copy, the better of two ways", rclone / moveout
    )
    print(
        f"\nmoveout : best rclone = {rclone / moveout:.2f} x as fast,"
        f" {size_bytes / moveout / 1e6:.0f} MB/s ({files} files, {size_bytes / MIB:.0f} MiB)"
    )
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--large", type=int, default=6, help="number of large files")
    parser.add_argument("--large-mib", type=int, default=256)
    parser.add_argument("--small", type=int, default=300, help="number of files of 4 to 256 KiB")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--dir", type=Path, help="where the servers keep their data (default: the system's)")
    return parser.parse_args()


def _make_bundle(old: S3Server, options: argparse.Namespace) -> tuple[int, int]:
    """Write a sealed bundle, return its size and number of files."""
    store = open_location(f"s3://{BUCKET}/bundle?profile={old.profile}")
    block = random.Random(1).randbytes(MIB)
    large = {f"data/app/packs/pack-{n:06}.tar": options.large_mib * MIB for n in range(options.large)}
    sizes = [(4 + number * 252 // options.small) * 1024 for number in range(options.small)]
    small = {f"data/app/tables/1/part-{n:06}.parquet": size for n, size in enumerate(sizes)}

    def write(item: tuple[str, int]) -> tuple[str, str, int]:
        key, size_bytes = item
        with FileWriter(store, key) as writer:
            for piece in _pieces(key, size_bytes, block):
                writer.write(piece)
        return key, writer.sha256, writer.size_bytes

    with ThreadPoolExecutor(4) as pool:
        payload = list(pool.map(write, (large | small).items()))
    tags = {
        "bagit.txt": b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n",
        "manifest-sha256.txt": "".join(f"{digest}  {key}\n" for key, digest, _ in sorted(payload)).encode(),
        "meta/bundle.json": json.dumps(_IDENTITY).encode(),
    }
    lines = [f"{hashlib.sha256(data).hexdigest()}  {key}\n" for key, data in sorted(tags.items())]
    tags["tagmanifest-sha256.txt"] = "".join(lines).encode()
    _put_all(store, tags)
    return sum(size for _, _, size in payload), len(payload) + len(tags)


def _pieces(key: str, size_bytes: int, block: bytes) -> Iterator[bytes]:
    """Bytes that differ from file to file and from block to block."""
    for start in range(0, size_bytes, len(block)):
        head = f"{key} {start} ".encode()
        yield (head + block[len(head) :])[: size_bytes - start]


def _put_all(store: MultipartStore, files: dict[str, bytes]) -> None:
    for key, data in files.items():
        store.put(key, data)


def _compare(old: S3Server, new: S3Server, options: argparse.Namespace) -> dict[str, Runs]:
    location = f"s3://{BUCKET}/bundle?profile={{}}"
    moveout = [as_installed(), "transfer", location.format(old.profile)]
    copy = [beside("rclone"), "copy", f"old:{BUCKET}/bundle"]
    tools: dict[str, Command] = {
        "moveout": lambda to: [
            *moveout, f"s3://{to}/bundle?profile={new.profile}", "--workers", str(options.workers), "--quiet",
        ],
        "rclone": lambda to: [*copy, f"new:{to}/bundle"],
        "rclone tuned": lambda to: [*copy, f"new:{to}/bundle", *TUNED],
    }  # fmt: skip
    return take_turns(tools, old, new, rounds=options.runs)


if __name__ == "__main__":
    sys.exit(main())
