"""Workers of a Dask cluster, each behind a link of its own: how the rate grows with them.

    sudo python -m scripts.bench.links.cluster [--workers 1 2] [--up-mbit 64] [--down-mbit 256]

Every worker lives in a network namespace whose link is shaped (see ``scripts.network.links``), so that the uplink is
what limits, not the processor, which all of them share here. The same bucket is exported by one worker, then by more,
into a fresh location each time, and the bundle is transferred, or restored into a fresh bucket. Printed: seconds of the
whole command, how much of what the uplinks could have taken was used, and how idle the machine was.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.turns import beside
from scripts.dask_cluster import DaskCluster
from scripts.network.links import HERE, Link, Shape, links
from scripts.process import ServerError
from scripts.servers import Servers

MIB = 2**20
BUNDLE = "s3://bench/bundle?profile=new"
VERBS = ("export", "transfer", "restore")


@dataclass(frozen=True, slots=True)
class Measured:
    """One command: seconds, the part of what the uplinks can take that was used, the part of the processors' time that
    was idle.
    """

    seconds: float
    up: float
    idle: float

    def __str__(self) -> str:
        return f"{self.seconds:6.1f} s, uplinks {self.up:4.0%} used, processors {self.idle:4.0%} idle"


def main() -> int:
    """Run the comparison."""
    options = _options()
    try:
        with (
            links(max(options.workers), Shape(options.down_mbit, options.up_mbit)) as worker_links,
            tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=options.dir) as directory,
            Servers(Path(directory), HERE) as servers,
        ):
            _compare(Path(directory), servers, worker_links, options)
    except ServerError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=6, help="of each worker")
    parser.add_argument("--up-mbit", type=float, default=64, help="of each link, to the new host")
    parser.add_argument("--down-mbit", type=float, default=256, help="of each link, from the old host")
    parser.add_argument("--large", type=int, default=64, help="number of large objects")
    parser.add_argument("--large-mib", type=int, default=20, help="their size")
    parser.add_argument("--small", type=int, default=1000, help="number of objects of 1 to 64 KiB")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=VERBS)
    parser.add_argument("--dir", type=Path, help="where the servers keep their data (default: the system's)")
    return parser.parse_args()


def _compare(
    directory: Path, servers: Servers, worker_links: Sequence[Link], options: argparse.Namespace
) -> None:
    old, new = servers.minio("old"), servers.minio("new")
    os.environ.update(servers.environment)
    clients = [server.client() for server in (old, new)]
    size_bytes = _fill(clients[0], options)
    clients[1].create_bucket(Bucket="bench")
    print(
        f"{options.large + options.small} objects, {size_bytes / MIB:.0f} MiB; uplinks of {options.up_mbit:g} Mbit/s"
    )
    seconds: dict[tuple[str, int], list[float]] = {}
    if {"transfer", "restore"} & set(options.verbs):
        first = [beside("moveout"), "export", "media=s3://bench?profile=old", "--to", BUNDLE, "--quiet"]
        subprocess.run(first, check=True, stdout=subprocess.DEVNULL)
    for number in range(options.rounds):
        for workers in options.workers:
            with DaskCluster(directory / f"dask-{number}-{workers}", HERE, servers.environment) as cluster:
                for link in worker_links[:workers]:
                    cluster.join(threads=options.threads, prefix=link.prefix, host=link.address)
                cluster.wait()
                clients[0].create_bucket(Bucket=f"again-{number}-{workers}")
                for verb, arguments in _commands(number, workers, options.verbs):
                    command = [beside("moveout"), *arguments, "--scheduler", cluster.address]
                    measured = _run([*command, "--quiet"], worker_links[:workers], options.up_mbit)
                    seconds.setdefault((verb, workers), []).append(measured.seconds)
                    print(f"  {verb:8} {workers} workers {measured}", flush=True)
    _sum_up(seconds, size_bytes)


def _commands(number: int, workers: int, verbs: Sequence[str]) -> list[tuple[str, list[str]]]:
    location = f"s3://bench/{number}-{workers}?profile=new"
    export = ["export", "media=s3://bench?profile=old", "--to", location]
    transfer = ["transfer", BUNDLE, f"s3://bench/again-{number}-{workers}?profile=new"]
    restore = ["restore", BUNDLE, f"media=s3://again-{number}-{workers}?profile=old"]
    restore += ["--report-to", f"s3://bench/account-{number}-{workers}?profile=new"]
    pairs = zip(VERBS, (export, transfer, restore), strict=True)
    return [(verb, arguments) for verb, arguments in pairs if verb in verbs]


def _run(command: Sequence[str], worker_links: Sequence[Link], up_mbit: float) -> Measured:
    before, processors, started = [link.sent() for link in worker_links], _processors(), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    idle, total = (now - then for now, then in zip(_processors(), processors, strict=True))
    sent = sum(link.sent() for link in worker_links) - sum(before)
    return Measured(seconds, sent / (len(worker_links) * up_mbit * 1e6 / 8 * seconds), idle / total)


def _processors() -> tuple[int, int]:
    """Return idle and all ticks of all processors (proc(5), ``/proc/stat``)."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


def _sum_up(seconds: dict[tuple[str, int], list[float]], size_bytes: int) -> None:
    for (verb, workers), measured in sorted(seconds.items()):
        best = min(measured)
        first = min(seconds[verb, min(count for verb_timed, count in seconds if verb_timed == verb)])
        rate = size_bytes / best / 1e6
        print(f"{verb:8} {workers} workers: {best:6.1f} s, {rate:5.1f} MB/s, {first / best:.2f} x")


def _fill(client: Any, options: argparse.Namespace) -> int:
    client.create_bucket(Bucket="bench")
    block = random.Random(1).randbytes(options.large_mib * MIB)
    sizes = {f"large/{n:04}": len(block) for n in range(options.large)}
    sizes |= {f"small/{n:06}": (1 + n % 64) * 1024 for n in range(options.small)}

    def put(item: tuple[str, int]) -> None:
        key, size = item
        head = f"{key} ".encode()
        client.put_object(Bucket="bench", Key=key, Body=(head + block)[:size])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, sizes.items()))
    return sum(sizes.values())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
