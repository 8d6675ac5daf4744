"""Changes are read by polling, at servers of every version: writers, a crash, a cutover; a transaction of a million
changes; a log that is lost.
"""

import secrets
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
import pytest

from exporters.postgres.live_digests import live_tables
from migrate.case.model import Endpoint
from migrate.case.secrets import Secret
from migrate.changes import retained_log
from migrate.storage.registry import open_location
from scripts.cost import MB
from scripts.postgres_versions import PACKAGES, find_postgres_of
from scripts.process import ServerError
from tests.exporters.postgres.databases import fetch, run_sql
from tests.follow.conftest import make_followed
from tests.follow.test_faults import drop_slot
from tests.follow.test_follower import following
from tests.follow.test_polled_move import write_case
from tests.tools.pooler import Pooler
from tests.tools.processes import killed_at_end
from tests.tools.waiting import eventually
from tests.torture.command import MOVEOUT, must
from tests.torture.follow.test_cutover_kills import BANK, Writers, check_transfers

__all__ = ["make_followed"]
pytestmark = [pytest.mark.torture, pytest.mark.timeout(1200)]
SETTINGS = ["wal_level=logical"]


@pytest.fixture
def make_polled(servers, other_postgres, tmp_path, monkeypatch):
    """Make a database of a version that is reached by a pooler only, with the case of its move."""
    monkeypatch.chdir(tmp_path)
    started = []

    @contextmanager
    def make(major, script):
        try:
            server = servers.postgres(
                f"polled-{secrets.token_hex(3)}", find_postgres_of(major), settings=SETTINGS
            )
        except ServerError as error:
            pytest.skip(f"NOT TESTED: {error}")
        started.append(server)
        old = server.database()
        new = (other_postgres if major <= 15 else server).database()
        run_sql(old, script)
        monkeypatch.setenv("OLD_PASSWORD", server.password)
        with Pooler(server.port) as pooler:
            write_case(pooler.url(old), new)
            yield server, old, new

    yield make
    for server in started:
        servers.end(server)


def count(url, table="log"):
    return fetch(url, f"SELECT count(*) FROM {table}")[0][0]


@pytest.mark.parametrize("major", PACKAGES)
def test_a_move_with_writers_and_a_crash_of_the_server(major, make_polled):
    with make_polled(major, BANK) as (server, old, new):
        writers = Writers(old, writers=6, comes_back=True)
        try:
            assert "changes are read by polling" in " ".join(
                must("export", "-c", "moveout.toml").said.split()
            )
            must("restore", "-c", "moveout.toml")
            with killed_at_end([MOVEOUT, "follow", "-c", "moveout.toml"]) as follow:
                eventually(lambda: count(new) > 20_000)
                server.child.start_again(server.accepts)
                before = count(old)
                eventually(lambda: count(new) > before + 50)
                assert follow.poll() is None
            writers.end_coming_back()
            must("cutover", "-c", "moveout.toml", "--hold", "--yes")
        finally:
            writers.end()
        check_transfers(old, new, writers)
        must("clean", "-c", "moveout.toml", "--changes", "--yes")


ONE_MILLION = "INSERT INTO t SELECT g, repeat('x', 50) FROM generate_series(1, 1000000) g"
SLOT = "SELECT restart_lsn, confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()"
KEPT = (
    "SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots WHERE database = current_database()"
)


@pytest.mark.parametrize("major", [12, 15, 18])
def test_a_transaction_of_a_million_changes_takes_little_memory(major, make_polled):
    """The server is done with it once it is acknowledged, and does not keep it."""
    with make_polled(major, "CREATE TABLE t (id int PRIMARY KEY, v text)") as (_, old, new):
        must("export", "-c", "moveout.toml")
        must("restore", "-c", "moveout.toml")
        run_sql(old, ONE_MILLION)
        with killed_at_end([MOVEOUT, "follow", "-c", "moveout.toml"]) as follow:
            eventually(
                lambda: count(new, "t") == 1_000_000, seconds=3600
            )  # a machine that swaps takes ten minutes
            eventually(lambda: fetch(old, KEPT)[0][0] < 64 * MB)
            assert peak_bytes(follow) < 300 * MB
        assert live_tables(new) == live_tables(old)
        must("clean", "-c", "moveout.toml", "--changes", "--yes")


def peak_bytes(process):
    """The most memory that a process has had."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peak) * 1024


@pytest.fixture
def polled(make_followed, postgres, monkeypatch):
    """A followed table, reached by a pooler only; its server may keep 64 MB of the log."""
    monkeypatch.setattr(retained_log, "_POLL_SECONDS", 0.5)
    monkeypatch.setattr(retained_log, "_CATCH_UP_SECONDS", 5)
    monkeypatch.setenv("OLD_PASSWORD", postgres.password)
    direct = make_followed("CREATE TABLE t (id int PRIMARY KEY, v text)")
    with Pooler(postgres.port) as pooler:
        endpoint = Endpoint(
            pooler.url(direct.source.url), {"password": Secret("env:OLD_PASSWORD")}, retain_bytes=64 * MB
        )
        yield direct.source.url, msgspec.structs.replace(direct, source=endpoint)


def test_a_server_that_keeps_too_much_since_a_transaction_is_open_is_freed(polled, tmp_path):
    url, source = polled
    with following(open_location(str(tmp_path)), source) as ((follower,), notes):
        with psycopg.connect(url) as idle:
            idle.execute("INSERT INTO t VALUES (0, 'open')")
            for number in range(1, 9):
                run_sql(
                    url,
                    f"INSERT INTO t SELECT {number} * 10000 + g, repeat('x', 1000) FROM generate_series(1, 9000) g",
                )
                eventually(lambda: count(source.destination.url, "t") > 0)  # what comes later may be too much
            eventually(lambda: follower.is_ended)
        (error,) = follower.state().stopped
    assert "told to keep them no longer" in str(error), notes
    assert fetch(url, SLOT) == []
    arrived = count(source.destination.url, "t")
    assert (arrived > 0, arrived % 9000) == (True, 0), "whole transactions"


@pytest.mark.parametrize("lost", ["slot", "publication"])
def test_a_log_that_is_lost_by_hand_stops_its_source_by_name(lost, polled, tmp_path):
    url, source = polled
    with following(open_location(str(tmp_path)), source) as ((follower,), notes):
        run_sql(url, "INSERT INTO t VALUES (1, 'v')")
        eventually(lambda: count(source.destination.url, "t") == 1)
        if lost == "slot":
            drop_slot(url, source.log["slot"])
        else:
            run_sql(url, f'DROP PUBLICATION "{source.log["publication"]}"')
        run_sql(url, "INSERT INTO t VALUES (2, 'v')")
        eventually(lambda: follower.is_ended)
        (error,) = follower.state().stopped
    assert f"{lost} {source.log[lost]} does not exist any more" in str(error), notes
    assert "export --follow" in error.next_step
