"""The server's own counts, and the definitions, are read while the rows are, on the session that holds the snapshot."""

import time

import pymysql
import pytest

from exporters.mysql.connection import parse_url
from exporters.mysql.consistent_snapshot import open_snapshot
from exporters.mysql.definitions.show_create import SCRIPT, read_schema
from exporters.mysql.server_counts import Counting
from exporters.mysql.source import MysqlExporter
from exporters.rate_sampling import MemoryWorkspace
from exporters.testing import MemorySink
from tests.exporters.mysql.databases import export_database, run_sql
from tests.exporters.postgres.databases import NoBuckets
from tests.tools.bundles import read_bundle

SLOW = """
CREATE TABLE slow (a INT PRIMARY KEY, b LONGTEXT AS (REPEAT('x', 4000000)) VIRTUAL);
INSERT INTO slow (a) SELECT seq FROM seq_1_to_50000;
"""
"""To measure ``b`` the server makes 200 GB of text."""


def test_the_holder_counts_where_no_other_session_is_left(mariadb):
    url = mariadb.database()
    run_sql(
        url, "CREATE TABLE t (a INT, b VARCHAR(9)); INSERT INTO t VALUES (1, 'one'), (2, NULL), (3, 'zwölf');"
    )
    with open_snapshot(parse_url(url), workers=1) as (session, tables):
        counting = Counting(session, dict(enumerate(tables)), workers=1)
        counting.begin()
        while counting._left:
            time.sleep(0.01)
        session.feeds.close()
        (counted,) = counting.result().values()
        counting.close()
    assert (counted.rows, counted.octets) == (3, {"b": 9})


def test_a_table_whose_session_ends_is_counted_by_another_one(mariadb):
    url = mariadb.database()
    run_sql(url, "CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2)")
    with open_snapshot(parse_url(url), workers=2) as (session, tables):
        ended = session.feeds.use(lambda feed: feed.connection.raw.thread_id())
        run_sql(url, f"KILL {ended}")
        session.feeds.use(
            lambda feed: feed.value("SELECT 1")
        )  # the other one, so that the next is that which ended
        counting = Counting(session, dict(enumerate(tables)), workers=1)
        (counted,) = counting.result().values()
        counting.close()
    assert counted.rows == 2


TEXTS = """
CREATE TABLE t (
  a VARCHAR(50) CHARACTER SET latin1, b TEXT CHARACTER SET koi8r, c VARCHAR(9) CHARACTER SET sjis,
  d ENUM('\u00e4', 'b') CHARACTER SET latin1, e JSON, f UUID
);
INSERT INTO t VALUES ('\u00e4\u00f6\u20ac', '\u043f\u0440\u0438', _sjis X'955C5C', '\u00e4', '{"a": 1}', UUID()),
  (NULL, NULL, NULL, NULL, NULL, NULL), ('abc', _koi8r X'D4FF80', _sjis X'8160', 'b', '[]', NULL);
"""


def test_texts_of_other_charsets_are_counted_as_they_leave(mariadb, tmp_path):
    url = mariadb.database()
    run_sql(url, TEXTS)
    outcome = export_database(url, tmp_path / "bundle")
    assert outcome.complete
    (table,) = read_bundle(tmp_path / "bundle").catalog()
    assert table.details["server_octets"] == table.details["octets"]
    assert table.details["octets"] == {"a": 10, "b": 13, "c": 11, "d": 3}
    counted = [one for one in outcome.sources[0].enumerations if one.what.startswith("bytes")]
    assert [(one.how, one.count) for one in counted] == [
        ("sum(length()) under the snapshot, 2 columns not counted", 37),
        ("in the exported rows", 37),
    ]


def test_a_count_that_nobody_waits_for_any_more_is_stopped(mariadb):
    url = mariadb.database()
    run_sql(url, SLOW)
    with open_snapshot(parse_url(url), workers=1) as (session, tables):
        counting = Counting(session, dict(enumerate(tables)), workers=1)
        counting.begin()
        while not counts_of(mariadb, url):
            time.sleep(0.01)
        begun = time.monotonic()
        counting.close()
    while counts_of(mariadb, url):
        time.sleep(0.01)
    assert time.monotonic() - begun < 30


def counts_of(mariadb, url):
    """Return the counts that the server is busy with in a database."""
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT info FROM information_schema.processlist WHERE db = %s AND info LIKE 'SELECT CONCAT(COUNT(%%'",
            (url.rpartition("/")[2],),
        )
        return cursor.fetchall()


@pytest.mark.parametrize("fails", [False, True])
def test_definitions_are_read_while_the_rows_are_and_again_where_that_fails(mariadb, monkeypatch, fails):
    url, sink = mariadb.database(), MemorySink()
    run_sql(url, "CREATE TABLE t (a INT); CREATE VIEW v AS SELECT 1 AS one")
    source = MysqlExporter().open("app", url, NoBuckets())

    def locked(*_):
        raise pymysql.OperationalError(1205, "Lock wait timeout exceeded")

    with source.snapshot(MemoryWorkspace(), workers=1) as snapshot:
        if fails:
            monkeypatch.setattr("exporters.mysql.snapshot.read_schema", locked)
        snapshot.begin_outline(MemoryWorkspace())
        assert isinstance(snapshot._defining.exception(), pymysql.OperationalError) == fails
        monkeypatch.setattr("exporters.mysql.snapshot.read_schema", read_schema)
        run_sql(url, "DROP VIEW v")
        snapshot.finish(iter(()), sink)
    script = sink.files[SCRIPT].decode()
    assert "CREATE TABLE `t`" in script
    assert ("VIEW `v`" in script) == (not fails)
