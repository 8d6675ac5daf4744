"""MySQL itself: to MySQL, to MariaDB, and from MariaDB. What the other flavour has not is named."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from exporters.mysql.connection import parse_url
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.exporters.mysql.databases import (
    checksums,
    definitions,
    export_database,
    fetch,
    live_tables,
    run_sql,
)
from tests.tools.bundles import read_bundle, restore_from, restore_whole

pytestmark = pytest.mark.torture

OF_MYSQL = Path(__file__).with_name("mysql.sql")
OF_MARIADB = Path(__file__).parents[1] / "exporters/mysql/torture.sql"
WHAT = "SELECT what FROM audit ORDER BY id"


@pytest.fixture(scope="module")
def source(mysql) -> str:
    url = mysql.database()
    run_sql(url, OF_MYSQL.read_text())
    return url


def exported(url: str, location: Path) -> Path:
    outcome = export_database(url, location)
    assert outcome.complete, outcome.sources
    return location


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory) -> Path:
    return exported(source, tmp_path_factory.mktemp("mysql") / "bundle")


def restored(location: Path, url: str, kept: Path) -> set[tuple[str, str]]:
    """Restore everything; return what the ledger says."""
    reader, account = read_bundle(location), open_location(str(kept))
    outcome = restore_whole(reader, "app", url, workers=2, report=account)
    losses = pq.read_table(kept / "app/losses.parquet").to_pylist() if outcome.report else []
    return {(row["item"], row["property"]) for row in losses}


def ended_alike(found: list[dict]) -> list[dict]:
    """Of several statements sent at once MySQL keeps the semicolon behind a routine."""
    return [one | {"sql": one.get("sql", "").rstrip(";")} for one in found]


def programs_work(url: str) -> None:
    run_sql(url, "INSERT INTO parent (name) VALUES ('new'); CALL `log it`('x')")
    assert [row[0] for row in fetch(url, WHAT)] == ["onenew", "another", "p:x"]


def test_mysql_comes_back_on_mysql(source, bundle, other_mysql, tmp_path):
    destination = other_mysql.database(options="CHARACTER SET latin1")
    assert restored(bundle, destination, tmp_path) == set()
    assert ended_alike(definitions(destination)) == ended_alike(definitions(source))
    assert checksums(destination) == checksums(source)
    assert read_bundle(bundle).catalog()[0].position["consistency"] == "global read lock"
    assert verify(open_location(str(bundle)), Level.FULL, workers=2, progress=Silent()).findings == []
    programs_work(destination)


def test_mysql_comes_to_mariadb(source, bundle, mariadb, tmp_path):
    destination = mariadb.database(options="CHARACTER SET latin1")
    losses = restored(bundle, destination, tmp_path)
    assert live_tables(parse_url(destination)) == live_tables(parse_url(source))
    assert losses >= {
        ("table `keyed`", "key"),
        ("table `keyed`", "constraint"),
        ("table `shapes`", "SRID"),
        ("table `texts`", "type json"),
        ("table `texts`", "collation utf8mb4_0900_ai_ci"),
    }
    assert fetch(destination, "SELECT id, thrice FROM seen ORDER BY id") == [(5, 15), (9, 27)]
    programs_work(destination)


def test_mariadb_comes_to_mysql(mariadb, mysql, tmp_path):
    url, destination = mariadb.database(), mysql.database()
    run_sql(url, OF_MARIADB.read_text())
    # no TIME of MySQL is so far from zero: the comparison at the end would say so
    run_sql(url, "UPDATE moments SET t6 = '-838:59:59' WHERE t6 < '-838:59:59'")
    location = exported(url, tmp_path / "bundle")
    losses = restored(location, destination, tmp_path / "kept")
    assert live_tables(parse_url(destination)) == live_tables(parse_url(url))
    assert ("sequence `tickets`", "definition") in losses
    programs_work(destination)


def test_rows_that_violate_a_check_come_to_mysql_and_the_check_is_named(mariadb, mysql, tmp_path):
    url, destination = mariadb.database(), mysql.database()
    run_sql(
        url,
        "CREATE TABLE t (id INT PRIMARY KEY, a INT CHECK (a > 5), CONSTRAINT `o``dd` CHECK (id < 9));"
        "SET check_constraint_checks = 0; INSERT INTO t VALUES (1, 1), (10, 7)",
    )
    reader = read_bundle(exported(url, tmp_path / "bundle"))
    kept = open_location(str(tmp_path / "kept"))
    outcome = restore_from(reader, "app", destination, workers=2, report=kept)
    assert outcome.findings == ()
    assert [one.partition(":")[0] for one in outcome.left_out] == [
        "check `o``dd` of `t`",
        "check `t_chk_1` of `t`",
    ]
    losses = pq.read_table(tmp_path / "kept/app/losses.parquet").to_pylist()
    assert [(one["item"], one["property"]) for one in losses][:1] == [("check `o``dd` of `t`", "constraint")]
    assert fetch(destination, "SELECT * FROM t ORDER BY id") == [(1, 1), (10, 7)]
    assert fetch(destination, "SHOW CREATE TABLE t")[0][1].count("NOT ENFORCED") == 2


def lost_values(url: str, destination: str, location: Path) -> list[str]:
    reader = read_bundle(exported(url, location / "bundle"))
    account = open_location(str(location / "kept"))
    outcome = restore_from(reader, "app", destination, workers=2, report=account)
    assert outcome.findings == ()
    losses = pq.read_table(location / "kept/app/losses.parquet").to_pylist()
    lost = {f"{one['item']}: {one['reason']}" for one in losses if one["property"] == "values"}
    assert {one.removeprefix("values of ") for one in outcome.left_out} == lost
    return sorted(lost)


def test_a_zero_with_a_sign_is_named_where_mariadb_has_none(mysql, mariadb, tmp_path):
    url, destination = mysql.database(), mariadb.database()
    run_sql(
        url,
        "CREATE TABLE t (id INT PRIMARY KEY, d DOUBLE, f FLOAT, g DOUBLE);"
        "INSERT INTO t VALUES (1, -0e0, -0e0, 1), (2, 0, 0, -1.5), (3, '-0', NULL, 0);"
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1",
    )
    reason = "of -0 are 0 here: MariaDB has none"
    assert lost_values(url, destination, tmp_path) == [f"`t`.`d`: 2 {reason}", f"`t`.`f`: 1 {reason}"]
    assert len(fetch(destination, "SHOW EVENTS")) == 1


def test_times_beyond_the_last_second_are_named_where_mysql_ends(mariadb, mysql, tmp_path):
    url, destination = mariadb.database(), mysql.database()
    run_sql(
        url,
        "CREATE TABLE t (id INT PRIMARY KEY, a TIME(6), b TIME(2)); INSERT INTO t VALUES"
        " (1, '-838:59:59.999999', '838:59:59.99'), (2, '838:59:59', NULL), (3, '-838:59:58.5', '00:00:00')",
    )
    reason = "beyond 838:59:59 are that here: MySQL has none"
    assert lost_values(url, destination, tmp_path) == [f"`t`.`a`: 1 {reason}", f"`t`.`b`: 1 {reason}"]
    assert fetch(destination, "SELECT CONCAT(a) FROM t WHERE id = 1") == [("-838:59:59.000000",)]


def test_a_versioned_table_without_transactions_comes_to_mysql_without_its_history(mariadb, mysql, tmp_path):
    url, destination = mariadb.database(), mysql.database()
    run_sql(
        url,
        "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=Aria WITH SYSTEM VERSIONING; INSERT INTO t VALUES (1), (2);"
        "DELETE FROM t WHERE id = 1",
    )
    reader = read_bundle(exported(url, tmp_path / "bundle"))
    outcome = restore_from(reader, "app", destination)
    assert (outcome.findings, len(outcome.left_out)) == ((), 1)
    assert fetch(destination, "SELECT * FROM t") == [(2,)]


REFUSED = """
CREATE TABLE aside (a INT, CONSTRAINT `un``fit` FOREIGN KEY (a) REFERENCES parent (b));
CREATE TABLE parent (a INT, b INT, KEY a (a)); INSERT INTO parent VALUES (1, 1), (2, 2);
CREATE TABLE child (id INT PRIMARY KEY, a INT, CONSTRAINT fit FOREIGN KEY (a) REFERENCES parent (a));
INSERT INTO child VALUES (1, 1), (2, 2); INSERT INTO aside VALUES (1);
CREATE TABLE padded (id INT PRIMARY KEY, v VARCHAR(9) COLLATE latin1_swedish_nopad_ci, UNIQUE KEY `u,` (v));
INSERT INTO padded VALUES (1, 'a'), (2, 'a ');
CREATE TABLE counted (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, g INT AS (id + 1), d DECIMAL(40,35),
  b BLOB DEFAULT 'x');
INSERT INTO counted (d) VALUES (1.5), (-0.00000000000000000000000000000000001);
CREATE TABLE shaped (id INT PRIMARY KEY); INSERT INTO shaped VALUES (1), (2);
SET sql_mode = ''; ALTER TABLE shaped ADD p POINT NOT NULL; UPDATE shaped SET p = POINT(1, 2) WHERE id = 2;
CREATE TABLE odd (id INT PRIMARY KEY, j TEXT, c VARCHAR(99) AS (JSON_EXTRACT(j, '$.a')), KEY k (c));
INSERT INTO odd (id, j) VALUES (1, '{"a": 1}'), (2, 'no JSON')
"""


def test_what_mysql_refuses_of_tables_of_mariadb_is_named_and_all_rows_come(mariadb, mysql, tmp_path):
    url, destination = mariadb.database(), mysql.database()
    run_sql(url, f"SET foreign_key_checks = 0; {REFUSED}")
    reader = read_bundle(exported(url, tmp_path / "bundle"))
    kept = open_location(str(tmp_path / "kept"))
    outcome = restore_from(reader, "app", destination, workers=2, report=kept)
    assert outcome.findings == ()
    losses = pq.read_table(tmp_path / "kept/app/losses.parquet").to_pylist()
    assert sorted((one["item"], one["property"]) for one in losses if "collation" not in one["property"]) == [
        ("`shaped`.`p`", "values"),
        ("table `aside`", "foreign key"),
        ("table `counted`", "generated column"),
        ("table `counted`", "type decimal"),
        ("table `odd`", "generated column"),
        ("table `padded`", "key"),
        ("table `shaped`", "NOT NULL"),
    ]
    assert fetch(destination, "SELECT id, p IS NULL FROM shaped ORDER BY id") == [(1, 1), (2, 0)]
    query = "SELECT id, g, CONCAT(d), b FROM counted ORDER BY id"
    assert fetch(destination, query) == fetch(url, query)
    assert fetch(destination, "SELECT id, c FROM odd ORDER BY id") == [(1, "1"), (2, None)]
    assert "KEY `k` (`c`)" in fetch(destination, "SHOW CREATE TABLE odd")[0][1]
    assert "KEY `u,` (`v`)" in fetch(destination, "SHOW CREATE TABLE padded")[0][1]
    assert "CONSTRAINT `fit`" in fetch(destination, "SHOW CREATE TABLE child")[0][1]
