"""One value of 400 MiB leaves and comes back, and no command holds it: ``make torture``."""

import os
import sqlite3
import subprocess
from contextlib import closing

import pytest

from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres.databases import fetch, run_sql
from tests.exporters.sqlite import databases as sqlite
from tests.tools.mysql_settings import global_settings
from tests.torture.command import LIMIT_BYTES, measured

pytestmark = pytest.mark.torture

MIB = 2**20
LARGE_MIB = int(os.environ.get("MOVEOUT_LARGE_MIB", "400"))
TEXT = 'line, "quoted" it"s ü'


@pytest.fixture
def on_postgres(postgres, other_postgres):
    source, destination = postgres.database(), other_postgres.database()
    size = LARGE_MIB * MIB
    run_sql(source, "CREATE TABLE t (id int, t text, b bytea)")
    run_sql(source, f"INSERT INTO t VALUES (1, repeat('{TEXT}', {size // 22}), NULL), (2, 'small', '')")
    run_sql(source, f"INSERT INTO t VALUES (3, NULL, decode(repeat('00ff', {size // 2}), 'hex'))")
    query = "SELECT id, md5(t), md5(b) FROM t ORDER BY id"
    return source, destination, lambda: fetch(source, query) == fetch(destination, query), 0


@pytest.fixture
def on_mariadb(mariadb, other_mariadb):
    source, destination = mariadb.database(), other_mariadb.database()
    size = LARGE_MIB * MIB
    with global_settings(mariadb.url, other_mariadb.url, max_allowed_packet=2**30):
        mysql.run_sql(source, "CREATE TABLE t (id INT PRIMARY KEY, t LONGTEXT, b LONGBLOB)")
        mysql.run_sql(
            source, f"INSERT INTO t VALUES (1, REPEAT('{TEXT}', {size // 22}), NULL), (2, 'small', '')"
        )
        mysql.run_sql(source, f"INSERT INTO t VALUES (3, NULL, REPEAT(X'00ff', {size // 2}))")
        query = "SELECT id, MD5(t), MD5(b) FROM t ORDER BY id"
        yield source, destination, lambda: mysql.fetch(source, query) == mysql.fetch(destination, query), 0


@pytest.fixture
def on_sqlite(tmp_path):
    source, destination = tmp_path / "source.db", tmp_path / "destination.db"
    size = LARGE_MIB * MIB
    make = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]);"
        "connection.execute('CREATE TABLE t (id INTEGER PRIMARY KEY, v)');"
        f"connection.execute('INSERT INTO t VALUES (1, ?), (2, 5)', ({TEXT!r} * {size // 22},));"
        f"connection.execute('INSERT INTO t VALUES (3, ?)', (bytes([0, 255]) * {size // 2},)); connection.commit()"
    )
    subprocess.run(["python3", "-c", make, source], check=True)  # its memory would count as ours

    def same() -> bool:
        with closing(sqlite3.connect(source)) as connection:
            connection.execute("ATTACH ? AS other", (str(destination),))
            query = "SELECT count(*) FROM t JOIN other.t o USING (id) WHERE t.v IS o.v AND typeof(t.v) = typeof(o.v)"
            return connection.execute(query).fetchone() == (3,)

    return sqlite.url_of(source), sqlite.url_of(destination), same, int(2.5 * LARGE_MIB * MIB)


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_no_command_holds_a_large_value(kind, request, tmp_path):
    source, destination, same, more = request.getfixturevalue(f"on_{kind}")
    bundle = tmp_path / "bundle"
    peaks = {
        "export": measured("export", f"app={source}", "--to", bundle).peak_bytes,
        "verify": measured("verify", bundle, "--level", "full").peak_bytes,
        "restore": measured("restore", bundle, f"app={destination}").peak_bytes - more,
        "against": measured("verify", bundle, "--against", f"app={destination}").peak_bytes,
    }
    assert same()
    print(kind, peaks)  # noqa: T201
    assert max(peaks.values()) <= LIMIT_BYTES
