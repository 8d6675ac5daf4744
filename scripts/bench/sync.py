"""A bucket to a bucket, object by object: moveout compared with rclone and MinIO's ``mc mirror``.

    python -m scripts.bench.sync [--runs 3] [--objects 20000] [--large 4] [--same 100000]

Three tasks, each tool in a process of its own and the tools in turn. *small*: objects of 1 to 64 KiB into an empty
bucket. *large*: objects of 512 MiB into an empty bucket. *same*: once more, with nothing changed. ``rclone`` runs at
the settings that were best for it here: 32 transfers for small objects, 4 of them with 4 parts of 16 MiB each for large
ones. For *same* it goes by checksum, which spares it a request for each object. ``mc`` is built once, and left out with
a line that says so where it cannot be. moveout hashes every object by SHA-256, keeps headers, metadata and tags, and
writes the record of all that; rclone compares sizes and MD5s, mc sizes. All ratios stand together at the end: by the
clock, by seconds of processor of the tool's own, and with those of both servers.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from scripts.bench.objects import KIB, seed
from scripts.bench.ratios import note
from scripts.bench.turns import Command, Runs, as_installed, beside, environment, run, take_turns
from scripts.binaries import MC, find_program
from scripts.process import ServerError
from scripts.servers import S3Server, Servers

LARGE_BYTES = 512 * KIB * KIB


def main() -> int:
    """Run the comparison."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=options.dir) as directory,
        Servers(Path(directory)) as servers,
    ):
        old, new = servers.minio("old"), servers.minio("new")
        os.environ.update(servers.environment)
        print(f"{os.cpu_count()} cores", flush=True)
        ratio_lines: list[str] = []
        if options.objects:
            seed(old, "small", options.objects)
            ratio_lines += _ratios("small", _turns("small", old, new, options, _RCLONE_SMALL))
        if options.large:
            _seed_large(old, options.large)
            ratio_lines += _ratios("large", _turns("large", old, new, options, _RCLONE_LARGE))
        if options.same:
            seed(old, "many", options.same, largest=KIB)
            ratio_lines += _ratios("same", _again(old, new, options))
    print("", *ratio_lines, sep="\n")
    return 0


_TARGETS = {("large", "mc"): 1.0}
"""So many times as fast as a peer, by task."""
_RCLONE_SMALL = ("--transfers", "32", "--checkers", "32")
_RCLONE_LARGE = (
    "--transfers", "4", "--s3-upload-concurrency", "4", "--s3-chunk-size", "16M", "--s3-copy-cutoff", "5G",
)  # fmt: skip
_RCLONE_SAME = ("--transfers", "32", "--checkers", "32", "--checksum", "--fast-list")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--objects", type=int, default=20_000, help="objects of 1 to 64 KiB; 0: not this task"
    )
    parser.add_argument("--large", type=int, default=4, help="objects of 512 MiB; 0: not this task")
    parser.add_argument(
        "--same", type=int, default=100_000, help="objects that have not changed; 0: not this task"
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--dir", type=Path, help="where the servers keep their data (default: the system's)")
    return parser.parse_args()


def _turns(
    bucket: str, old: S3Server, new: S3Server, options: argparse.Namespace, rclone: tuple[str, ...]
) -> dict[str, Runs]:
    return take_turns(_tools(bucket, old, new, options, rclone), old, new, rounds=options.runs)


def _tools(
    bucket: str, old: S3Server, new: S3Server, options: argparse.Namespace, rclone: tuple[str, ...]
) -> dict[str, Command]:
    tools: dict[str, Command] = {
        "moveout": lambda to: [
            as_installed(), "sync", f"old=s3://{bucket}?profile={old.profile}",
            f"new=s3://{to}?profile={new.profile}", "--workers", str(options.workers), "--quiet",
        ],
        "rclone": lambda to: [beside("rclone"), "copy", f"old:{bucket}", f"new:{to}", *rclone],
    }  # fmt: skip
    mc = _mc()
    if mc is not None:
        os.environ |= _mc_hosts({"old": old, "new": new})
        tools["mc"] = lambda to: [str(mc), "mirror", "--quiet", f"old/{bucket}", f"new/{to}"]
    return tools


@functools.cache
def _mc() -> Path | None:
    """Return MinIO's client, None where it cannot be had."""
    try:
        return find_program(MC)
    except ServerError as error:
        print(f"mc is left out: {error}", flush=True)
        return None


def _mc_hosts(servers: Mapping[str, S3Server]) -> dict[str, str]:
    """Return the variables that give mc a server."""
    hosts = {}
    for name, server in servers.items():
        scheme, _, host = server.endpoint.partition("://")
        hosts[f"MC_HOST_{name}"] = f"{scheme}://{server.access_key}:{server.secret_key}@{host}"
    return hosts


def _again(old: S3Server, new: S3Server, options: argparse.Namespace) -> dict[str, Runs]:
    """Copy once, then let each tool find that nothing is to be done."""
    tools = _tools("many", old, new, options, _RCLONE_SAME)
    client = new.client()
    variables, runs = environment(old, new), {name: Runs() for name in tools}
    for name, command in tools.items():
        client.create_bucket(Bucket=f"same-{name}")
        run(command(f"same-{name}"), variables, Runs())
    for number in range(options.runs):
        for name, command in tools.items():
            run(command(f"same-{name}"), variables, runs[name], (old, new))
            print(f"  run {number + 1}: {name:13} {runs[name].seconds[-1]:6.2f} s", flush=True)
    for name, measured in runs.items():
        print(f"{name:13} {measured}")
    return runs


def _seed_large(old: S3Server, count: int) -> None:
    client = old.client()
    client.create_bucket(Bucket="large")
    with tempfile.NamedTemporaryFile() as file:
        block = os.urandom(8 * KIB * KIB)
        for _ in range(LARGE_BYTES // len(block)):
            file.write(block)
        file.flush()
        for number in range(count):
            client.upload_file(file.name, "large", f"disk-{number}.img")


def _ratios(task: str, runs: Mapping[str, Runs]) -> list[str]:
    """Return how much more of everything the others take than moveout."""
    moveout_runs = runs["moveout"]
    ratio_lines = [
        f"{task}: {name} : moveout = {other_runs.median / moveout_runs.median:.2f} x the time,"
        f" {other_runs.cpu_median / moveout_runs.cpu_median:.2f} x the CPU,"
        f" {other_runs.all_median / moveout_runs.all_median:.2f} x the CPU with the servers'"
        for name, other_runs in runs.items()
        if name != "moveout"
    ]
    print(*ratio_lines, sep="\n", flush=True)
    for name, other_runs in runs.items():
        if name != "moveout":
            target = _TARGETS.get((task, name), 0)
            note(f"{task} objects, bucket to bucket", name, other_runs.median / moveout_runs.median, target)
    return ratio_lines


if __name__ == "__main__":
    sys.exit(main())
