"""Export of TPC-H lineitem from PostgreSQL to Parquet, compared with connectorx, DuckDB's scanner, pg_dump.

    python -m scripts.bench.postgres --url postgresql://user@host:port/postgres [--scale 1] [--runs 3]

Loads lineitem once (database ``moveout_bench``), then lets the tools export it by turns: see ``scripts.bench.tables``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote

import psycopg

from scripts.bench.tables import Bench, connectorx_to, run, tpch
from scripts.cost import parent_of

DATABASE = "moveout_bench"
PEERS = Path(sys.prefix) / "peers"
"""Packages that only a peer uses, in other versions than ours."""

_TABLE = """
CREATE TABLE lineitem (l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL, l_suppkey bigint NOT NULL,
  l_linenumber int NOT NULL, l_quantity numeric(15,2) NOT NULL, l_extendedprice numeric(15,2) NOT NULL,
  l_discount numeric(15,2) NOT NULL, l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL,
  l_linestatus char(1) NOT NULL, l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL,
  l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL, l_comment varchar(44) NOT NULL)
"""


def load(url: str, scale: float) -> tuple[str, int]:
    """Return the URL of the database with lineitem in it, made where it is not there, and its rows."""
    destination = f"{url.rpartition('/')[0]}/{DATABASE}"
    with psycopg.connect(url, autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
        if not known:
            connection.execute(f"CREATE DATABASE {DATABASE}".encode())
    with psycopg.connect(destination, autocommit=True) as connection:
        if not known:
            fill(connection, scale)
        counted = connection.execute("SELECT count(*) FROM lineitem").fetchone()
    return destination, counted[0] if counted else 0


def fill(connection: psycopg.Connection, scale: float) -> None:
    """Make lineitem, without a key."""
    connection.execute(_TABLE)
    with tpch(scale, "lineitem") as files:
        copy(connection, "lineitem", files["lineitem"])
    connection.execute("VACUUM ANALYZE lineitem")
    connection.execute("CHECKPOINT")  # else the tool that is first pays for it


def copy(connection: psycopg.Connection, table: str, path: Path) -> None:
    """Copy a CSV with a header into a table."""
    statement = f"COPY {table} FROM STDIN (FORMAT csv, HEADER)".encode()
    with path.open("rb") as file, connection.cursor() as cursor, cursor.copy(statement) as into:
        while piece := file.read(2**20):
            into.write(piece)


def server(url: str) -> int:
    """Return the server's process: the parent of every session's."""
    with psycopg.connect(url) as connection:
        return parent_of(connection.info.backend_pid)


def with_password(url: str) -> str:
    """Return the URL with the password that libpq finds (variables, pgpass), for tools that read none of these. It
    stays in this process.
    """
    with psycopg.connect(url) as connection:
        info = connection.info
        login = quote(info.user, safe="") + (f":{quote(info.password, safe='')}" if info.password else "")
        return f"postgresql://{login}@{info.host}:{info.port}/{info.dbname}"


def run_connectorx(url: str, directory: Path) -> None:
    """connectorx takes the password in the URL."""
    connectorx_to(with_password(url), directory)


def run_duckdb(url: str, directory: Path) -> None:
    """COPY from the attached database, by the DuckDB for which there is a wheel of the scanner."""
    import duckdb  # noqa: PLC0415

    (extension,) = PEERS.glob("*/extensions/*/postgres_scanner.duckdb_extension")
    duckdb.execute(f"LOAD '{extension}'")
    duckdb.execute(f"ATTACH '{with_password(url)}' AS source (TYPE postgres, READ_ONLY)")
    duckdb.execute(
        f"COPY (SELECT * FROM source.lineitem) TO '{directory}/lineitem.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )


def pg_dump_to(url: str, directory: Path) -> list[str]:
    """Return the command of pg_dump with two jobs, which compresses as fast as it can."""
    return ["pg_dump", "-Fd", "-j2", "-Z1", "-f", str(directory / "dump"), url]


BENCH = Bench(
    name="PostgreSQL",
    module="scripts.bench.postgres",
    about=__doc__.partition("\n")[0],
    load=load,
    peers={"connectorx": run_connectorx, "duckdb": run_duckdb},
    server=server,
    environment={"duckdb": {"PYTHONPATH": str(PEERS)}},
    programs={"pg_dump": pg_dump_to},
    targets={"connectorx": 1.8, "duckdb": 1.0, "pg_dump": 1.2},
)

if __name__ == "__main__":
    run(BENCH)
