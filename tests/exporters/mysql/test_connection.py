"""A session of MySQL: the settings that only some servers know, and the shares in which it reads tables."""

from contextlib import closing

from exporters.mysql import connection as of_mysql
from exporters.mysql.chunk_plan import shares_of
from exporters.mysql.connection import connect, parse_url
from exporters.mysql.consistent_snapshot import open_snapshot
from exporters.mysql.live_digests import live_tables
from exporters.sql import chunk_plan
from tests.exporters.mysql.databases import run_sql

OPTIONAL = {
    "innodb_strict_mode": "0",
    "version_comment": "'ours'",
    "max_statement_time": "7",
    "unheard_of": "1",
}


def test_a_setting_that_the_server_refuses_does_not_keep_the_others_from_being_set(mariadb, monkeypatch):
    monkeypatch.setattr(of_mysql, "_OPTIONAL", OPTIONAL)
    with closing(connect(parse_url(mariadb.database()))) as connection:
        values = connection.rows("SELECT @@SESSION.innodb_strict_mode, @@SESSION.max_statement_time")
    assert [tuple(map(int, row)) for row in values] == [(0, 7)]


def test_a_table_that_is_read_in_shares_has_the_digest_of_the_whole(mariadb, monkeypatch):
    address = parse_url(mariadb.database())
    run_sql(address.url, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT); INSERT INTO t SELECT seq, REPEAT(seq, 40) FROM"
        " seq_1_to_2000; ANALYZE TABLE t")  # fmt: skip
    whole = live_tables(address, workers=2)
    monkeypatch.setattr(chunk_plan, "LEAST_SHARE_BYTES", 1)
    with open_snapshot(address, workers=2) as (session, tables):
        assert len(list(shares_of(session.holder, tables, 2))) == 2
    assert live_tables(address, workers=2) == whole
    assert whole["", "t"].rows == 2000
