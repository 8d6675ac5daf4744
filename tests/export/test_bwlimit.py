"""The limit on bytes a second holds before the bytes go, also for an export that is smaller than a large part."""

import os
import sqlite3
import time
from contextlib import closing

from tests.cli.conftest import call


def test_nothing_goes_before_it_is_paid_for_and_the_command_ends_when_it_is_done(tmp_path):
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, os.urandom(1000)) for n in range(100)])
    bundle, started = tmp_path / "bundle", time.monotonic()
    done = call("export", f"app=sqlite://{tmp_path}/a.db", "--to", bundle, "--bwlimit", "20K")
    seconds = time.monotonic() - started
    assert done.code == 0, done
    paid_seconds = 100_000 / 20_480
    assert seconds >= paid_seconds
    sealed_at = (bundle / "data" / "catalog.parquet").stat().st_mtime
    assert time.time() - sealed_at < paid_seconds, "it does not stay for what it has sent"
