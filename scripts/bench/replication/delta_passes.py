"""What a delta pass costs the source, compared with a full export of it.

    python -m scripts.bench.replication.delta_passes --old postgresql://… --new postgresql://… [--rows N] [--runs 3]

Makes a table at two PostgreSQL servers. Then these take turns, each with the seconds of the clock, of moveout's
processor and of the source's: an export, and passes. One compares everything; the others come after nothing was
written, after ten rows, and after a hundredth of the rows. Both servers must run on this machine.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psycopg

from migrate.case.model import Endpoint
from migrate.follow.delta import DeltaSource
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from scripts.bench.postgres import server
from scripts.bench.tables import MOVEOUT
from scripts.cost import cost_of, used_by

_SETTLE_SECONDS = 0.3
_WRITES = {"unchanged": "", "ten rows": "id % ({rows} / 10) = 0", "a hundredth": "id % 100 = 0"}


@dataclass(slots=True)
class Costs:
    """What an export or a kind of pass took, run by run."""

    seconds: list[float] = field(default_factory=list)
    own_seconds: list[float] = field(default_factory=list)
    server_seconds: list[float] = field(default_factory=list)
    rows: int = 0

    def __str__(self) -> str:
        return (
            f"{median(self.seconds):7.2f} s, {median(self.own_seconds):6.2f} s of CPU,"
            f" {median(self.server_seconds):6.2f} s of the source's CPU, {self.rows} rows written"
        )


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", required=True)
    parser.add_argument("--new", required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    old, new = (_load(url, options.rows) for url in (options.old, options.new))
    costs = {name: Costs() for name in ("export", "everything", *_WRITES)}
    with tempfile.TemporaryDirectory(prefix="moveout-bench-") as scratch:
        for _ in range(options.runs):
            _run(old, new, options.rows, Path(scratch), costs)
    for name, cost in costs.items():
        print(f"{name:12} {cost}")


def _load(url: str, rows: int) -> str:
    """Return the URL of the database with the table, made anew."""
    name = f"moveout_delta_{rows}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    destination = f"{url.rpartition('/')[0]}/{name}"
    with psycopg.connect(destination, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t (id int PRIMARY KEY, name text, price numeric(12,2), seen timestamptz)"
        )
        connection.execute(
            "INSERT INTO t SELECT n, md5(n::text), n * 1.25, timestamptz '2024-01-01' + n * interval '1 minute'"
            f" FROM generate_series(1, {rows}) n".encode()
        )
        connection.execute("VACUUM ANALYZE")
    return destination


def _run(old: str, new: str, rows: int, scratch: Path, costs: dict[str, Costs]) -> None:
    pid = server(old)
    location = scratch / "bundle"
    command: list[str | Path] = [MOVEOUT, "export", f"app={old}", "--to", location, "--quiet"]
    _measured(costs["export"], pid, lambda: cost_of(command).cpu_seconds)
    shutil.rmtree(location)
    source = DeltaSource("app", Endpoint(old), Endpoint(new), open_location(str(scratch / "changes")))

    def take_pass(cost: Costs) -> float:
        begun = time.process_time()
        cost.rows = source.take_pass(CancellationToken()).rows
        return time.process_time() - begun

    _measured(costs["everything"], pid, lambda: take_pass(costs["everything"]))
    for name, condition in _WRITES.items():
        if condition:
            with psycopg.connect(old, autocommit=True) as connection:
                statement = f"UPDATE t SET price = price + 1 WHERE {condition.format(rows=rows)}"
                connection.execute(statement.encode())
        _measured(costs[name], pid, lambda name=name: take_pass(costs[name]))  # type: ignore[misc]
    shutil.rmtree(scratch / "changes")


def _measured(cost: Costs, pid: int, work: Callable[[], float]) -> None:
    before, begun = used_by(pid), time.monotonic()
    cost.own_seconds.append(work())
    cost.seconds.append(time.monotonic() - begun)
    time.sleep(_SETTLE_SECONDS)  # until the server's processes have ended
    cost.server_seconds.append(used_by(pid) - before)


if __name__ == "__main__":
    main()
