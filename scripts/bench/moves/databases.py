"""The databases that are moved: a few large tables, tables of every type, many small ones, and a sample."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pymysql

from scripts.bench import many_tables
from scripts.bench import mysql as mysql_lineitem
from scripts.bench import postgres as postgres_lineitem
from scripts.bench.tables import tpch
from scripts.mariadb import MariadbServer
from scripts.outsiders.suite import Skipped
from scripts.postgresql import PostgresServer

KINDS = ("lineitem", "orders", "types", "many", "sakila")
_TYPES_ROWS_AT_1 = 1_000_000
"""So many rows has the table of every type at scale 1."""
_MARIADB_MANY_ROWS = 20_000

ORDERS = """
CREATE TABLE orders (o_orderkey bigint PRIMARY KEY, o_custkey bigint NOT NULL, o_orderstatus char(1) NOT NULL,
  o_totalprice decimal(15,2) NOT NULL, o_orderdate date NOT NULL, o_orderpriority char(15) NOT NULL,
  o_clerk char(15) NOT NULL, o_shippriority int NOT NULL, o_comment varchar(79) NOT NULL);
CREATE TABLE part (p_partkey bigint PRIMARY KEY, p_name varchar(55) NOT NULL, p_mfgr char(25) NOT NULL,
  p_brand char(10) NOT NULL, p_type varchar(25) NOT NULL, p_size int NOT NULL, p_container char(10) NOT NULL,
  p_retailprice decimal(15,2) NOT NULL, p_comment varchar(23) NOT NULL)
"""
_ORDERS_INDEXES = (
    "CREATE INDEX orders_customer ON orders (o_custkey); CREATE INDEX part_name ON part (p_name)"
)
_LINEITEM_INDEXES = (
    "CREATE INDEX lineitem_part ON lineitem (l_partkey, l_suppkey);"
    " CREATE INDEX lineitem_shipped ON lineitem (l_shipdate)"
)
_LINEITEM_KEY = "ALTER TABLE lineitem ADD PRIMARY KEY (l_orderkey, l_linenumber)"

POSTGRES_TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TYPE pair AS (a integer, b text);
CREATE TABLE kinds AS SELECT n AS id, n % 2 = 0 AS bool, (n % 30000)::smallint AS small, n * 1000003::bigint AS big,
  (n / 7.0)::numeric(20,6) AS exact, n / 3.0::real AS single, sqrt(n) AS double, md5(n::text) AS text,
  'v' || n AS loose, repeat('x', n % 40)::varchar(40) AS short, (n % 1000)::text::char(8) AS padded,
  decode(md5(n::text), 'hex') AS bytes, date '2000-01-01' + n % 9000 AS day, time '00:00' + n * interval '1 s' AS time,
  timestamp '2001-02-03' + n * interval '7 s' AS moment, timestamptz '2001-02-03Z' + n * interval '7 s' AS instant,
  n * interval '1 hour' AS span, md5(n::text)::uuid AS uuid, json_build_object('n', n) AS json,
  jsonb_build_object('n', n, 'list', ARRAY[n, n + 1]) AS jsonb, '10.0.0.0'::inet + n AS address,
  ARRAY[n, NULL, n * 2] AS integers, ARRAY['a' || n, 'b"c', NULL] AS texts,
  int4range(n, n + 5) AS range,
  point(n, -n) AS point, (n % 32)::bit(5) AS bits, to_tsvector('simple', 'word ' || n) AS words,
  (ARRAY['sad', 'ok', 'happy'])[1 + n % 3]::mood AS mood, n::positive AS positive,
  ROW(n, 'p' || n)::pair AS pair, CASE WHEN n % 5 = 0 THEN n END AS holes
  FROM generate_series(1, {rows}) AS s(n);
ALTER TABLE kinds ADD PRIMARY KEY (id);
CREATE INDEX kinds_day ON kinds (day)
"""
_MARIADB_TYPES = """
CREATE TABLE kinds (id INT PRIMARY KEY, tiny TINYINT, small SMALLINT UNSIGNED, medium MEDIUMINT, big BIGINT,
  exact DECIMAL(20,6), single FLOAT, `double` DOUBLE, `text` TEXT, short VARCHAR(40), padded CHAR(8),
  latin VARCHAR(40) CHARACTER SET latin1, bytes VARBINARY(16), `blob` BLOB, day DATE, `time` TIME(3),
  moment DATETIME(6), instant TIMESTAMP(3) NULL, year YEAR, mood ENUM('sad', 'ok', 'happy'), words SET('a', 'b', 'c'),
  bits BIT(5), json JSON, uuid UUID, address INET6, holes INT, KEY kinds_day (day));
INSERT INTO kinds SELECT seq, seq % 100, seq % 60000, seq % 8000000, seq * 1000003, seq / 7, seq / 3, SQRT(seq),
  MD5(seq), REPEAT('x', seq % 40), seq % 1000, CONCAT('v', seq), UNHEX(MD5(seq)), REPEAT(UNHEX(MD5(seq)), 3),
  DATE_ADD('2000-01-01', INTERVAL seq % 9000 DAY), SEC_TO_TIME(seq % 86400),
  DATE_ADD('2001-02-03', INTERVAL seq * 7 SECOND), DATE_ADD('2001-02-03 00:00:00', INTERVAL seq % 80000000 SECOND),
  1950 + seq % 100, ELT(1 + seq % 3, 'sad', 'ok', 'happy'), seq % 8, seq % 32, JSON_OBJECT('n', seq),
  INSERT(INSERT(INSERT(INSERT(MD5(seq), 9, 0, '-'), 14, 1, '-4'), 19, 1, '-8'), 24, 0, '-'),
  CONCAT('::ffff:10.0.', seq DIV 256 % 256, '.', seq % 256), IF(seq % 5 = 0, seq, NULL) FROM seq_1_to_{rows}
"""


def fill_postgres(server: PostgresServer, name: str, kind: str, scale: float, tables: int) -> Skipped | None:
    """Make a database ``name`` of that kind; return why that cannot be."""
    url = server.database(name)
    if kind == "sakila":
        return _postgres_sakila(server, url)
    with psycopg.connect(url, autocommit=True) as connection:
        if kind == "lineitem":
            postgres_lineitem.fill(connection, scale)
            connection.execute(f"{_LINEITEM_KEY}; {_LINEITEM_INDEXES}".encode())
        elif kind == "orders":
            connection.execute(ORDERS.encode())
            with tpch(scale, "orders", "part") as files:
                for table, path in files.items():
                    postgres_lineitem.copy(connection, table, path)
            connection.execute(_ORDERS_INDEXES.encode())
        elif kind == "types":
            connection.execute(POSTGRES_TYPES.format(rows=int(_TYPES_ROWS_AT_1 * scale)).encode())
        else:
            many_tables.fill(connection, tables)
        connection.execute("VACUUM ANALYZE")
    return None


def fill_mariadb(server: MariadbServer, name: str, kind: str, scale: float, tables: int) -> Skipped | None:
    """Make a database ``name`` of that kind; return why that cannot be."""
    url = server.database(name)
    if kind == "sakila":
        return _mariadb_sakila(url)
    with server.connect(name, local_infile=True) as connection, connection.cursor() as cursor:
        if kind == "lineitem":
            mysql_lineitem.fill(cursor, scale)
            _execute(cursor, _LINEITEM_INDEXES)
        elif kind == "orders":
            _execute(cursor, ORDERS)
            with tpch(scale, "orders", "part") as files:
                for table, path in files.items():
                    mysql_lineitem.copy(cursor, table, path)
            _execute(cursor, _ORDERS_INDEXES)
        elif kind == "types":
            _execute(cursor, _MARIADB_TYPES.format(rows=int(_TYPES_ROWS_AT_1 * scale)))
        else:
            for number in range(1, tables + 1):
                _execute(cursor, _small_table(number))
    return None


def _execute(cursor: pymysql.cursors.Cursor, script: str) -> None:
    for statement in script.split(";"):
        cursor.execute(statement)


def _small_table(number: int) -> str:
    rows = max(1, int(_MARIADB_MANY_ROWS / number**1.3))
    name = f"t{number:05d}"
    return (
        f"CREATE TABLE {name} (id INT PRIMARY KEY, name VARCHAR(80) NOT NULL, price DECIMAL(12,2), placed DATETIME,"
        f" body TEXT, KEY {name}_name (name));"
        f"INSERT INTO {name} SELECT seq, MD5(seq), seq * 1.25, DATE_ADD('2020-01-01', INTERVAL seq MINUTE),"
        f" REPEAT(MD5(seq), 4) FROM seq_1_to_{rows}"
    )


def _postgres_sakila(server: PostgresServer, url: str) -> Skipped | None:
    from tests.samples import sample  # noqa: PLC0415  only where it is asked for

    for name in ("sakila-postgres-schema.sql", "sakila-postgres-data.sql"):
        path = sample(name)
        if path is None:
            return Skipped(
                "the sample databases are not next to the checkout (MOVEOUT_SAMPLES names their folder)"
            )
        lines = path.read_text().splitlines(keepends=True)
        words = ("\\c ", "DROP DATABASE", "CREATE DATABASE")
        script = "".join(line for line in lines if not line.startswith(words))
        psql: list[str | Path] = [server.bin_dir / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]
        subprocess.run(psql, input=script, check=True, text=True, stdout=subprocess.DEVNULL)
    return None


def _mariadb_sakila(url: str) -> Skipped | None:
    from tests.exporters.mysql.sakila import make_sakila  # noqa: PLC0415  only where it is asked for
    from tests.sakila import read_sakila  # noqa: PLC0415

    sakila = read_sakila()
    if sakila is None:
        return Skipped(
            "the sample databases are not next to the checkout (MOVEOUT_SAMPLES names their folder)"
        )
    make_sakila(url, sakila)
    return None


def rows_in_postgres(server: PostgresServer, name: str) -> Mapping[str, int]:
    """Return the number of rows of each table."""
    query = (
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace NOT IN"
        " (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_|^information_schema|^pgcopydb|^moveout')"
    )
    with psycopg.connect(server.url_of(name)) as connection:
        tables = [table for (table,) in connection.execute(query).fetchall()]
        return {
            table: (connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() or (0,))[0]
            for table in tables
        }


def rows_in_mariadb(server: MariadbServer, name: str) -> Mapping[str, int]:
    """Return the number of rows of each table."""
    with server.connect(name) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SHOW FULL TABLES WHERE table_type = 'BASE TABLE' AND tables_in_" + name + " NOT LIKE 'moveout%'"
        )
        counts = {}
        for table, _ in cursor.fetchall():
            cursor.execute(f"SELECT count(*) FROM `{table}`")
            counts[table] = (cursor.fetchone() or (0,))[0]
        return counts
