"""Definitions whose texts need escapes, or are in other charsets than the server's own, come back as they were."""

import json
from contextlib import closing
from pathlib import Path

import pymysql
import pytest

from exporters.mysql.connection import connect, parse_url
from exporters.mysql.definitions import show_create
from migrate.restore.mysql.definitions.table_ddl import inheriting, items_of
from tests.exporters.mysql.databases import (
    checksums,
    client,
    definitions,
    dump,
    export_database,
    fetch,
    open_database,
    run_sql,
)
from tests.tools.bundles import differences, read_bundle, restore_from, restore_whole
from tests.tools.mysql_settings import global_settings

ESCAPES = (Path(__file__).parent / "escapes.sql").read_text(encoding="utf-8")
FOUND = "SELECT a, `b\\c`, d, HEX(CONVERT(l USING utf8mb4)), HEX(CONVERT(c USING utf8)), HEX(b) FROM of_texts, of_bytes"


@pytest.fixture(scope="module")
def escapes(mariadb) -> str:
    url = mariadb.database()
    run_sql(url, ESCAPES)
    return url


def check(url: str, destination: str) -> None:
    assert definitions(destination) == definitions(url)
    assert dump(destination) == dump(url)
    assert checksums(destination) == checksums(url)
    assert fetch(destination, FOUND) == fetch(url, FOUND)
    assert fetch(destination, FOUND)[0] == ("a\\b", "it's", "a\\'", "C3BC5C27", "D096", "FF00")


def test_texts_with_quotes_backslashes_and_bytes_of_other_charsets_come_back(
    escapes, other_mariadb, tmp_path
):
    assert export_database(escapes, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    destination = other_mariadb.database()
    restore_whole(reader, "app", destination)
    check(escapes, destination)
    assert differences(reader, destination) == []
    with (
        open_database(destination) as connection,
        pytest.raises(pymysql.Error, match=r"CONSTRAINT `c.+d` failed"),
    ):
        connection.query("INSERT INTO texts (plain) VALUES ('no\\\\, it''s')")
    run_sql(destination, "INSERT INTO texts (id) VALUES (9)")
    assert fetch(destination, "SELECT plain, long_, called, made FROM texts WHERE id = 9") == [
        ('it\'s \\ "q"', "it's \\, KEY (x", "\\X'Y", 'it\'s \\ "q"a\'b\\"')
    ]


SHOWN_TO_NOBODY = """
SET sql_mode = 'IGNORE_BAD_TABLE_OPTIONS';
CREATE TABLE t (a INT foo = bar, KEY (a) zip = zap) quux = 1;
CREATE SEQUENCE s; CREATE TABLE log (a INT);
CREATE FUNCTION writes() RETURNS INT MODIFIES SQL DATA BEGIN INSERT INTO log VALUES (1); RETURN 1; END;
CREATE VIEW counts AS SELECT NEXT VALUE FOR s; CREATE VIEW a_writer AS SELECT writes() AS x;
CREATE VIEW of_both AS SELECT * FROM a_writer, counts;
CREATE EVENT past ON SCHEDULE AT CURRENT_TIMESTAMP + INTERVAL 1 SECOND DO SELECT 1;
CREATE EVENT kept ON SCHEDULE AT CURRENT_TIMESTAMP + INTERVAL 1 SECOND ON COMPLETION PRESERVE DO SELECT 1;
SELECT SLEEP(2);
"""


def test_what_a_server_shows_only_when_asked_otherwise_comes_back(mariadb, other_mariadb, tmp_path):
    """Unknown options of tables, views that write; events whose time is over are named."""
    url, destination = mariadb.database(), other_mariadb.database()
    with global_settings(mariadb.url, other_mariadb.url, log_bin_trust_function_creators=1):
        run_sql(url, SHOWN_TO_NOBODY)
        before = definitions(url)
        assert export_database(url, tmp_path / "bundle").complete
        reader = read_bundle(tmp_path / "bundle")
        outcome = restore_from(reader, "app", destination)
    assert (outcome.findings, len(outcome.notes)) == ((), 1)
    assert "DROP TABLE `moveout_restore_left_out`" in outcome.notes[0]
    assert outcome.left_out == (
        "event `kept`: it is disabled: its time is over",
        "event `past`: its time is over: the server drops it at once",
    )
    events = [one for one in before if one["kind"] == "event"]
    assert [one for one in definitions(destination) if one["kind"] != "event"] == before[: -len(events)]
    assert "`quux`='1'" in next(one["sql"] for one in before if one["name"] == "t")
    assert fetch(url, "SELECT COUNT(*) FROM log") == [(0,)]
    assert fetch(destination, "SELECT next_not_cached_value FROM s") == [(1,)]


def test_the_script_for_people_makes_the_same(escapes, other_mariadb, tmp_path):
    assert export_database(escapes, tmp_path / "bundle").complete
    destination = other_mariadb.database()
    script = tmp_path / "bundle/data/app/schema/schema.sql"
    client(
        "mariadb",
        destination,
        "--default-character-set=utf8mb4",
        given=script.read_text(errors="surrogateescape"),
    )
    assert definitions(destination) == definitions(escapes)


def test_quotes_behind_backslashes_do_not_end_a_text():
    _, _, items = items_of(r"CREATE TABLE `t` (`a\` text DEFAULT 'x\'y, \\', KEY `k` (`a\`)) COMMENT='it''s'")
    assert items == [r"`a\` text DEFAULT 'x\'y, \\'", r"KEY `k` (`a\`)"]


def test_a_column_that_inherits_its_collation_goes_on_doing_so():
    """MySQL prints an inherited collation like one that was chosen, but for the charset before it."""
    of = """CREATE TABLE `t` (
  `a COLLATE utf8mb4_unicode_ci` varchar(9){} NOT NULL DEFAULT ' COLLATE utf8mb4_unicode_ci',
  `chosen` text CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  `other` text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  `made` text{} GENERATED ALWAYS AS ((`chosen` collate utf8mb4_unicode_ci)) VIRTUAL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"""
    printed = of.format(*[" COLLATE utf8mb4_unicode_ci"] * 2)
    assert inheriting(printed) == of.format("", "")
    without = printed.removesuffix(" COLLATE=utf8mb4_unicode_ci")
    assert inheriting(without) == without


@pytest.mark.parametrize("kind", ["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def test_views_that_exchange_their_names_while_they_are_read_are_read_again(kind, request, monkeypatch):
    """Else both would be what one of them was."""
    url, swap = request.getfixturevalue(kind).database(), "RENAME TABLE a TO c, b TO a, c TO b"
    swaps = [swap]
    run_sql(url, "CREATE VIEW a AS SELECT 1 AS x; CREATE VIEW b AS SELECT 2 AS x")
    read = show_create.read_definition

    def read_and_swap(connection, kind, name):
        definition = read(connection, kind, name)
        if swaps:
            run_sql(url, swaps.pop())
        return definition

    monkeypatch.setattr(show_create, "read_definition", read_and_swap)
    with closing(connect(parse_url(url))) as connection:
        connection.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.run("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        schema = show_create.read_schema(connection, [])
        swaps.append(swap)
        monkeypatch.setattr(show_create, "_TRIES", 1)
        read_in_vain = show_create.read_schema(connection, [])
    definitions = json.loads(schema.files[show_create.DEFINITIONS])
    views = {
        definition["name"]: definition["sql"] for definition in definitions if definition["kind"] == "view"
    }
    assert ("select 2 AS" in views["a"], "select 1 AS" in views["b"]) == (True, True), views
    named = [[loss.item for loss in each.missing.losses] for each in (schema, read_in_vain)]
    assert ["views and events" in items for items in named] == [False, True]
