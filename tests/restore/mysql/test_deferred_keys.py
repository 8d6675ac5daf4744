"""Keys that are added after the rows: the table is the same, and a run that dies in between is continued."""

import pymysql
import pytest

from exporters.mysql.connection import parse_url
from migrate.restore.mysql.definitions import deferred_keys
from migrate.restore.mysql.definitions.deferred_keys import split_definition
from migrate.restore.mysql.destination import DestinationConnection
from tests.exporters.mysql.databases import export_database, fetch, live_tables, run_sql
from tests.tools.bundles import read_bundle, restore_from, restore_whole

HOSTILE = """CREATE TABLE `t` (
  `id` int(11) NOT NULL COMMENT 'a,
  KEY `no` (`x`)',
  `a``,(` varchar(10) DEFAULT ''',
  UNIQUE KEY `no` (',
  `e` enum('x)','KEY `y`') DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `u``,` (`a``,(`(5)),
  FULLTEXT KEY `f` (`a``,(`),
  KEY `k` (`e`,`id` DESC) COMMENT 'one, two)',
  CONSTRAINT `fk``x` FOREIGN KEY (`e`) REFERENCES `o` (`e`) ON DELETE CASCADE,
  CONSTRAINT `c` CHECK (`id` > 0)
) ENGINE=InnoDB COMMENT='), KEY `z` ('
 PARTITION BY HASH (`id`)"""


def test_only_keys_are_taken_out_of_a_definition():
    split = split_definition(HOSTILE, foreign_only=False)
    assert split.later == [
        "UNIQUE KEY `u``,` (`a``,(`(5))",
        "KEY `k` (`e`,`id` DESC) COMMENT 'one, two)'",
        "CONSTRAINT `fk``x` FOREIGN KEY (`e`) REFERENCES `o` (`e`) ON DELETE CASCADE",
    ]
    lines = HOSTILE.split("\n")
    kept = [
        line for line in lines if not line.startswith(("  UNIQUE KEY `u", "  KEY `k`", "  CONSTRAINT `fk"))
    ]
    assert split.first == "\n".join(kept)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE `t` (\n  `a` int NOT NULL,\n  UNIQUE KEY `a` (`a`)\n) ENGINE=InnoDB",
        (
            "CREATE TABLE `t` (\n  `a` int NOT NULL,\n  `n` int NOT NULL AUTO_INCREMENT,\n  PRIMARY KEY (`a`),\n"
            "  KEY `n` (`n`)\n) ENGINE=InnoDB"
        ),
        "CREATE TABLE `t` (\n  `a` int NOT NULL,\n  PRIMARY KEY (`a`)\n) ENGINE=InnoDB",
    ],
)
def test_keys_that_are_needed_stay(sql):
    assert split_definition(sql, foreign_only=False) == deferred_keys.SplitDefinition(sql)


@pytest.fixture
def every_table_is_large(monkeypatch):
    monkeypatch.setattr(deferred_keys, "LARGE_BYTES", 0)


def test_tables_are_the_same_with_keys_made_late(
    my_torture, my_torture_bundle, other_mariadb, every_table_is_large
):
    destination = other_mariadb.database()
    outcome = restore_from(my_torture_bundle, "app", destination, workers=2)
    assert outcome.findings == ()
    for name, kind in fetch(my_torture, "SHOW FULL TABLES"):
        if kind == "BASE TABLE":
            statement = "SHOW CREATE TABLE `" + name.replace("`", "``") + "`"
            assert fetch(destination, statement) == fetch(my_torture, statement), name


@pytest.mark.parametrize("noted", [False, True])
def test_keys_are_made_by_the_next_run_where_one_stopped(
    my_torture_bundle, my_torture, other_mariadb, every_table_is_large, monkeypatch, noted
):
    destination = other_mariadb.database()
    real, count = deferred_keys.mark_done, iter(range(2))

    def stop(connection, name):
        if noted and next(count, None) is not None:
            real(connection, name)
            return
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deferred_keys, "mark_done", stop)
        with pytest.raises(KeyboardInterrupt):
            restore_from(my_torture_bundle, "app", destination)
    outcome = restore_from(my_torture_bundle, "app", destination, workers=2)
    assert outcome.findings == ()
    assert live_tables(parse_url(destination)) == live_tables(parse_url(my_torture))
    assert fetch(destination, "SHOW CREATE TABLE child") == fetch(my_torture, "SHOW CREATE TABLE child")


def test_keys_that_the_server_ends_for_a_deadlock_are_added_again(
    mariadb, other_mariadb, every_table_is_large, monkeypatch, tmp_path
):
    url, destination = mariadb.database(), other_mariadb.database()
    run_sql(url, "CREATE TABLE t (id INT PRIMARY KEY, a INT, KEY (a)) ENGINE=InnoDB")
    export_database(url, tmp_path / "bundle")
    run, ended = DestinationConnection.run, []

    def end_first(connection, statement):
        if "ADD KEY" in str(statement) and not ended:
            ended.append(statement)
            raise pymysql.OperationalError(1213, "Deadlock found when trying to get lock")
        return run(connection, statement)

    monkeypatch.setattr(DestinationConnection, "run", end_first)
    restore_whole(read_bundle(tmp_path / "bundle"), "app", destination, workers=1)
    assert ended
    assert fetch(destination, "SHOW CREATE TABLE t") == fetch(url, "SHOW CREATE TABLE t")


@pytest.mark.parametrize("kind", ["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def test_a_foreign_key_to_a_database_that_is_missing_is_named_until_that_is_there(kind, request, tmp_path):
    server, other = request.getfixturevalue(kind), request.getfixturevalue(f"other_{kind}")
    url, destination, odd = server.database(), other.database(), "`the ``parents```"
    parent = f"CREATE DATABASE {odd}; CREATE TABLE {odd}.`p``` (id INT PRIMARY KEY)"
    try:
        run_sql(url, f"{parent}; INSERT INTO {odd}.`p``` VALUES (1)")
        run_sql(
            url,
            "CREATE TABLE c (id INT PRIMARY KEY, up INT, CONSTRAINT here FOREIGN KEY (up) REFERENCES c (id),"
            f" CONSTRAINT away FOREIGN KEY (id) REFERENCES {odd}.`p``` (id)); INSERT INTO c VALUES (1, 1)",
        )
        assert export_database(url, tmp_path / "bundle").complete
        reader = read_bundle(tmp_path / "bundle")
        for _ in range(2):
            outcome = restore_whole(reader, "app", destination)
            (note,) = [note for note in outcome.notes if "foreign keys" in note]
            assert (
                "tables of `the ``parents``` that are missing on this server: `away` of `c` (to `p```)."
                in note
            )
        run_sql(destination, parent)
        outcome = restore_from(reader, "app", destination)
        assert not [note for note in outcome.notes if "foreign keys" in note]
    finally:
        run_sql(destination, f"DROP TABLE IF EXISTS c; DROP DATABASE IF EXISTS {odd}")
        run_sql(url, f"DROP TABLE IF EXISTS c; DROP DATABASE {odd}")
