"""What a source is asked to bear: connections, locks, time; least privilege; standbys."""

import asyncio
import gc
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from exporters.connections.open_connections import shut_socket
from exporters.doctor import ExamineRequest
from exporters.errors import SourceError, SourceSnapshotLostError, SourceUnreachableError, SourceUsageError
from exporters.limits import Limits
from exporters.postgres.doctor import examine
from exporters.postgres.exporter import PostgresExporter
from exporters.postgres.rows import asyncpg_feed, copy_feed
from exporters.postgres.rows.copy_feed import text_of
from exporters.postgres.sessions import connection, lock_waits, snapshot_transaction
from exporters.postgres.sessions import lock_timeouts as locked_relations
from exporters.postgres.sessions.connection import connect, parse_url, row_connection_options
from exporters.postgres.sessions.snapshot_session import open_snapshot
from exporters.testing import MemorySink
from migrate.case.limits import parse_limits
from migrate.errors import UsageError
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from scripts.postgresql import Cluster
from scripts.process import free_port, start, unprivileged_user
from tests.exporters.objects.workspaces import Workspace
from tests.exporters.postgres.databases import NoBuckets, export_database, fetch, run_sql
from tests.exporters.postgres.test_resume import broken_export
from tests.tools import pgbouncer
from tests.tools.bundles import differences, read_bundle
from tests.tools.waiting import SECONDS, eventually

needs_pgbouncer = pytest.mark.skipif(
    pgbouncer.program() is None,
    reason="NOT TESTED: there is no PgBouncer; on Debian: apt-get install pgbouncer",
)
TWO = "CREATE TABLE a AS SELECT n AS x FROM generate_series(1, 1000) n; CREATE TABLE b AS SELECT * FROM a"


@needs_pgbouncer
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_that_shares_sessions_is_refused_before_settings_reach_the_application(postgres, mode):
    with pgbouncer.PgBouncer(postgres.port, postgres.password, mode) as pooler:
        url = pooler.url(postgres.database())
        address = parse_url(url, {"password": postgres.password})
        for _ in range(2):
            if mode == "session":
                connect(address).close()
                continue
            with pytest.raises(
                SourceUsageError, match="a pooler gives each transaction a session of its own"
            ) as error:
                connect(address)
            assert error.value.next_step.startswith("let the pooler keep sessions")
        assert fetch(url, "SELECT current_setting('search_path')") == [('"$user", public',)]


@needs_pgbouncer
def test_a_timeout_of_the_role_costs_no_export_by_a_pooler_that_refuses_options(postgres, tmp_path):
    url = postgres.database()
    run_sql(url, "CREATE TABLE a AS SELECT 1 AS x")
    name = url.rpartition("/")[2]
    run_sql(postgres.url, f"ALTER ROLE postgres IN DATABASE {name} SET statement_timeout = '1min'")
    with pgbouncer.PgBouncer(postgres.port, postgres.password, ignored="extra_float_digits") as pooler:
        assert export_database(pooler.url(url), tmp_path / "bundle").complete
    assert (tmp_path / "bundle/data/app/schema/globals.sql").exists()


def open_rows(address, settings: str) -> asyncpg_feed.AsyncpgFeed:
    """Open a connection for rows as exports do, with more statements at its begin."""
    with connect(address) as holder:
        return asyncpg_feed.AsyncpgFeed(address, row_connection_options(holder), settings)


@pytest.mark.parametrize(
    ("open_connection", "locked"),
    [
        (lambda address, _settings: connect(address), "pg_catalog.pg_proc"),
        (lambda address, settings: connect(address, settings=settings), "t"),
        (open_rows, "t"),
    ],
    ids=["question", "settings", "rows"],
)
def test_a_connection_opens_under_a_timeout_that_cancels_its_first_statements(
    postgres, monkeypatch, open_connection, locked
):
    """They wait for a lock until one of them was cancelled. A function is looked up in ``pg_proc``."""
    url = postgres.database()
    run_sql(url, "CREATE TABLE t ()")
    name = url.rpartition("/")[2]
    for timeout in ("statement_timeout = '1ms'", "lock_timeout = '10s'"):
        run_sql(postgres.url, f"ALTER ROLE postgres IN DATABASE {name} SET {timeout}")
    monkeypatch.setattr(connection, "_CANCELLED_SECONDS", SECONDS)
    settings = "SET statement_timeout = '1ms'; LOCK TABLE public.t"
    waits = (
        f"SELECT pid, waitstart FROM pg_locks WHERE relation = '{locked}'::regclass AND waitstart IS NOT NULL"
    )
    no_timeout = "-c statement_timeout=0"
    with ThreadPoolExecutor() as threads, psycopg.connect(url, options=no_timeout) as lock:
        lock.execute(f"LOCK TABLE {locked}")
        opened = threads.submit(open_connection, parse_url(url), settings)
        seen: set[tuple[int, datetime]] = set()
        while len(seen) < 2 and not opened.done():
            seen.update(lock.execute(waits))
        lock.rollback()
        opened.result().close()
    assert (len(seen), len({process for process, _ in seen})) == (2, 1)


class LimitedHost(NoBuckets):
    """A host with limits that keeps the notes."""

    def __init__(self, **limits) -> None:
        self._limits = Limits(**limits)
        self.notes: list[str] = []

    def limits(self) -> Limits:
        return self._limits

    def note(self, message: str) -> None:
        self.notes.append(message)


def export_with(host: LimitedHost, url: str, location: Path, *, workers: int = 4):
    source = PostgresExporter().open("app", url, host)
    return export([source], open_location(str(location)), workers=workers, progress=Silent())


def open_ports() -> set[int]:
    """Return the ports of this machine's open connections."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(address.rpartition(":")[2], 16) for _, address, _, state, *_ in lines if state == "01"}


@contextmanager
def counting(url: str) -> Iterator[Callable[[], int]]:
    """Count the sessions of exports (pg_dump's among them), as often as it goes. One that its client has closed may
    take the server a while to end.
    """
    most, stop = [0], threading.Event()

    def count() -> None:
        query = (
            "SELECT client_port FROM pg_stat_activity"
            " WHERE application_name LIKE 'moveout%' AND datname = current_database()"
        )
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.wait(0.003):
                sessions = {port for (port,) in connection.execute(query).fetchall()}
                most[0] = max(most[0], len(sessions & open_ports()))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield lambda: most[0]
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("most", [2, pytest.param(4, marks=pytest.mark.torture)])
def test_never_more_connections_than_are_allowed(postgres, tmp_path, most):
    url = postgres.database()
    run_sql(url, "".join(f"CREATE TABLE t{n} AS SELECT generate_series(1, 20000) AS x;" for n in range(8)))
    run_sql(url, "CREATE TYPE mood AS ENUM ('good'); CREATE TABLE typed (v mood)")
    with counting(url) as seen:
        assert export_with(LimitedHost(max_connections=most), url, tmp_path / "bundle", workers=8).complete
    assert 2 <= seen() <= most


@contextmanager
def locked(url: str, statement: str) -> Iterator[int]:
    """Hold a lock in an open transaction; yields the session's number."""
    with psycopg.connect(url, application_name="migration tool") as connection:
        connection.execute(statement.encode())
        yield connection.info.backend_pid
        connection.rollback()


def test_who_holds_the_lock_is_said_in_the_notes_and_in_the_error(postgres, tmp_path, monkeypatch):
    url = postgres.database()
    run_sql(url, TWO)
    monkeypatch.setattr(locked_relations, "held", lambda *_, **__: {})  # it was over when one looked for it
    host = LimitedHost(lock_seconds=1.5)
    statement = "ALTER TABLE a ADD secret_name text DEFAULT 'secret value'"
    with locked(url, statement) as pid, pytest.raises(SourceUnreachableError) as caught:
        export_with(host, url, tmp_path / "bundle")
    message = str(caught.value)
    assert f"session {pid} (postgres, migration tool, 127.0.0.1" in message
    assert "idle in transaction" in message
    assert "ALTER TABLE" in message
    assert "secret" not in message + "".join(host.notes)
    assert f"pg_terminate_backend({pid})" in caught.value.next_step
    assert any(str(pid) in note for note in host.notes)
    assert export_with(host, url, tmp_path / "bundle").complete


def test_a_session_that_waits_for_the_export_and_stops_it_is_named(postgres, tmp_path, monkeypatch):
    """A waiting ALTER TABLE keeps later readers of its table out, ours among them."""
    from exporters.postgres.snapshot import PostgresSnapshot

    url = postgres.database()
    run_sql(url, "CREATE TABLE a (x int)")
    host, blocked = LimitedHost(lock_seconds=1.0), []
    real = PostgresSnapshot.export

    def alter() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            blocked.append(connection.info.backend_pid)
            try:
                connection.execute("SET lock_timeout = '60s'; ALTER TABLE a ADD y int")
            except psycopg.errors.LockNotAvailable:
                blocked.append("gave up")

    thread = threading.Thread(target=alter)

    def export_late(self, unit, sink):
        if not thread.ident:
            thread.start()
            while not fetch(url, "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'a'::regclass"):
                time.sleep(0.01)
        return real(self, unit, sink)

    monkeypatch.setattr(PostgresSnapshot, "export", export_late)
    source = PostgresExporter().open("app", url, host)
    options = ExportOptions(attempts=1)
    store = open_location(str(tmp_path / "bundle"))
    try:
        with pytest.raises(SourceUnreachableError, match="it waits itself for a lock that this export holds"):
            export([source], store, workers=1, progress=Silent(), options=options)
    finally:
        thread.join()
    monkeypatch.undo()
    assert export_database(url, tmp_path / "bundle").complete


def test_a_statement_that_takes_too_long_is_ended(postgres, tmp_path):
    url = postgres.database()
    run_sql(url, "CREATE TABLE t AS SELECT repeat('x', 500) AS x FROM generate_series(1, 100000)")
    with pytest.raises(SourceUnreachableError, match="statement timeout") as caught:
        export_with(LimitedHost(statement_seconds=0.005), url, tmp_path / "bundle")
    assert "--statement-timeout" in caught.value.next_step


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        ((None, None, None), Limits()),
        ((4, "30m", "2.5s"), Limits(4, 1800, 2.5)),
        ((None, 90, "0"), Limits(None, 90, 0)),
    ],
)
def test_limits_are_read_from_words(words, limits):
    assert parse_limits(*words) == limits


@pytest.mark.parametrize("word", ["soon", "-1", "5 d", ""])
def test_a_wrong_length_of_time_is_refused(word):
    with pytest.raises(UsageError, match="not a length of time"):
        parse_limits(None, word, None)


def test_other_sessions_statements_are_shown_by_their_first_words_only():
    wait = lock_waits.Wait(
        7, "u", "", "local", "active", 3, 2, "update accounts SET pin = 'secret'", also_waits=False
    )
    assert (
        wait.sentence()
        == "waiting for 2 s: session 7 (u, local) is in the way, active for 3 s: update accounts …"
    )


def least_privilege(heading: str) -> str:
    """The SQL that docs/reference/privileges.md gives under a heading."""
    text = (Path(__file__).parents[3] / "docs/reference/privileges.md").read_text()
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"```sql\n(.*?)```", section, re.DOTALL))


def test_a_role_with_the_documented_privileges_exports_everything(postgres, tmp_path, monkeypatch):
    url = postgres.database()
    run_sql(
        url,
        (Path(__file__).parent / "torture.sql").read_text()
        + "; REVOKE ALL ON SCHEMA public FROM PUBLIC; ALTER TABLE one_text FORCE ROW LEVEL SECURITY",
    )
    script = least_privilege("PostgreSQL").replace("a-password", postgres.password)
    run_sql(postgres.url, "DROP ROLE IF EXISTS mover")
    run_sql(url, script)
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    limited = url.replace("postgres@", "mover@")
    assert fetch(limited, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
    outcome = export_database(limited, tmp_path / "bundle")
    assert outcome.complete, outcome.sources
    reader = read_bundle(tmp_path / "bundle")
    assert differences(reader, url) == []
    assert (tmp_path / "bundle/data/app/schema/globals.sql").exists()


@pytest.fixture(scope="module")
def standby(postgres) -> Iterator[str]:
    """A hot standby of ``postgres``: its URL without the database."""
    user = unprivileged_user("PostgreSQL", own_user="postgres")
    directory = Path(tempfile.mkdtemp(prefix="moveout-standby-"))
    if user:
        shutil.chown(directory, user)
    port = free_port()
    cluster = Cluster(postgres.bin_dir, directory / "data", user)
    copy = [postgres.bin_dir / "pg_basebackup", "-D", cluster.data, "-d", postgres.url, "-R", "-c", "fast"]
    server = None
    try:
        environment = {**os.environ, "PGPASSWORD": postgres.password}
        environment.pop("PGPASSFILE", None)
        child = start("pg_basebackup", copy, log=directory / "copy.log", user=user, env=environment)
        assert child.popen.wait() == 0, child.log_end()
        command = cluster.command(port, ["max_prepared_transactions=10"])  # no fewer than its primary has
        server = start("standby", command, log=directory / "standby.log", user=user)
        url = f"postgresql://postgres@127.0.0.1:{port}"
        server.wait_until(lambda: _answers(url, postgres.password), seconds=30)
        yield url
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _answers(url: str, password: str) -> bool:
    try:
        psycopg.connect(f"{url}/postgres", password=password).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.torture
def test_a_standby_is_a_source_like_any_other(postgres, standby, tmp_path, monkeypatch):
    url = postgres.database()
    run_sql(url, TWO + "; CREATE SEQUENCE s; SELECT nextval('s'), lo_from_bytea(0, 'large')")
    position = fetch(url, "SELECT pg_current_wal_lsn()::text")[0][0]
    replica = f"{standby}/{url.rpartition('/')[2]}"
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    query = f"SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= '{position}'"
    eventually(lambda: fetch(f"{standby}/postgres", query)[0][0])
    assert export_database(replica, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert reader.catalog()[0].position["standby"] is True
    run_sql(url, "CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS x")
    eventually(lambda: fetch(replica, "SELECT to_regclass('fleeting') IS NOT NULL")[0][0])
    gaps = export_database(replica, tmp_path / "second").sources[0].gaps
    assert [(gap.item, "standby" in gap.reason) for gap in gaps] == [('"public"."fleeting"', True)]
    assert "UNLOGGED TABLE public.fleeting" in (tmp_path / "second/data/app/schema/pre-data.sql").read_text()
    [lost, slow] = [
        finding for finding in examine(ExamineRequest(replica)).findings if finding.check == "replica"
    ]
    assert (lost.object, lost.severity, slow.severity) == ('"public"."fleeting"', "loses", "slow")
    run_sql(url, "DROP TABLE fleeting")
    for statement in slow.fix.text.splitlines():
        run_sql(f"{standby}/postgres", statement)
    eventually(
        lambda: all(finding.check != "replica" for finding in examine(ExamineRequest(replica)).findings)
    )
    assert differences(reader, url) == []


@pytest.mark.torture
def test_a_snapshot_that_a_standby_ends_names_the_setting_that_keeps_it(
    postgres, standby, tmp_path, monkeypatch
):
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    source = PostgresExporter().open("app", f"{standby}/postgres", NoBuckets())
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^moveout'"

    def lose() -> None:
        with source.snapshot(Workspace(), workers=1) as snapshot:
            run_sql(f"{standby}/postgres", end)
            snapshot.finish(iter(()), MemorySink())

    with pytest.raises(SourceSnapshotLostError) as lost:
        lose()
    assert "hot_standby_feedback = on" in lost.value.next_step


@pytest.mark.torture
def test_snapshots_of_a_standby_with_one_text_may_show_different_rows(
    postgres, standby, tmp_path, monkeypatch
):
    """Their text does not list the transactions that run."""
    url, location = postgres.database(), tmp_path / "bundle"
    run_sql(url, "CREATE TABLE a (x int); CREATE TABLE t AS SELECT 1 AS v; CREATE TABLE z AS SELECT 1 AS x")
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    replica = f"{standby}/{url.rpartition('/')[2]}"

    def replayed():
        position = fetch(url, "SELECT pg_current_wal_lsn()::text")[0][0]
        query = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        eventually(lambda: fetch(f"{standby}/postgres", query)[0][0])
        return fetch(replica, "SELECT v, pg_current_snapshot()::text FROM t")[0]

    with psycopg.connect(url) as oldest, psycopg.connect(url) as writer:
        oldest.execute("INSERT INTO a VALUES (1)")
        writer.execute("UPDATE t SET v = 2")
        run_sql(url, "INSERT INTO a VALUES (2)")
        _, snapshot = replayed()
        broken_export(replica, location, after=2)
        writer.commit()
        assert replayed() == (2, snapshot)
        assert export_database(replica, location).complete
        assert differences(read_bundle(location), replica) == []


def test_the_buffer_of_a_refused_query_goes_with_it(postgres):
    """It has nine MB, and the server may refuse thousands of queries, one for each code that is no character."""

    def is_refused(feeds):
        try:
            text_of(feeds.copy("(SELECT 1 / 0)"))
        except SourceError:
            return True
        return False

    with open_snapshot(parse_url(postgres.database())) as (session, _):
        feeds = copy_feed.Feeds(session, workers=1)
        gc.collect()
        gc.disable()
        try:
            assert is_refused(feeds)
            assert not [known for known in gc.get_objects() if isinstance(known, asyncpg_feed._Received)]
        finally:
            gc.enable()
            feeds.close()


@pytest.mark.timeout(60, func_only=True)
def test_a_connection_whose_end_came_with_its_last_answer_is_no_wait_without_end(postgres, monkeypatch):
    """The network is cut right after the transaction began; a busy program sees both at once."""
    begin = snapshot_transaction.Transaction.begin_for

    def begin_and_lose(transaction, queries):
        is_begun = begin(transaction, queries)
        loop = feeds_opened[-1]._loop
        shut_socket(feeds_opened[-1]._file_number())
        loop.run_until_complete(asyncio.sleep(0.1))
        return is_begun

    feeds_opened = []
    opened = copy_feed.open_feed
    monkeypatch.setattr(
        copy_feed, "open_feed", lambda session: feeds_opened.append(opened(session)) or feeds_opened[-1]
    )
    monkeypatch.setattr(snapshot_transaction.Transaction, "begin_for", begin_and_lose)
    with open_snapshot(parse_url(postgres.database())) as (session, _):
        feeds = copy_feed.Feeds(session, workers=1)
        with pytest.raises(SourceUnreachableError, match="connection"):
            text_of(feeds.copy("(SELECT 1)"))
        feeds.close()


@pytest.mark.parametrize(
    "kind", [asyncpg_feed.AsyncpgFeed, pytest.param(copy_feed.PsycopgFeed, marks=pytest.mark.torture)]
)
def test_the_locks_of_many_tables_are_not_held_at_once_and_the_snapshot_is_one(postgres, kind, monkeypatch):
    """A server has room for so many locks only; each session would hold those of every table that it read."""
    url = postgres.database()
    run_sql(url, "".join(f"CREATE TABLE t_{n} (id int PRIMARY KEY);" for n in range(7)))
    monkeypatch.setattr(snapshot_transaction, "QUERIES", 3)
    if kind is copy_feed.PsycopgFeed:
        monkeypatch.setattr(asyncpg_feed, "AsyncpgFeed", refuse)
    rows: list[bytes] = []
    locks = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation::regclass::text LIKE '%t\\_%'"
    with open_snapshot(parse_url(url)) as (session, _):
        feeds = copy_feed.Feeds(session, workers=1)
        try:
            for n in range(7):
                run_sql(url, f"INSERT INTO t_{n} VALUES (1)")
                query = f"SELECT count(*), ({locks}) FROM public.t_{n}"
                rows.append(text_of(feeds.copy(f"({query})")))
        finally:
            feeds.close()
    found = [line.split(b",") for line in rows]
    assert [int(count) for count, _ in found] == [0] * 7
    held = [int(number) for _, number in found]
    assert held[:3] == held[3:6]
    assert held[0] < held[1] < held[2] > held[3] > 0


def refuse(*_):
    raise ValueError("no such login")
