"""Ten thousand tables leave and come back, in bounded memory: ``make torture``. MOVEOUT_TABLES: another number."""

import os
import sqlite3
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres.databases import run_sql
from tests.exporters.sqlite.databases import url_of
from tests.torture.command import LIMIT_BYTES, measured

pytestmark = pytest.mark.torture

MANY = int(os.environ.get("MOVEOUT_TABLES", "10000"))


@pytest.fixture
def on_postgres(postgres, other_postgres):
    url = postgres.database()
    for start in range(0, MANY, 1000):
        run_sql(
            url,
            f"DO $$ BEGIN FOR n IN {start}..{min(start + 1000, MANY) - 1} LOOP"
            " EXECUTE format('CREATE TABLE t_%s (id int PRIMARY KEY, t text)', n);"
            " EXECUTE format('INSERT INTO t_%s VALUES (%s, ''x'')', n, n); END LOOP; END $$",
        )
    return url, other_postgres.database()


@pytest.fixture
def on_mariadb(mariadb, other_mariadb):
    url = mariadb.database()
    with mysql.open_database(url) as connection, connection.cursor() as cursor:
        for n in range(MANY):
            cursor.execute(f"CREATE TABLE t_{n} (id INT PRIMARY KEY, t VARCHAR(20), KEY (t))")
            cursor.execute(f"INSERT INTO t_{n} VALUES ({n}, 'x')")
    return url, other_mariadb.database()


@pytest.fixture
def on_sqlite(tmp_path):
    source = tmp_path / "source.db"
    with closing(sqlite3.connect(source)) as connection:
        for n in range(MANY):
            connection.execute(f"CREATE TABLE t_{n} (id INTEGER PRIMARY KEY, t TEXT)")
            connection.execute(f"INSERT INTO t_{n} VALUES (?, 'x')", (n,))
        connection.commit()
    return url_of(source), url_of(tmp_path / "destination.db")


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_ten_thousand_tables_leave_and_come_back(kind, request, tmp_path):
    source, destination = request.getfixturevalue(f"on_{kind}")
    bundle = tmp_path / "bundle"
    found = {
        "export": measured("export", f"app={source}", "--to", bundle),
        "verify": measured("verify", bundle, "--level", "full"),
        "restore": measured("restore", bundle, f"app={destination}"),
        "against": measured("verify", bundle, "--against", f"app={destination}"),
    }
    print(kind, found)  # noqa: T201
    catalog = pq.read_table(bundle / "data/catalog.parquet", columns=["items"])
    assert catalog["items"].to_pylist() == [1] * MANY
    assert max(one.peak_bytes for one in found.values()) <= LIMIT_BYTES
