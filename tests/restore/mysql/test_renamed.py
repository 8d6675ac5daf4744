"""A database under another name: what names the old one itself is told, by name."""

from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from exporters.mysql.identifiers import quote_name
from migrate.storage.registry import open_location
from tests.exporters.mysql.databases import export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from

OLD = "old-shop"
SCRIPT = f"""
CREATE TABLE goods (id INT PRIMARY KEY, n INT);
INSERT INTO goods VALUES (1, 5);
CREATE FUNCTION sum_of() RETURNS INT READS SQL DATA RETURN (SELECT SUM(n) FROM `{OLD}`.goods);
CREATE FUNCTION innocent() RETURNS INT READS SQL DATA RETURN (SELECT SUM(n) FROM goods);
CREATE PROCEDURE put() BEGIN PREPARE s FROM 'DELETE FROM `{OLD}` . `goods`'; END;
CREATE PROCEDURE other() SELECT 1 FROM goods AS `{OLD}x`;
CREATE VIEW seen AS SELECT id FROM `{OLD}`.goods;
CREATE VIEW beside AS SELECT g.id, '`{OLD}`.' AS `{OLD}` FROM goods g
  JOIN information_schema.SCHEMATA ON SCHEMA_NAME = 'mysql';
CREATE DEFINER = 'nobody'@'nowhere' VIEW unowned AS SELECT * FROM goods;
CREATE VIEW alias AS SELECT `{OLD}`.id FROM goods `{OLD}` JOIN information_schema.SCHEMATA ON SCHEMA_NAME = 'mysql';
CREATE TRIGGER watch BEFORE INSERT ON goods FOR EACH ROW SET NEW.n = (SELECT MAX(n) FROM `{OLD}`.goods);
CREATE TRIGGER `{OLD}` . typed AFTER INSERT ON `{OLD}`.goods FOR EACH ROW SET @n = 1;
CREATE EVENT sweep ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM `{OLD}`.goods;
"""
NAMED = {"function `sum_of`", "procedure `put`", "trigger `watch`", "event `sweep`", "view `alias`"}


@pytest.fixture(scope="module")
def bundle(mariadb, tmp_path_factory):
    url = mariadb.database(OLD)
    run_sql(url, SCRIPT)
    location = tmp_path_factory.mktemp("renamed") / "bundle"
    assert export_database(url, location).complete
    return read_bundle(location)


def test_what_names_its_database_is_in_the_ledger(bundle, other_mariadb, tmp_path):
    destination = other_mariadb.database()
    kept = open_location(str(tmp_path / "account"))
    outcome = restore_from(bundle, "app", destination, report=kept)
    assert (outcome.findings, outcome.losses) == ((), len(NAMED))
    rows = pq.read_table(tmp_path / "account/app/losses.parquet").to_pylist()
    assert {row["item"] for row in rows} == NAMED
    assert all(f"names `{OLD}` itself" in row["reason"] for row in rows)
    (note,) = [note for note in outcome.notes if "is named by" in note]
    assert all(name in note for name in NAMED)
    # a view is resolved when it is made: it does not name the database it is in
    assert fetch(destination, "SELECT id FROM seen") == [(1,)]
    # what the server qualifies by itself has the new name
    assert fetch(destination, "SELECT * FROM beside") == [(1, f"`{OLD}`.")]
    # a trigger is of this database, too, where it was typed with the other's name
    assert [row[0] for row in fetch(destination, "SHOW TRIGGERS LIKE 'goods'")] == ["watch", "typed"]
    (row,) = fetch(destination, "SHOW CREATE VIEW unowned")
    assert f"`{OLD}`" not in row[1]
    (left_out,) = outcome.left_out
    assert left_out.startswith("view `alias`: ")


def test_under_the_same_name_there_is_nothing_to_tell(bundle, other_mariadb):
    destination = other_mariadb.database(OLD)
    try:
        outcome = restore_from(bundle, "app", destination)
        assert (outcome.findings, outcome.losses) == ((), 0)
        assert fetch(destination, "SELECT sum_of()") == [(5,)]
    finally:  # what names it is to name nothing where it is restored under another name
        run_sql(other_mariadb.url, f"DROP DATABASE `{OLD}`")


def test_a_database_may_have_any_name(mariadb, other_mariadb, tmp_path):
    name = "a/b@ü`?#%41"
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {quote_name(name)}")
    url = mariadb.url_of(quote(name, safe=""))
    run_sql(url, "CREATE SEQUENCE s; CREATE TABLE t (id INT DEFAULT NEXTVAL(s)); INSERT INTO t VALUES ()")
    outcome = export_database(url, tmp_path / "bundle")
    assert (outcome.complete, outcome.sources[0].url) == (True, url)
    destination = other_mariadb.database()
    restored = restore_from(read_bundle(tmp_path / "bundle"), "app", destination)
    assert (restored.findings, restored.left_out, restored.notes) == ((), (), ())
    run_sql(destination, "INSERT INTO t VALUES ()")
    assert fetch(destination, "SELECT id FROM t") == [(1,), (1001,)]
