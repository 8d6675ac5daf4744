"""A server that keeps the names of tables in lower case has the tables that a source spells otherwise."""

import pytest

from migrate.case.model import Endpoint
from migrate.repair.live_repair import repair_from_source
from migrate.restore.mysql.changes.definition_gaps import _differs
from tests.cli.conftest import call
from tests.exporters.mysql.databases import fetch, run_sql
from tests.follow.move_case import write_move_case

TABLES = """
CREATE TABLE Parents (Id INT PRIMARY KEY AUTO_INCREMENT); INSERT INTO Parents VALUES (1), (2);
CREATE TABLE Children (Id INT PRIMARY KEY, Parent INT, FOREIGN KEY (Parent) REFERENCES Parents (Id));
INSERT INTO Children VALUES (1, 1); CREATE VIEW Both_Of AS SELECT p.Id, c.Parent FROM Parents p JOIN Children c;
CREATE TABLE Plain (Id INT) ENGINE = MyISAM; INSERT INTO Plain VALUES (1); CREATE SEQUENCE Numbers;
CREATE TRIGGER Noted AFTER INSERT ON Children FOR EACH ROW INSERT INTO Plain VALUES (NEW.Id);
"""
WRITES = """
INSERT INTO Parents VALUES (7); INSERT INTO Children VALUES (9, 7); DELETE FROM Children WHERE Id = 1;
INSERT INTO Plain VALUES (2); SELECT NEXT VALUE FOR Numbers;
"""
CASE = ("-c", "moveout.toml")


@pytest.fixture(scope="module")
def lower(servers, followed_mariadb):
    del followed_mariadb  # it skips where there is no MariaDB
    return servers.mariadb("mariadb-lower", settings=["lower-case-table-names=1"])


@pytest.fixture
def sides(followed_mariadb, lower, tmp_path, monkeypatch):
    """The case of a move: the URLs of both sides."""
    monkeypatch.chdir(tmp_path)
    old, new = followed_mariadb.database(), lower.database()
    write_move_case(tmp_path, old, new, follow=False)
    return old, new


def test_a_move_to_it_is_complete(sides):
    old, new = sides
    run_sql(old, TABLES)
    assert call("export", *CASE, "--follow").code == 0
    for _ in range(2):
        restored = call("restore", *CASE)
        assert restored.code == 0, restored
    assert call("verify", "bundle", "--against", f"app={new}").code == 0
    run_sql(old, WRITES)
    followed = call("follow", *CASE, "--until-caught-up")
    assert followed.code == 0, followed
    switched = call("cutover", *CASE, "--hold", "--whole-server", "--yes")
    undone = call("cutover", *CASE, "--undo", "--yes")
    assert (switched.code, "MISSING" in switched.out) == (0, False), switched
    assert (undone.code, "nothing was written at the new side" in undone.out) == (0, True), undone
    assert [fetch(new, f"SELECT * FROM {name}") for name in ("both_of", "plain")] == [
        [(1, 7), (2, 7), (7, 7)],
        [(1,), (9,), (2,)],
    ]
    run_sql(new, "UPDATE parents SET Id = 8 WHERE Id = 2")
    repaired = repair_from_source(Endpoint(old), Endpoint(new))
    assert [(table.table, table.words) for table in repaired.tables] == [
        ("`Parents`", "1 missing row, 1 extra row")
    ]


def test_of_tables_that_it_takes_for_one_only_the_first_comes_and_the_other_is_named(sides):
    """Rows of both were mixed in one."""
    old, new = sides
    run_sql(old, "CREATE TABLE Twin (a INT); INSERT INTO Twin VALUES (1), (2)")
    run_sql(old, "CREATE TABLE twin (a INT); INSERT INTO twin VALUES (3)")
    run_sql(old, "CREATE TRIGGER more BEFORE INSERT ON twin FOR EACH ROW SET NEW.a = NEW.a + 1")
    assert call("export", *CASE).code == 0
    for _ in range(2):  # a second one must not put the other one in its place
        restored = call("restore", *CASE)
        assert (restored.code, "`twin`: the destination takes its name for `Twin`" in restored.out) == (
            3,
            True,
        )
        assert fetch(new, "SELECT a FROM twin") == [(1,), (2,)]
    assert fetch(new, "SHOW TRIGGERS") == []
    [kept] = repair_from_source(Endpoint(old), Endpoint(new)).tables
    assert (kept.table, kept.reason) == ("`twin`", "the destination takes its name for `Twin`")
    assert fetch(new, "SELECT a FROM twin") == [(1,), (2,)]
    run_sql(new, "DELETE FROM twin WHERE a = 2")
    assert call("verify", "bundle", "--against", f"app={new}", "--repair").code == 3
    assert fetch(new, "SELECT a FROM twin") == [(1,), (2,)]


def test_what_differs_in_the_case_of_a_value_is_defined_otherwise():
    """A default that is another one since had gone unnamed."""
    sql = "CREATE TABLE `Goods` (\n  `Kind` char(1) DEFAULT 'A',\n  KEY `Of_Kind` (`Kind`))"
    options = {"exactly": True, "is_one_version": True, "folds": True}
    definition, there = (
        {"kind": "table", "name": "Goods", "sql": text} for text in (sql, sql.replace("Goods", "goods"))
    )
    assert not _differs(definition, there, **options)
    assert _differs(definition, {**there, "sql": there["sql"].replace("'A'", "'a'")}, **options)
