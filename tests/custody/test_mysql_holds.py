"""Holds on MariaDB and MySQL, on the real servers: one database where the server has such a mode, else the server;
an undo puts every setting back as it was.
"""

import re
import secrets
import threading
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import pymysql
import pytest

from exporters.errors import SourceUnreachableError
from exporters.mysql.connection import connect, parse_url
from exporters.mysql.definitions.event_status import may_be_held
from migrate.custody.source_holds.mysql import DatabaseHold, Server, ServerHold
from tests.cli.conftest import call
from tests.custody.holding import killed_everywhere
from tests.exporters.mysql.databases import fetch, run_sql
from tests.tools.bundles import read_bundle
from tests.tools.mysql_settings import global_settings, kept_settings
from tests.tools.waiting import eventually

_SCRIPT = """
CREATE TABLE posts (id int PRIMARY KEY, text text);
CREATE TABLE notes (id int, text text);
CREATE SQL SECURITY INVOKER VIEW seen AS SELECT * FROM posts;
CREATE DEFINER = CURRENT_USER PROCEDURE add_post(one int) INSERT INTO posts VALUES (one, '');
CREATE DEFINER = CURRENT_USER EVENT sweep ON SCHEDULE EVERY 1 DAY COMMENT 'x' DO DELETE FROM posts;
CREATE DEFINER = CURRENT_USER EVENT idle ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM posts;
CREATE USER app@'%' IDENTIFIED BY 'x', reader@'%' IDENTIFIED BY 'x', part@'%' IDENTIFIED BY 'x';
GRANT ALL ON {name}.* TO app@'%' WITH GRANT OPTION;
GRANT ALL ON {other}.* TO app@'%';
GRANT SELECT, SHOW VIEW ON {name}.* TO reader@'%';
GRANT INSERT ON {name}.* TO part@'%';
GRANT SELECT, UPDATE, TRIGGER ON {name}.notes TO part@'%';
GRANT INSERT (id), UPDATE (text), SELECT (id) ON {name}.posts TO part@'%';
GRANT EXECUTE, ALTER ROUTINE ON PROCEDURE {name}.add_post TO part@'%';
"""


@dataclass
class Shop:
    """A database beside another one, on a server whose accounts are ``names``."""

    server: object
    url: str
    other: str
    names: dict[str, str]

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def other_name(self) -> str:
        return self.other.rpartition("/")[2]

    def databases(self) -> set[str]:
        """All of the server."""
        with self.server.connect() as session, session.cursor() as cursor:
            cursor.execute("SHOW DATABASES")
            return {row[0] for row in cursor.fetchall()}

    def sql(self, text: str) -> str:
        """A statement with the accounts' names in it."""
        for word, name in self.names.items():
            text = text.replace(f"{word}@'%'", f"{name}@'%'")
        return text.replace("{name}", self.name).replace("{other}", self.other_name)

    def run(self, text: str) -> None:
        run_sql(self.url, self.sql(text))

    def login(self, who: str, database: str | None = None, **more) -> pymysql.Connection:
        server = self.server
        return pymysql.connect(
            host=server.host, port=server.port, user=self.names[who], password="x",
            database=database or self.name, ssl_disabled=True, **{"autocommit": True, **more},
        )  # fmt: skip

    def grants(self) -> dict[str, list[str]]:
        with self.server.connect() as session, session.cursor() as cursor:
            found = {}
            for name in self.names.values():
                cursor.execute(f"SHOW GRANTS FOR {name}@'%'")
                found[name] = sorted(row[0] for row in cursor.fetchall())
            cursor.execute(
                "SELECT event_name, status, definer, sql_mode, time_zone, event_definition, interval_value, starts,"
                " event_comment, character_set_client, collation_connection, on_completion"
                f" FROM information_schema.events WHERE event_schema = '{self.name}' ORDER BY 1"
            )
            return found | {"events": [str(row) for row in cursor.fetchall()]}


@pytest.fixture
def shop(mariadb):
    with shop_on(mariadb) as made:
        yield made


@contextmanager
def shop_on(server):
    suffix = secrets.token_hex(4)
    shop = Shop(
        server,
        server.database(),
        server.database(),
        {name: f"{name}_{suffix}" for name in ("app", "reader", "part")},
    )
    run_sql(shop.other, "CREATE TABLE posts (id int)")
    shop.run(_SCRIPT)
    yield shop
    shop.run("DROP USER app@'%', reader@'%', part@'%'")


def test_one_database_of_several_is_not_held_but_the_administrator_gets_the_sql(shop, tmp_path):
    words = (
        "hold",
        "source",
        f"app={shop.url}",
        "--reason",
        "asked",
        "--undo",
        tmp_path / "undo.json",
        "--yes",
    )
    before = shop.grants()
    result = call(*words)
    assert (result.code, (tmp_path / "undo.json").exists()) == (2, False)
    assert "cannot make one database read-only" in result.err
    others = re.search(r"it also has (.+?)(?: and \d+ more)?$", result.err, re.MULTILINE)
    assert others, result.err
    named = set(others[1].split(", "))
    assert named <= shop.databases() - {shop.name}
    assert shop.other_name in named or " more" in others[0]  # the first few of a server's databases
    assert "--whole-server" in result.err
    locks = [f"ALTER USER '{shop.names[who]}'@'%' ACCOUNT LOCK;" for who in ("app", "part")]
    assert [one in result.err for one in locks] == [True, True], result.err
    assert shop.names["reader"] not in result.err
    assert shop.grants() == before
    shop.run(locks[0])
    with pytest.raises(pymysql.err.OperationalError, match="locked"):
        shop.login("app")


def test_a_mariadb_server_becomes_read_only_where_that_is_meant(shop, tmp_path):
    path, before = tmp_path / "undo.json", shop.grants()
    words = ("hold", "source", f"app={shop.url}", "--reason", "asked", "--undo", path, "--yes")
    with kept_settings(shop.url, names=["read_only"]), shop.login("app", shop.other_name) as session:
        held = call(*words, "--whole-server")
        assert (held.code, "SET GLOBAL read_only = ON" in held.out) == (0, True), held.out + held.err
        assert "moveout@127.0.0.1" in held.out
        assert "these databases of the server are read-only too" in held.out
        with session.cursor() as cursor, pytest.raises(pymysql.err.Error, match="read-only"):
            cursor.execute("INSERT INTO posts VALUES (1)")
        assert call(*words).code == 0  # what is meant stands in the file
        assert call("export", f"app={shop.url}", "--to", tmp_path / "bundle").code == 0
        losses = [(loss.item, loss.property) for _, loss in read_bundle(tmp_path / "bundle").losses()]
        assert [item for item, kind in losses if kind == "status"] == ["event `idle`", "event `sweep`"]
        assert call("hold", "undo", path, "--yes").code == 0
        with session.cursor() as cursor:
            cursor.execute("INSERT INTO posts VALUES (2)")
        assert shop.grants() == before


def test_a_statement_that_keeps_a_server_from_becoming_read_only_is_named(shop, monkeypatch):
    """Whoever writes meanwhile waits behind the hold. Who only reads is in nobody's way, and not to be ended."""
    monkeypatch.setattr("migrate.custody.source_holds.mysql._LOCK_SECONDS", 1)
    shop.run("INSERT INTO notes VALUES (1, '')")
    with (
        kept_settings(shop.url, names=["read_only"]),
        closing(ServerHold(Server(parse_url(shop.url)))) as one,
        shop.server.connect(shop.name) as session,
        shop.server.connect(shop.name) as reader,
    ):
        number, other = session.thread_id(), reader.thread_id()

        def run_slowly(connection, statement):
            with suppress(pymysql.err.OperationalError), connection.cursor() as cursor:
                cursor.execute(statement)

        running = [
            threading.Thread(target=run_slowly, args=(reader, "SELECT SLEEP(60) FROM notes")),
            threading.Thread(target=run_slowly, args=(session, "UPDATE notes SET text = SLEEP(60)")),
        ]
        for thread in running:
            thread.start()
        listed = f"FROM information_schema.PROCESSLIST WHERE ID IN ({number}, {other}) AND TIME >= 1"
        eventually(lambda: len(fetch(shop.url, f"SELECT ID {listed}")) == len(running))
        with pytest.raises(SourceUnreachableError, match=rf"\(KILL {number};\)") as refused:
            one.write("read_only", "ON")
        assert f"KILL {other};" not in str(refused.value)
        run_sql(shop.url, f"KILL {number}")
        run_sql(shop.url, f"KILL {other}")
        for thread in running:
            thread.join()


@pytest.mark.parametrize("late", [False, True])
def test_killed_anywhere_it_is_finished_or_undone(shop, tmp_path, late):
    before, one = shop.grants(), ServerHold(Server(parse_url(shop.url)))
    with kept_settings(shop.url, names=["read_only"]), closing(one):
        killed_everywhere(tmp_path / "undo.json", one, late=late)
    assert shop.grants() == before


@pytest.mark.torture
def test_a_mysql_database_becomes_read_only_and_no_other(mysql, tmp_path, monkeypatch):
    """Its events are disabled before: the first one that is due in it would end the scheduler of the whole server."""
    url, other, path = mysql.database(), mysql.database(), tmp_path / "undo.json"
    name = url.rpartition("/")[2]
    run_sql(url, "CREATE TABLE posts (id int); CREATE EVENT tick ON SCHEDULE EVERY 1 SECOND DO SELECT 1")
    run_sql(other, "CREATE TABLE posts (id int)")
    one = DatabaseHold(Server(parse_url(url)))
    for late in (False, True):
        killed_everywhere(path, one, late=late)
    one.close()
    words = ("hold", "source", f"app={url}", "--reason", "asked", "--undo", path, "--yes")
    statuses = f"SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = '{name}'"
    with (
        global_settings(mysql.url, event_scheduler="ON"),
        mysql.connect(name) as session,
        session.cursor() as cursor,
    ):
        monkeypatch.setattr("migrate.custody.source_holds.mysql._LOCK_SECONDS", 1)
        session.begin()
        cursor.execute("SELECT * FROM posts")
        refused = call(*words)
        assert (refused.code, f"(KILL {session.thread_id()};)" in refused.err) == (5, True), refused.err
        session.rollback()
        held = call(*words)
        assert (held.code, "READ ONLY = 1" in held.out) == (0, True), held.out + held.err
        with pytest.raises(pymysql.err.Error, match="read only"):
            cursor.execute("INSERT INTO posts VALUES (1)")  # even an administrator's session, opened before
        run_sql(other, "INSERT INTO posts VALUES (1)")
        assert fetch(url, statuses) == [("DISABLED",)]
        assert [is_held(database) for database in (url, other)] == [True, False]
        assert call("export", f"app={url}", "--to", tmp_path / "bundle").code == 0
        assert call("hold", "undo", path, "--yes").code == 0
        assert fetch(url, statuses) == [("ENABLED",)]
        cursor.execute("INSERT INTO posts VALUES (2)")


def is_held(url: str) -> bool:
    with closing(connect(parse_url(url))) as connection:
        return may_be_held(connection)


@pytest.mark.torture
@pytest.mark.parametrize("late", [False, True])
def test_what_servers_before_that_mode_have_works_on_mysql_too(mysql, tmp_path, late):
    with shop_on(mysql) as shop:
        before = shop.grants()
        one = ServerHold(Server(parse_url(shop.url)))
        killed_everywhere(tmp_path / "undo.json", one, late=late)
        one.close()
        assert shop.grants() == before


@pytest.mark.torture
def test_what_an_account_lacks_for_events_of_others_is_named(mysql, tmp_path, monkeypatch):
    url = mysql.database()
    name, account = url.rpartition("/")[2], f"few_{url[-8:]}"
    run_sql(
        url,
        "CREATE TABLE posts (id int); CREATE EVENT tick ON SCHEDULE EVERY 1 DAY DO SELECT 1;"
        f" CREATE USER {account} IDENTIFIED BY 'Few-rights-1';"
        f" GRANT ALL ON {name}.* TO {account}",
    )
    with monkeypatch.context() as patch:
        patch.setenv("MYSQL_PWD", "Few-rights-1")
        few = url.replace("//moveout@", f"//{account}@")
        held = call(
            "hold", "source", f"app={few}", "--reason", "asked", "--undo", tmp_path / "undo.json", "--yes"
        )
    assert held.code == 4, held
    assert f"GRANT SET_ANY_DEFINER ON *.* TO '{account}'@'%';" in held.err
    run_sql(url, f"DROP USER {account}; INSERT INTO posts VALUES (1)")
