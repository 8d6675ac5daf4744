"""Rows that no INSERT makes as they are come back; a row that the destination refuses costs that row alone."""

import pytest

from tests.exporters.mysql.databases import definitions, export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from, restore_whole

VERSIONED = """
CREATE TABLE upserted (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING;
INSERT INTO upserted VALUES (1, 10);
REPLACE INTO upserted VALUES (2, 1), (2, 2), (3, 1), (3, 2);
SET timestamp = 1700000000.35762; REPLACE INTO upserted VALUES (4, 1), (4, 2);
SET timestamp = DEFAULT; UPDATE upserted SET v = v + 1;
CREATE TABLE named (
  v INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, e TIMESTAMP(6) GENERATED ALWAYS AS ROW END,
  PERIOD FOR SYSTEM_TIME (s, e)
) WITH SYSTEM VERSIONING ENGINE=Aria;
SET timestamp = 1700000001.5;
INSERT INTO named (v) VALUES (1), (1), (2); DELETE FROM named; INSERT INTO named (v) VALUES (3);
SET timestamp = DEFAULT;
CREATE TABLE numbered (a INT, b INT AUTO_INCREMENT NULL COMMENT 'a NOT NULL', UNIQUE KEY (b));
INSERT INTO numbered (a) VALUES (1), (2); INSERT INTO numbered VALUES (3, 7);
CREATE TABLE `a, b` (a INT, `b c` VARCHAR(9) COMMENT ' DEFAULT', t TEXT, d INT DEFAULT 1);
ALTER TABLE `a, b` ALTER a DROP DEFAULT, ALTER `b c` DROP DEFAULT;
CREATE VIEW v AS SELECT * FROM numbered;
"""


def history(url: str) -> list[list[tuple]]:
    return [
        fetch(url, "SELECT id, v, row_start, row_end FROM upserted FOR SYSTEM_TIME ALL ORDER BY 1, 2, 3"),
        fetch(url, "SELECT v, s, e FROM named FOR SYSTEM_TIME ALL ORDER BY 1, 2"),
        fetch(url, "SELECT a, b FROM numbered ORDER BY 1"),
    ]


def test_versions_of_an_instant_and_numbers_that_are_null_come_back(mariadb, other_mariadb, tmp_path):
    url, destination = mariadb.database(), other_mariadb.database()
    run_sql(url, VERSIONED)
    assert export_database(url, tmp_path / "bundle").complete
    restore_whole(read_bundle(tmp_path / "bundle"), "app", destination, workers=2)
    assert definitions(destination) == definitions(url)
    assert history(destination) == history(url)
    assert [rows[0][-1] for rows in history(url)[1:]] != [None, None]
    assert fetch(destination, "SHOW TABLES LIKE 'moveout%'") == []


@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
def test_a_row_that_the_destination_refuses_is_left_out_and_named(my_exported, other_mariadb, engine):
    table = "CREATE TABLE t (a INT, b INT{}) ENGINE=" + engine
    _, reader = my_exported(
        f"{table.format('')}; INSERT INTO t VALUES (1, 1), (2, 2), (1, 3), (4, 4); CREATE TABLE u (a INT)"
    )
    destination = other_mariadb.database()
    run_sql(destination, f"{table.format(', UNIQUE KEY (a)')}; CREATE TABLE u (a INT)")
    outcome = restore_from(reader, "app", destination, only=["data"])
    assert outcome.findings == ()
    assert outcome.left_out == ("`t`: 1 row is left out: Duplicate entry '1' for key 'a'",)
    assert fetch(destination, "SELECT a, b FROM t ORDER BY b") == [(1, 1), (2, 2), (4, 4)]
    assert fetch(destination, "SHOW TABLES LIKE 'moveout%'") == [("moveout_restore_left_out",)]
