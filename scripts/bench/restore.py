"""Restore of TPC-H lineitem into PostgreSQL, with a key and two indexes, beside ``pg_restore -j2``.

python -m scripts.bench.restore --url postgresql://user@host:port/postgres [--scale 1] [--runs 3]

Loads lineitem once (database ``moveout_bench``), exports it by moveout and by ``pg_dump -Fd -j2``, then
lets both restore it by turns into a fresh database of the same server. pg_restore ends with the indexes;
moveout also runs ANALYZE and reads all rows back to compare them, so its time is printed with that and
without.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from exporters.postgres.definitions.pg_dump import find_tools
from migrate.bundle.reader import BundleReader
from migrate.restore.postgres.restore import restore_database
from migrate.runtime.progress import OF_NO_SOURCE, Silent, SourceTask
from migrate.storage.registry import open_location
from scripts.bench.postgres import load
from scripts.bench.tables import moveout_to

JOBS = 2
_DESTINATION = "moveout_bench_restored"
_INDEXES = (
    "ALTER TABLE lineitem ADD PRIMARY KEY (l_orderkey, l_linenumber)",
    "CREATE INDEX lineitem_part ON lineitem (l_partkey, l_suppkey)",
    "CREATE INDEX lineitem_shipped ON lineitem (l_shipdate)",
)


class _Stages(Silent):
    """Remembers when each stage began."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []

    def begin(self, what: str, *, items: int, size_bytes: int, of: SourceTask = OF_NO_SOURCE) -> None:
        del items, size_bytes, of
        self.begun.append((what.partition(" ")[0], time.perf_counter()))

    def seconds(self, end: float) -> dict[str, float]:
        """Return how long each stage took."""
        ends = [begin for _, begin in self.begun[1:]] + [end]
        return {stage: after - begin for (stage, begin), after in zip(self.begun, ends, strict=True)}


@contextmanager
def _fresh(url: str) -> Iterator[str]:
    """Lend an empty database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {_DESTINATION}".encode())
        connection.execute(f"CREATE DATABASE {_DESTINATION} TEMPLATE template0".encode())
        connection.execute("CHECKPOINT")
        yield f"{url.rpartition('/')[0]}/{_DESTINATION}"
        connection.execute(f"DROP DATABASE {_DESTINATION}".encode())


def _prepare(url: str, scale: float, directory: Path) -> Path:
    """Load and export; return pg_restore."""
    source, _ = load(url, scale)
    with psycopg.connect(source, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_indexes WHERE indexname = 'lineitem_part'").fetchone():
            for statement in _INDEXES:
                connection.execute(statement.encode())
        version = connection.info.server_version // 10000
    tools = find_tools(version)
    subprocess.run(
        [tools.pg_dump, "-Fd", f"-j{JOBS}", "-f", directory / "dump", source], check=True, env=os.environ
    )
    subprocess.run(moveout_to(source, directory), check=True, stdout=subprocess.DEVNULL)
    return tools.directory / "pg_restore"


def _pg_restore(program: Path, destination: str, directory: Path) -> float:
    started = time.perf_counter()
    subprocess.run([program, f"-j{JOBS}", "-d", destination, directory / "dump"], check=True)
    return time.perf_counter() - started


def _moveout(destination: str, directory: Path) -> tuple[float, dict[str, float]]:
    stages = _Stages()
    started = time.perf_counter()
    reader = BundleReader(open_location(str(directory / "bundle")))
    outcome = restore_database(reader, "bench", destination, workers=JOBS, progress=stages)
    finished = time.perf_counter()
    if outcome.findings:
        raise SystemExit(str(outcome.findings))
    return finished - started, stages.seconds(finished)


def main() -> None:
    """Measure by turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="a database of a scratch server")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="moveout-bench-"))
    pg_restore_seconds: list[float] = []
    moveout_seconds: list[float] = []
    bare: list[float] = []
    try:
        program = _prepare(options.url, options.scale, directory)
        for _ in range(options.runs):
            with _fresh(options.url) as destination:
                pg_restore_seconds.append(_pg_restore(program, destination, directory))
            with _fresh(options.url) as destination:
                seconds, stages = _moveout(destination, directory)
            moveout_seconds.append(seconds)
            bare.append(seconds - stages.get("compare", 0.0) - stages.get("statistics", 0.0))
            parts = ", ".join(f"{name} {took:.1f} s" for name, took in stages.items())
            print(
                f"pg_restore -j{JOBS} {pg_restore_seconds[-1]:6.1f} s   moveout {seconds:6.1f} s ({parts})",
                flush=True,
            )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    peer = statistics.median(pg_restore_seconds)
    for name, figures in (
        ("moveout, all it does", moveout_seconds),
        ("moveout, as far as pg_restore goes", bare),
    ):
        median = statistics.median(figures)
        print(f"{name:35s} {median:6.1f} s  {peer / median:5.2f}x of pg_restore's speed ({peer:.1f} s)")


if __name__ == "__main__":
    main()
