"""What the documentation promises of an account, and what a bundle says of tables and accounts that are special."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from exporters.mysql.schema import DEFINITIONS
from migrate.bundle import layout
from migrate.progress import Silent
from migrate.restore.mysql.database import restore_database
from migrate.restore.mysql.grants import parse_grants
from tests.mysql.databases import export_database, fetch, read_bundle, run_sql

SOURCES = (Path(__file__).parents[2] / "docs/SOURCES.md").read_text()


def documented_sql() -> str:
    """The statements under the heading."""
    section = SOURCES.partition("## MySQL and MariaDB")[2].partition("\n## ")[0]
    return re.search(r"```sql\n(.*?)```", section, re.DOTALL)[1]


def names_of(reader) -> set[tuple[str, str]]:
    key = layout.source_file("app", DEFINITIONS)
    file = next(file for file in reader.source_files("app", "schema/") if file.key == key)
    found = reader.read_checked(file).decode()
    return set(re.findall(r'"kind": "(\w+)",\s+"name": "([^"]*)"', found))


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
        place = tmp_path / "bundle"
        assert export_database(mariadb.url_of(database, "documented"), place).complete
    finally:
        run_sql(url, "DROP USER IF EXISTS documented")
    reader = read_bundle(place)
    made = {
        ("table", "t"),
        ("view", "v"),
        ("procedure", "p"),
        ("function", "f"),
        ("trigger", "tr"),
        ("event", "e"),
    }
    assert made | {("sequence", "s")} <= names_of(reader)
    assert reader.catalog()[0].point["consistency"] == "global read lock"
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


@pytest.fixture
def accounts(mariadb, other_mariadb):
    """Accounts of one server, gone from both at the end."""
    names = ["'grantee'@'%'", "'known'@'localhost'"]
    everywhere = mariadb.database(), other_mariadb.database()
    run_sql(everywhere[0], ";".join(f"CREATE USER {name} IDENTIFIED BY 'x'" for name in names))
    run_sql(everywhere[1], "CREATE USER 'known'@'localhost' IDENTIFIED BY 'x'")
    yield names
    for url in everywhere:
        run_sql(url, ";".join(f"DROP USER IF EXISTS {name}" for name in names))


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
            "GRANT PROCESS ON *.* TO 'grantee'@'%'",
        )
        assert export_database(url, tmp_path / "bundle").complete
    finally:
        run_sql(mariadb.url, "DROP DATABASE old_name")
    target = other_mariadb.database("new_name")
    try:
        outcome = restore_database(
            read_bundle(tmp_path / "bundle"), "app", target, workers=1, progress=Silent()
        )
        granted = [row[0] for row in fetch(target, "SHOW GRANTS FOR 'grantee'@'%'")]
        known = [row[0] for row in fetch(target, "SHOW GRANTS FOR 'known'@'localhost'")]
        created = fetch(target, "SHOW CREATE USER 'grantee'@'%'")[0][0]
    finally:
        run_sql(other_mariadb.url, "DROP DATABASE new_name")
    assert outcome.findings == ()
    assert "GRANT SELECT, INSERT ON `new\\_name`.* TO `grantee`@`%` WITH GRANT OPTION" in granted
    assert "GRANT EXECUTE ON PROCEDURE `new_name`.`p` TO `grantee`@`%`" in granted
    assert not any("PROCESS" in grant for grant in granted)
    assert any(grant.startswith("GRANT SELECT (`id`) ON `new_name`.`t`") for grant in known)
    assert "ACCOUNT LOCK" in created
    assert any("`grantee`@`%`" in note and "locked" in note for note in outcome.notes)


def test_only_grants_on_the_database_itself_are_meant():
    script = (
        "GRANT USAGE ON *.* TO `a`@`%`;\nGRANT SELECT ON `x\\_y`.* TO `a`@`%`;\nGRANT SELECT ON `xzy`.* TO `a`@`%`;\n"
        "GRANT SELECT ON `x_y`.`t;` TO 'b'@'localhost' WITH GRANT OPTION;\nGRANT `role` TO `a`@`%`;\n"
    )
    found = parse_grants(script, "x_y")
    assert [grant.statement("n_m") for grant in found] == [
        "GRANT SELECT ON `n\\_m`.* TO `a`@`%`",
        "GRANT SELECT ON `n_m`.`t;` TO 'b'@'localhost' WITH GRANT OPTION",
    ]


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
        "INSERT INTO versioned VALUES (1, 1); UPDATE versioned SET n = 2;"
        "CREATE TABLE shown (id INT PRIMARY KEY, n INT, b TIMESTAMP(6) GENERATED ALWAYS AS ROW START,"
        " e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (b, e)) WITH SYSTEM VERSIONING;"
        "INSERT INTO shown (id, n) VALUES (1, 1);"
        "CREATE TABLE numbered (id INT PRIMARY KEY AUTO_INCREMENT) AUTO_INCREMENT=4000;"
        "CREATE TABLE charsets (g VARCHAR(9) CHARACTER SET gbk, k VARCHAR(9) CHARACTER SET koi8r, b VARCHAR(9)"
        " CHARACTER SET big5, u VARCHAR(9) CHARACTER SET utf32);"
        "INSERT INTO charsets VALUES ('汉字', 'Привет', '漢', '😀')",
    )
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    losses = {(loss.item, loss.property) for _, loss in reader.losses()}
    assert {("`aria`", "consistency"), ("`myisam`", "consistency"), ("`versioned`", "history")} <= losses
    assert {("`shown`", "history"), ("`shown`.b", "values")} <= losses
    table = next(row for row in reader.catalog() if row.name == "charsets")
    part = reader.open(layout.source_file("app", table.details["parts"][0]["name"]))
    assert pq.ParquetFile(part).read().to_pylist() == [{"g": "汉字", "k": "Привет", "b": "漢", "u": "😀"}]
    target = other_mariadb.database()
    assert restore_database(reader, "app", target, workers=1, progress=Silent()).findings == ()
    for (name,) in fetch(url, "SHOW TABLES"):
        assert fetch(target, f"SHOW CREATE TABLE `{name}`") == fetch(url, f"SHOW CREATE TABLE `{name}`"), name
