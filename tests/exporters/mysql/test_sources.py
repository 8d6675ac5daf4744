"""What the documentation promises of an summary, and what a bundle says of tables and accounts that are special."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from exporters.errors import SourceUnreachableError
from exporters.mysql.connection import Connection
from exporters.mysql.definitions.show_create import DEFINITIONS
from exporters.mysql.discovery import discover
from migrate.bundle import layout
from migrate.restore.mysql.definitions.accounts import Grants
from tests.exporters.mysql.databases import definitions, export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from
from tests.tools.mysql_settings import global_settings

SOURCES = (Path(__file__).parents[3] / "docs/reference/privileges.md").read_text()


def documented_sql() -> str:
    """The statements under the heading."""
    section = SOURCES.partition("## MySQL and MariaDB")[2].partition("\n## ")[0]
    return re.search(r"```sql\n(.*?)```", section, re.DOTALL)[1]


def names_of(reader) -> set[tuple[str, str]]:
    key = layout.source_file("app", DEFINITIONS)
    file = next(file for file in reader.source_files("app", "schema/") if file.key == key)
    script = reader.read_checked(file).decode()
    return set(re.findall(r'"kind": "(\w+)",\s+"name": "([^"]*)"', script))


def test_the_documented_account_exports_everything(mariadb, tmp_path):
    url = mariadb.database()
    database = url.rpartition("/")[2]
    run_sql(
        url,
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT); INSERT INTO t VALUES (5);"
        "CREATE VIEW v AS SELECT * FROM t;"
        "CREATE PROCEDURE p() SELECT 1; CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1;"
        "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.id = NEW.id;"
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM t; CREATE SEQUENCE s",
    )
    sql = documented_sql().replace("'a-password'", f"'{mariadb.password}'").replace(" app.", f" {database}.")
    sql = sql.replace("mover", "documented")
    try:
        run_sql(url, sql)
        location = tmp_path / "bundle"
        assert export_database(mariadb.url_of(database, "documented"), location).complete
    finally:
        run_sql(url, "DROP USER IF EXISTS documented")
    reader = read_bundle(location)
    made = {
        ("table", "t"),
        ("view", "v"),
        ("procedure", "p"),
        ("function", "f"),
        ("trigger", "tr"),
        ("event", "e"),
    }
    assert made | {("sequence", "s")} <= names_of(reader)
    assert reader.catalog()[0].position["consistency"] == "global read lock"
    assert not [loss for _, loss in reader.losses() if loss.property == "definition"]


def test_routines_that_may_be_hidden_stand_in_the_ledger(mariadb, tmp_path):
    url = mariadb.database()
    database = url.rpartition("/")[2]
    run_sql(url, "CREATE TABLE t (id INT PRIMARY KEY); CREATE PROCEDURE p() SELECT 1")
    run_sql(
        url, f"CREATE USER plain IDENTIFIED BY '{mariadb.password}'; GRANT SELECT ON {database}.* TO plain"
    )
    try:
        assert export_database(mariadb.url_of(database, "plain"), tmp_path / "bundle").complete
    finally:
        run_sql(url, "DROP USER plain")
    reader = read_bundle(tmp_path / "bundle")
    assert ("routines", "definition") in {(loss.item, loss.property) for _, loss in reader.losses()}


def test_tables_that_may_be_hidden_are_announced_also_where_the_rights_of_others_can_be_read(
    mariadb, tmp_path
):
    url = mariadb.database()
    database = url.rpartition("/")[2]
    run_sql(url, "CREATE TABLE seen (id INT PRIMARY KEY); CREATE TABLE hidden (id INT PRIMARY KEY)")
    run_sql(url, f"CREATE USER plain IDENTIFIED BY '{mariadb.password}'; GRANT SELECT ON mysql.* TO plain")
    try:
        run_sql(url, f"GRANT SELECT ON {database}.seen TO plain")
        assert export_database(mariadb.url_of(database, "plain"), tmp_path / "single").complete
        run_sql(url, f"GRANT LOCK TABLES ON {database}.* TO plain")
        export_database(mariadb.url_of(database, "plain"), tmp_path / "all")
    finally:
        run_sql(url, "DROP USER plain")
    left_out = {
        name: [(gap.item, gap.disposition) for _, gap in read_bundle(tmp_path / name).gaps()]
        for name in ("single", "all")
    }
    assert ("other tables", "excluded") in left_out["single"]
    assert ("other tables", "excluded") not in left_out["all"]


@pytest.fixture
def accounts(mariadb, other_mariadb):
    """Accounts of one server, gone from both at the end."""
    names = ["'grantee'@'%'", "'known'@'localhost'"]
    everywhere = mariadb.database(), other_mariadb.database()
    run_sql(everywhere[0], ";".join(f"CREATE USER {name} IDENTIFIED BY 'x'" for name in names))
    run_sql(everywhere[0], "CREATE ROLE readers; CREATE ROLE rulers")
    run_sql(everywhere[1], "CREATE USER 'known'@'localhost' IDENTIFIED BY 'x'")
    yield names
    for url in everywhere:
        run_sql(url, ";".join(f"DROP USER IF EXISTS {name}" for name in names))
        run_sql(url, "DROP ROLE IF EXISTS readers; DROP ROLE IF EXISTS rulers")


def test_privileges_on_the_database_come_back_and_new_accounts_are_locked(
    mariadb, other_mariadb, tmp_path, accounts
):
    url = mariadb.database("old_name")
    try:
        run_sql(
            url,
            "CREATE TABLE t (id INT PRIMARY KEY, secret INT); CREATE PROCEDURE p() SELECT 1;"
            "GRANT SELECT, INSERT ON `old\\_name`.* TO 'grantee'@'%' WITH GRANT OPTION;"
            "GRANT SELECT (id) ON old_name.t TO 'known'@'localhost'; GRANT EXECUTE ON PROCEDURE p TO 'grantee'@'%';"
            "GRANT PROCESS ON *.* TO 'grantee'@'%', 'known'@'localhost';"
            "GRANT EXECUTE ON old_name.* TO readers; GRANT readers TO 'grantee'@'%', 'known'@'localhost';"
            "GRANT RELOAD ON *.* TO rulers; GRANT rulers TO 'grantee'@'%', 'known'@'localhost';"
            "SET DEFAULT ROLE readers FOR 'grantee'@'%'",
        )
        assert export_database(url, tmp_path / "bundle").complete
    finally:
        run_sql(mariadb.url, "DROP DATABASE old_name")
    destination = other_mariadb.database("new_name")
    try:
        outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", destination)
        granted = [row[0] for row in fetch(destination, "SHOW GRANTS FOR 'grantee'@'%'")]
        known = [row[0] for row in fetch(destination, "SHOW GRANTS FOR 'known'@'localhost'")]
        created = fetch(destination, "SHOW CREATE USER 'grantee'@'%'")[0][0]
        roles = [
            row[0] for name in ("readers", "rulers") for row in fetch(destination, f"SHOW GRANTS FOR {name}")
        ]
    finally:
        run_sql(other_mariadb.url, "DROP DATABASE new_name")
    assert outcome.findings == ()
    assert "GRANT SELECT, INSERT ON `new\\_name`.* TO `grantee`@`%` WITH GRANT OPTION" in granted
    assert "GRANT EXECUTE ON PROCEDURE `new_name`.`p` TO `grantee`@`%`" in granted
    assert any("PROCESS ON *.*" in grant for grant in granted)
    assert {"GRANT `readers` TO `grantee`@`%`", "GRANT `rulers` TO `grantee`@`%`"} <= set(granted)
    assert "SET DEFAULT ROLE `readers` FOR `grantee`@`%`" in granted
    assert "GRANT EXECUTE ON `new\\_name`.* TO `readers`" in roles
    assert any("RELOAD ON *.*" in grant for grant in roles)
    assert any(grant.startswith("GRANT SELECT (`id`) ON `new_name`.`t`") for grant in known)
    assert "GRANT `readers` TO `known`@`localhost`" in known
    assert not any("PROCESS" in grant or "rulers" in grant for grant in known)
    assert "ACCOUNT LOCK" in created
    assert any("`grantee`@`%`" in note and "locked" in note for note in outcome.notes)


def test_only_grants_on_the_database_itself_are_meant():
    script = (
        "GRANT USAGE ON *.* TO `a`@`%`;\nGRANT SELECT ON `x\\_y`.* TO `a`@`%`;\nGRANT SELECT ON `xzy`.* TO `a`@`%`;\n"
        "GRANT SELECT ON `x_y`.`t;` TO 'b'@'localhost' WITH GRANT OPTION;\nGRANT `role` TO `a`@`%`;\n"
    )
    grants = Grants.parse(script, "x_y")
    assert [grant.statement("n_m") for grant in grants.own] == [
        "GRANT SELECT ON `n\\_m`.* TO `a`@`%`",
        "GRANT SELECT ON `n_m`.`t;` TO 'b'@'localhost' WITH GRANT OPTION",
    ]
    assert grants.accounts == ["`a`@`%`", "'b'@'localhost'"]


@pytest.mark.parametrize(
    "line",
    [
        "GRANT ALL PRIVILEGES ON *.* TO `a`@`%` IDENTIFIED BY 'secret';",
        "GRANT ALL PRIVILEGES ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*0' WITH GRANT OPTION;",
        "GRANT ALL PRIVILEGES ON *.* TO `a`@`%`, `b`@`%` IDENTIFIED BY 'secret';",
        "GRANT SELECT ON *.* TO `a`@`%`; CREATE USER b;",
        "SET DEFAULT ROLE `a` FOR `b`@`%`, `c`@`%`;",
        "CREATE USER `a`@`%` IDENTIFIED BY 'secret';",
        "GRANT PROXY ON `root`@`localhost` TO `a`@`%`;",
    ],
)
def test_a_bundle_cannot_bring_a_password_or_another_statement(line):
    assert Grants.parse(line, "x") == Grants([], [])


def test_what_has_no_snapshot_or_a_history_stands_in_the_ledger_and_comes_back(
    mariadb, other_mariadb, tmp_path
):
    url = mariadb.database()
    run_sql(
        url,
        "CREATE TABLE aria (id INT PRIMARY KEY) ENGINE=Aria; INSERT INTO aria VALUES (1);"
        "CREATE TABLE myisam (id INT PRIMARY KEY AUTO_INCREMENT) ENGINE=MyISAM AUTO_INCREMENT=77;"
        "INSERT INTO myisam VALUES ();"
        "CREATE TABLE versioned (id INT PRIMARY KEY, n INT) WITH SYSTEM VERSIONING;"
        "INSERT INTO versioned VALUES (1, 1); UPDATE versioned SET n = 2; DELETE FROM versioned; INSERT INTO versioned"
        " VALUES (2, 2);"
        "CREATE TABLE by_number (n INT, b BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, e BIGINT UNSIGNED GENERATED"
        " ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (b, e)) WITH SYSTEM VERSIONING;"
        "INSERT INTO by_number (n) VALUES (1);"
        "CREATE TABLE aria_versioned (n INT) ENGINE=Aria WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME"
        " (PARTITION h HISTORY, PARTITION c CURRENT);"
        "INSERT INTO aria_versioned VALUES (1); DELETE FROM aria_versioned;"
        "CREATE TABLE shown (id INT PRIMARY KEY, n INT, b TIMESTAMP(6) GENERATED ALWAYS AS ROW START,"
        " e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (b, e)) WITH SYSTEM VERSIONING;"
        "INSERT INTO shown (id, n) VALUES (1, 1); UPDATE shown SET n = 2;"
        "CREATE TABLE numbered (id INT PRIMARY KEY AUTO_INCREMENT) AUTO_INCREMENT=4000;"
        "CREATE TABLE charsets (g VARCHAR(9) CHARACTER SET gbk, k VARCHAR(9) CHARACTER SET koi8r, b VARCHAR(9)"
        " CHARACTER SET big5, u VARCHAR(9) CHARACTER SET utf32);"
        "INSERT INTO charsets VALUES ('汉字', 'Привет', '漢', '😀')",
    )
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    losses = {(loss.item, loss.property) for _, loss in reader.losses()}
    assert {("`aria`", "consistency"), ("`myisam`", "consistency"), ("`by_number`", "history")} <= losses
    assert {item for item, what in losses if what in {"history", "values"}} == {
        "`by_number`",
        "`by_number`.b",
        "`by_number`.e",
    }
    table = next(row for row in reader.catalog() if row.name == "charsets")
    part = reader.open(layout.source_file("app", table.details["parts"][0]["name"]))
    assert pq.ParquetFile(part).read().to_pylist() == [{"g": "汉字", "k": "Привет", "b": "漢", "u": "😀"}]
    destination = other_mariadb.database()
    assert restore_from(reader, "app", destination).findings == ()
    for name, times, rows in (
        ("versioned", "row_start, row_end", 3),
        ("shown", "b, e", 2),
        ("aria_versioned", "row_start, row_end", 1),
    ):
        history = f"SELECT t.*, {times} FROM {name} FOR SYSTEM_TIME ALL t ORDER BY {times}"
        assert len(fetch(url, history)) == rows
        assert fetch(destination, history) == fetch(url, history)
    for (name,) in fetch(url, "SHOW TABLES"):
        assert fetch(destination, f"SHOW CREATE TABLE `{name}`") == fetch(
            url, f"SHOW CREATE TABLE `{name}`"
        ), name


def test_a_server_that_takes_no_history_gets_the_rows_that_hold_still(
    my_exported, other_mariadb, monkeypatch
):
    _, reader = my_exported(
        "CREATE TABLE t (id INT PRIMARY KEY) WITH SYSTEM VERSIONING; INSERT INTO t VALUES (1), (2);"
        "DELETE FROM t WHERE id = 1; CREATE TABLE u (id INT PRIMARY KEY); INSERT INTO u VALUES (1)"
    )
    monkeypatch.setattr(Connection, "takes_history", property(lambda _: False))
    destination = other_mariadb.database()
    outcome = restore_from(reader, "app", destination)
    assert (outcome.findings, len(outcome.left_out)) == ((), 1)
    assert "the history of `t`" in outcome.left_out[0]
    assert fetch(destination, "SELECT * FROM t FOR SYSTEM_TIME ALL") == [(2,)]


def test_rows_that_no_check_would_let_in_and_events_that_are_due_come_back(my_exported, other_mariadb):
    """The source let them in; and an event that runs at once finds the rows compared already."""
    url, reader = my_exported(
        "CREATE TABLE lax (n INT CHECK (n > 0)); SET check_constraint_checks = 0; INSERT INTO lax VALUES (-1);"
        "CREATE TABLE fed (n INT); INSERT INTO fed VALUES (1);"
        "CREATE EVENT due ON SCHEDULE EVERY 1 SECOND DO DELETE FROM fed"
    )
    destination = other_mariadb.database()
    with global_settings(other_mariadb.url, event_scheduler="ON"):
        outcome = restore_from(reader, "app", destination)
    assert outcome.findings == ()
    assert fetch(destination, "SELECT n FROM lax") == [(-1,)]
    assert [row[1] for row in fetch(destination, "SHOW EVENTS")] == ["due"]
    assert definitions(destination) == definitions(url)


@pytest.mark.parametrize("kind", ["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def test_limits_that_a_server_sets_for_all_cut_nothing_short(kind, request, tmp_path):
    server, other = request.getfixturevalue(kind), request.getfixturevalue(f"other_{kind}")
    url, destination = server.database(), other.database()
    for name in ("a", "b", "c", "d"):
        run_sql(url, f"CREATE TABLE {name} (id INT PRIMARY KEY); INSERT INTO {name} VALUES (1), (2), (3)")
    limits = {
        "max_join_size": 2,
        "sql_select_limit": 2,
        "sql_safe_updates": 1,
        "completion_type": "RELEASE",
        "innodb_default_row_format": "compact",
        "tx_read_only" if kind == "mariadb" else "transaction_read_only": 1,
    }
    with global_settings(url, destination, **limits):
        assert export_database(url, tmp_path / "bundle").complete
        reader = read_bundle(tmp_path / "bundle")
        outcome = restore_from(reader, "app", destination, workers=2)
    assert [table.items for table in reader.catalog()] == [3, 3, 3, 3]
    assert (outcome.findings, outcome.left_out, outcome.items) == ((), (), 12)


def test_an_account_of_few_sessions_moves_with_one_worker_and_is_told_so(mariadb, other_mariadb, tmp_path):
    url, destination = mariadb.database(), other_mariadb.database()
    run_sql(url, "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    few = [where.replace("://moveout@", "://of_few_sessions@") for where in (url, destination)]
    try:
        for where in (url, destination):
            run_sql(
                where,
                f"CREATE USER of_few_sessions IDENTIFIED BY '{mariadb.password}' WITH MAX_USER_CONNECTIONS 1;"
                f"GRANT ALL ON {where.rpartition('/')[2]}.* TO of_few_sessions",
            )
        with pytest.raises(SourceUnreachableError) as refused:
            export_database(few[0], tmp_path / "bundle")
        assert refused.value.next_step.startswith("add --workers 1, or end other sessions")
        for where in (url, destination):
            run_sql(where, "ALTER USER of_few_sessions WITH MAX_USER_CONNECTIONS 4")
        assert export_database(few[0], tmp_path / "bundle", workers=1).complete
        reader = read_bundle(tmp_path / "bundle")
        outcome = restore_from(reader, "app", few[1])
        assert (outcome.findings, outcome.left_out, outcome.items) == ((), (), 2)
    finally:
        for where in (url, destination):
            run_sql(where, "DROP USER IF EXISTS of_few_sessions")


def test_databases_whose_names_differ_in_case_only_are_two(mariadb, other_mariadb, tmp_path):
    """discover listed one of them, and what one had beside tables was exported with the other one, too."""
    url = mariadb.database()
    name = url.rpartition("/")[2]
    upper = url.replace(name, name.upper())
    run_sql(url, f"CREATE DATABASE {name.upper()}; CREATE TABLE t (a INT); CREATE PROCEDURE p() SELECT 1")
    run_sql(
        upper,
        "CREATE TABLE t (a INT, b INT); CREATE PROCEDURE p() SELECT 2; CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DO 1;"
        "CREATE FUNCTION f() RETURNS INT NO SQL RETURN 1;"
        "CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
    )
    try:
        found = discover(url, secrets={}, note=lambda _: None).sources
        assert {source.name for source in found} >= {name, name.upper()}
        for source, kinds in (
            (url, {"database", "table", "procedure"}),
            (upper, {"database", "table", "procedure", "function", "trigger", "event"}),
        ):
            location, destination = tmp_path / source.rpartition("/")[2], other_mariadb.database()
            assert export_database(source, location).complete
            outcome = restore_from(read_bundle(location), "app", destination)
            assert (outcome.findings, outcome.left_out) == ((), ())
            assert definitions(destination) == definitions(source)
            assert sorted(item["kind"] for item in definitions(source)) == sorted(kinds)
    finally:
        run_sql(url, f"DROP DATABASE {name.upper()}")
