"""A part of a database: its definitions, its rows, or some of its tables, also beside what is there already."""

import pytest

from exporters.mysql.connection import parse_url
from migrate.errors import NotEmptyError, UsageError
from migrate.restore.mysql import restore as database
from tests.exporters.mysql.databases import definitions, fetch, live_tables, run_sql
from tests.tools.bundles import restore_from


def restore(reader, url, *only):
    outcome = restore_from(reader, "app", url, workers=2, only=only)
    assert outcome.findings == ()
    return outcome


def names(url):
    return {row[0] for row in fetch(url, "SHOW TABLES")}


def test_definitions_first_and_rows_later_make_the_whole(my_torture, my_torture_bundle, other_mariadb):
    """Triggers are there before the rows, and do not fire for them."""
    url = other_mariadb.database(options="CHARACTER SET latin1")
    assert restore(my_torture_bundle, url, "schema").items == 0
    assert definitions(url) == definitions(my_torture)
    assert fetch(url, "SELECT count(*) FROM parent") == [(0,)]
    outcome = restore(my_torture_bundle, url, "data")
    assert outcome.items == sum(row.items for row in my_torture_bundle.catalog())
    assert live_tables(parse_url(url)) == live_tables(parse_url(my_torture))
    assert definitions(url) == definitions(my_torture)
    assert "already" in restore(my_torture_bundle, url, "data").routine[0]


def test_some_tables_come_with_their_keys_triggers_and_sequences_beside_others(my_exported, other_mariadb):
    url, reader = my_exported(
        "CREATE SEQUENCE numbers; CREATE TABLE other (x INT);"
        "CREATE TABLE t (id INT PRIMARY KEY DEFAULT NEXT VALUE FOR numbers, n INT AUTO_INCREMENT UNIQUE);"
        "INSERT INTO t (n) VALUES (1), (50); DELETE FROM t WHERE n = 50;"
        "CREATE TABLE log (id INT PRIMARY KEY, t INT, FOREIGN KEY (t) REFERENCES t (id));"
        "INSERT INTO log VALUES (7, 1);"
        "CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW INSERT INTO other VALUES (NEW.n);"
        "CREATE TRIGGER not_this AFTER INSERT ON other FOR EACH ROW SET @x = 1; CREATE VIEW v AS SELECT 1"
    )
    destination = other_mariadb.database()
    run_sql(destination, "CREATE TABLE mine (x INT)")
    assert restore(reader, destination, "t", "log").items == 2
    assert names(destination) == {"mine", "t", "log", "numbers"}
    assert [row[0] for row in fetch(destination, "SHOW TRIGGERS")] == ["tr"]
    for name in ("t", "log"):
        wanted = fetch(url, f"SHOW CREATE TABLE {name}")[0][1].replace(url.rpartition("/")[2], "DATABASE")
        definition = fetch(destination, f"SHOW CREATE TABLE {name}")[0][1].replace(
            destination.rpartition("/")[2], "DATABASE"
        )
        assert definition == wanted
    assert fetch(destination, "SELECT NEXT VALUE FOR numbers")[0][0] > 2
    assert "already" in restore(reader, destination, "t", "log").routine[0]
    run_sql(destination, "UPDATE t SET n = 2")
    with pytest.raises(NotEmptyError, match="table t already"):
        restore(reader, destination, "t")


def test_rows_go_into_tables_that_the_application_has_made(my_exported, other_mariadb):
    _, reader = my_exported(
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, x INT) AUTO_INCREMENT=90; INSERT INTO t VALUES (1, 5);"
        "CREATE TABLE u (id INT PRIMARY KEY)"
    )
    destination = other_mariadb.database()
    with pytest.raises(UsageError, match="has no table t and 1 more"):
        restore(reader, destination, "data")
    run_sql(destination, "CREATE TABLE t (x BIGINT, id INT PRIMARY KEY AUTO_INCREMENT)")
    with pytest.raises(UsageError, match="has no table u"):
        restore(reader, destination, "data")
    run_sql(destination, "INSERT INTO t VALUES (1, 1)")
    with pytest.raises(NotEmptyError, match="table t with rows in it"):
        restore(reader, destination, "data", "t")
    run_sql(
        destination,
        "DELETE FROM t; CREATE TRIGGER mine BEFORE INSERT ON t FOR EACH ROW SET NEW.x = 0",
    )
    with pytest.raises(NotEmptyError, match="`mine` of table `t` is not as in the bundle"):
        restore(reader, destination, "data", "t")
    assert fetch(destination, "SELECT count(*) FROM t") == [(0,)]


def test_triggers_that_were_put_aside_are_made_by_the_run_that_ends_it(
    my_torture_bundle, my_torture, other_mariadb, monkeypatch
):
    url = other_mariadb.database()
    restore(my_torture_bundle, url, "schema")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(database, "set_counters", stop)
        with pytest.raises(KeyboardInterrupt):
            restore(my_torture_bundle, url, "data")
    assert fetch(url, "SHOW TRIGGERS") == []
    with pytest.raises(NotEmptyError, match="unfinished restore of data"):
        restore(my_torture_bundle, url)
    restore(my_torture_bundle, url, "data")
    assert definitions(url) == definitions(my_torture)
    assert fetch(url, "SELECT count(*) FROM audit") == [(0,)]
