"""Holds on MariaDB and MySQL, on the real servers: one database of several that nobody writes into, or a whole server;
what may still write is named, and an undo puts every privilege back as it was.
"""

import secrets
from contextlib import contextmanager
from dataclasses import dataclass

import pymysql
import pytest

from exporters.errors import SourceNotAllowedError
from exporters.mysql.connection import parse_url
from migrate.custody.hold.sources.contract import Wish
from migrate.custody.hold.sources.mysql import DatabaseHold, ServerHold, open_hold
from migrate.custody.hold.sources.mysql_accounts import AccountsHold
from migrate.custody.hold.sources.mysql_rights import Right, parse
from migrate.custody.hold.sources.mysql_server import Server
from tests.cli.conftest import call
from tests.custody.holding import killed_everywhere, place, take_back
from tests.mysql.databases import run_sql

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
_REFUSED = {1044, 1142, 1143, 1370}
"""Error numbers of privileges that somebody has not (MySQL error reference)."""
_WRITES = {
    "app": ("INSERT INTO posts VALUES (9, '')", "DROP TABLE notes", "CREATE TABLE more (id int)", "CALL add_post(8)",
            "DROP EVENT sweep",
            "GRANT INSERT ON posts TO reader@'%'"),
    "part": ("INSERT INTO notes VALUES (1, '')", "UPDATE notes SET text = ''", "INSERT INTO posts (id) VALUES (7)",
             "UPDATE posts SET text = ''", "CALL add_post(8)", "DROP PROCEDURE add_post"),
}  # fmt: skip


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


def refusals(session: pymysql.Connection, statements) -> list[str]:
    """Which of the statements the server refuses for want of a privilege."""
    found = []
    for statement in statements:
        with session.cursor() as cursor:
            try:
                cursor.execute(statement)
            except pymysql.err.OperationalError as exc:
                if exc.args[0] not in _REFUSED:
                    raise
                found.append(statement)
    return found


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


def test_nobody_writes_into_the_one_database_and_all_into_the_others(shop, tmp_path):
    path, before = tmp_path / "undo.json", shop.grants()
    words = ("hold", "source", f"app={shop.url}", "--reason", "asked", "--undo", path)
    asked = call(*words)
    assert (asked.code, f"ON `{shop.name}`.* FROM" in asked.err, path.exists()) == (2, True, False), asked.err
    held = call(*words, "--yes")
    assert (held.code, held.out.startswith("HELD: app")) == (0, True), held.out + held.err
    assert "moveout@127.0.0.1" in held.out  # administrators may write all the same, and that is said
    for who, statements in _WRITES.items():
        with shop.login(who) as session:
            assert refusals(session, map(shop.sql, statements)) == list(map(shop.sql, statements))
    with shop.login("app") as session:
        reads = ("SELECT * FROM seen", "CREATE TEMPORARY TABLE scratch (id int)")
        assert refusals(session, [*reads, f"INSERT INTO {shop.other_name}.posts VALUES (1)"]) == []
    with shop.login("reader") as session:
        assert refusals(session, ["SELECT * FROM posts"]) == []
    status = call("hold", "status", path, "--json")
    assert (status.code, status.json["result"]["held"]) == (0, True), status.err
    assert call("hold", "status", f"app={shop.url}").code == 0
    assert call(*words).code == 0  # nothing is left to be asked about
    assert call("export", f"app={shop.url}", "--to", tmp_path / "bundle").code == 0
    shop.run("GRANT DELETE ON {name}.posts TO reader@'%'")
    again = call("hold", "status", path)
    assert (again.code, "REVOKE DELETE" in again.out) == (3, True), again.out
    shop.run("REVOKE DELETE ON {name}.posts FROM reader@'%'")
    undone = call("hold", "undo", path, "--yes")
    assert (undone.code, path.exists()) == (0, False), undone.err
    assert shop.grants() == before
    with shop.login("part") as session:
        assert refusals(session, map(shop.sql, _WRITES["part"][:4])) == []


@pytest.mark.parametrize("late", [False, True])
def test_killed_anywhere_it_is_finished_or_undone_to_the_last_privilege(shop, tmp_path, late):
    before, one = shop.grants(), AccountsHold(Server(parse_url(shop.url)))
    killed_everywhere(tmp_path / "undo.json", one, late=late)
    one.close()
    assert shop.grants() == before


def test_sessions_and_transactions_from_before_are_named_and_the_first_ended(shop, tmp_path):
    """A session keeps the privileges on the database that it has chosen; what is open elsewhere may be committed."""
    path = tmp_path / "undo.json"
    words = ("hold", "source", f"app={shop.url}", "--reason", "asked", "--undo", path, "--yes")
    inside, elsewhere = shop.login("app"), shop.login("app", shop.other_name, autocommit=False)
    idle = shop.login("app", shop.other_name)
    try:
        with elsewhere.cursor() as cursor:
            cursor.execute(f"INSERT INTO {shop.name}.posts VALUES (1, '')")
        half = call(*words)
        assert (half.code, "may still write" in half.out, "may still commit" in half.out) == (
            3,
            True,
            True,
        ), half.out
        assert refusals(inside, ["INSERT INTO posts VALUES (2, '')"]) == []  # which is why it is named
        assert len(refusals(idle, [f"INSERT INTO {shop.name}.posts VALUES (3, '')"])) == 1
        elsewhere.commit()
        ended = call(*words, "--end-sessions")
        assert (ended.code, f"{shop.names['app']}" in ended.err) == (0, True), ended.out + ended.err
        with pytest.raises(pymysql.err.OperationalError):
            refusals(inside, ["SELECT 1"])
        assert refusals(idle, ["SELECT 1"]) == []
        assert call("hold", "status", path).code == 0
        assert call("hold", "undo", path, "--yes").code == 0
    finally:
        for session in (inside, elsewhere, idle):
            session.close()


def test_every_other_way_to_write_is_named(shop, tmp_path):
    shop.run(
        "CREATE TABLE parents (id int PRIMARY KEY) ENGINE = InnoDB;"
        "CREATE USER wide@'%' IDENTIFIED BY 'x'; GRANT INSERT ON *.* TO wide@'%';"
        "CREATE USER caller@'%' IDENTIFIED BY 'x'; GRANT EXECUTE ON *.* TO caller@'%';"
        f"GRANT UPDATE ON `{shop.name[:-1]}%`.* TO reader@'%';"
    )
    run_sql(
        shop.other,
        f"CREATE TABLE parents (id int PRIMARY KEY); CREATE PROCEDURE reach() DELETE FROM {shop.name}.posts;"
        f"CREATE TRIGGER spill AFTER INSERT ON posts FOR EACH ROW INSERT INTO {shop.name}.notes VALUES (1, '');"
        f"CREATE EVENT far ON SCHEDULE EVERY 1 DAY DO DELETE FROM {shop.name}.posts;"
        f"CREATE VIEW through AS SELECT * FROM {shop.name}.posts;"
        "CREATE PROCEDURE harmless() DELETE FROM posts;",
    )
    shop.run(
        "CREATE TABLE children (id int, FOREIGN KEY (id) REFERENCES {other}.parents (id) ON DELETE CASCADE);"
        f"CREATE DATABASE {shop.name[:-1]}zz"
    )
    one = AccountsHold(Server(parse_url(shop.url)))
    try:
        (standing,) = place(tmp_path / "undo.json", {"app": one})
        assert not standing.is_held
        said = {finding.key.removeprefix("app: "): finding.what for finding in standing.findings}
        other, reader = shop.other_name, f"`{shop.names['reader']}`@`%`"
        assert said.keys() == {
            "`wide`@`%`", "`caller`@`%`", reader, f"the procedure {other}.reach", f"the trigger {other}.spill",
            f"the event {other}.far", f"the view {other}.through", "the table children",
        }  # fmt: skip
        assert "--whole-server" in said["`wide`@`%`"]
        assert "--whole-server" in said[reader]
        take_back(tmp_path / "undo.json", {"app": one})
    finally:
        one.close()
        shop.run(
            f"DROP DATABASE {shop.name[:-1]}zz; DROP USER wide@'%', caller@'%'; DROP TABLE children;"
            f"REVOKE UPDATE ON `{shop.name[:-1]}%`.* FROM reader@'%'"
        )


def test_a_role_is_an_account_too(shop, tmp_path):
    role = f"writers_{secrets.token_hex(4)}"
    shop.run(
        f"CREATE ROLE {role}; GRANT INSERT ON {{name}}.* TO {role}; GRANT {role} TO reader@'%';"
        f"SET DEFAULT ROLE {role} FOR reader@'%'"
    )
    one, path = AccountsHold(Server(parse_url(shop.url))), tmp_path / "undo.json"
    insert = ["INSERT INTO posts VALUES (1, '')"]
    assert place(path, {"app": one})[0].is_held
    with shop.login("reader") as session:
        assert refusals(session, insert) == insert
    take_back(path, {"app": one})
    one.close()
    with shop.login("reader") as session:
        assert refusals(session, insert) == []
    shop.run(f"DROP ROLE {role}")


def test_an_account_that_could_not_give_back_what_it_takes_is_refused(shop):
    shop.run("GRANT SELECT ON mysql.* TO app@'%'; GRANT ALL ON {name}.* TO app@'%' WITH GRANT OPTION")
    url = shop.url.replace("moveout@", f"{shop.names['app']}@")
    with pytest.raises(SourceNotAllowedError, match="could not give back"):
        open_hold(url, {"password": "x"}, Wish())


def test_an_account_that_was_dropped_meanwhile_is_not_made_again(shop, tmp_path):
    path = tmp_path / "undo.json"
    shop.run("CREATE USER gone@'%' IDENTIFIED BY 'x'; GRANT INSERT ON {name}.* TO gone@'%'")
    words = ("hold", "source", f"app={shop.url}", "--reason", "asked", "--undo", path, "--yes")
    assert call(*words).code == 0
    shop.run("DROP USER gone@'%'")
    said = call("hold", "undo", path, "--yes")
    assert (said.code, "`gone`@`%` is gone" in said.err) == (7, True), said.err
    with shop.server.connect() as session, session.cursor() as cursor:
        assert cursor.execute("SELECT 1 FROM mysql.user WHERE User = 'gone'") == 0
    shop.run("CREATE USER gone@'%' IDENTIFIED BY 'x'")
    assert call("hold", "undo", path, "--yes").code == 0
    shop.run("DROP USER gone@'%'")


def test_what_a_setting_is_called_says_all_that_is_needed_to_set_it():
    for right in (
        Right("`a``b`@`%`", "", "`my\\_db`", "*"),
        Right("`role`", "PACKAGE BODY ", "`d`", "`p`"),
        Right("`a`@`h`", "", "`d`", "`t (x)`", "`c) on`"),
    ):
        assert parse(right.setting) == right
    assert Right("`a`@`h`", "", "`a\\_b%`", "*").matches("a_bc")
    assert not Right("`a`@`h`", "", "`a\\_b%`", "*").matches("axbc")
    assert not Right("`a`@`h`", "", "`a_b`", "`t`").matches("axb")


def test_a_mariadb_server_becomes_read_only_where_that_is_meant(shop, tmp_path):
    path = tmp_path / "undo.json"
    words = ("hold", "source", f"app={shop.url}", "--reason", "asked", "--undo", path, "--yes")
    session = shop.login("app", shop.other_name)
    try:
        held = call(*words, "--whole-server")
        assert (held.code, "SET GLOBAL read_only = ON" in held.out) == (0, True), held.out + held.err
        assert "moveout@127.0.0.1" in held.out
        assert "these databases of the server are read-only too" in held.out
        with session.cursor() as cursor, pytest.raises(pymysql.err.Error, match="read-only"):
            cursor.execute("INSERT INTO posts VALUES (1)")
        assert call(*words).code == 0  # what is meant stands in the file
        assert call("hold", "undo", path, "--yes").code == 0
        with session.cursor() as cursor:
            cursor.execute("INSERT INTO posts VALUES (2)")
        assert call(*words).code == 0
        refused = call(*words, "--whole-server")
        assert (refused.code, "hold undo" in refused.err) == (2, True), refused.err
        assert call("hold", "undo", path, "--yes").code == 0
    finally:
        session.close()
        run_sql(shop.url, "SET GLOBAL read_only = OFF")


@pytest.mark.torture
def test_a_mysql_database_becomes_read_only_and_no_other(mysql, tmp_path):
    url, other, path = mysql.database(), mysql.database(), tmp_path / "undo.json"
    name = url.rpartition("/")[2]
    run_sql(url, "CREATE TABLE posts (id int)")
    run_sql(other, "CREATE TABLE posts (id int)")
    one = DatabaseHold(Server(parse_url(url)))
    for late in (False, True):
        killed_everywhere(path, one, late=late)
    one.close()
    words = ("hold", "source", f"app={url}", "--reason", "asked", "--undo", path, "--yes")
    with mysql.connect(name) as session, session.cursor() as cursor:
        held = call(*words)
        assert (held.code, "READ ONLY = 1" in held.out) == (0, True), held.out + held.err
        with pytest.raises(pymysql.err.Error, match="read only"):
            cursor.execute("INSERT INTO posts VALUES (1)")  # even an administrator's session, opened before
        run_sql(other, "INSERT INTO posts VALUES (1)")
        assert call("export", f"app={url}", "--to", tmp_path / "bundle").code == 0
        assert call("hold", "undo", path, "--yes").code == 0
        cursor.execute("INSERT INTO posts VALUES (2)")


@pytest.mark.torture
@pytest.mark.parametrize("late", [False, True])
def test_what_servers_before_that_mode_have_works_on_mysql_too(mysql, tmp_path, late):
    with shop_on(mysql) as shop:
        before = shop.grants()
        for kind in (AccountsHold, ServerHold):
            one = kind(Server(parse_url(shop.url)))
            killed_everywhere(tmp_path / "undo.json", one, late=late)
            one.close()
            assert shop.grants() == before
