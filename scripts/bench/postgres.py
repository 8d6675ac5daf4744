"""Export of TPC-H lineitem from PostgreSQL to Parquet, beside connectorx and DuckDB's postgres scanner.

    python -m scripts.bench.postgres --url postgresql://user@host:port/postgres [--scale 1] [--runs 3]

Loads lineitem once (database ``moveout_bench``), then lets the tools export it by turns, each in a process of
its own, and prints medians, ratios and peak memory. Every tool writes zstd Parquet to a local directory;
moveout also hashes its files and digests its rows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psycopg

from exporters.bucket import Bucket
from exporters.selection import EVERYTHING, Selection

DATABASE = "moveout_bench"
PEERS = Path(sys.prefix) / "peers"
"""Packages that only a peer uses, in other versions than ours."""
PARTITIONS = 2

_TABLE = """
CREATE TABLE lineitem (l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL, l_suppkey bigint NOT NULL,
  l_linenumber int NOT NULL, l_quantity numeric(15,2) NOT NULL, l_extendedprice numeric(15,2) NOT NULL,
  l_discount numeric(15,2) NOT NULL, l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL,
  l_linestatus char(1) NOT NULL, l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL,
  l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL, l_comment varchar(44) NOT NULL)
"""


def load(url: str, scale: float) -> str:
    """Return the URL of the database with lineitem in it, made where it is not there."""
    base = url.rpartition("/")[0]
    target = f"{base}/{DATABASE}"
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
            return target
        connection.execute(f"CREATE DATABASE {DATABASE}".encode())
    with tempfile.TemporaryDirectory() as directory, psycopg.connect(target, autocommit=True) as connection:
        generator = Path(sys.executable).with_name("tpchgen-cli")
        command = [str(generator), "csv", "-s", str(scale), "--tables", "lineitem", "--output-dir", directory]
        subprocess.run(command, check=True)
        connection.execute(_TABLE)
        with (
            (Path(directory) / "lineitem.csv").open("rb") as file,
            connection.cursor() as cursor,
            cursor.copy("COPY lineitem FROM STDIN (FORMAT csv, HEADER)") as copy,
        ):
            while piece := file.read(2**20):
                copy.write(piece)
        connection.execute("VACUUM ANALYZE lineitem")
    return target


def with_password(url: str) -> str:
    """Return the URL with the password that libpq finds (variables, pgpass), for tools that read none of these. It
    stays in this process.
    """
    with psycopg.connect(url) as connection:
        info = connection.info
        login = quote(info.user, safe="") + (f":{quote(info.password, safe='')}" if info.password else "")
        return f"postgresql://{login}@{info.host}:{info.port}/{info.dbname}"


class _NoBuckets:
    """A host for a database, which asks for no bucket."""

    def secret(self, name: str) -> str | None:
        del name
        return None

    def selection(self) -> Selection:
        """Everything is wanted."""
        return EVERYTHING

    def bucket(self, url: str) -> Bucket:
        raise NotImplementedError(url)


def run_moveout(url: str, directory: Path, workers: int = PARTITIONS) -> None:
    """The exporter with two workers, to a bundle at a local place, sealed."""
    from exporters.postgres import PostgresExporter  # noqa: PLC0415
    from migrate.export import export  # noqa: PLC0415
    from migrate.progress import Silent  # noqa: PLC0415
    from migrate.store import open_place  # noqa: PLC0415

    source = PostgresExporter().open("bench", url, _NoBuckets())
    export([source], open_place(str(directory / "bundle")), workers=workers, progress=Silent())


def run_connectorx(url: str, directory: Path) -> None:
    """read_sql with two partitions to Arrow, then pyarrow's writer with zstd: as its users do."""
    import connectorx  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = connectorx.read_sql(
        with_password(url),
        "SELECT * FROM lineitem",
        partition_on="l_orderkey",
        partition_num=PARTITIONS,
        return_type="arrow",
    )
    pq.write_table(table, directory / "lineitem.parquet", compression="zstd")


def run_duckdb(url: str, directory: Path) -> None:
    """COPY from the attached database, by the DuckDB for which there is a wheel of the scanner."""
    import duckdb  # noqa: PLC0415

    (extension,) = PEERS.glob("*/extensions/*/postgres_scanner.duckdb_extension")
    duckdb.execute(f"LOAD '{extension}'")
    duckdb.execute(f"ATTACH '{with_password(url)}' AS source (TYPE postgres, READ_ONLY)")
    duckdb.execute(
        f"COPY (SELECT * FROM source.lineitem) TO '{directory}/lineitem.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )


TOOLS: dict[str, Callable[[str, Path], None]] = {
    "moveout": run_moveout,
    "connectorx": run_connectorx,
    "duckdb": run_duckdb,
}


def measure(tool: str, url: str) -> dict[str, float]:
    """Run one tool in a process of its own; return seconds and peak memory."""
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable,
            "-m",
            "scripts.bench.postgres",
            "--url",
            url,
            "--one",
            tool,
            "--into",
            directory,
        ]
        environment = os.environ | ({"PYTHONPATH": str(PEERS)} if tool == "duckdb" else {})
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
        written = sum(file.stat().st_size for file in Path(directory).rglob("*.parquet"))
    return dict(json.loads(done.stdout.splitlines()[-1])) | {"size_bytes": written}


def _one(tool: str, url: str, directory: Path) -> None:
    begun = time.perf_counter()
    TOOLS[tool](url, directory)
    seconds = time.perf_counter() - begun
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "seconds": seconds,
        "rss_mb": usage.ru_maxrss / 1024,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }
    print(json.dumps(figures))


def main() -> None:
    """Measure by turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="a database of a scratch server")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tools", default="moveout,connectorx,duckdb")
    parser.add_argument("--one", choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(options.one, options.url, options.into)
        return
    url = load(options.url, options.scale)
    with psycopg.connect(url) as connection:
        counted = connection.execute("SELECT count(*) FROM lineitem").fetchone()
    rows = counted[0] if counted else 0
    tools = options.tools.split(",")
    runs: dict[str, list[dict[str, float]]] = {tool: [] for tool in tools}
    for _ in range(options.runs):
        for tool in tools:
            runs[tool].append(measure(tool, url))
    medians = {tool: statistics.median(run["seconds"] for run in runs[tool]) for tool in tools}
    for tool in tools:
        memory = max(run["rss_mb"] for run in runs[tool])
        cpu = statistics.median(run["cpu_seconds"] for run in runs[tool])
        size = runs[tool][0]["size_bytes"] / 1e6
        print(
            f"{tool:12s} {medians[tool]:6.2f} s  {rows / medians[tool]:9,.0f} rows/s  "
            f"{medians[tool] and medians[tools[0]] and medians[tool] / medians[tools[0]]:5.2f}x of {tools[0]}'s time  "
            f"{cpu:6.1f} s cpu  {memory:6.0f} MB peak  {size:5.0f} MB Parquet"
        )


if __name__ == "__main__":
    main()
