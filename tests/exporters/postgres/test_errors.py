"""What goes wrong has the right code, names the thing and says what to do."""

import ctypes
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg
import pyarrow.parquet as pq
import pytest

from exporters.errors import (
    SourceError,
    SourceGoneError,
    SourceNotAllowedError,
    SourceSilentError,
    SourceSnapshotLostError,
    SourceUnreachableError,
    SourceUsageError,
)
from exporters.postgres.definitions import pg_dump
from exporters.postgres.definitions.dump_programs import Tools, find_tools
from exporters.postgres.definitions.pg_dump import dump_definitions, section_of
from exporters.postgres.errors import translate
from exporters.postgres.exporter import PostgresExporter
from exporters.postgres.identifiers import quote_name
from exporters.postgres.rows.copy_feed import open_feed
from exporters.postgres.sessions import connection
from exporters.postgres.sessions.connection import connect, parse_url
from exporters.postgres.sessions.snapshot_session import open_snapshot
from exporters.postgres.sessions.snapshot_transaction import begin_statement
from migrate.errors import NotEmptyError, UsageError
from migrate.export.run import export
from migrate.restore.postgres.definitions.recorded_definitions import Definitions
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.exporters.connections.test_open_connections import drop_what_comes
from tests.exporters.postgres.databases import NoBuckets, as_role, export_database, fetch, login, run_sql
from tests.tools.bundles import read_bundle, restore_from, restore_whole
from tests.tools.pgbouncer import PgBouncer, program
from tests.tools.waiting import eventually

PIDFD_GETFD = 438
"""The number of the system call (pidfd_getfd(2))."""


def open_source(url: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        PostgresExporter().open("app", url, NoBuckets())
    assert caught.value.next_step
    return caught.value


def test_a_table_whose_rows_are_hidden_from_its_owner_names_the_right_that_shows_them(postgres, monkeypatch):
    """The server advises to take the policy's force from the table: then it would be missing after the move."""
    url = as_role(login(postgres, "hidden_from"), "hidden_from")
    run_sql(url.replace("hidden_from@", "postgres@"), "GRANT CREATE ON SCHEMA public TO hidden_from")
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    make = "CREATE TABLE t (id int); ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    with psycopg.connect(url) as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute(f"{make}; SET row_security = off; TABLE t")
    error = translate(refused.value, "t")
    assert isinstance(error, SourceNotAllowedError)
    assert "BYPASSRLS" in str(error)
    assert "BYPASSRLS" in error.next_step
    assert "NO FORCE" not in str(error)


def test_a_wrong_password_is_not_allowed(postgres, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "wrong-secret")
    error = open_source(postgres.url)
    assert isinstance(error, SourceNotAllowedError)
    assert "wrong-secret" not in str(error)


def test_no_password_at_all_is_not_allowed(postgres, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    assert isinstance(open_source(postgres.url), SourceNotAllowedError)


def test_a_password_file_that_others_may_read_is_refused_without_a_warning_of_python(
    postgres, monkeypatch, tmp_path
):
    (tmp_path / "pgpass").touch(mode=0o644)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    error = open_source(postgres.url)
    assert isinstance(error, SourceNotAllowedError)
    assert "chmod 600" in error.next_step


def test_a_database_that_is_not_there_is_gone(postgres):
    assert isinstance(open_source(postgres.url_of("nothing_here")), SourceGoneError)


def test_a_database_that_the_role_may_not_connect_to_names_the_right_that_is_missing(postgres, monkeypatch):
    url = login(postgres, "outside")
    database = url.rpartition("/")[2]
    run_sql(postgres.url, f'REVOKE CONNECT ON DATABASE "{database}" FROM PUBLIC')
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    error = open_source(as_role(url, "outside"))
    assert isinstance(error, SourceNotAllowedError)
    assert str(error).endswith(f'for database "{database}". User does not have CONNECT privilege.')
    assert error.next_step.endswith(f'GRANT CONNECT ON DATABASE "{database}" TO "outside"')


def test_code_that_refuses_a_role_at_login_is_not_taken_for_a_missing_right(postgres, monkeypatch):
    """As an event trigger ON login does from PostgreSQL 17 on."""
    url = login(postgres, "outside")
    run_sql(postgres.url, "ALTER ROLE outside SET local_preload_libraries = 'elsewhere/code'")
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    error = open_source(as_role(url, "outside"))
    assert isinstance(error, SourceNotAllowedError)
    assert 'access to library "elsewhere/code" is not allowed' in str(error)
    assert error.next_step.startswith("code of the database refuses this role")


def test_a_pooler_that_the_server_does_not_let_in_is_not_silent(postgres, monkeypatch):
    """PgBouncer lets clients in before the server has let it in. It names the reason to them, and stays connected."""
    if program() is None:
        pytest.skip("NOT TESTED: PgBouncer is not on this machine")
    url = login(postgres, "outside")
    run_sql(postgres.url, f'REVOKE CONNECT ON DATABASE "{url.rpartition("/")[2]}" FROM PUBLIC')
    with PgBouncer(postgres.port, "wrong") as pooler:
        refused = open_source(pooler.url(url))
    assert "password authentication failed" in str(refused)
    assert "see the pooler's log" in refused.next_step
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 2)
    with PgBouncer(postgres.port, postgres.password, user="outside") as pooler:
        error = open_source(pooler.url(url))
    assert isinstance(error, SourceUnreachableError)
    assert not isinstance(error, SourceSilentError)
    assert "permission denied for database" in str(error)


def test_a_server_that_is_not_there_is_unreachable():
    assert isinstance(open_source("postgresql://me@127.0.0.1:1/db"), SourceUnreachableError)


def test_the_port_of_a_server_that_is_no_postgresql_is_said_to_be_wrong():
    error = translate(psycopg.OperationalError("received invalid response to SSL negotiation: h"), "app")
    assert isinstance(error, SourceUnreachableError)
    assert error.next_step == "a server that is no PostgreSQL listens there: check the port"


def test_a_statement_that_a_standby_ends_names_the_setting_that_keeps_it():
    message = "canceling statement due to conflict with recovery"
    error = translate(psycopg.errors.SerializationFailure(message), "app")
    assert isinstance(error, SourceUnreachableError)
    assert "hot_standby_feedback = on" in error.next_step


def test_a_role_that_may_have_few_sessions_is_sent_to_fewer_workers(postgres, monkeypatch):
    url = login(postgres, "few_at_once", "CONNECTION LIMIT 1")
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    with psycopg.connect(as_role(url, "few_at_once")):
        error = open_source(as_role(url, "few_at_once"))
    assert isinstance(error, SourceUnreachableError)
    assert error.next_step.startswith("add --workers 1, or end other sessions of the role")


def test_a_snapshot_that_is_gone_with_its_session_is_lost(postgres):
    with pytest.raises(psycopg.Error) as refused:
        run_sql(postgres.url, begin_statement("00000003-0000001B-1"))
    of_postgres_17 = psycopg.errors.UndefinedObject('snapshot "00000003-0000001B-1" does not exist')
    for error in (refused.value, of_postgres_17):
        assert isinstance(translate(error, "app"), SourceSnapshotLostError)
    other = translate(psycopg.errors.UndefinedObject('type "money" does not exist'), "app")
    assert not isinstance(other, SourceUnreachableError)


def test_a_wrong_url_is_a_usage_error():
    assert isinstance(open_source("postgresql://host:port:port/db?nonsense=1"), SourceUsageError)


def test_a_newer_server_than_any_pg_dump_is_a_usage_error():
    with pytest.raises(SourceUsageError, match="PostgreSQL 99"):
        find_tools(99)


def test_a_pg_dump_without_its_pg_restore_is_none(monkeypatch, postgres, tmp_path):
    (tmp_path / "pg_dump").symlink_to(postgres.bin_dir / "pg_dump")
    monkeypatch.setattr("exporters.postgres.definitions.dump_programs._directories", lambda: [tmp_path])
    with pytest.raises(SourceUsageError, match="no pg_dump with its pg_restore") as caught:
        find_tools(12)
    assert "pg_restore" in caught.value.next_step


def test_rows_hidden_by_a_policy_are_never_left_out_in_silence(postgres, tmp_path, monkeypatch):
    url = login(postgres, "limited")
    run_sql(
        url,
        "CREATE TABLE secret AS SELECT 1 AS x; ALTER TABLE secret ENABLE ROW LEVEL SECURITY;"
        "GRANT SELECT ON secret TO limited; CREATE POLICY none ON secret USING (false)",
    )
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    with pytest.raises(SourceNotAllowedError, match=r"no table \(1 in all\)"):
        export_database(as_role(url, "limited"), tmp_path / "nothing")
    run_sql(url, "CREATE TABLE open AS SELECT 1 AS x; GRANT SELECT ON open TO limited")
    outcome = export_database(as_role(url, "limited"), tmp_path / "bundle")
    assert (outcome.exit_code, outcome.sources[0].items) == (3, 1)
    assert [gap.item for gap in outcome.sources[0].gaps] == ['"public"."secret"']


@pytest.mark.parametrize(
    "name",
    ["host=127.0.0.1 port=1 dbname=x", pytest.param('it\'s \\ "odd"', marks=pytest.mark.torture)],
)
def test_a_database_whose_name_looks_like_a_server_sends_no_program_there(postgres, tmp_path, name):
    """Whoever names a database would get the password of the one who exports it."""
    quoted = quote_name(name)
    run_sql(postgres.url, f"DROP DATABASE IF EXISTS {quoted}")
    run_sql(postgres.url, f"CREATE DATABASE {quoted} TEMPLATE template0")
    url = postgres.url_of(quote(name, safe=""))
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS x")
    try:
        assert export_database(url, tmp_path / "bundle").complete
        assert (tmp_path / "bundle/data/app/schema/globals.sql").exists()
    finally:
        run_sql(postgres.url, f"DROP DATABASE {quoted} WITH (FORCE)")


def test_what_a_damaged_server_has_lost_does_not_stop_the_rest(postgres, other_postgres, tmp_path):
    url = postgres.database()
    run_sql(
        url,
        "CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE lost AS SELECT 1 AS x; CREATE TABLE z AS SELECT 1 AS x;"
        "CREATE SEQUENCE here; CREATE SEQUENCE gone",
    )
    run_sql(url, "CHECKPOINT")
    for name in ("lost", "gone"):
        path = fetch(
            url, f"SELECT current_setting('data_directory') || '/' || pg_relation_filepath('{name}')"
        )
        run_sql(url, f"COPY (SELECT WHERE false) TO PROGRAM 'rm {path[0][0]}'")
    outcome = export_database(url, tmp_path / "bundle")
    assert outcome.exit_code == 3
    assert [gap.item for gap in outcome.sources[0].gaps] == ['"public"."lost"', 'sequence "public"."gone"']
    reader = read_bundle(tmp_path / "bundle")
    assert {row.name: row.items for row in reader.catalog()} == {"a": 1, "lost": 0, "z": 1}
    restored = restore_from(reader, "app", other_postgres.database())
    assert restored.findings == ()
    assert [one.partition(":")[0] for one in restored.left_out] == [
        'the bundle itself lacks "public"."lost"',
        'the bundle itself lacks sequence "public"."gone"',
    ]


def test_sequences_and_large_objects_that_may_not_be_read_are_gaps_with_their_names(
    postgres, tmp_path, monkeypatch
):
    url = login(postgres, "counter")
    run_sql(
        url,
        "CREATE TABLE open AS SELECT 1 AS x; CREATE SEQUENCE own; CREATE SEQUENCE closed;"
        "ALTER TABLE open ADD y serial;"
        "GRANT SELECT ON open, own TO counter;"
        "SELECT lo_from_bytea(1, 'all'), lo_from_bytea(2, 'mine'), lo_from_bytea(3, 'closed'), lo_from_bytea(4, '');"
        "GRANT SELECT ON LARGE OBJECT 1 TO PUBLIC; GRANT SELECT ON LARGE OBJECT 2 TO counter;"
        "GRANT UPDATE ON LARGE OBJECT 3 TO counter; ALTER LARGE OBJECT 4 OWNER TO counter",
    )
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    outcome = export_database(as_role(url, "counter"), tmp_path / "bundle")
    assert [gap.item for gap in outcome.sources[0].gaps] == [
        "large object 3",
        'sequence "public"."closed"',
        'sequence "public"."open_y_seq"',
    ]
    large = pq.read_table(
        tmp_path / "bundle/data/app/tables/0000.pg_catalog.pg_largeobject/part-000000.parquet"
    )
    assert large["oid"].to_pylist() == [1, 2, 4]
    values = (tmp_path / "bundle/data/app/schema/sequences.json").read_text()
    assert "own" in values
    assert "closed" not in values


def test_a_table_that_may_not_be_read_is_a_gap_with_its_name(postgres, tmp_path, monkeypatch):
    url = login(postgres, "partial")
    run_sql(
        url,
        "CREATE TABLE open AS SELECT 1 AS x; CREATE TABLE closed AS SELECT 1 AS x; GRANT SELECT ON open TO partial",
    )
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    source = PostgresExporter().open("app", as_role(url, "partial"), NoBuckets())
    assert any("closed" in warning for warning in source.survey().warnings)
    outcome = export([source], open_location(str(tmp_path / "bundle")), workers=1, progress=Silent())
    assert not outcome.complete
    assert any("closed" in gap.item for gap in outcome.sources[0].gaps)


def test_a_destination_that_is_not_empty_is_refused_by_a_tables_name(torture_bundle, other_postgres):
    url = other_postgres.database()
    run_sql(url, "CREATE TABLE precious AS SELECT 1 AS x")
    with pytest.raises(NotEmptyError, match=r"public\.precious"):
        restore_from(torture_bundle, "app", url, workers=2)
    assert fetch(url, "SELECT x FROM precious") == [(1,)]


def test_large_objects_of_the_destination_are_never_written_over(exported, other_postgres):
    _, reader = exported("CREATE TABLE t AS SELECT 1 AS x; SELECT lo_from_bytea(5000, 'new')")
    destination = other_postgres.database()
    run_sql(destination, "SELECT lo_from_bytea(5000, 'precious')")
    for options in ({}, {"merge": True}, {"only": ["data"]}):
        if "only" in options:
            run_sql(destination, "CREATE TABLE t (x int)")
        with pytest.raises(NotEmptyError, match="large object 5000"):
            restore_from(reader, "app", destination, **options)
    assert fetch(destination, "SELECT lo_get(5000)") == [(b"precious",)]
    run_sql(destination, "SELECT lo_unlink(5000), lo_from_bytea(5001, 'mine'); DROP TABLE t")
    restore_whole(reader, "app", destination, merge=True)
    assert fetch(destination, "SELECT lo_get(5000), lo_get(5001), x FROM t") == [(b"new", b"mine", 1)]


def test_a_destination_with_another_restore_in_it_is_refused(
    torture_bundle, exported, other_postgres, monkeypatch
):
    _, other = exported("CREATE TABLE t AS SELECT 1 AS x")
    url = other_postgres.database()
    with monkeypatch.context() as patch:
        patch.setattr("migrate.restore.postgres.row_steps.copy_rows", _break)
        with pytest.raises(KeyboardInterrupt):
            restore_from(other, "app", url)
    with pytest.raises(NotEmptyError, match="unfinished restore"):
        restore_from(torture_bundle, "app", url, workers=2)


def _break(*_):
    raise KeyboardInterrupt


def test_an_unknown_source_is_named_with_those_that_are(torture_bundle, other_postgres):
    with pytest.raises(UsageError) as caught:
        restore_from(torture_bundle, "shop", other_postgres.url)
    assert "app" in caught.value.next_step


def test_definitions_that_fail_leave_nothing_behind(exported, other_postgres):
    _, reader = exported("CREATE SCHEMA clash; CREATE TABLE clash.t AS SELECT 1 AS x")
    url = other_postgres.database()
    run_sql(url, "CREATE SCHEMA clash")
    with pytest.raises(UsageError, match="clash"):
        restore_from(reader, "app", url, merge=True)
    assert fetch(url, "SELECT count(*) FROM pg_namespace WHERE nspname = 'moveout_restore'") == [(0,)]


def test_owners_are_left_out_and_noted_where_the_destination_does_not_permit_them(
    postgres, other_postgres, tmp_path, monkeypatch
):
    url = login(postgres, "proprietor")
    run_sql(
        url,
        "CREATE TABLE t AS SELECT 1 AS x; ALTER TABLE t OWNER TO proprietor; CREATE INDEX ON t (x);"
        "DROP ROLE IF EXISTS only_there; CREATE ROLE only_there; GRANT SELECT ON t TO pg_monitor, only_there;"
        "CREATE FUNCTION of_few() RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON FUNCTION of_few() FROM PUBLIC;"
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO pg_monitor",
    )
    export_database(url, tmp_path / "bundle")
    run_sql(url, "DROP OWNED BY only_there; DROP ROLE only_there")
    destination = login(other_postgres, "tenant")
    run_sql(
        destination,
        f"ALTER DATABASE {destination.rpartition('/')[2]} OWNER TO tenant; ALTER SCHEMA public OWNER TO tenant",
    )
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", as_role(destination, "tenant"))
    assert outcome.findings == outcome.left_out == ()
    assert any("owners were left out" in note for note in outcome.notes)
    (note,) = (note for note in outcome.notes if note.startswith("privileges that could not be given, "))
    assert "TO only_there of ACL public.TABLE t" in note
    assert "DEFAULT PRIVILEGES FOR TABLES" in note
    query = (
        "SELECT has_table_privilege({0}, 't', 'SELECT'), has_function_privilege({0}, 'of_few()', 'EXECUTE')"
    )
    assert fetch(destination, query.format("'pg_monitor'")) == [(True, False)]


def test_what_an_older_server_does_not_understand_is_left_out_by_name(exported, other_postgres):
    _, reader = exported(
        "CREATE TABLE t AS SELECT 1 AS x; CREATE VIEW v AS SELECT x FROM t; CREATE VIEW w AS SELECT x FROM v;"
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    )
    real = Definitions.section

    def restored_with(old: bytes, new: bytes, where: str = "", **options):
        def section(self, name, *, portable):
            return real(self, name, portable=portable).replace(old, new)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Definitions, "section", section)
            return restore_from(reader, "app", where or destination, **options)

    destination = other_postgres.database()
    run_sql(destination, "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'")
    with pytest.raises(UsageError, match="already exists"):
        restored_with(b"CREATE VIEW public.v AS", b"CREATE VIEW public.v NEWER AS", merge=True)
    run_sql(destination, "DROP FUNCTION f()")
    other = other_postgres.database()
    outcome = restored_with(b"x integer", b"x integer NEWER", other)
    kept = [one.partition(":")[0] for one in outcome.left_out]
    assert kept == ["TABLE public.t", "VIEW public.v", "VIEW public.w", 'the rows of "public"."t"']
    assert fetch(other, "SELECT public.f()") == [(1,)]
    outcome = restored_with(b"CREATE VIEW public.v AS", b"CREATE VIEW public.v NEWER AS")
    assert outcome.findings == ()
    assert [one.partition(":")[0] for one in outcome.left_out] == ["VIEW public.v", "VIEW public.w"]
    assert fetch(destination, "SELECT x, public.f() FROM t") == [(1, 1)]


def test_missing_roles_are_made_without_a_password(postgres, other_postgres, tmp_path):
    url = login(postgres, "founder", "CREATEDB")
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS x; ALTER TABLE t OWNER TO founder")
    export_database(url, tmp_path / "bundle")
    destination = other_postgres.database()
    outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", destination)
    assert any("founder" in note for note in outcome.notes)
    query = "SELECT rolcanlogin, rolcreatedb, rolpassword FROM pg_authid WHERE rolname = 'founder'"
    assert fetch(destination, query) == [(True, True, None)]
    assert fetch(destination, "SELECT tableowner FROM pg_tables WHERE tablename = 't'") == [("founder",)]


def test_no_secret_is_in_the_bundle(postgres, tmp_path, monkeypatch):
    url = login(postgres, "unmapped")
    run_sql(
        url,
        "CREATE TABLE t AS SELECT 1 AS x; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        "CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (\"user\" 'me', password 'hun''ter\\2')",
    )
    export_database(url, tmp_path / "bundle")
    for file in (tmp_path / "bundle").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert postgres.password.encode() not in data
            assert b"hun''ter" not in data
    script = (tmp_path / "bundle/data/app/schema/pre-data.sql").read_text()
    assert "password ''" in script
    assert "\"user\" 'me'" in script
    item = "user mapping for public on foreign server s"
    losses = {
        (loss.item, loss.property): loss.reason for _, loss in read_bundle(tmp_path / "bundle").losses()
    }
    assert losses[item, "option"].startswith("password is left out")

    run_sql(
        url,
        "GRANT SELECT ON t TO unmapped; CREATE USER MAPPING FOR unmapped SERVER s;"
        "GRANT USAGE ON FOREIGN SERVER s TO unmapped",
    )
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    outcome = export_database(url.replace("postgres@", "unmapped@"), tmp_path / "other")
    assert [gap.item for gap in outcome.sources[0].gaps] == [f"the options of the {item}"]


def test_code_that_gives_passwords_keeps_its_text(postgres, other_postgres, tmp_path):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(
        url,
        "CREATE TABLE t AS SELECT 1 AS x; CREATE FUNCTION mapped() RETURNS text LANGUAGE sql AS $$ SELECT '\n"
        "CREATE USER MAPPING FOR me SERVER s OPTIONS (\n    password ''x''\n);\n"
        "ALTER ROLE me SET app.password TO ''x'';\n' $$",
    )
    assert export_database(url, tmp_path / "bundle").complete
    assert restore_from(read_bundle(tmp_path / "bundle"), "app", destination).left_out == ()
    query = "SELECT prosrc FROM pg_proc WHERE proname = 'mapped'"
    assert fetch(destination, query) == fetch(url, query)


def test_pg_dump_ends_when_the_export_does(tmp_path):
    """It runs while rows are read, and a server may let it wait for long."""
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\nexec sleep 300\n")
    program.chmod(0o755)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(SourceError, match="pg_dump failed"):
        dump_definitions(Tools(tmp_path, 15), os.environ, "snapshot", stop=stop)
    assert time.monotonic() - began < 60


@contextmanager
def of_a_snapshot(server, url):
    """Make a table, and yield what dumps the definitions as of a snapshot that is held meanwhile."""
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS x")
    address = parse_url(url)
    with connect(address) as holder:
        environment = address.environment(holder)
        tools = find_tools(holder.info.server_version // 10000)
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        ((snapshot,),) = holder.execute("SELECT pg_export_snapshot()").fetchall()
        yield partial(dump_definitions, tools, environment, snapshot, lock_seconds=100)


def test_pg_dump_ends_where_the_network_drops_its_connection_and_waits_for_a_statement_that_takes_long(
    postgres, monkeypatch
):
    """While it waits for a lock, the packets that come for it are dropped before the system sees them."""
    options = "keepalives_idle=1 keepalives_interval=1 keepalives_count=2 tcp_user_timeout=3000"
    monkeypatch.setattr(pg_dump, "_ENDS_WHEN_DROPPED", options)
    monkeypatch.setattr(pg_dump, "_AGAIN_SECONDS", ())
    url = postgres.database()
    about = parse_url(url).url
    with of_a_snapshot(postgres, url) as dump, psycopg.connect(url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        dumping = pool.submit(dump, about=about)
        eventually(lambda: fetch(url, "SELECT pid FROM pg_locks WHERE NOT granted"))
        time.sleep(6)
        assert not dumping.done(), "the server is busy with its statement"
        begun = time.monotonic()
        drop_what_comes_for(child_of(os.getpid(), "pg_dump"))
        with pytest.raises(SourceUnreachableError, match="pg_dump: ") as caught:
            dumping.result(30)
        assert time.monotonic() - begun < 20
    assert caught.value.about == about
    assert "run the same command again" in caught.value.next_step


def test_pg_dump_is_run_again_where_its_session_is_ended(postgres, monkeypatch):
    monkeypatch.setattr(pg_dump, "_AGAIN_SECONDS", (0.1,))
    url = postgres.database()
    waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with of_a_snapshot(postgres, url) as dump, psycopg.connect(url) as other, ThreadPoolExecutor(1) as pool:

        def dumped(kills):
            other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
            dumping = pool.submit(dump)
            for _ in range(kills):
                eventually(lambda: fetch(url, f"SELECT pid {waiting}"))
                ended = fetch(url, f"SELECT pid, pg_terminate_backend(pid) {waiting}")[0][0]
                eventually(lambda ended=ended: (ended,) not in fetch(url, f"SELECT pid {waiting}"))
            other.rollback()
            return dumping.result(60)

        assert b"CREATE TABLE public.t" in dumped(kills=1)
        with pytest.raises(SourceUnreachableError, match="terminating connection"):
            dumped(kills=2)


def test_pg_dump_is_not_run_again_where_its_login_is_refused(postgres, monkeypatch):
    url, runs, run_once = postgres.database(), [], pg_dump._ran

    def ran(*arguments):
        runs.append(arguments)
        return run_once(*arguments)

    monkeypatch.setattr(pg_dump, "_ran", ran)
    with of_a_snapshot(postgres, url) as dump:
        postgres.execute(f"ALTER DATABASE {url.rpartition('/')[2]} ALLOW_CONNECTIONS false")
        with pytest.raises(SourceUnreachableError, match="not currently accepting connections"):
            dump()
    assert len(runs) == 1


def test_an_idle_feed_whose_session_is_ended_is_tried_again(postgres):
    """The driver has read that it is ended, and not yet the end of the connection."""
    url = postgres.database()
    with open_snapshot(parse_url(url)) as (session, _):
        feed = open_feed(session)
        sessions = f"FROM pg_stat_activity WHERE pid = {feed._connection.get_server_pid()}"
        fetch(url, f"SELECT pg_terminate_backend(pid) {sessions}")
        eventually(lambda: not fetch(url, f"SELECT pid {sessions}"))
        feed._loop.call_soon(feed._loop.stop)
        feed._loop.run_forever()
        with pytest.raises(SourceUnreachableError):
            feed.execute("SELECT 1")
        feed.close()


def child_of(parent, name):
    """Return the number of a child process."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "stat").read_text().rsplit(")", 1)
            if words[0].endswith(f"({name}") and words[1].split()[1] == str(parent):
                return int(process.name)
    raise AssertionError(name)


def drop_what_comes_for(process):
    """Drop all packets that come for a child's sockets; see ``tests.exporters.connections``."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.pidfd_open(process)
    try:
        for link in Path(f"/proc/{process}/fd").iterdir():
            if str(link.readlink()).startswith("socket:"):
                number = libc.syscall(PIDFD_GETFD, handle, int(link.name), 0)
                assert number >= 0, os.strerror(ctypes.get_errno())
                drop_what_comes(number)
                os.close(number)
    finally:
        os.close(handle)


def test_a_pg_restore_that_is_slow_to_read_gets_all_of_its_input(tmp_path):
    """On a machine under load it began to read after half a second, and then waited for the rest for ever."""
    program = tmp_path / "pg_restore"
    program.write_text("#!/bin/sh\nsleep 2\nexec cat\n")
    program.chmod(0o755)
    definitions = b"SELECT 1;\n" * 50_000
    assert section_of(Tools(tmp_path, 15), os.environ, definitions, "pre-data", portable=False) == definitions


def test_a_program_whose_first_statements_a_timeout_of_the_role_cancels_is_run_again(tmp_path):
    """A pooler may keep options from the server, and the program switches the timeout off too late."""
    runs, program = tmp_path / "runs", tmp_path / "pg_dump"
    message = "pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout"
    program.write_text(
        f"#!/bin/sh\necho run >> {runs}\n"
        f'[ $(wc -l < {runs}) -gt 5 ] && exec echo definitions\necho "{message}" >&2\nexit 1\n'
    )
    program.chmod(0o700)
    tools = Tools(tmp_path, 17)
    assert dump_definitions(tools, dict(os.environ), "00000003-1") == b"definitions\n"
