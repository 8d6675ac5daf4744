"""Export of TPC-H lineitem from MySQL or MariaDB to Parquet, compared with connectorx.

    MYSQL_PWD=… python -m scripts.bench.mysql --url mysql://user@host:port/mysql [--scale 1] [--runs 3]

Loads lineitem once (database ``moveout_bench``), then lets the tools export it by turns: see ``scripts.bench.tables``.
The account must be allowed to set ``local_infile``.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, urlsplit

import pymysql

from exporters.mysql.connection import parse_url
from scripts.bench.tables import Bench, connectorx_to, run, tpch

DATABASE = "moveout_bench"

_TABLE = """
CREATE TABLE lineitem (l_orderkey BIGINT NOT NULL, l_partkey BIGINT NOT NULL, l_suppkey BIGINT NOT NULL,
  l_linenumber INT NOT NULL, l_quantity DECIMAL(15,2) NOT NULL, l_extendedprice DECIMAL(15,2) NOT NULL,
  l_discount DECIMAL(15,2) NOT NULL, l_tax DECIMAL(15,2) NOT NULL, l_returnflag CHAR(1) NOT NULL,
  l_linestatus CHAR(1) NOT NULL, l_shipdate DATE NOT NULL, l_commitdate DATE NOT NULL, l_receiptdate DATE NOT NULL,
  l_shipinstruct CHAR(25) NOT NULL, l_shipmode CHAR(10) NOT NULL, l_comment VARCHAR(44) NOT NULL,
  PRIMARY KEY (l_orderkey, l_linenumber)) ENGINE=InnoDB
"""


def _connect(url: str) -> pymysql.Connection:
    address = parse_url(url)
    return pymysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=os.environ.get("MYSQL_PWD", ""),
        autocommit=True,
        local_infile=True,
        ssl_disabled=True,
    )


def load(url: str, scale: float) -> tuple[str, int]:
    """Return the URL of the database with lineitem in it, made where it is not there, and its rows."""
    with _connect(url) as connection, connection.cursor() as cursor:
        if not cursor.execute(f"SHOW DATABASES LIKE '{DATABASE}'"):
            cursor.execute(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
            cursor.execute(f"USE {DATABASE}")
            fill(cursor, scale)
        cursor.execute(f"SELECT count(*) FROM {DATABASE}.lineitem")
        (rows,) = cursor.fetchone() or (0,)
    return f"{url.rpartition('/')[0]}/{DATABASE}", rows


def fill(cursor: pymysql.cursors.Cursor, scale: float) -> None:
    """Make lineitem, in the session's database."""
    cursor.execute(_TABLE)
    with tpch(scale, "lineitem") as files:
        copy(cursor, "lineitem", files["lineitem"])
    cursor.execute("ANALYZE TABLE lineitem")


def copy(cursor: pymysql.cursors.Cursor, table: str, path: Path) -> None:
    """Load a CSV with a header into a table."""
    cursor.execute("SET GLOBAL local_infile = 1")
    cursor.execute("SET SESSION unique_checks = 0")
    cursor.execute(
        f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {table} FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"'"
        " IGNORE 1 LINES"
    )


def server(url: str) -> int:
    """Return the server's process, by the file that it keeps for it."""
    with _connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@pid_file")
        (name,) = cursor.fetchone() or ("",)
    try:
        return int(Path(name).read_text())
    except OSError:
        return 0


def run_connectorx(url: str, directory: Path) -> None:
    """connectorx takes the password in the URL."""
    parts = urlsplit(url)
    password = quote(os.environ.get("MYSQL_PWD", ""), safe="")
    connectorx_to(f"mysql://{parts.username}:{password}@{parts.hostname}:{parts.port}{parts.path}", directory)


BENCH = Bench(
    name="MariaDB",
    module="scripts.bench.mysql",
    about=__doc__.partition("\n")[0],
    load=load,
    peers={"connectorx": run_connectorx},
    server=server,
    targets={"connectorx": 1.4},
)

if __name__ == "__main__":
    run(BENCH)
