"""Rows are copied into a PostgreSQL database by the workers of a cluster, each part once."""

from __future__ import annotations

import pytest

from migrate.cluster.lease_guard import LockFence
from migrate.errors import BusyError
from migrate.runtime.cancellation import CancellationToken
from scripts.dask_cluster import kill
from tests.cli.conftest import call, run
from tests.cluster.movements import made
from tests.cluster.test_transfer import by
from tests.exporters.postgres.databases import fetch, make_refused, run_sql
from tests.tools.waiting import eventually

TABLES = 8
ALL = " UNION ALL ".join(f"SELECT id, amount FROM movements_{n}" for n in range(TABLES))
DONE = "SELECT count(*) FROM moveout_restore.done WHERE name LIKE 'tables/%'"


def summed(url):
    return fetch(url, f"SELECT count(*), count(DISTINCT id), sum(amount) FROM ({ALL}) AS t")[0]


@pytest.fixture
def destination(postgres):
    return postgres.database()


@pytest.fixture
def app(request, postgres, destination, tmp_path):
    """A bundle of a database: what its rows come to, and the command that brings them up. The parameter, if any: how
    many rows a table has.
    """
    url = postgres.database()
    run_sql(url, made(TABLES, getattr(request, "param", 30_000)))
    assert call("export", f"app={url}", "--to", tmp_path / "bundle").code == 0
    return summed(url), ("restore", tmp_path / "bundle", f"app={destination}")


def done(url):
    """How many parts are done; None where nothing has begun, or all is over."""
    try:
        return fetch(url, DONE)[0][0]
    except Exception:
        return 0


@pytest.mark.parametrize("app", [15_000], indirect=True, ids=["few"])
def test_two_workers_bring_up_a_database(pair, app, destination):
    """As threads do; compared by digests at the end. A password in the destination's URL does not travel: before
    anything is made the command ends with 2.
    """
    expected, words = app
    ended = call(*words[:-1], words[-1].replace("postgres@", "postgres:hush@"), *by(pair))
    assert ended.code == 2, ended.err
    assert "has a password in it" in ended.err
    assert fetch(destination, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")[0][0] == 0
    ended = call(*words, *by(pair), "--json")
    assert ended.code == 0, ended.err
    (outcome,) = ended.json["result"]["restored"]
    assert (outcome["items"], outcome["findings"]) == (expected[0], [])
    assert "by one machine" not in ended.err
    assert summed(destination) == expected
    assert pair.took_part() == 2
    assert call(*words).code == 0, "there is nothing left to do"


def test_what_a_check_refuses_until_all_rows_are_there_is_written_by_the_lead(
    pair, postgres, destination, tmp_path
):
    """No worker knows when that is."""
    url = postgres.database()
    make_refused(url)
    assert call("export", f"app={url}", "--to", tmp_path / "bundle").code == 0
    ended = call("restore", tmp_path / "bundle", f"app={destination}", *by(pair))
    assert ended.code == 0, ended.err
    assert fetch(destination, "SELECT count(*) FROM asking") == [(2,)]


@pytest.mark.torture
def test_a_worker_dies_in_the_middle_of_a_part(cluster, app, destination, begin):
    """Its transaction is gone with it, and another worker does the part."""
    expected, words = app
    first = cluster.join()
    cluster.wait()
    restore = begin(*words, *by(cluster), "--bwlimit", "1M")
    eventually(lambda: done(destination) > 1 or restore.popen.poll() is not None)
    assert done(destination) < TABLES
    kill(first)
    cluster.join()
    ended = restore.end()
    assert ended.code == 0, ended.err
    assert summed(destination) == expected


@pytest.mark.torture
def test_the_lead_dies_and_threads_go_on(cluster, app, destination, begin):
    """At once: what its worker still commits counts, and is not done twice."""
    expected, words = app
    cluster.join()
    cluster.wait()
    lead = begin(*words, *by(cluster), "--bwlimit", "1M")
    eventually(lambda: done(destination) > 1 or lead.popen.poll() is not None)
    assert done(destination) < TABLES
    lead.popen.kill()
    lead.end()
    ended = run(*words, "--json")
    assert ended.code == 0, ended.err
    assert 0 < ended.json["result"]["restored"][0]["skipped_items"] < expected[0]
    assert summed(destination) == expected


def test_a_worker_without_the_leads_lock_stops():
    stop = CancellationToken()
    held = [True, False]
    fence = LockFence(lambda: held.pop(0), stop, look_seconds=0.05)
    fence.start()
    assert stop.wait(60)
    with pytest.raises(BusyError, match="lock"):
        LockFence(lambda: False, CancellationToken()).start()
