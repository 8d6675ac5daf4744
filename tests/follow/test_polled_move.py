"""A move behind a pooler that refuses the replication protocol: changes are read by SQL, and both sides end equal."""

import os
import random
import secrets
import shutil
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from exporters.postgres.live_digests import live_tables
from migrate.runtime.crash_points import CRASH_AT
from tests.cli.conftest import call, result
from tests.crash_points.test_crash_points import execute
from tests.export.victims import run
from tests.exporters.postgres.databases import fetch, run_sql
from tests.restore.postgres.changes.workloads import SCHEMA, WORKLOADS
from tests.restore.postgres.changes.workloads import run as run_workload
from tests.tools import pgbouncer
from tests.tools.pooler import Pooler

SCRIPT = """
CREATE TABLE orders (id int PRIMARY KEY, note text);
INSERT INTO orders SELECT g, 'note ' || g FROM generate_series(1, 500) g;
CREATE SEQUENCE tickets;
"""
CASE = """
[case]
name = "polled-{number}"
follow = true
[[source]]
name = "app"
url = "{old}"
password = "env:OLD_PASSWORD"
[bundle]
location = "bundle"
[[destination]]
source = "app"
url = "{new}"
"""
ROWS_OF_A_LARGE_ONE = 50_000
POINTS = [
    "location.put.before:2",  # within the large transaction
    "location.put.after:2",
    "location.create.before:1",
    "location.create.after:1",
    "location.create.before:2",
    "location.create.after:2",
    "capture.acknowledge.before:1",
    "capture.acknowledge.after:1",
    "capture.acknowledge.before:2",  # it is durable, and comes again
    "capture.acknowledge.after:2",
    "follow.postgres.apply.before:2",
    "follow.postgres.apply.after:1",
]
SHORT = "capture.acknowledge.before:2"
ROWS_WHERE_SHORT = 1_000
"""Its moment is behind the large transaction, however large that is."""


@pytest.fixture
def move(postgres, other_postgres, tmp_path, monkeypatch):
    """Both databases, and the words of the case; the old one is reached by the pooler only."""
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, SCRIPT)
    monkeypatch.setenv("OLD_PASSWORD", postgres.password)
    monkeypatch.chdir(tmp_path)
    with Pooler(postgres.port) as pooler:
        write_case(pooler.url(old), new)
        yield old, new
        call("clean", "-c", "moveout.toml", "--changes", "--yes")


def write_case(old, new):
    case = CASE.format(number=secrets.token_hex(4), old=old, new=new)
    Path("moveout.toml").write_text(case)


def done(*words):
    answer = call(*words)
    assert answer.code == 0, answer.out + answer.err
    return " ".join((answer.out + answer.err).split())


@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=[] if point == SHORT else pytest.mark.torture) for point in POINTS]
)
def test_a_capture_that_is_killed_loses_nothing_and_the_cutover_is_equal(move, point, tmp_path, monkeypatch):
    old, new = move
    rows = ROWS_WHERE_SHORT if point == SHORT else ROWS_OF_A_LARGE_ONE
    exported = done("export", "-c", "moveout.toml")
    assert "changes are read by polling, since the replication protocol is refused" in exported
    run_sql(old, "UPDATE orders SET note = 'changed' WHERE id < 100; DELETE FROM orders WHERE id > 450")
    run_sql(old, f"INSERT INTO orders SELECT g, repeat('x', 200) FROM generate_series(1000, {1000 + rows}) g")
    run_sql(old, "INSERT INTO orders VALUES (500, 'last')")  # is applied by itself: what is before is large
    [followed] = result("status", "-c", "moveout.toml")["locations"][0]["followed"]
    assert "unsupported startup parameter" in followed["detour"]
    assert (followed["lost"], followed["lag_bytes"] > rows * 200) == (False, True)
    done("restore", "-c", "moveout.toml")
    words = ["follow", "-c", "moveout.toml", "--until-caught-up"]
    with monkeypatch.context() as patch:
        patch.setenv(CRASH_AT, point)
        victim = run(execute, words, str(tmp_path / "output"))
        victim.join()
    assert victim.exitcode == -signal.SIGKILL, (tmp_path / "output").read_text()
    run_sql(
        old, "INSERT INTO orders VALUES (501, 'late'); SELECT nextval('tickets') FROM generate_series(1, 7)"
    )
    done(*words)
    assert live_tables(new) == live_tables(old)
    run_sql(old, "UPDATE orders SET note = 'last' WHERE id = 501")
    done("cutover", "-c", "moveout.toml", "--hold", "--yes")
    assert fetch(new, "SELECT last_value FROM tickets") == [(7,)]


@pytest.mark.torture
@pytest.mark.skipif(
    pgbouncer.program() is None,
    reason="NOT TESTED: there is no PgBouncer; on Debian: apt-get install pgbouncer",
)
def test_a_move_behind_pgbouncer(postgres, other_postgres, tmp_path, monkeypatch):
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, SCRIPT)
    monkeypatch.setenv("OLD_PASSWORD", postgres.password)
    monkeypatch.chdir(tmp_path)
    with pgbouncer.PgBouncer(postgres.port, postgres.password) as pooler:
        write_case(pooler.url(old), new)
        exported = done("export", "-c", "moveout.toml")
        assert "changes are read by polling" in exported
        run_sql(old, "UPDATE orders SET note = 'changed' WHERE id < 100; DELETE FROM orders WHERE id > 450")
        done("restore", "-c", "moveout.toml")
        done("follow", "-c", "moveout.toml", "--until-caught-up")
        run_sql(old, "INSERT INTO orders VALUES (501, 'last')")
        done("cutover", "-c", "moveout.toml", "--hold", "--yes")
        assert live_tables(new) == live_tables(old)
        call("clean", "-c", "moveout.toml", "--changes", "--yes")


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_after_any_workload_both_sides_are_equal(postgres, other_postgres, tmp_path, monkeypatch):
    """Workloads run before the base, while it is taken, and after it."""
    monkeypatch.setenv("OLD_PASSWORD", postgres.password)
    chosen = int(os.environ.get("MOVEOUT_SEED") or random.SystemRandom().randrange(10**9))
    print(f"MOVEOUT_SEED={chosen}")  # noqa: T201  which repeats it

    @seed(chosen)
    @settings(
        max_examples=int(os.environ.get("MOVEOUT_POLLED_WORKLOADS", "20")),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(WORKLOADS, WORKLOADS, WORKLOADS))
    def every(workloads):
        folder = tmp_path / secrets.token_hex(4)
        folder.mkdir()
        monkeypatch.chdir(folder)
        old, new = postgres.database(), other_postgres.database()
        run_sql(old, SCHEMA)
        with Pooler(postgres.port) as pooler:
            write_case(pooler.url(old), new)
            try:
                check_workloads(old, new, workloads)
            finally:
                call("clean", "-c", "moveout.toml", "--changes", "--yes")
        shutil.rmtree(folder)

    every()


def check_workloads(old, new, workloads):
    first, second, third = workloads
    run_workload(old, first)
    meanwhile = threading.Thread(target=run_workload, args=(old, second * 5))
    meanwhile.start()
    call("export", "-c", "moveout.toml")
    meanwhile.join()
    done(
        "export", "-c", "moveout.toml"
    )  # which has nothing left to do, unless a TRUNCATE was in a deadlock with it
    done("restore", "-c", "moveout.toml")
    run_workload(old, third)
    done("follow", "-c", "moveout.toml", "--until-caught-up")
    assert live_tables(new) == live_tables(old)
