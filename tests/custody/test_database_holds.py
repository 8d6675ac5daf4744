"""Holds on databases, on the real servers: who goes on writing is refused, what a hold cannot do is said, and an undo
puts everything back.
"""

import contextlib
import json
import re
import secrets
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from exporters.errors import SourceError, SourceUnreachableError
from migrate.custody.source_holds import source_hold, undo_file
from migrate.custody.source_holds.mysql import ServerHold
from migrate.custody.source_holds.postgres import PostgresHold
from migrate.custody.source_holds.sqlite import SqliteHold
from migrate.errors import BusyError, DamageError, NotAllowedError, UsageError
from tests.cli.conftest import call
from tests.custody.holding import killed_everywhere, place, take_back
from tests.exporters.postgres.databases import as_role, login
from tests.tools.mysql_settings import kept_settings
from tests.tools.waiting import be_impatient, eventually


@pytest.fixture
def database(postgres):
    """A database, and a role that writes into it by a setting of its own: (URL, the role)."""
    url, role = postgres.database(), f"app_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"ALTER ROLE {role} SET default_transaction_read_only = off")
        connection.execute("CREATE TABLE posts (id int)")
    yield url, role
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE {role}")


SETTINGS = """
SELECT coalesce(r.rolname, ''), setdatabase = d.oid, setconfig
FROM pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole, pg_database d
WHERE datname = current_database() AND setdatabase IN (0, d.oid) ORDER BY 1, 2
"""


BEGINNING = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'object' AND mode = 'RowExclusiveLock' AND classid = 'pg_database'::regclass
  AND objid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def settings_of(url):
    with psycopg.connect(url) as connection:
        return connection.execute(SETTINGS).fetchall()


@pytest.mark.parametrize("kind", ["postgres", pytest.param("mariadb", marks=pytest.mark.torture)])
def test_a_server_that_falls_silent_ends_a_hold_and_its_undo(request, kind, toxiproxy, tmp_path, monkeypatch):
    """Its connections stay open, so no driver notices. A statement that takes long ends nothing."""
    be_impatient(monkeypatch)
    server = request.getfixturevalue(kind)
    url, path = server.database(), tmp_path / "undo.json"
    proxy = toxiproxy.proxy(url)
    far = re.sub(r":\d+/", f":{proxy.port}/", url)
    monkeypatch.setenv("PGPASSWORD" if kind == "postgres" else "MYSQL_PWD", server.password)
    toxics = []

    def silent(method):
        def fall_silent(*words):
            if not toxics:
                toxics.append(proxy.add("timeout", timeout=0))
            return method(*words)

        return fall_silent

    def slow(method):
        def take_long(hold, *words):
            if not took_long:
                took_long.append(command)
                if kind == "postgres":
                    hold._connection.execute("SELECT pg_sleep(4)")
                else:
                    hold._server.value("SELECT SLEEP(4)")
            return method(hold, *words)

        return take_long

    holds = PostgresHold if kind == "postgres" else ServerHold
    commands = (
        ("hold", "source", f"app={far}", "--reason", "asked", "--undo", path, "--yes", "--whole-server"),
        ("hold", "undo", path, "--yes"),
    )
    with kept_settings(url, names=["read_only"]) if kind == "mariadb" else contextlib.nullcontext():
        for command in commands:
            with monkeypatch.context() as patch:
                patch.setattr(holds, "write", silent(holds.write))
                begun = time.monotonic()
                ended = call(*command)
            assert ended.code == SourceUnreachableError.exit_code, ended.out + ended.err
            assert time.monotonic() - begun < 30
            assert f"127.0.0.1:{proxy.port} has not answered since" in ended.err
            assert f"127.0.0.1:{proxy.port}" in ended.err.splitlines()[-2]
            assert "→ " in ended.err
            proxy.remove(toxics.pop())
            took_long: list[object] = []
            with monkeypatch.context() as patch:
                patch.setattr(holds, "read", slow(holds.read))
                again = call(*command)
            assert again.code == 0, again.out + again.err
            assert took_long
            assert "has not answered" not in again.err
    assert not path.exists()


def test_what_a_role_may_not_do_is_named_with_the_account_that_may(other_postgres):
    url = as_role(login(other_postgres, "bystander"), "bystander")
    with contextlib.closing(PostgresHold(url, {"password": other_postgres.password})) as one:
        with pytest.raises(NotAllowedError, match="permission denied") as refused:
            one._rows("SELECT rolpassword FROM pg_authid")
        assert "use the database's owner" in refused.value.next_step
        with pytest.raises(SourceError, match="division by zero") as failed:
            one._rows("SELECT 1 / 0")
        assert "use the database's owner" not in failed.value.next_step


def test_a_postgresql_database_refuses_who_goes_on_writing(database, tmp_path):
    url, role = database
    path, one, before = tmp_path / "undo.json", PostgresHold(url, secrets={}), settings_of(url)
    older = psycopg.connect(url, autocommit=True, application_name="shop")
    older.execute("BEGIN; INSERT INTO posts VALUES (1); PREPARE TRANSACTION 'of two'")
    try:
        (standing,) = place(path, {"app": one})
        assert [(finding.key.split()[1], finding.found) for finding in standing.findings] == [
            ("session", "postgres shop"), ("prepared", ""),
        ]  # fmt: skip
        older.execute("COMMIT PREPARED 'of two'")  # which writes, whatever the hold says
        assert [row for row in settings_of(url) if row[0] == role and row[1]]
        with psycopg.connect(url, autocommit=True) as fresh:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                fresh.execute("INSERT INTO posts VALUES (1)")
            writes_objects = True
            try:
                fresh.execute("SELECT lo_unlink(lo_from_bytea(0, 'x'))")
            except psycopg.errors.ReadOnlySqlTransaction:
                writes_objects = False
        assert any("large objects can still be written" in note for note in one.limits()) is writes_objects
        older.execute("INSERT INTO posts VALUES (2)")  # which is why it is not held yet
        assert source_hold.close_write_paths({"app": one}, undo_file.read(path)) == 1
        assert source_hold.survey({"app": one}, undo_file.read(path))[0].is_held
        with pytest.raises(psycopg.OperationalError):
            older.execute("SELECT 1")
    finally:
        older.close()
    take_back(path, {"app": one})
    assert settings_of(url) == before
    with psycopg.connect(url) as fresh:
        fresh.execute("INSERT INTO posts VALUES (3)")
    one.close()


def test_a_subscription_is_named_until_it_is_disabled(database, tmp_path):
    """Its worker writes rows without looking at what is read-only."""
    url, _ = database
    path, one = tmp_path / "undo.json", PostgresHold(url, secrets={})
    with contextlib.closing(one), psycopg.connect(url, autocommit=True) as owner:
        owner.execute("SET default_transaction_read_only = off")
        owner.execute(
            "CREATE SUBSCRIPTION taken_in CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false)"
        )
        try:
            owner.execute("ALTER SUBSCRIPTION taken_in ENABLE")
            (standing,) = place(path, {"app": one})
            assert [finding.key for finding in standing.findings if "session" not in finding.key] == [
                "app: subscription taken_in"
            ]
            owner.execute("ALTER SUBSCRIPTION taken_in DISABLE")
            (standing,) = source_hold.survey({"app": one}, undo_file.read(path))
            assert not [finding.key for finding in standing.findings if "session" not in finding.key]
        finally:
            owner.execute("ALTER SUBSCRIPTION taken_in DISABLE")
            owner.execute("ALTER SUBSCRIPTION taken_in SET (slot_name = NONE)")
            owner.execute("DROP SUBSCRIPTION taken_in")
        take_back(path, {"app": one})


def test_a_session_that_began_before_a_hold_and_is_seen_after_it_is_ended(database, tmp_path):
    """It reads its settings, then waits for a second; no view of the server has it before it is ready."""
    url, _ = database
    path, one = tmp_path / "undo.json", PostgresHold(url, secrets={})
    with (
        contextlib.closing(one),
        psycopg.connect(url, autocommit=True) as looks,
        ThreadPoolExecutor(1) as threads,
    ):
        begun = threads.submit(psycopg.connect, url, autocommit=True, options="-c post_auth_delay=1")
        eventually(lambda: looks.execute(BEGINNING).fetchone() == (1,) or begun.done())
        place(path, {"app": one})
        assert (
            source_hold.close_write_paths({"app": one}, undo_file.read(path)) == 2
        )  # and the one that looks
        with contextlib.closing(begun.result()) as session, pytest.raises(psycopg.OperationalError):
            session.execute("INSERT INTO posts VALUES (1)")
        take_back(path, {"app": one})


@pytest.mark.parametrize("late", [False, True])
def test_a_hold_of_a_postgresql_database_that_was_killed_anywhere_is_finished_or_undone(
    database, tmp_path, late
):
    url, role = database
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(
            f"ALTER ROLE {role} IN DATABASE {name} SET default_transaction_read_only = 'false'"
        )
        connection.execute(f"ALTER ROLE {role} IN DATABASE {name} SET work_mem = '7MB'")
    before, one = settings_of(url), PostgresHold(url, secrets={})
    killed_everywhere(tmp_path / "undo.json", one, late=late)
    one.close()
    assert [(a, b, sorted(c)) for a, b, c in settings_of(url)] == [(a, b, sorted(c)) for a, b, c in before]


def test_the_commands_hold_export_and_undo(database, tmp_path):
    url, _ = database
    path, source = tmp_path / "undo.json", f"app={url}"
    words = ("hold", "source", source, "--reason", "the customer leaves", "--undo", path)
    asked = call(*words)
    assert (asked.code, "ALTER DATABASE" in asked.err, path.exists()) == (2, True, False)
    assert call("hold", "status", source).code == 3
    with psycopg.connect(url, application_name="shop"):
        asked = call(*words, "--end-sessions")
        assert ("postgres shop" in asked.err, path.exists()) == (True, False), asked.err
        held = call(*words, "--yes", "--end-sessions")
    assert (held.code, held.out.startswith("HELD: app")) == (0, True), held.out + held.err
    assert call(*words).code == 0  # nothing is left to be asked about
    status = call("hold", "status", path, "--json")
    assert (status.code, status.json["result"]["held"]) == (0, True), status.err
    assert call("hold", "status", source).code == 0
    assert call("export", source, "--to", tmp_path / "bundle").code == 0
    assert call("hold", "undo", path).code == 2
    undone = call("hold", "undo", path, "--yes")
    assert (undone.code, path.exists()) == (0, False), undone.err
    assert call("hold", "status", source).code == 3
    assert call("hold", "undo", path, "--yes").code == 2
    assert call("hold", "source", tmp_path, "--reason", "x", "--yes").code == 2


def test_a_sqlite_file_loses_its_write_permission_and_a_writer_is_named(tmp_path):
    file, path = tmp_path / "data.db", tmp_path / "undo.json"
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE posts (id)")
    file.chmod(0o664)
    program = "import sys; f = open(sys.argv[1], 'r+b'); print(flush=True); sys.stdin.read()"
    writer = subprocess.Popen(
        [sys.executable, "-c", program, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    words = ("hold", "source", f"app=sqlite://{file}", "--reason", "asked", "--undo", path, "--yes")
    try:
        writer.stdout.readline()
        half = call(*words)
        assert (half.code, f"process {writer.pid} has it open" in half.out) == (3, True), half.out + half.err
    finally:
        writer.communicate()
    held = call(*words)
    assert (held.code, f"chmod 0444 {file}" in held.out) == (0, True), held.out + held.err
    elsewhere = call(*words[:-2], tmp_path / "other.json", "--yes")
    assert (elsewhere.code, "app: held before" in elsewhere.out) == (0, True), elsewhere.out
    assert "held before" not in held.out
    assert file.stat().st_mode & 0o777 == 0o444
    assert call("export", f"app=sqlite://{file}", "--to", tmp_path / "bundle").code == 0
    assert call("hold", "undo", path, "--yes").code == 0
    assert file.stat().st_mode & 0o777 == 0o664


def test_settings_of_an_edited_undo_file_reach_no_server(mariadb, minio, bucket, tmp_path):
    path = tmp_path / "undo.json"
    change = {"before": "ON", "after": "OFF", "back": "ON", "says": "", "undo_says": ""}
    edited = change | {"setting": "x'; DROP DATABASE app; --"}
    whole_server = change | {"setting": "read_only", "before": "OFF"}  # else refused for its other databases
    mariadb.database()
    for url, changes in (
        (mariadb.database(), [whole_server, edited]),
        (f"s3://{bucket}/?profile={minio.profile}", [edited]),
    ):
        path.unlink(missing_ok=True)
        undo_file.write(path, undo_file.new("asked"))
        value = json.loads(path.read_text())
        value["sources"] = {"app": {"url": url, "since": None, "changes": changes}}
        path.write_text(json.dumps(value))
        refused = call("hold", "undo", path, "--yes")
        assert (refused.code, 'DROP DATABASE app; --" is not a setting of' in refused.err) == (2, True), (
            refused.err
        )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value | {"kind": "letter"},
        lambda value: value | {"sources": {"app": {"url": 3}}},
        lambda value: value | {"sources": []},
        lambda value: {"kind": value["kind"], "version": 1},
    ],
)
def test_an_undo_file_that_was_changed_is_not_followed(tmp_path, spoil):
    path = tmp_path / "undo.json"
    undo_file.write(path, undo_file.new("asked"))
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    with pytest.raises(DamageError):
        undo_file.read(path)
    assert call("hold", "undo", path, "--yes").code == 6


def test_of_two_runs_at_once_neither_forgets_how_the_other_found_it(tmp_path):
    """The second one has looked when the first had changed all; what it would write says nothing of how it was."""
    path, holds = tmp_path / "undo.json", {}
    for name in ("one", "other"):
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.execute("CREATE TABLE t (a)")
        holds[name] = SqliteHold(f"sqlite://{tmp_path / name}")
    stale = undo_file.new("asked")  # read before there was a file
    assert all(one.is_held for one in place(path, {"one": holds["one"]}))
    with pytest.raises(BusyError, match="how one was"):
        source_hold.place(path, holds, source_hold.planned(path, holds, stale))
    assert not source_hold.survey({"other": holds["other"]}, None)[0].is_held
    early = undo_file.read(path)
    assert all(one.is_held for one in place(path, holds))
    with pytest.raises(BusyError, match="how other was"):
        source_hold.take_back(path, {"one": holds["one"]}, early, force=False)
    take_back(path, holds)
    assert not path.exists()


def test_without_an_undo_file_nothing_is_changed(database, tmp_path):
    url, _ = database
    one, before = PostgresHold(url, secrets={}), settings_of(url)
    with pytest.raises(UsageError, match="nothing was changed"):
        place(tmp_path / "no" / "directory" / "undo.json", {"app": one})
    one.close()
    assert settings_of(url) == before
    assert list(tmp_path.iterdir()) == []


def test_a_role_that_may_not_hold_is_refused_before_anything_is_changed(other_postgres):
    url = login(other_postgres, "holder")
    hold = PostgresHold(as_role(url, "holder"), {"password": other_postgres.password})
    with contextlib.closing(hold):
        with pytest.raises(NotAllowedError, match="only the owner of the database, postgres") as refused:
            source_hold.planned(Path("undo.json"), {"app": hold}, undo_file.new("test"))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(refused.value.next_step)
            with pytest.raises(NotAllowedError, match="see and end the sessions of postgres"):
                source_hold.planned(Path("undo.json"), {"app": hold}, undo_file.new("test"))
        database, one_left = (
            url.rpartition("/")[2],
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = %s",
        )
        with psycopg.connect(
            other_postgres.url
        ) as connection:  # the other session ends a moment after its client
            eventually(lambda: connection.execute(one_left, (database,)).fetchone()[0])
        plan = source_hold.planned(Path("undo.json"), {"app": hold}, undo_file.new("test"))
        login(other_postgres, "hidden")
        hidden = {"conninfo": as_role(url, "hidden"), "password": other_postgres.password}
        with psycopg.connect(**hidden) as older:
            since = hold.mark()
            with psycopg.connect(**hidden):
                (path,) = [path for path in hold.open_write_paths(since) if path.key.startswith("session")]
            assert path.key == f"session {older.info.backend_pid}"
        assert (path.found, bool(plan.sources["app"].changes)) == ("hidden", True)
