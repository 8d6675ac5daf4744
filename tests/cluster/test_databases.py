"""Databases and a cluster: PostgreSQL's snapshot is joined by the workers, other databases are read by the lead."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.cli.conftest import run
from tests.cluster.conftest import committed
from tests.cluster.movements import made
from tests.cluster.test_transfer import by
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.clients import boto_client
from tests.tools.waiting import eventually

TABLES = 12
CHANGE = "".join(
    f"""
UPDATE movements_{n} SET amount = amount + 1 WHERE id % 5 = 0;
DELETE FROM movements_{n} WHERE id % 7 = 0;
INSERT INTO movements_{n} SELECT max(id) + 1, 0, 'late' FROM movements_{n};
"""
    for n in range(TABLES)
)
COUNT = " UNION ALL ".join(f"SELECT amount, note FROM movements_{n}" for n in range(TABLES))


def rows_of(location):
    """How many rows the bundle has, how many of them came late, and the sum of their amounts."""
    store = open_location(location)
    names = [info.key for info in store.list("data/app/tables/") if info.key.endswith(".parquet")]
    tables = [pq.read_table(pa.BufferReader(store.read(name)), columns=["amount", "note"]) for name in names]
    amounts = [value for table in tables for value in table["amount"].to_pylist()]
    late = sum(note == "late" for table in tables for note in table["note"].to_pylist())
    return len(amounts), late, sum(amounts)


@pytest.mark.torture
def test_workers_read_under_the_snapshot_of_the_lead(cluster, postgres, location, begin):
    """Rows that change, go or come meanwhile are as they were, whichever worker reads them."""
    url = postgres.database()
    run_sql(url, made(TABLES))
    expected = fetch(url, f"SELECT count(*), 0, sum(amount) FROM ({COUNT}) AS t")[0]
    cluster.join()
    cluster.join()
    cluster.wait()
    export = begin("export", f"app={url}", "--to", location, *by(cluster), "--bwlimit", "2M")
    eventually(lambda: committed(location, "app") > 0 or export.popen.poll() is not None)
    assert committed(location, "app") < TABLES, "there is something left to read"
    run_sql(url, CHANGE)
    ended = export.end()
    assert ended.code == 0, ended.err
    assert "by one machine" not in ended.err
    assert rows_of(location) == expected
    assert verify(open_location(location), Level.FULL, workers=2, progress=Silent()).findings == []
    assert sum("'cancel_job'" in one.log.read_text() for one in cluster.workers) == 2


@pytest.mark.torture
def test_what_one_machine_reads_is_read_by_the_lead(cluster, postgres, minio, bucket, tmp_path):
    """A SQLite file, and a PostgreSQL that allows so many connections and no more: a note says so."""
    url = postgres.database()
    run_sql(url, "CREATE TABLE few (id int); INSERT INTO few VALUES (1), (2)")
    with closing(sqlite3.connect(tmp_path / "some.db")) as connection, connection:
        connection.executescript("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
    boto_client(minio.profile).put_object(Bucket=bucket, Key="a", Body=b"1")
    cluster.join()
    cluster.wait()
    sources = [
        f"app={url}",
        f"file=sqlite:///{tmp_path / 'some.db'}",
        f"media=s3://{bucket}?profile={minio.profile}",
    ]
    ended = run("export", *sources, "--to", tmp_path / "bundle", *by(cluster), "--max-connections", "3")
    assert ended.code == 0, ended.err
    for name in ("app", "file"):
        assert f"{name} can only be read by one machine" in ended.err
    assert "media can only" not in ended.err
