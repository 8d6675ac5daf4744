"""A source fails over to its standby while it is followed.

From PostgreSQL 17 on the standby keeps the slot, so following goes on. Before, that source stops by name, and a delta
pass brings it up. So it is where the replication protocol is refused, and the slot is polled.
"""

import contextlib
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
import pytest

from exporters.postgres.changes.log import open_change_log
from exporters.postgres.live_digests import live_tables
from migrate.case.model import Endpoint
from migrate.case.secrets import Secret
from migrate.changes.delta_record import DeltaRecord, write_delta
from migrate.follow.delta import DeltaSource
from migrate.follow.followed import FollowedSource
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from scripts.postgres_versions import find_postgres_of
from scripts.postgresql import PostgresServer
from scripts.process import ServerError
from tests.cli.conftest import call
from tests.exporters.postgres.databases import fetch, run_sql
from tests.follow.conftest import restored
from tests.follow.test_follower import following
from tests.tools.moving_address import MovingAddress
from tests.tools.pooler import Pooler
from tests.tools.waiting import eventually

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]
TABLES = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE whole (n int)"
LOGICAL = ["wal_level=logical", "wal_keep_size=256MB"]
KEPT = "SELECT 1 FROM pg_replication_slots WHERE slot_type = 'logical' AND synced AND NOT temporary"
WAYS = pytest.mark.parametrize("way", [MovingAddress, Pooler], ids=["streamed", "polled"])
SYNCHRONIZED = ["hot_standby_feedback=on", "sync_replication_slots=on", "primary_slot_name=standby"]


@dataclass
class Cluster:
    """A primary with its standby, and the address by which clients reach them."""

    primary: PostgresServer
    standby: PostgresServer
    address: MovingAddress

    def url(self, direct: str) -> str:
        return direct.replace(f":{self.primary.port}/", f":{self.address.port}/")

    def fail_over(self) -> None:
        """The primary dies; the standby is promoted, and has its address."""
        self.primary.child.popen.kill()
        self.primary.child.popen.wait()
        self.standby.execute("SELECT pg_promote()")
        self.address.move(self.standby.port)


@pytest.fixture
def make_cluster(servers):
    """Make a cluster of a version. ``way``: how clients reach it, past the replication protocol or not."""
    with contextlib.ExitStack() as stack:

        def make(
            major: int, *, waits: bool = True, way: Callable[[int], MovingAddress] = MovingAddress
        ) -> Cluster:
            try:
                programs = None if major == 15 else find_postgres_of(major)
            except ServerError as error:
                pytest.skip(f"NOT TESTED: {error}")
            has_slots = major >= 17
            waiting = ["synchronized_standby_slots=standby"] if has_slots and waits else []
            mark = secrets.token_hex(3)
            primary = servers.postgres(f"primary-{mark}", programs, settings=[*LOGICAL, *waiting])
            stack.callback(servers.end, primary)
            standby = servers.postgres(
                f"standby-{mark}", programs, settings=[*LOGICAL, *(SYNCHRONIZED if has_slots else [])]
            )
            stack.callback(servers.end, standby)
            primary.execute("SELECT pg_create_physical_replication_slot('standby', true)")
            for server in (primary, standby):
                server.child.stop()
            copy_data(primary, standby)
            for server in (primary, standby):
                server.child.start_again(lambda server=server: is_up(server, primary.password))
            address = stack.enter_context(way(primary.port))
            return Cluster(primary, standby_of(standby, primary.password), address)

        yield make


def copy_data(primary, standby):
    """Make the standby's files those of the primary, which is down."""
    owner = standby.directory.stat()
    shutil.rmtree(standby.directory)
    shutil.copytree(primary.directory, standby.directory)
    (standby.directory / "standby.signal").touch()
    with (standby.directory / "postgresql.auto.conf").open("a") as file:
        file.write(
            f"primary_conninfo = 'host={primary.host} port={primary.port} user=postgres"
            f" password={primary.password} dbname=postgres'\nprimary_slot_name = 'standby'\n"
        )
    for path in [standby.directory, *standby.directory.rglob("*")]:
        shutil.chown(path, owner.st_uid, owner.st_gid)
    standby.directory.chmod(0o700)


def standby_of(server, password):
    """The server with the password of the primary whose files it has."""
    return PostgresServer(
        server.name, server.host, server.port, password, server.bin_dir, server.directory, server.child
    )


def is_up(server, password):
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(server.url, password=password, connect_timeout=2).close()
        return True
    return False


@contextlib.contextmanager
def followed(cluster, other_postgres, monkeypatch):
    """The database of a cluster, followed by its address; and the source with its destination."""
    monkeypatch.setenv("OLD_PASSWORD", cluster.primary.password)
    direct, destination = cluster.primary.database("app"), other_postgres.database()
    with psycopg.connect(direct, password=cluster.primary.password, autocommit=True) as connection:
        connection.execute(TABLES)
    run_sql(destination, TABLES)
    endpoint = Endpoint(cluster.url(direct), {"password": Secret("env:OLD_PASSWORD")})
    case = f"case-{secrets.token_hex(4)}"
    log = open_change_log(endpoint.url, {"password": cluster.primary.password}, case)
    with log.open_base() as base:
        pass
    source = FollowedSource("app", endpoint, Endpoint(destination), base.position, base.log, case)
    restored(source)
    yield source


class Writer:
    """Writes rows by the cluster's address, whoever answers; ``acknowledged`` are those that were committed."""

    def __init__(self, url, password):
        self._url, self._password = url, password
        self.acknowledged = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self):
        number = 0
        while not self._stop.is_set():
            with contextlib.suppress(psycopg.Error), psycopg.connect(
                self._url, password=self._password, autocommit=True, connect_timeout=2
            ) as connection:  # fmt: skip
                while not self._stop.wait(0.01):
                    number += 1
                    connection.execute("INSERT INTO t VALUES (%s, 'v')", (number,))
                    self.acknowledged.append(number)

    def end(self):
        self._stop.set()
        self._thread.join()


def rows_of(server, query):
    with psycopg.connect(server.url_of("app"), password=server.password) as connection:
        return connection.execute(query).fetchall()


@WAYS
@pytest.mark.parametrize("major", [17, 18])
def test_a_slot_that_the_standby_keeps_is_read_on(
    major, way, make_cluster, other_postgres, tmp_path, monkeypatch
):
    cluster = make_cluster(major, way=way)
    password = cluster.primary.password
    with followed(cluster, other_postgres, monkeypatch) as source:
        with following(open_location(str(tmp_path)), source) as ((follower,), notes):
            writer = Writer(source.source.url, password)
            new = source.destination.url
            eventually(lambda: fetch(new, "SELECT count(*) FROM t")[0][0] > 50)
            eventually(lambda: rows_of(cluster.standby, KEPT))  # which needs a reader that goes on
            cluster.fail_over()
            before = len(writer.acknowledged)
            eventually(lambda: len(writer.acknowledged) > before + 50)
            writer.end()
            expected = rows_of(cluster.standby, "SELECT count(*), sum(id) FROM t")
            eventually(lambda: fetch(new, "SELECT count(*), sum(id) FROM t") == expected)
            assert follower.state().stopped == (), notes
        assert live_tables(new) == live_tables_of(cluster.standby)


def live_tables_of(server):
    from exporters.postgres.sessions.connection import parse_url

    return live_tables(parse_url(server.url_of("app"), {"password": server.password}))


@WAYS
def test_a_standby_without_the_slot_stops_the_source_by_name_and_a_delta_pass_brings_it_up(
    way, make_cluster, other_postgres, tmp_path, monkeypatch
):
    cluster = make_cluster(15, way=way)
    with followed(cluster, other_postgres, monkeypatch) as source:
        with following(open_location(str(tmp_path / "bundle")), source) as ((follower,), _):
            writer = Writer(source.source.url, cluster.primary.password)
            eventually(lambda: fetch(source.destination.url, "SELECT count(*) FROM t")[0][0] > 20)
            cluster.fail_over()
            before = len(writer.acknowledged)
            eventually(lambda: len(writer.acknowledged) > before + 20)
            writer.end()
            eventually(lambda: follower.is_ended)
            (error,) = follower.state().stopped
        assert "does not exist any more" in str(error)
        assert "export --follow" in error.next_step
        delta = DeltaSource("app", source.source, source.destination, open_location(str(tmp_path / "delta")))
        write_delta(delta.store, DeltaRecord("app"))
        delta.take_pass(CancellationToken())
        assert live_tables(source.destination.url) == live_tables_of(cluster.standby)


def cut_off(standby):
    """Let a standby receive nothing more."""
    standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
    standby.execute("SELECT pg_reload_conf()")
    eventually(lambda: rows_of(standby, "SELECT count(*) FROM pg_stat_wal_receiver") == [(0,)])


@WAYS
@pytest.mark.parametrize("is_away", [False, True], ids=["followed all the time", "followed again later"])
def test_a_standby_that_lacks_what_was_captured_stops_the_source_by_name(
    is_away, way, make_cluster, other_postgres, tmp_path, monkeypatch
):
    """Its log goes on elsewhere than the captured one, also where it is longer by now; else what it has written before
    that position would be left out without a word.
    """
    cluster = make_cluster(18, waits=False, way=way)
    with followed(cluster, other_postgres, monkeypatch) as source:
        new, bundle = source.destination.url, open_location(str(tmp_path))

        def write(*numbers):
            with psycopg.connect(
                source.source.url, password=cluster.primary.password, autocommit=True
            ) as connection:
                for number in numbers:
                    connection.execute("INSERT INTO t VALUES (%s, repeat('v', 1000))", (number,))

        def arrived(number):
            return fetch(new, f"SELECT count(*) FROM t WHERE id = {number}") == [(1,)]

        with following(bundle, source) as ((follower,), notes):
            write(1)
            eventually(lambda: arrived(1))
            eventually(lambda: rows_of(cluster.standby, KEPT))
            eventually(lambda: rows_of(cluster.standby, "SELECT count(*) FROM t") == [(1,)])
            cut_off(cluster.standby)
            write(*range(100, 120))
            eventually(lambda: arrived(119))
            if not is_away:
                cluster.fail_over()
                eventually(lambda: follower.is_ended)
                (error,) = follower.state().stopped
        if is_away:
            cluster.fail_over()
            write(*range(200, 300))  # so that its log is longer than what was captured
            with following(bundle, source) as ((follower,), notes):
                eventually(lambda: follower.is_ended)
                (error,) = follower.state().stopped
        assert "standby" in str(error), notes
        assert "export --follow" in error.next_step
        assert arrived(119)
        assert not arrived(299)


def failover_findings(cluster, monkeypatch):
    """What doctor says of a failover."""
    monkeypatch.setenv("PGPASSWORD", cluster.primary.password)
    done = call("doctor", f"app={cluster.primary.url_of('app')}", "--json")
    (examined,) = [one for one in done.json["result"]["examined"] if one["kind"] == "source"]
    return [finding for finding in examined["findings"] if "standbys (standby)" in finding["problem"]]


@pytest.mark.parametrize("major", [15, 18])
def test_doctor_says_what_a_failover_would_do(major, make_cluster, monkeypatch):
    cluster = make_cluster(major, waits=False)
    cluster.primary.database("app")
    (finding,) = failover_findings(cluster, monkeypatch)
    assert "the base must be taken again" in finding["consequence"]
    if major == 18:
        for statement in finding["fix"]["text"].split(";\n")[:2]:
            cluster.primary.execute(statement)
        eventually(lambda: failover_findings(cluster, monkeypatch) == [])
