"""A publication is made while an application locks tables: nobody is ended for it."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from exporters.errors import SourceUnreachableError
from exporters.postgres.catalog import read_tables
from exporters.postgres.changes import publication
from exporters.postgres.changes.log import open_change_log
from exporters.postgres.changes.publication import followed_tables, make_publication, published_tables
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.waiting import eventually

TABLES = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE z (id int PRIMARY KEY)"
LOOKS = """
SELECT 1 FROM pg_stat_activity
WHERE query LIKE '%pg_locks l JOIN%' AND datname = current_database() AND pid <> pg_backend_pid()
"""
WAITING = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = '{}'::regclass"


@pytest.fixture
def url(postgres):
    url = postgres.database()
    run_sql(url, TABLES)
    return url


def published(url):
    with psycopg.connect(url, autocommit=True) as connection:
        make_publication(connection, "all_of_it", followed_tables(connection, read_tables(connection)))
        return published_tables(connection, "all_of_it")


def test_who_locks_the_other_way_round_is_not_in_a_deadlock(url):
    with ThreadPoolExecutor(1) as threads, psycopg.connect(url) as application:
        application.execute("SET deadlock_timeout = '10s'")  # so that we would be the one that is ended
        application.execute("LOCK TABLE z IN SHARE ROW EXCLUSIVE MODE")
        made = threads.submit(published, url)
        eventually(lambda: fetch(url, WAITING.format("z")))
        application.execute("LOCK TABLE a IN SHARE ROW EXCLUSIVE MODE")
        application.commit()
        assert made.result() == {("public", "a"), ("public", "z")}


def test_a_table_that_stays_locked_is_named(url, monkeypatch):
    monkeypatch.setattr(publication, "_WAIT_SECONDS", 1.0)
    with psycopg.connect(url) as application:
        application.execute("LOCK TABLE z IN SHARE ROW EXCLUSIVE MODE")
        session = application.info.backend_pid
        with pytest.raises(
            SourceUnreachableError, match=rf"z. cannot be followed: waiting for \d+ s: session {session} \("
        ):
            published(url)


def test_a_table_that_is_emptied_at_that_moment_is_followed(url):
    log = open_change_log(url, {}, "emptied")
    with ThreadPoolExecutor(1) as threads, psycopg.connect(url) as application:
        application.execute("TRUNCATE z, a")

        def base():
            with log.open_base() as base:
                return base

        made = threads.submit(base)
        eventually(lambda: fetch(url, LOOKS))
        application.commit()
        base = made.result()
    try:
        assert not base.not_followed
    finally:
        log.drop(base.log)


def test_a_table_that_no_other_database_partitions_alike_is_named(postgres):
    """The hash of an enum is that of a number which each database gives it."""
    url = postgres.database()
    run_sql(
        url,
        "CREATE TYPE mood AS ENUM ('a'); CREATE DOMAIN mild AS mood;"
        "CREATE TABLE t (m mild, n int, PRIMARY KEY (m, n)) PARTITION BY HASH (n, m);"
        "CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0) PARTITION BY LIST (n);"
        "CREATE TABLE t_1 PARTITION OF t_0 DEFAULT;"
        "CREATE TABLE u (m mood, n int PRIMARY KEY) PARTITION BY HASH (n);"
        "CREATE TABLE u_0 PARTITION OF u FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    )
    log = open_change_log(url, {}, "hashed")
    with log.open_base() as base:
        pass
    log.drop(base.log)
    assert [table.name for table in base.not_followed] == ['"public"."t_1"']
    assert "without follow" in base.not_followed[0].remedy
