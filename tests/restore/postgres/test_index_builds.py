"""Indexes of large tables share the processors and the memory of the server."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from exporters.postgres.sessions.connection import parse_url
from migrate.restore.postgres import destination as postgres_destination
from migrate.restore.postgres import restore_state
from migrate.restore.postgres.definitions import index_builds
from migrate.restore.postgres.definitions.dump_script import DumpEntry
from migrate.restore.postgres.definitions.index_builds import (
    Build,
    BuildLimits,
    IndexBuilds,
    count_processors,
    settings,
)
from migrate.restore.postgres.definitions.post_data import StepRunner
from migrate.restore.postgres.definitions.post_data_order import stages
from tests.exporters.postgres.databases import fetch, run_sql

_MB = 2**20
_MOST_WORKERS = 2
"""A server's max_parallel_maintenance_workers, where nobody has set it."""


def limits(processors: int | None) -> BuildLimits:
    return BuildLimits(_MOST_WORKERS, 256 * 1024, file_limit=False, processors=processors)


def builds(count: int, *, sessions: int, processors: int) -> Sequence[int]:
    """Return how many processes in addition each of so many equal indexes gets, if those that begin together take
    as long as each other.
    """
    given = []
    for number in range(count):
        under_way = number % sessions
        sql = settings(
            100 * _MB,
            (count - 1 - number) * 100 * _MB,
            [Build(100 * _MB, 0.1)] * under_way,
            sessions=sessions,
            speed=0 if number < sessions else 10 * _MB,
            limits=limits(processors),
        )
        given.append(int(sql.split(b"workers = ")[1].split(b";")[0]))
    return given


@pytest.mark.parametrize(
    ("count", "sessions", "processors", "expected"),
    [
        (1, 2, 2, [1]),
        (2, 2, 2, [0, 0]),
        (3, 2, 2, [0, 0, 1]),
        (4, 2, 2, [0, 0, 0, 0]),
        (5, 2, 2, [0, 0, 0, 0, 1]),
        (3, 1, 2, [1, 1, 1]),
        (3, 2, 4, [1, 1, 2]),
        (9, 8, 4, [0] * 8 + [2]),
        (1, 2, 1, [0]),
        (3, 3, 4, [0] * 3),
        (8, 8, 15, [1] * 8),
        (5, 2, 16, [2] * 5),
        (9, 4, 16, [2] * 9),
    ],
)
def test_as_many_processes_make_indexes_as_the_server_has_processors(count, sessions, processors, expected):
    assert builds(count, sessions=sessions, processors=processors) == expected


def test_an_index_that_is_nearly_made_leaves_its_processor_to_the_last_one():
    def last(seconds: float) -> bytes:
        running = [Build(100 * _MB, seconds)]
        return settings(100 * _MB, 0, running, sessions=2, speed=10 * _MB, limits=limits(2))

    assert b"workers = 0" in last(1)
    assert b"workers = 1" in last(9)


def test_an_index_that_takes_much_longer_than_all_others_is_shared():
    large, small = 1000 * _MB, 100 * _MB
    first = settings(large, 2 * small, [], sessions=2, speed=0, limits=limits(2))
    assert b"workers = 1" in first
    small_one = settings(small, small, [Build(large, 0.1)], sessions=2, speed=0, limits=limits(2))
    assert b"workers = 0" in small_one


def test_a_server_that_does_not_say_how_many_processors_it_has_decides_by_itself():
    assert settings(_MB, 5 * _MB, [], sessions=2, speed=0, limits=limits(None)) == b""


def test_memory_lets_all_sorted_pieces_be_merged_at_once_and_is_no_more_than_the_server_grants():
    for gigabytes in (1, 10, 100, 1000):
        sorted_kb = 2 * gigabytes * 2**20
        memory_kb = index_builds.sort_memory_kb(gigabytes * 2**30)
        assert sorted_kb / memory_kb <= memory_kb / 272 * 1.01
    assert b"maintenance_work_mem = 8192;" in settings(
        _MB, 5 * _MB, [], sessions=2, speed=0, limits=limits(2)
    )
    whole = settings(10**13, 5 * 10**13, [], sessions=2, speed=0, limits=limits(2))
    assert b"maintenance_work_mem = 262144;" in whole


def test_a_server_that_bounds_temporary_files_sorts_in_all_memory_that_it_grants():
    bounded = BuildLimits(_MOST_WORKERS, 256 * 1024, file_limit=True, processors=2)
    assert b"work_mem" not in settings(10 * _MB, 50 * _MB, [], sessions=2, speed=0, limits=bounded)


def test_indexes_that_several_processes_share_have_all_memory_that_the_server_grants():
    assert b"work_mem" not in settings(10 * _MB, 0, [], sessions=2, speed=0, limits=limits(2))


@pytest.mark.parametrize(
    ("online", "expected"), [("0\n", 1), ("0-1\n", 2), ("0-3,6,8-9\n", 7), ("", None), ("x", None)]
)
def test_count_processors(online, expected):
    assert count_processors(online) == expected


_NOTED = """
CREATE TABLE t (a int, b text);
INSERT INTO t SELECT n, 'x' FROM generate_series(1, 1000) n;
CREATE TABLE noted (index text, workers text, memory text);
CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.noted SELECT object_identity, current_setting('max_parallel_maintenance_workers'),
  current_setting('maintenance_work_mem') FROM pg_event_trigger_ddl_commands() WHERE object_type = 'index'; END $$;
CREATE EVENT TRIGGER noting ON ddl_command_end EXECUTE FUNCTION note();
"""
_ENTRIES = {
    "CONSTRAINT": "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (a);\n",
    "INDEX": "CREATE INDEX by_b ON public.t USING btree (b);\n",
    "INDEX ": "CREATE INDEX by_hash ON public.t USING hash (b);\n",
}


def test_large_b_trees_are_made_so_and_all_else_as_the_session_is(other_postgres):
    url = other_postgres.database()
    run_sql(url, _NOTED)
    address = parse_url(url)
    with postgres_destination.open_destination(address) as destination:
        restore_state.begin_state(destination.connection, restore_state.PostgresState("b", "s"))
        (default,) = destination.connection.execute("SHOW max_parallel_maintenance_workers").fetchone()
    entries = [
        DumpEntry(number, kind.strip(), "x", "public", sql.encode())
        for number, (kind, sql) in enumerate(_ENTRIES.items())
    ]
    runner = StepRunner(address, b"", set(), workers=1, advance=lambda: None)
    with closing(runner):
        runner.make(stages(entries, {("public", "t"): 50 * _MB}))
        runner.finish()
    assert runner.left_out == []
    processors = count_processors(Path("/sys/devices/system/cpu/online").read_text())
    workers = min(int(default), processors - 1)
    memory = "256MB" if workers else "8MB"
    noted = {name: tuple(values) for name, *values in fetch(url, "SELECT * FROM noted")}
    assert noted["public.by_b"] == noted["public.t_pkey"] == (str(workers), memory)
    assert noted["public.by_hash"] == (default, "256MB")


@pytest.mark.parametrize(
    ("workers", "processors", "sessions"),
    [(2, 2, 3), (8, 8, 9), (2, 4, 2), (3, 2, 3), (1, 1, 1), (2, None, 2)],
)
def test_another_session_makes_the_last_index_where_each_processor_has_a_worker(
    workers, processors, sessions
):
    assert IndexBuilds(workers, limits(processors)).sessions == sessions


_MEETING = """
CREATE TABLE t (a int); INSERT INTO t VALUES (1);
CREATE FUNCTION meet(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  PERFORM pg_advisory_lock_shared(1);
  FOR attempt IN 1..250 LOOP
    IF (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') >= {sessions} THEN RETURN a; END IF;
    PERFORM pg_sleep(0.02);
  END LOOP;
  RAISE 'not so many sessions make indexes at once';
END $$
"""


def test_the_last_large_index_waits_for_no_worker(other_postgres):
    processors = count_processors(Path("/sys/devices/system/cpu/online").read_text())
    workers = max(2, processors)
    sessions = workers + (workers == processors)
    url = other_postgres.database()
    run_sql(url, _MEETING.format(sessions=sessions))
    address = parse_url(url)
    with postgres_destination.open_destination(address) as destination:
        restore_state.begin_state(destination.connection, restore_state.PostgresState("b", "s"))
    entries = [
        DumpEntry(
            number,
            "INDEX",
            "x",
            "public",
            f"CREATE INDEX i{number} ON public.t USING btree (meet(a));\n".encode(),
        )
        for number in range(sessions)
    ]
    runner = StepRunner(address, b"SET search_path = public;", set(), workers=workers, advance=lambda: None)
    with closing(runner):
        runner.make(stages(entries, {("public", "t"): 50 * _MB}))
        runner.finish()
    assert runner.left_out == []
