"""What a PostgreSQL server bears while lineitem is exported: by moveout, gently and not, and by its peers.

    python -m scripts.bench.source.load --url postgresql://user@host:port/postgres [--scale 0.3] [--runs 3]

The tools take turns. A session of its own looks at the server 50 times a second. Printed for each tool, medians: the
longest single statement, the oldest snapshot (how long VACUUM could remove nothing), the server's processor time a row,
the most sessions at once, and the clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import psycopg

from scripts.bench.postgres import load, pg_dump_to, run_connectorx, server, with_password
from scripts.bench.ratios import note
from scripts.bench.tables import MOVEOUT, moveout_to
from scripts.bench.turns import beside
from scripts.cost import cost_of, used_by

_LOOK_SECONDS = 0.02
_SETTLE_SECONDS = 0.3
_LOOK = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)) FILTER (WHERE state = 'active'), 0),
  coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)) FILTER (WHERE backend_xmin IS NOT NULL), 0),
  count(*)
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
_RIVET = """
source:
  type: postgres
  url: "{url}"
exports:
  - name: lineitem
    table: lineitem
    mode: chunked
    chunk_column: l_orderkey
    chunk_size: 100000
    format: parquet
    destination:
      type: local
      path: "{directory}"
"""


@dataclass(frozen=True, slots=True)
class Borne:
    """What one run asked of the server: seconds of the longest statement, of the oldest snapshot and of its processor;
    sessions at once; seconds of the clock.
    """

    statement: float
    snapshot: float
    cpu: float
    sessions: int
    clock: float


@contextmanager
def watched(url: str) -> Iterator[Callable[[], tuple[float, float, int]]]:
    """Look at a database's sessions again and again; yield what returns the most of each figure."""
    most, ended = [0.0, 0.0, 0], threading.Event()

    def watch() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not ended.wait(_LOOK_SECONDS):
                row = connection.execute(_LOOK.encode()).fetchone() or (0, 0, 0)
                most[:] = [max(before, float(now)) for before, now in zip(most, row, strict=True)]

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: (most[0], most[1], int(most[2]))
    finally:
        ended.set()
        thread.join()


def commands(url: str, directory: Path) -> Mapping[str, Sequence[str]]:
    """Return the command of each tool."""
    this = [sys.executable, "-m", "scripts.bench.source.load", "--url", url, "--connectorx", str(directory)]
    config = directory / "rivet.yaml"
    config.write_text(_RIVET.format(url=with_password(url), directory=directory / "rivet"))
    return {
        MOVEOUT: moveout_to(url, directory),
        "gentle": [*moveout_to(url, directory), "--gentle"],
        "pg_dump": pg_dump_to(url, directory),
        "connectorx": this,
        "rivet": [beside("rivet"), "run", "--config", str(config)],
    }


def measure(url: str, tool: str) -> Borne:
    """Run one tool once."""
    process = server(url)
    with tempfile.TemporaryDirectory() as directory:
        command = commands(url, Path(directory))[tool]
        before = used_by(process)
        with watched(url) as most:
            cost = cost_of(command)
        statement, snapshot, sessions = most()
    time.sleep(_SETTLE_SECONDS)
    return Borne(statement, snapshot, used_by(process) - before, sessions, cost.seconds)


def main() -> int:
    """Measure by turns and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="a database of a scratch server")
    parser.add_argument("--scale", type=float, default=0.3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--connectorx", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.connectorx:
        run_connectorx(options.url, options.connectorx)
        return 0
    url, rows = load(options.url, options.scale)
    with tempfile.TemporaryDirectory() as directory:
        tools = list(commands(url, Path(directory)))
    runs: dict[str, list[Borne]] = {tool: [] for tool in tools}
    print(f"{rows:,} rows of {urlsplit(url).path[1:]}.lineitem, {options.runs} rounds", flush=True)
    for _ in range(options.runs):
        for tool in tools:
            runs[tool].append(measure(url, tool))
    for tool, measured in runs.items():
        print(
            f"{tool:11} longest statement {median(run.statement for run in measured):6.2f} s,"
            f" oldest snapshot {median(run.snapshot for run in measured):6.2f} s,"
            f" server {median(run.cpu for run in measured) / rows * 1e6:5.2f} µs a row,"
            f" {max(run.sessions for run in measured)} sessions,"
            f" {median(run.clock for run in measured):6.1f} s"
        )
    seconds = {tool: median(run.clock for run in measured) for tool, measured in runs.items()}
    note(
        f"{rows:,} rows of lineitem, PostgreSQL to Parquet", "rivet", seconds["rivet"] / seconds[MOVEOUT], 3.0
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
