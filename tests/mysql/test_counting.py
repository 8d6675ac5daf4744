"""The server's own counts begin beside the rows, on the session that holds the snapshot."""

import time

from exporters.mysql.connect import parse_url
from exporters.mysql.counting import Counting
from exporters.mysql.session import hold
from tests.mysql.databases import run_sql

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
    with hold(parse_url(url), workers=1) as (session, tables):
        counting = Counting(session, dict(enumerate(tables)), workers=1)
        counting.begin()
        while counting._left:
            time.sleep(0.01)
        session.feeds.close()
        (counted,) = counting.result().values()
        counting.close()
    assert (counted.rows, counted.octets) == (3, {"b": 9})


def test_a_count_that_nobody_waits_for_any_more_is_stopped(mariadb):
    url = mariadb.database()
    run_sql(url, SLOW)
    with hold(parse_url(url), workers=1) as (session, tables):
        counting = Counting(session, dict(enumerate(tables)), workers=1)
        counting.begin()
        while not counts_of(mariadb, url):
            time.sleep(0.01)
        begun = time.monotonic()
        counting.close()
    while counts_of(mariadb, url):
        time.sleep(0.01)
    assert time.monotonic() - begun < 10


def counts_of(mariadb, url):
    """Return the counts that the server is busy with in a database."""
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT info FROM information_schema.processlist WHERE db = %s AND info LIKE 'SELECT CONCAT(COUNT(%%'",
            (url.rpartition("/")[2],),
        )
        return cursor.fetchall()
