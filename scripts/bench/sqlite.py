"""Export of a SQLite table to Parquet, compared with connectorx's reader and ``sqlite3 .dump``.

    python -m scripts.bench.sqlite [--rows 1000000] [--runs 3]

Makes a table of six columns, then lets the tools read it by turns, each in a process of its own, and prints medians
and rows a second. moveout also copies the file first, hashes what it writes and digests its rows.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from scripts.bench.ratios import PROCESSOR, note
from scripts.bench.tables import MOVEOUT, moveout_to
from scripts.cost import Cost, cost_of


def make(path: Path, rows: int) -> None:
    """Make the table: a key, two integers, two texts, a real."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, name TEXT, note TEXT, r REAL, n INT)"
        )
        values = (
            (i, i * 7919 % 100000, f"name {i}", f"a longer text about {i} é", i / 7, None if i % 3 else i)
            for i in range(rows)
        )
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", values)
        connection.commit()


def run_connectorx(path: Path, directory: Path) -> None:
    """read_sql with two partitions to Arrow, then pyarrow's writer with zstd."""
    import connectorx  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = connectorx.read_sql(
        f"sqlite://{path}", "SELECT * FROM t", partition_on="id", partition_num=2, return_type="arrow"
    )
    pq.write_table(table, directory / "t.parquet", compression="zstd")


def run_dump(path: Path, directory: Path) -> None:
    """``sqlite3 FILE .dump`` into a file."""
    with (directory / "dump.sql").open("wb") as file:
        subprocess.run(["sqlite3", str(path), ".dump"], stdout=file, check=True)


PEERS: dict[str, Callable[[Path, Path], None]] = {"connectorx": run_connectorx, "dump": run_dump}


def measure(tool: str, path: Path) -> Cost:
    """Run one tool, a whole process."""
    with tempfile.TemporaryDirectory() as directory:
        command = moveout_to(f"sqlite://{path}", Path(directory))
        if tool != MOVEOUT:
            command = [sys.executable, "-m", "scripts.bench.sqlite", "--tool", tool]
            command += ["--file", str(path), "--to", directory]
        return cost_of(command)


def main() -> None:
    """Make the table, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tool", choices=PEERS)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--to", type=Path)
    options = parser.parse_args()
    if options.tool:
        PEERS[options.tool](options.file, options.to)
        return
    tools = [tool for tool in (MOVEOUT, *PEERS) if tool != "dump" or shutil.which("sqlite3")]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        make(path, options.rows)
        costs: dict[str, list[Cost]] = {tool: [] for tool in tools}
        for _ in range(options.runs):
            for tool in tools:
                costs[tool].append(measure(tool, path))
    for tool, runs in costs.items():
        seconds = statistics.median(run.seconds for run in runs)
        cpu_seconds = statistics.median(run.cpu_seconds for run in runs)
        rate = options.rows / seconds
        print(f"{tool:<12}{seconds:8.2f} s{rate:12,.0f} rows/s{cpu_seconds:8.2f} s of processor")
    cpu = {tool: statistics.median(run.cpu_seconds for run in runs) for tool, runs in costs.items()}
    note("SQLite to Parquet", f"connectorx{PROCESSOR}", cpu["connectorx"] / cpu[MOVEOUT], 1.0)


if __name__ == "__main__":
    main()
