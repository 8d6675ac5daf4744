"""The server's own count: of the snapshot, beside the rows, and over at once when nobody waits for it."""

import threading
import time

import psycopg
import pytest

from exporters.errors import SourceUnreachableError
from exporters.postgres import chunk_plan, server_counts
from exporters.postgres.server_counts import Counting
from exporters.postgres.sessions import snapshot_transaction
from exporters.postgres.sessions.connection import parse_url
from exporters.postgres.sessions.snapshot_session import open_snapshot
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.waiting import eventually


def test_tables_are_counted_as_the_snapshot_has_them(postgres, monkeypatch):
    monkeypatch.setattr(
        snapshot_transaction, "QUERIES", 3
    )  # then a connection leaves its transaction and begins another
    url = postgres.database()
    run_sql(
        url,
        "".join(
            f"CREATE TABLE t_{n} AS SELECT 'é' || x AS word FROM generate_series(1, {n}) x;" for n in range(8)
        ),
    )
    with open_snapshot(parse_url(url)) as (session, tables):
        run_sql(url, "".join(f"INSERT INTO t_{n} VALUES ('late');" for n in range(8)))
        counted = Counting(session, dict(enumerate(tables)), workers=1)
        try:
            counts = counted.result()
        finally:
            counted.close()
    by_name = {tables[number].name: count for number, count in counts.items()}
    assert {name: count.rows for name, count in by_name.items()} == {f"t_{n}": n for n in range(8)}
    assert {name: count.octets for name, count in by_name.items()} == {
        f"t_{n}": {"word": 3 * n} for n in range(8)
    }


def test_a_table_whose_connection_ends_is_counted_on_another_one(postgres, monkeypatch):
    url, queries = postgres.database(), []
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS x; CREATE TABLE u AS SELECT 2 AS x")
    with open_snapshot(parse_url(url)) as (session, tables):
        keep = session.holder.info.backend_pid

        def rows_of(*of):
            queries.append(of)
            if len(queries) == 2:
                others = f"FROM pg_stat_activity WHERE application_name LIKE 'moveout%' AND pid <> {keep}"
                others += " AND datname = current_database()"
                assert fetch(url, f"SELECT pg_terminate_backend(pid) {others}") == [(True,)]
                while fetch(url, f"SELECT count(*) {others}") != [(0,)]:
                    time.sleep(0.02)
            return chunk_plan.rows_of(*of)

        monkeypatch.setattr(server_counts, "rows_of", rows_of)
        counted = Counting(session, dict(enumerate(tables)), workers=1)
        try:
            assert [count.rows for count in counted.result().values()] == [1, 1]
        finally:
            counted.close()


def test_a_server_that_lets_nobody_in_is_waited_for_once(postgres, monkeypatch):
    url, tries = postgres.database(), []
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS x")

    def refuse(*_, **__):
        tries.append(1)
        raise SourceUnreachableError("it is starting") from psycopg.OperationalError()

    with open_snapshot(parse_url(url)) as (session, tables):
        monkeypatch.setattr(server_counts, "connect_once", refuse)
        monkeypatch.setattr(server_counts, "_WAIT_SECONDS", -1.0)
        counted = Counting(session, dict(enumerate(tables)), workers=1)
        with pytest.raises(SourceUnreachableError, match="it is starting"):
            counted.result()
        counted.close()
    assert len(tries) == 1


def test_a_count_that_is_under_way_is_cancelled(postgres):
    """Here it waits behind somebody who waits to alter the table; a long one is cancelled alike."""
    url = postgres.database()
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS x; CREATE TABLE u AS SELECT 1 AS x")
    asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%FROM ONLY%'"
    with open_snapshot(parse_url(url)) as (session, tables), psycopg.connect(url) as other:
        altering = threading.Thread(target=_alter, args=(other,))
        altering.start()
        while not fetch(url, "SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0]:
            time.sleep(0.02)
        counted = Counting(session, {table.oid: table for table in tables}, workers=2)
        while not fetch(url, "SELECT count(*) > 1 FROM pg_locks WHERE NOT granted")[0][0]:
            time.sleep(0.02)
        began = time.monotonic()
        counted.close()
        assert time.monotonic() - began < 60
        eventually(lambda: fetch(url, f"{asked} AND state = 'active' AND pid <> pg_backend_pid()") == [(0,)])
        other.cancel_safe()
        altering.join()


def _alter(connection: psycopg.Connection) -> None:
    try:
        connection.execute("ALTER TABLE t ADD COLUMN y int")
    except psycopg.errors.QueryCanceled:
        connection.rollback()


def test_rows_of_a_table_that_was_never_analyzed_are_guessed_by_what_was_written(postgres):
    url = postgres.database()
    run_sql(url, "CREATE TABLE wide AS SELECT repeat('x', 400) AS t, n FROM generate_series(1, 5000) n")
    with open_snapshot(parse_url(url)) as (_, (table,)):
        assert table.estimate == 5000
    run_sql(url, "SELECT pg_stat_reset()")  # as after a crash
    run_sql(url, "INSERT INTO wide VALUES ('', 0)")
    with open_snapshot(parse_url(url)) as (_, (table,)):
        assert table.heap_bytes // 8192 <= table.estimate <= 5001
