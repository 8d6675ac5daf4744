"""What the benchmarks of tables share: every tool in a process of its own, by turns; medians, ratios and peak memory.

TPC-H lineitem comes from the wheel tpchgen-cli. Every tool writes zstd Parquet to a local directory; moveout also
hashes its files and digests its rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from scripts.bench.ratios import note
from scripts.bench.turns import as_installed
from scripts.cost import MB, Cost, cost_of, used_by

MOVEOUT = "moveout"
PARTITIONS = 2
_SETTLE_SECONDS = 0.3
"""Until then the server has noticed that its sessions have ended."""
Tool = Callable[[str, Path], None]
"""Brings the table at a URL into a directory."""
Program = Callable[[str, Path], list[str]]
"""The command that brings the database at a URL into a directory."""


@dataclass(frozen=True, slots=True)
class Bench:
    """``name``: the engine's. ``module`` as ``python -m`` takes it. ``load(url, scale)`` makes the table where there is
    none, and returns the URL of its database and the number of rows. ``server`` returns the process of the server at a
    URL, if it is on this machine. ``environment``: variables that a tool needs besides. ``programs``: peers that are
    commands. ``targets``: so many times as fast as a peer moveout is to be.
    """

    name: str
    module: str
    about: str
    load: Callable[[str, float], tuple[str, int]]
    peers: Mapping[str, Tool]
    server: Callable[[str], int]
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    programs: Mapping[str, Program] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)

    @property
    def tools(self) -> list[str]:
        """The names of all tools."""
        return [MOVEOUT, *self.peers, *self.programs]


@contextmanager
def tpch(scale: float, *tables: str) -> Iterator[Mapping[str, Path]]:
    """Make tables of TPC-H as CSV, with a header, in a directory that goes away again; yield the file of each."""
    with tempfile.TemporaryDirectory() as directory:
        generator = Path(sys.executable).with_name("tpchgen-cli")
        names = ",".join(tables)
        command = [str(generator), "csv", "-s", str(scale), "--tables", names, "--output-dir", directory]
        subprocess.run(command, check=True)
        yield {table: Path(directory, f"{table}.csv") for table in tables}


def moveout_to(url: str, directory: Path) -> list[str]:
    """Return the command that exports to a sealed bundle at a local location, as users have it."""
    location = str(directory / "bundle")
    return [
        as_installed(),
        "export",
        f"bench={url}",
        "--to",
        location,
        "--workers",
        str(PARTITIONS),
        "--quiet",
    ]


def connectorx_to(url: str, directory: Path) -> None:
    """connectorx's read_sql with two partitions to Arrow, then pyarrow's writer with zstd: as its users do."""
    import connectorx  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = connectorx.read_sql(
        url,
        "SELECT * FROM lineitem",
        partition_on="l_orderkey",
        partition_num=PARTITIONS,
        return_type="arrow",
    )
    pq.write_table(table, directory / "lineitem.parquet", compression="zstd")


@dataclass(frozen=True, slots=True)
class _Run:
    """What one run took, the server's seconds of processor, and the size of the files."""

    cost: Cost
    server_seconds: float
    size_bytes: int


def _measure(bench: Bench, tool: str, url: str) -> _Run:
    """Run one tool, a whole process; moveout as a command, a library in a program of two lines."""
    with tempfile.TemporaryDirectory() as directory:
        if program := {MOVEOUT: moveout_to, **bench.programs}.get(tool):
            command = program(url, Path(directory))
        else:
            command = [sys.executable, "-m", bench.module, "--url", url, "--one", tool, "--into", directory]
        server = bench.server(url)
        before = used_by(server)
        cost = cost_of(command, bench.environment.get(tool, {}))
        files = [file for end in ("*.parquet", "*.gz") for file in Path(directory).rglob(end)]
        written = sum(file.stat().st_size for file in files)
    time.sleep(_SETTLE_SECONDS)
    return _Run(cost, used_by(server) - before, written)


def run(bench: Bench) -> None:
    """Measure by turns and print a table."""
    parser = argparse.ArgumentParser(description=bench.about)
    parser.add_argument("--url", required=True, help="a database of a scratch server")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tools", default=",".join(bench.tools))
    parser.add_argument("--one", choices=bench.peers, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        bench.peers[options.one](options.url, options.into)
        return
    url, rows = bench.load(options.url, options.scale)
    tools = options.tools.split(",")
    runs: dict[str, list[_Run]] = {tool: [] for tool in tools}
    for _ in range(options.runs):
        for tool in tools:
            runs[tool].append(_measure(bench, tool, url))
    seconds = {tool: median(run.cost.seconds for run in runs[tool]) for tool in tools}
    cpu = {
        tool: (
            median(run.cost.cpu_seconds for run in runs[tool]),
            median(run.server_seconds for run in runs[tool]),
        )
        for tool in tools
    }
    first = tools[0]
    for tool in tools:
        beside_first = tool != first
        time_ratio = f", {seconds[tool] / seconds[first]:.2f}x of {first}'s time" if beside_first else ""
        cpu_ratio = f", {sum(cpu[tool]) / sum(cpu[first]):.2f}x of {first}'s" if beside_first else ""
        peak_bytes = max(run.cost.peak_bytes for run in runs[tool])
        print(
            f"{tool:12s} {seconds[tool]:6.2f} s, {rows / seconds[tool]:9,.0f} rows/s{time_ratio};  "
            f"{cpu[tool][0]:5.1f} + {cpu[tool][1]:5.1f} s of processor, client and server{cpu_ratio};  "
            f"{peak_bytes / MB:6.0f} MB peak, {runs[tool][0].size_bytes / MB:5.0f} MB of files"
        )
    for tool in tools:
        if MOVEOUT in tools and tool != MOVEOUT:
            note(
                f"{rows:,} rows of lineitem, {bench.name} to Parquet",
                tool,
                seconds[tool] / seconds[MOVEOUT],
                bench.targets.get(tool, 0),
            )
