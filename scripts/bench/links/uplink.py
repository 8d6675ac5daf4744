"""A new host behind a link like a customer's: slow, long, losing packets. moveout compared with rclone on the same
link.

    sudo python -m scripts.bench.links.uplink [--mbit 5 100] [--delay-ms 50] [--loss 0] [--tasks transfer small large]

The new host's MinIO lives in a network namespace (see ``scripts.network.links``); programs, and the old host's MinIO,
on this side. Printed for each task: seconds, how much of what the link can take was used, and bytes on the wire there
and back for a byte of content. Also the PUTs that the server answered, and the exit code. Content is as much as the
link takes in ``--seconds``, and a few objects at least.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import metrics
from scripts.bench.turns import beside, environment
from scripts.network.links import HERE, Link, Shape, links
from scripts.process import ServerError
from scripts.servers import S3Server, Servers

MIB = 2**20
KIB = 2**10
TASKS = ("transfer", "export", "restore", "verify", "small", "large", "rows")
_PUTS = ("PutObject", "PutObjectPart")
_TELLS = "select i, md5(i::text) || md5((i * 7)::text) as text from generate_series(1, {rows}) i"
_PATIENCE = 3
"""A command is given up after so many times what the link needs."""
_ROW_BYTES = 40
"""About what a row of that takes in Parquet."""


@dataclass(frozen=True, slots=True)
class World:
    """The two hosts, the link between them, and where things lie."""

    old: S3Server
    new: S3Server
    link: Link
    mbit: float
    content: int
    database: str

    def bucket(self, name: str) -> str:
        """Make a bucket at the new host, over the link."""
        self.new.client().create_bucket(Bucket=name)
        return name


@dataclass(frozen=True, slots=True)
class Task:
    """What is moved, and by which words to either tool; ``DESTINATION`` stands for a bucket of the new host's.
    ``down``: it comes from there.
    """

    size_bytes: int
    moveout: Sequence[str]
    rclone: Sequence[str] = ()
    down: bool = False


def main() -> int:
    """Run the comparison."""
    options = _options()
    for mbit in options.mbit:
        for delay_ms in options.delay_ms:
            for loss in options.loss:
                try:
                    _on_link(Shape(mbit, mbit * options.down, delay_ms, loss), options)
                except ServerError as error:
                    print(f"uplink: {error}", file=sys.stderr)
                    return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mbit", type=float, nargs="+", default=[5, 100], help="towards the new host")
    parser.add_argument("--down", type=float, default=4, help="so many times as fast from the new host")
    parser.add_argument("--delay-ms", type=float, nargs="+", default=[50], help="there and back")
    parser.add_argument("--loss", type=float, nargs="+", default=[0], help="the part of packets that is lost")
    parser.add_argument("--tasks", nargs="+", default=["transfer", "small", "large"], choices=TASKS)
    parser.add_argument("--tools", nargs="+", default=["moveout", "rclone"])
    parser.add_argument("--earlier", help="the program of another moveout, to be measured as well")
    parser.add_argument("--seconds", type=float, default=40, help="of the link, for the content of a task")
    parser.add_argument("--small-kib", type=int, default=16, help="the mean size of small objects")
    parser.add_argument("--congestion", default="cubic", help="of the senders (tcp(7))")
    parser.add_argument("--words", nargs="*", default=[], help="more options of moveout's")
    parser.add_argument("--dir", type=Path, help="where the servers keep their data (default: the system's)")
    return parser.parse_args()


def _on_link(shape: Shape, options: argparse.Namespace) -> None:
    print(
        f"{shape.down_mbit:g} Mbit/s up, {shape.up_mbit:g} down, {shape.delay_ms:g} ms,"
        f" {shape.loss:.1%} lost, {options.congestion}",
        flush=True,
    )
    with (
        _congestion(options.congestion),
        links(1, shape) as [link],
        tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=options.dir) as directory,
        Servers(Path(directory), HERE) as servers,
    ):
        old, new = servers.minio("old"), servers.minio("new", link=link)
        database = servers.postgres("old-db").database() if "rows" in options.tasks else ""
        os.environ.update(servers.environment)
        os.environ.update(environment(old, new))
        content = round(shape.down_mbit * 1e6 / 8 * options.seconds)
        world = World(old, new, link, shape.down_mbit, content, database)
        for name in options.tasks:
            task = _MAKERS[name](world, options)
            programs = {"moveout": beside("moveout"), "earlier": options.earlier, "rclone": beside("rclone")}
            for tool, program in programs.items():
                arguments = task.rclone if tool == "rclone" else task.moveout
                if program and arguments and (tool in options.tools or tool == "earlier"):
                    tool_options = () if tool == "rclone" else (*options.words, "--quiet")
                    destination = world.bucket(f"{name}-{tool}")
                    command = [
                        program,
                        *(word.replace("DESTINATION", destination) for word in arguments),
                        *tool_options,
                    ]
                    print(f"  {name:9} {tool:8} {_run(world, task, command)}", flush=True)


@contextmanager
def _congestion(name: str) -> Iterator[None]:
    """Let senders on this machine keep to one way of avoiding congestion meanwhile; namespaces that are made take it
    over.
    """
    path = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    before = path.read_text()
    path.write_text(name)
    try:
        yield
    finally:
        path.write_text(before)


def _run(world: World, task: Task, command: Sequence[str]) -> str:
    puts = _puts(world.new)
    before, started = (world.link.received(), world.link.sent()), time.monotonic()
    code = _exit_code(command, seconds=30 + _PATIENCE * task.size_bytes * 8 / world.mbit / 1e6)
    seconds = time.monotonic() - started
    up, down = world.link.received() - before[0], world.link.sent() - before[1]
    puts = _puts(world.new) - puts
    used = (down if task.down else up) * 8 / seconds / 1e6 / world.mbit
    return (
        f"{task.size_bytes / 1e6:7.1f} MB in {seconds:6.1f} s, link {used:4.0%} used,"
        f" {up / task.size_bytes:5.3f} up, {down / task.size_bytes:5.3f} down for 1, {puts} PUTs,"
        f" {code}"
    )


def _exit_code(command: Sequence[str], seconds: float) -> str:
    """Run a command, for so long at most; return how it ended, in words."""
    try:
        completed = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "given up"
    return f"exit {completed.returncode}"


def _puts(server: S3Server) -> int:
    request_counts = metrics.requests(server.endpoint)
    return sum(request_counts[name] for name in _PUTS)


def _transfer(world: World, options: argparse.Namespace) -> Task:
    arguments = ("transfer", _OLD_BUNDLE, _NEW_BUNDLE)
    return Task(_bundle(world, options), arguments, ("copy", "old:bundle", "new:DESTINATION"))


def _export(world: World, options: argparse.Namespace) -> Task:
    arguments = ("export", "media=s3://mixed?profile=old", "--to", _NEW_BUNDLE)
    return Task(_source(world, options, "mixed"), arguments)


def _restore(world: World, options: argparse.Namespace) -> Task:
    arguments = (
        "restore",
        _OLD_BUNDLE,
        "media=s3://DESTINATION?profile=new",
        "--report-to",
        "s3://account?profile=old",
    )
    return Task(_bundle(world, options), arguments)


def _verify(world: World, options: argparse.Namespace) -> Task:
    size_bytes = _bundle(world, options)
    to = world.bucket("verify")
    copy = [beside("rclone"), "copy", "old:bundle", f"new:{to}"]
    subprocess.run(copy, check=True, stdout=subprocess.DEVNULL)
    return Task(size_bytes, ("verify", f"s3://{to}?profile=new", "--level", "full"), down=True)


def _small(world: World, options: argparse.Namespace) -> Task:
    return _synced(world, options, "small", "--transfers", "32", "--checkers", "32")


def _large(world: World, options: argparse.Namespace) -> Task:
    return _synced(world, options, "large")


def _synced(world: World, options: argparse.Namespace, name: str, *rclone: str) -> Task:
    arguments = ("sync", f"old=s3://{name}?profile=old", "new=s3://DESTINATION?profile=new")
    return Task(_source(world, options, name), arguments, ("copy", f"old:{name}", "new:DESTINATION", *rclone))


def _rows(world: World, options: argparse.Namespace) -> Task:
    del options
    rows = world.content // _ROW_BYTES
    subprocess.run(
        ["psql", "-qc", f"create table rows as {_TELLS.format(rows=rows)}", world.database], check=True
    )
    return Task(rows * _ROW_BYTES, ("export", f"app={world.database}", "--to", _NEW_BUNDLE))


_MAKERS: dict[str, Callable[[World, argparse.Namespace], Task]] = {
    "transfer": _transfer,
    "export": _export,
    "restore": _restore,
    "verify": _verify,
    "small": _small,
    "large": _large,
    "rows": _rows,
}
_OLD_BUNDLE, _NEW_BUNDLE = "s3://bundle?profile=old", "s3://DESTINATION/bundle?profile=new"


def _bundle(world: World, options: argparse.Namespace) -> int:
    """Make the bundle at the old host, once; return its size."""
    client = world.old.client()
    if "bundle" not in _buckets(client):
        _source(world, options, "mixed")
        for name in ("bundle", "account"):
            client.create_bucket(Bucket=name)
        command = [
            beside("moveout"),
            "export",
            "media=s3://mixed?profile=old",
            "--to",
            _OLD_BUNDLE,
            "--quiet",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="bundle")
    return sum(row["Size"] for page in pages for row in page["Contents"])


def _source(world: World, options: argparse.Namespace, name: str) -> int:
    """Fill a bucket of the old host, once; return its size. ``mixed`` is of large objects mostly."""
    client = world.old.client()
    mean = options.small_kib * KIB
    many = {f"small/{n:06}": mean // 2 + n * mean // 64 % mean for n in range(max(20, world.content // mean))}
    large = {f"large/{n:04}": 20 * MIB for n in range(max(2, world.content // (20 * MIB)))}
    sizes = {"small": many, "large": large, "mixed": large | dict(list(many.items())[:200])}[name]
    if name not in _buckets(client):
        client.create_bucket(Bucket=name)
        block = random.Random(1).randbytes(max(sizes.values()))

        def put(item: tuple[str, int]) -> None:
            client.put_object(Bucket=name, Key=item[0], Body=(f"{item[0]} ".encode() + block)[: item[1]])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, sizes.items()))
    return sum(sizes.values())


def _buckets(client: Any) -> set[str]:
    return {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
