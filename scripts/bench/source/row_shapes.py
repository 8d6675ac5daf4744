"""Export of tables of other shapes than lineitem's from PostgreSQL, compared with connectorx, DuckDB and ``pg_dump``.

    python -m scripts.bench.source.row_shapes --url postgresql://user@host:port/postgres [--shapes wide] [--runs 3]

Each shape is one table in a database of its own, made once. ``narrow`` has three integers a row; ``wide`` has 101
columns (numbers, texts, documents, arrays, many NULL); ``posts`` has long texts. Printed for each tool, medians: the
clock, the processor of client and server, and the bytes of the files.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import LiteralString

import psycopg

from scripts.bench.postgres import PEERS, pg_dump_to, server, with_password
from scripts.bench.tables import MOVEOUT, PARTITIONS, moveout_to
from scripts.cost import MB, cost_of, used_by

_SETTLE_SECONDS = 0.3
_NARROW: LiteralString = """
CREATE TABLE t AS SELECT i::int AS id, (i % 1000)::int AS a, (i % 7)::int AS b FROM generate_series(1, 3000000) AS i
"""
_POSTS: LiteralString = """
CREATE TABLE t AS SELECT i AS id, 'Post "' || i || '"' AS title, now() - i * interval '1 minute' AS posted_at,
  (SELECT string_agg(md5((i * n)::text), E', \\n' ORDER BY n) FROM generate_series(1, 30 + i % 60) AS n) AS body
FROM generate_series(1, 100000) AS i
"""


def _wide() -> Iterator[str]:
    """Yield the expressions of 100 columns; a third of their values are NULL."""
    kinds = {
        "n": (25, "(i * {k}) % 100000"),
        "d": (15, "((i * {k}) % 1000000 / 100.0)::numeric(12, 2)"),
        "f": (5, "(i % (100 + {k})) / 8.0::float8"),
        "s": (15, "'text ' || i % (10 + {k} * 100) || ' of a column'"),
        "t": (10, "timestamptz '2026-01-01' + i * {k} * interval '1 second'"),
        "o": (5, "i % {k} = 0"),
        "j": (10, "jsonb_build_object('id', i, 'tags', jsonb_build_array('a', i % {k}), 'open', i % 2 = 0)"),
        "a": (10, "ARRAY[i, i % {k}, NULL, -i]"),
        "w": (5, "ARRAY['one', 'a \"' || i % {k}, NULL]"),
    }
    for name, (count, expression) in kinds.items():
        for k in range(1, count + 1):
            yield f"CASE WHEN (i + {k}) % 3 > 0 THEN {expression.format(k=k)} END AS {name}{k}"


def _statement(shape: str) -> str:
    if shape == "wide":
        columns = ", ".join(_wide())
        return f"CREATE TABLE t AS SELECT i AS id, {columns} FROM generate_series(1::int, 120000) AS i"
    return {"narrow": _NARROW, "posts": _POSTS}[shape]


def load(url: str, shape: str) -> str:
    """Return the URL of the database with the table of a shape in it, made where it is not there."""
    name = f"moveout_bench_{shape}"
    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            connection.execute(f"CREATE DATABASE {name}".encode())
    destination = f"{url.rpartition('/')[0]}/{name}"
    with psycopg.connect(destination, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_tables WHERE tablename = 't'").fetchone():
            connection.execute(_statement(shape).encode())
            connection.execute("VACUUM ANALYZE t")
    return destination


def run_connectorx(url: str, directory: Path) -> None:
    """read_sql with two partitions to Arrow, then pyarrow's writer with zstd."""
    import connectorx  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = connectorx.read_sql(
        with_password(url),
        "SELECT * FROM t",
        partition_on="id",
        partition_num=PARTITIONS,
        return_type="arrow",
    )
    pq.write_table(table, directory / "t.parquet", compression="zstd")


def run_duckdb(url: str, directory: Path) -> None:
    """COPY from the attached database."""
    import duckdb  # noqa: PLC0415

    (extension,) = PEERS.glob("*/extensions/*/postgres_scanner.duckdb_extension")
    duckdb.execute(f"LOAD '{extension}'")
    duckdb.execute(f"ATTACH '{with_password(url)}' AS source (TYPE postgres, READ_ONLY)")
    duckdb.execute(
        f"COPY (SELECT * FROM source.t) TO '{directory}/t.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )


LIBRARIES = {"connectorx": run_connectorx, "duckdb": run_duckdb}


def _command(tool: str, url: str, directory: Path) -> Sequence[str]:
    if tool == MOVEOUT:
        return moveout_to(url, directory)
    if tool == "pg_dump":
        return pg_dump_to(url, directory)
    return [
        sys.executable,
        "-m",
        "scripts.bench.source.row_shapes",
        "--url",
        url,
        "--one",
        tool,
        "--into",
        str(directory),
    ]


@dataclass(frozen=True, slots=True)
class _Usage:
    """Seconds of the clock, of the client's and the server's processor; bytes of the files."""

    seconds: float
    client: float
    server: float
    size_bytes: float


def measure(tool: str, url: str) -> _Usage:
    """Run one tool once, a whole process."""
    process = server(url)
    variables: Mapping[str, str] = {"PYTHONPATH": str(PEERS)} if tool == "duckdb" else {}
    with tempfile.TemporaryDirectory() as directory:
        before = used_by(process)
        cost = cost_of(_command(tool, url, Path(directory)), variables)
        time.sleep(_SETTLE_SECONDS)
        files = [file for end in ("*.parquet", "*.gz") for file in Path(directory).rglob(end)]
        size_bytes = sum(file.stat().st_size for file in files)
    return _Usage(cost.seconds, cost.cpu_seconds, used_by(process) - before, size_bytes)


def main() -> None:
    """Measure by turns and print a table for each shape."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="a database of a scratch server")
    parser.add_argument("--shapes", default="narrow,wide,posts")
    parser.add_argument("--tools", default=f"{MOVEOUT},connectorx,duckdb,pg_dump")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        LIBRARIES[options.one](options.url, options.into)
        return
    for shape in options.shapes.split(","):
        url = load(options.url, shape)
        runs: dict[str, list[_Usage]] = {tool: [] for tool in options.tools.split(",")}
        for _ in range(options.runs):
            for tool, measured in runs.items():
                measured.append(measure(tool, url))
        for tool, measured in runs.items():
            clock, client, busy = (
                median(getattr(run, name) for run in measured) for name in ("seconds", "client", "server")
            )
            print(
                f"{shape:8}{tool:12}{clock:7.2f} s, processor: client {client:5.2f} s, server {busy:5.2f} s; "
                f"{measured[0].size_bytes / MB:6.1f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
