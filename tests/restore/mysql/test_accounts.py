"""How accounts may log in comes back without their passwords; what is taken from them is not given elsewhere."""

import pyarrow.parquet as pq
import pytest

from migrate.restore.mysql.definitions.accounts import Grants
from tests.exporters.mysql.databases import export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from
from tests.tools.mysql_settings import global_settings


def test_limits_and_tls_stay_where_the_password_is_left_out(mariadb, other_mariadb, tmp_path):
    url, destination = mariadb.database(), other_mariadb.database()
    database = url.rpartition("/")[2]
    try:
        run_sql(
            url,
            "CREATE TABLE t (id INT PRIMARY KEY); CREATE USER 'limited'@'%' IDENTIFIED BY 'secret'"
            " REQUIRE SUBJECT '/CN=it''s' AND ISSUER '/CN=ca' WITH MAX_QUERIES_PER_HOUR 5 MAX_USER_CONNECTIONS 3;"
            "CREATE USER 'counted'@'%' IDENTIFIED BY 'secret' WITH MAX_UPDATES_PER_HOUR 7;"
            f"GRANT SELECT ON {database}.* TO 'limited'@'%', 'counted'@'%'",
        )
        hashed = fetch(url, "SELECT PASSWORD('secret')")[0][0]
        assert export_database(url, tmp_path / "bundle").complete
        restore_from(read_bundle(tmp_path / "bundle"), "app", destination)
        query = (
            "SELECT User, ssl_type, x509_subject, x509_issuer, max_questions, max_updates, max_user_connections"
            " FROM mysql.user WHERE User IN ('limited', 'counted') ORDER BY 1"
        )
        assert fetch(destination, query) == fetch(url, query)
        assert hashed not in (tmp_path / "bundle/data/app/schema/grants.sql").read_text()
    finally:
        for server in (url, destination):
            run_sql(server, "DROP USER IF EXISTS 'limited'@'%', 'counted'@'%'")


def test_what_is_of_the_server_and_how_accounts_log_in_without_a_password_is_named(mariadb, tmp_path):
    url = mariadb.database()
    names = "'by_socket'@'localhost', 'either'@'localhost', ''@'anybody.example', 'by_password'@'%'"
    try:
        run_sql(
            url,
            "CREATE TABLE t (id INT); CREATE USER 'by_socket'@'localhost' IDENTIFIED VIA unix_socket;"
            "CREATE USER 'either'@'localhost' IDENTIFIED VIA mysql_native_password USING PASSWORD('x') OR unix_socket;"
            "CREATE USER ''@'anybody.example'; CREATE USER 'by_password'@'%' IDENTIFIED BY 'x';"
            "CREATE SERVER other FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'h', PASSWORD 'hidden!')",
        )
        assert export_database(url, tmp_path / "bundle").complete
    finally:
        run_sql(url, f"DROP USER IF EXISTS {names}; DROP SERVER IF EXISTS other")
    losses = pq.read_table(tmp_path / "bundle/data/losses.parquet").to_pylist()
    assert {
        one["item"]: one["reason"].partition(";")[0]
        for one in losses
        if one["property"] in {"plugin", "all of it"}
    } == {
        "account 'by_socket'@'localhost'": "it logged in by unix_socket",
        "account 'either'@'localhost'": "it logged in by mysql_native_password, unix_socket",
        "account ''@'anybody.example'": "it is anonymous, and would take the logins of others",
        "server `other`": "it is of the whole server, for mysql, with a password",
    }
    files = [file for file in (tmp_path / "bundle").rglob("*.*") if file.is_file()]
    assert not [file for file in files if b"hidden!" in file.read_bytes()]


def test_what_does_not_leave_of_accounts_is_in_the_ledger(mariadb, tmp_path):
    url = mariadb.database()
    names = "'expiring'@'%', 'in_between'@'%'"
    try:
        run_sql(
            url,
            "CREATE TABLE t (id INT);"
            "CREATE USER 'expiring'@'%' IDENTIFIED BY 'secret' PASSWORD EXPIRE INTERVAL 30 DAY;"
            "CREATE USER 'in_between'@'%'; INSERT INTO mysql.proxies_priv"
            " VALUES ('%', 'in_between', '%', 'expiring', 0, '', now()); FLUSH PRIVILEGES",
        )
        assert export_database(url, tmp_path / "bundle").complete
    finally:
        run_sql(url, f"DROP USER {names}")
    losses = pq.read_table(tmp_path / "bundle/data/losses.parquet").to_pylist()
    reasons = {
        (one["item"], one["property"])
        for one in losses
        if "expiring" in one["item"] or "PROXY" in one["property"]
    }
    assert reasons == {
        ("account 'expiring'@'%'", "expiry and history of its password, attributes"),
        ("account 'in_between'@'%'", "PROXY"),
    }


def test_what_is_taken_from_an_account_is_read():
    script = (
        "GRANT SELECT, INSERT ON *.* TO `a`@`%`;\nREVOKE INSERT ON `old`.* FROM `a`@`%`;\n"
        "REVOKE INSERT ON `other`.* FROM `a`@`%`;\nALTER USER `b`@`%` IDENTIFIED BY 'x';\n"
        "ALTER USER `b`@`%` REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 5;\n"
    )
    grants = Grants.parse(script, "old", "new")
    assert grants.partial == {"`a`@`%`"}
    assert [one.statement for one in grants.server_wide] == [
        "GRANT SELECT, INSERT ON *.* TO `a`@`%`",
        "REVOKE INSERT ON `new`.* FROM `a`@`%`",
        "REVOKE INSERT ON `other`.* FROM `a`@`%`",
        "ALTER USER `b`@`%` REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 5",
    ]
    assert grants.accounts == ["`a`@`%`"]


def test_an_object_of_a_role_that_the_destination_lacks_is_named(mariadb, other_mariadb, tmp_path):
    url, destination = mariadb.database(), other_mariadb.database()
    run_sql(
        url,
        "CREATE ROLE keeper; CREATE DATABASE IF NOT EXISTS keepers_db; GRANT SELECT ON keepers_db.* TO keeper;"
        "CREATE TABLE t (a INT); CREATE DEFINER = keeper VIEW kept AS SELECT a FROM t;"
        "CREATE DEFINER = keeper TRIGGER acts BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1;"
        "CREATE VIEW own AS SELECT a FROM t",
    )
    export_database(url, tmp_path / "bundle")
    run_sql(mariadb.url, "DROP ROLE keeper; DROP DATABASE keepers_db")
    bundle = read_bundle(tmp_path / "bundle")
    restored = restore_from(bundle, "app", destination)
    words = "there is no role `keeper`, so the destination took it for an account"
    assert restored.left_out == (f"definer of view `kept`: {words}", f"definer of trigger `acts`: {words}")
    run_sql(other_mariadb.url, "CREATE OR REPLACE ROLE keeper")
    with_role = other_mariadb.database()
    assert not restore_from(bundle, "app", with_role).left_out
    run_sql(other_mariadb.url, "DROP ROLE keeper")


def test_a_role_without_any_privilege_comes_with_its_members(mariadb, other_mariadb, tmp_path):
    url, destination = mariadb.database(), other_mariadb.database()
    database = url.rpartition("/")[2]
    drop = "DROP USER IF EXISTS clerk; DROP ROLE IF EXISTS idle, outer_idle, abroad"
    try:
        run_sql(
            url,
            "CREATE TABLE t (a INT); CREATE USER clerk; CREATE ROLE idle; CREATE ROLE outer_idle; CREATE ROLE abroad;"
            "CREATE DATABASE IF NOT EXISTS abroad_db; GRANT SELECT ON abroad_db.* TO abroad;"
            f"GRANT SELECT ON {database}.* TO clerk; GRANT outer_idle TO idle; GRANT idle TO clerk;"
            "GRANT abroad TO clerk",
        )
        export_database(url, tmp_path / "bundle")
        bundle = read_bundle(tmp_path / "bundle")
        restored = restore_from(bundle, "app", destination)
        members = "SELECT User, Role FROM mysql.roles_mapping WHERE User IN ('clerk', 'idle') AND Host <> 'localhost'"
        assert set(fetch(destination, members)) == {("clerk", "idle"), ("idle", "outer_idle")}
        assert [note for note in restored.notes if "`abroad`" in note], restored.notes
        assert not [note for note in restored.notes if "idle" in note], restored.notes
    finally:
        run_sql(url, f"{drop}; DROP DATABASE IF EXISTS abroad_db")
        run_sql(destination, drop)


@pytest.mark.parametrize("kind", ["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def test_what_acts_in_the_name_of_an_account_comes_after_it_and_its_privileges(kind, request, tmp_path):
    server = request.getfixturevalue(kind)
    other = request.getfixturevalue("other_mariadb") if kind == "mariadb" else server
    url = server.database()
    database = url.rpartition("/")[2]
    role = "warden" if kind == "mariadb" else "'warden'@'%'"
    drop = f"DROP ROLE IF EXISTS {role}; DROP USER IF EXISTS 'owner'@'%'"
    try:
        run_sql(
            url,
            f"CREATE ROLE {role}; CREATE USER 'owner'@'%'; GRANT SELECT, TRIGGER ON {database}.* TO {role};"
            f"CREATE TABLE t (a INT); GRANT SELECT ON {database}.t TO 'owner'@'%';"
            f"CREATE DEFINER = 'owner'@'%' VIEW a_first AS SELECT a FROM t; CREATE VIEW above AS SELECT a FROM a_first;"
            f"GRANT SELECT ON {database}.above TO 'owner'@'%';"
            f"CREATE DEFINER = {role} VIEW kept AS SELECT a FROM t;"
            f"CREATE DEFINER = {role} PROCEDURE p() SELECT 1;"
            f"CREATE DEFINER = {role} EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM t;"
            f"CREATE DEFINER = {role} TRIGGER acts BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
        )
        export_database(url, tmp_path / "bundle")
        run_sql(url, drop)
        destination = other.database()
        bundle = read_bundle(tmp_path / "bundle")
        restored = restore_from(bundle, "app", destination)
        assert restored.left_out == ()
        assert not [note for note in restored.notes if "could not be granted" in note], restored.notes
        grants = ";".join(words for (words,) in fetch(destination, "SHOW GRANTS FOR 'owner'@'%'"))
        assert "`above`" in grants
    finally:
        for one in {server.url, other.url}:
            run_sql(one, drop)


def test_a_restore_whose_end_nobody_saw_says_again_which_accounts_are_locked(
    mariadb, other_mariadb, tmp_path
):
    url, destination = mariadb.database(), other_mariadb.database()
    database = url.rpartition("/")[2]
    try:
        run_sql(
            url,
            f"CREATE TABLE t (id INT); CREATE USER 'clerk'@'%'; GRANT SELECT ON {database}.* TO 'clerk'@'%'",
        )
        export_database(url, tmp_path / "bundle")
        bundle = read_bundle(tmp_path / "bundle")
        for words in ("were made without a password", "have no password"):
            outcome = restore_from(bundle, "app", destination)
            (note,) = [note for note in outcome.notes if "locked" in note]
            assert f"these accounts {words}" in note
            assert "`clerk`@`%`" in note.partition("UNLOCK): ")[2].split(", ")
        run_sql(destination, "ALTER USER 'clerk'@'%' IDENTIFIED BY 'x' ACCOUNT UNLOCK")
        outcome = restore_from(bundle, "app", destination)
        assert not [note for note in outcome.notes if "locked" in note and "`clerk`" in note]
    finally:
        for one in (url, destination):
            run_sql(one, "DROP USER IF EXISTS 'clerk'@'%'")


def test_settings_of_the_server_on_which_statements_depend_are_named(mariadb, other_mariadb, tmp_path):
    url, destination = mariadb.database(), other_mariadb.database()
    run_sql(url, "CREATE TABLE t (id INT PRIMARY KEY)")
    with global_settings(url, sql_mode="ANSI_QUOTES", group_concat_max_len=99):
        assert export_database(url, tmp_path / "bundle").complete
    with global_settings(destination, sql_mode="", group_concat_max_len=99):
        outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", destination, workers=1)
    (note,) = [note for note in outcome.notes if "sessions begin" in note]
    assert note.endswith("results: sql_mode = '' (there ANSI_QUOTES)")
