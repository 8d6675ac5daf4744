"""The limit on bytes a second holds before the bytes go, also for an export that is smaller than a large part."""

import os
import sqlite3
from contextlib import closing
from functools import partial

from migrate.cli.common import session
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.rate_limit import RateLimiter
from tests.cli.conftest import call


def test_nothing_goes_before_it_is_paid_for_and_the_command_ends_when_it_is_done(tmp_path, monkeypatch):
    """Its time passes only while something waits for the limit, so it is the same on any machine."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, os.urandom(1000)) for n in range(100)])
    catalog, waits = tmp_path / "bundle" / "data" / "catalog.parquet", []

    def wait(_, seconds):
        assert not catalog.exists(), "it does not stay for what it has sent"
        waits.append(seconds)

    limiter = partial(RateLimiter, clock=lambda: sum(waits))
    monkeypatch.setattr(session, "RateLimiter", limiter)
    monkeypatch.setattr(CancellationToken, "sleep", wait)
    words = (f"app=sqlite://{tmp_path}/a.db", "--to", tmp_path / "bundle", "--bwlimit", "20K")
    done = call("export", *words)
    assert done.code == 0, done
    paid_seconds = 100_000 / 20_480
    assert sum(waits) >= paid_seconds
