"""Killed at any moment, the same command ends in the same result, and nothing that was done is done again."""

import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from exporters.postgres import catalog, chunk_plan
from exporters.postgres.live_digests import live_tables
from exporters.postgres.live_reader import PostgresLiveReader
from exporters.postgres.live_rows import live_rows
from exporters.postgres.rows.copy_feed import Feeds
from exporters.postgres.sessions import snapshot_session
from exporters.postgres.sessions.connection import parse_url
from exporters.postgres.sessions.snapshot_session import open_snapshot
from exporters.postgres.snapshot import PostgresSnapshot
from migrate.restore.postgres.definitions import after_rows
from migrate.restore.postgres.rows import load_rows as sql_rows
from tests.export.victims import kill_when
from tests.exporters.postgres.databases import export_database, fetch, run_sql
from tests.tools.bundles import differences, read_bundle, restore_from
from tests.tools.commit_records import recorded_units

SMALL_CHUNK = 512 * 1024

_TABLE = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE big (id int PRIMARY KEY, t text, mood mood DEFAULT 'good', touched int DEFAULT 0) WITH (fillfactor = 80);
INSERT INTO big (id, t) SELECT n, repeat(md5(n::text), 4) FROM generate_series(1, 20000) n;
CREATE TABLE small AS SELECT n AS x FROM generate_series(1, 100) n;
VACUUM ANALYZE big
"""


@pytest.fixture(scope="module")
def big_template(postgres) -> str:
    """The name of a database that others are copied from."""
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _TABLE.split(";"):
            connection.execute(statement.encode())
    return url.rpartition("/")[2]


@pytest.fixture
def big(postgres, big_template) -> str:
    return postgres.database(template=big_template)


@pytest.fixture
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(chunk_plan, "CHUNK_BYTES", SMALL_CHUNK)


@pytest.fixture
def redone(monkeypatch) -> Counter:
    """Counts the units that are exported."""
    counted: Counter = Counter()
    real = PostgresSnapshot.export

    def export(self, unit, sink):
        counted[unit.id] += 1
        return real(self, unit, sink)

    monkeypatch.setattr(PostgresSnapshot, "export", export)
    return counted


def slow_export(url: str, location: Path, count: int) -> None:
    """Export in small chunks, each of which takes a while. Begin none when ``count`` are done."""
    chunk_plan.CHUNK_BYTES = SMALL_CHUNK
    real = PostgresSnapshot.export

    def slow(self, unit, sink):
        time.sleep(60 if len(recorded_units(location)) >= count else 0.05)
        return real(self, unit, sink)

    PostgresSnapshot.export = slow
    export_database(url, location)


def slow_restore(location: Path, destination: str, count: int) -> None:
    """Restore parts. Begin none when ``count`` are done."""
    real = sql_rows.RowWriter._copy

    def slow(self, attempt, types):
        time.sleep(60 if parts_done(destination) >= count else 0.05)
        real(self, attempt, types)

    sql_rows.RowWriter._copy = slow
    restore_from(read_bundle(location), "app", destination, workers=2)


def killed_export(url: str, location: Path, *, after: int) -> set[str]:
    kill_when(lambda: len(recorded_units(location)) >= after, slow_export, url, location, after)
    return recorded_units(location)


def broken_export(url: str, location: Path, *, after: int) -> set[str]:
    """Like ``killed_export``, quicker: an interrupt once so many units were begun."""
    begun: Counter = Counter()
    real = PostgresSnapshot.export

    def export(self, unit, sink):
        begun["units"] += 1
        if begun["units"] > after:
            raise KeyboardInterrupt
        return real(self, unit, sink)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresSnapshot, "export", export)
        with pytest.raises(BaseException):  # noqa: B017, PT011
            export_database(url, location, workers=1)
    assert recorded_units(location)
    return recorded_units(location)


def test_an_export_that_was_killed_does_the_rest_only(big, tmp_path, small_chunks, redone):
    location = tmp_path / "bundle"
    done = killed_export(big, location, after=3)
    outcome = export_database(big, location)
    assert outcome.complete, outcome.sources
    assert not done & redone.keys()
    assert set(redone.values()) == {1}
    assert differences(read_bundle(location), big) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE big SET touched = 1 WHERE id = 1",
        pytest.param("DELETE FROM big WHERE id = 2", marks=pytest.mark.torture),
        pytest.param("INSERT INTO big (id, t) VALUES (0, 'new')", marks=pytest.mark.torture),
        pytest.param(
            "DO $$ BEGIN BEGIN UPDATE big SET touched = 2 WHERE id = 3; EXCEPTION WHEN others THEN NULL; END; END $$",
            marks=pytest.mark.torture,
        ),
    ],
)
def test_a_source_that_changed_is_exported_as_it_is_now(big, tmp_path, small_chunks, redone, change):
    location = tmp_path / "bundle"
    done = broken_export(big, location, after=4)
    redone.clear()
    run_sql(big, change)
    outcome = export_database(big, location)
    assert outcome.complete, outcome.sources
    assert len(done & redone.keys()) <= 1  # the chunk that changed, where it was done already
    reader = read_bundle(location)
    assert differences(reader, big) == []
    assert len(reader.reconciliation()[0].summary.positions) == 2


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE big SET touched = 1 WHERE id = 1",
        pytest.param("INSERT INTO big (id, t) VALUES (0, 'new')", marks=pytest.mark.torture),
    ],
)
def test_chunks_of_a_server_without_ranges_of_pages_are_whole_and_kept(
    big, tmp_path, small_chunks, redone, change, monkeypatch
):
    """PostgreSQL before 14: this server reads them the same way."""
    monkeypatch.setattr(catalog, "TID_RANGE_VERSION", 990000)
    location = tmp_path / "bundle"
    done = broken_export(big, location, after=8)
    redone.clear()
    run_sql(big, change)
    outcome = export_database(big, location)
    assert outcome.complete, outcome.sources
    assert len(done & redone.keys()) <= 1
    reader = read_bundle(location)
    (row,) = (row for row in reader.catalog() if row.name == "big")
    assert len(row.details["chunks"]) > 20
    monkeypatch.undo()
    assert differences(reader, big) == []


def test_a_server_without_ranges_of_pages_reads_only_the_pages_of_a_chunk(big, monkeypatch):
    monkeypatch.setattr(catalog, "TID_RANGE_VERSION", 990000)
    with open_snapshot(parse_url(big)) as (session, tables):
        (table,) = (table for table in tables if table.name == "big")
        for pages in ((0, 5), (5, None)):
            said = session.holder.execute(
                f"EXPLAIN {chunk_plan.canonical_select(table, pages)}".encode()
            ).fetchall()
            assert "Tid Scan" in said[0][0]


def test_a_row_that_waited_in_a_subtransaction_of_an_open_transaction_is_seen(big, tmp_path, small_chunks):
    """The snapshot's text does not list the subtransaction, so its row must not pass for an old one."""
    location = tmp_path / "bundle"
    with psycopg.connect(big) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        connection.execute("SAVEPOINT s")
        connection.execute("UPDATE big SET touched = 7 WHERE id = 1")
        run_sql(big, "UPDATE small SET x = x + 1 WHERE x = 1")
        broken_export(big, location, after=4)
        connection.execute("RELEASE s")
        connection.commit()
    assert export_database(big, location).complete
    assert differences(read_bundle(location), big) == []


REDEFINED = (
    "ALTER TABLE big DROP touched, ADD touched int DEFAULT 7",
    "ALTER TYPE mood RENAME VALUE 'good' TO 'done'",
)
"""What gives rows other values, and writes none of them."""


@pytest.mark.parametrize("change", REDEFINED)
def test_a_table_whose_values_a_definition_has_changed_is_one_that_has_changed(big, change):
    """A delta pass leaves the others out."""

    def changed_since(state):
        with live_rows(parse_url(big)) as rows:
            return rows.changed_since("public", "big", state)

    _, state = changed_since("")
    assert changed_since(state)[0] is False
    run_sql(big, change)
    assert changed_since(state)[0] is True


SHOWN_OTHERWISE = {
    "name": (
        "CREATE TABLE a (x int); CREATE TABLE t AS SELECT 'a'::regclass AS v",
        "ALTER TABLE a RENAME TO b",
    ),
    "domain": (
        "CREATE DOMAIN d AS regrole[]; CREATE ROLE r; CREATE TABLE a (); CREATE TABLE t AS SELECT '{r}'::d AS v",
        "ALTER ROLE r RENAME TO other; DROP ROLE other",
    ),
    "row": (
        "CREATE TABLE a (x int, y int); CREATE TABLE t (v a); INSERT INTO t VALUES ((1, 2))",
        "ALTER TABLE a DROP y, ADD y int",
    ),
}
"""Tables whose rows have another text after a change of something else."""


@pytest.mark.parametrize(
    ("tables", "change"),
    [
        pytest.param(*case, id=name, marks=() if name == "name" else pytest.mark.torture)
        for name, case in SHOWN_OTHERWISE.items()
    ],
)
def test_values_that_are_shown_otherwise_are_other_values(postgres, tmp_path, tables, change):
    url = postgres.database()
    run_sql(url, f"{tables}; CREATE TABLE z AS SELECT 1 AS x")

    def changed_since(state):
        with live_rows(parse_url(url)) as rows:
            return rows.changed_since("public", "t", state)

    def identity():
        states = PostgresLiveReader().write_states(url, secrets={})
        return states["public", "t"].identity if ("public", "t") in states else object()

    state, before = changed_since("")[1], identity()
    assert any("t/" in unit for unit in broken_export(url, tmp_path / "bundle", after=2))
    run_sql(url, change)
    assert (changed_since(state)[0], identity() != before) == (True, True)
    assert export_database(url, tmp_path / "bundle").complete
    assert differences(read_bundle(tmp_path / "bundle"), url) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            "ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b",
            marks=pytest.mark.torture,
        ),
        pytest.param(
            "ALTER TABLE t RENAME TO was; ALTER TABLE u RENAME TO t; ALTER TABLE was RENAME TO u",
            marks=pytest.mark.torture,
        ),
        "DROP TABLE u; ALTER TABLE w RENAME TO v; CREATE SCHEMA s; ALTER TABLE x SET SCHEMA s",
    ],
    ids=["columns", "tables", "dropped, renamed, moved"],
)
def test_names_that_are_exchanged_between_the_snapshot_and_the_lock(postgres, tmp_path, change, monkeypatch):
    """Rows are read by the names that things have, definitions by those of the snapshot."""
    url, real, changes = postgres.database(), snapshot_session._lock, [change]
    run_sql(url, "CREATE TABLE t (a int, b int); CREATE TABLE u (a int, b text)")
    run_sql(url, "INSERT INTO t VALUES (1, 2); INSERT INTO u VALUES (3, 4)")
    run_sql(url, "CREATE TABLE w AS TABLE u; CREATE TABLE x AS TABLE u")

    def lock(tables, holder):
        while changes and tables:
            run_sql(url, changes.pop())
        real(tables, holder)

    monkeypatch.setattr(snapshot_session, "_lock", lock)
    assert export_database(url, tmp_path / "bundle").complete
    assert not changes
    assert differences(read_bundle(tmp_path / "bundle"), url) == []


def test_a_table_that_is_truncated_all_the_time_is_locked_before_the_second_snapshot(
    postgres, tmp_path, monkeypatch
):
    url, real, times = postgres.database(), snapshot_session._lock, []
    run_sql(url, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)")

    def lock(tables, holder):
        with suppress(psycopg.errors.LockNotAvailable):
            run_sql(url, "SET lock_timeout = '50ms'; TRUNCATE t; INSERT INTO t VALUES (1)")
            times.append(1)
        real(tables, holder)

    monkeypatch.setattr(snapshot_session, "_lock", lock)
    assert export_database(url, tmp_path / "bundle").complete
    assert len(times) < 2 * snapshot_session._TRIES
    assert differences(read_bundle(tmp_path / "bundle"), url) == []


EXCHANGE = (
    "ALTER TYPE mood RENAME VALUE 'good' TO 'was'; ALTER TYPE mood RENAME VALUE 'bad' TO 'good';"
    "ALTER TYPE mood RENAME VALUE 'was' TO 'bad'"
)


@pytest.mark.parametrize("is_back", [pytest.param(False, marks=pytest.mark.torture), True])
def test_labels_that_are_exchanged_while_rows_are_read_make_them_read_again(
    postgres, tmp_path, monkeypatch, is_back
):
    """Nothing locks a type: some rows had the labels of before, or those that were set back since."""
    url, real = postgres.database(), PostgresSnapshot.export
    changes = [EXCHANGE, EXCHANGE] if is_back else [f"{EXCHANGE}; ALTER TYPE mood ADD VALUE 'new'"]
    run_sql(url, "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE t (v mood); CREATE TABLE u (v mood)")
    run_sql(url, "INSERT INTO t VALUES ('good'); INSERT INTO u VALUES ('good'), ('bad')")

    def export(self, unit, sink):
        if is_back and changes:
            run_sql(url, changes.pop())
        outcome = real(self, unit, sink)
        while changes:
            run_sql(url, changes.pop())
        return outcome

    monkeypatch.setattr(PostgresSnapshot, "export", export)
    monkeypatch.setattr(Feeds, "is_small", lambda *_: False)  # else all are read at once
    outcome = export_database(url, tmp_path / "bundle", workers=1)
    assert outcome.complete, outcome.sources
    assert differences(read_bundle(tmp_path / "bundle"), url) == []


def test_a_transaction_that_a_crash_has_lost_is_not_taken_for_the_one_with_its_number(
    servers, tmp_path, small_chunks, redone
):
    """Commits that nobody waits for are lost, and their numbers are given again."""
    settings = ["synchronous_commit=off", "wal_writer_delay=10s", "autovacuum=off"]
    server = servers.postgres("forgetful", settings=settings)
    url = server.database()
    run_sql(
        url, "CREATE TABLE t AS SELECT 'old' AS v; CREATE TABLE z AS SELECT n FROM generate_series(1, 9) n"
    )
    run_sql(url, "CHECKPOINT")
    ((before,),) = fetch(url, "SELECT pg_current_xact_id()::text::int8")

    def update(value):
        run_sql(url, f"UPDATE t SET v = '{value}'")
        return fetch(url, "SELECT v, xmin::text::int8 FROM t")

    lost = update("lost")
    with live_rows(parse_url(url)) as rows:
        _, state = rows.changed_since("public", "t", "")
    done = broken_export(url, tmp_path / "bundle", after=1)
    server.child.start_again(server.accepts)
    assert fetch(url, "SELECT v FROM t") == [("old",)]
    while fetch(url, "SELECT pg_current_xact_id()::text::int8")[0][0] < lost[0][1] - 1:
        pass
    assert update("new")[0][1] == lost[0][1] > before
    for _ in range(5):
        run_sql(url, "SELECT pg_current_xact_id()")
    with live_rows(parse_url(url)) as rows:
        assert rows.changed_since("public", "t", state)[0]
    assert export_database(url, tmp_path / "bundle").complete
    assert differences(read_bundle(tmp_path / "bundle"), url) == []
    assert done


def test_equal_rows_in_columns_that_have_exchanged_their_names_are_a_finding(postgres, tmp_path):
    url = postgres.database()
    run_sql(url, "CREATE TABLE t (id int, a text, b text); INSERT INTO t VALUES (1, 'a', 'b')")
    assert export_database(url, tmp_path / "bundle").complete
    run_sql(url, "ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b")
    (finding,) = differences(read_bundle(tmp_path / "bundle"), url)
    assert (finding.key, finding.expected, finding.found) == ('"public"."t"', "id, a, b", "id, b, a")


def test_a_type_that_gets_an_attribute_gives_tables_another_identity(postgres):
    """Then rows that were compared before have another text."""
    url = postgres.database()
    run_sql(url, "CREATE TYPE pair AS (a int, b int); CREATE TABLE t (p pair); INSERT INTO t VALUES ((1, 2))")

    def identity():
        return PostgresLiveReader().write_states(url, secrets={})["public", "t"].identity

    before = identity()
    assert identity() == before
    run_sql(url, "ALTER TYPE pair ADD ATTRIBUTE c int")
    assert fetch(url, "SELECT p::text FROM t") == [("(1,2,)",)]
    assert identity() != before


@pytest.mark.parametrize(
    "change",
    [
        REDEFINED[0],
        *(
            pytest.param(change, marks=pytest.mark.torture)
            for change in (
                "VACUUM FULL big",
                "ALTER TABLE big ADD more int DEFAULT 5",
                REDEFINED[1],
                "TRUNCATE big",
                "CREATE TABLE a (x int)",
            )
        ),
    ],
)
def test_a_rewritten_or_altered_table_is_planned_anew(big, tmp_path, small_chunks, change):
    location = tmp_path / "bundle"
    broken_export(big, location, after=4)
    run_sql(big, change)
    outcome = export_database(big, location)
    assert outcome.complete, outcome.sources
    assert differences(read_bundle(location), big) == []


def parts_done(url: str) -> int:
    if not fetch(url, "SELECT to_regclass('moveout_restore.done') IS NOT NULL")[0][0]:
        return 0
    return fetch(url, "SELECT count(*) FROM moveout_restore.done WHERE name LIKE 'tables/%'")[0][0]


@pytest.mark.parametrize("after", [4, 1])
@pytest.mark.torture
def test_a_restore_that_was_killed_does_the_rest_only_and_once(
    big, other_postgres, tmp_path, small_chunks, after, monkeypatch
):
    location = tmp_path / "bundle"
    assert export_database(big, location).complete
    destination = other_postgres.database()
    kill_when(lambda: parts_done(destination) >= after, slow_restore, location, destination, after)
    copied: list[str] = []
    real = sql_rows.RowWriter._copy

    def copy(self, attempt, types):
        copied.append(attempt.part.name)
        real(self, attempt, types)

    monkeypatch.setattr(sql_rows.RowWriter, "_copy", copy)
    reader = read_bundle(location)
    before = {row[0] for row in fetch(destination, "SELECT name FROM moveout_restore.done")}
    outcome = restore_from(reader, "app", destination, workers=2)
    assert outcome.findings == ()
    assert outcome.skipped_items > 0
    assert not before & set(copied)
    assert live_tables(destination) == live_tables(big)


@pytest.mark.torture
def test_a_restore_killed_while_it_makes_indexes_goes_on(big, other_postgres, tmp_path, monkeypatch):
    location = tmp_path / "bundle"
    assert export_database(big, location).complete
    destination = other_postgres.database()
    reader = read_bundle(location)
    with monkeypatch.context() as patch:
        patch.setattr("migrate.restore.postgres.definitions.after_rows.set_sequences", _die)
        with pytest.raises(KeyboardInterrupt):
            restore_from(reader, "app", destination, workers=2)
    outcome = restore_from(reader, "app", destination, workers=2)
    assert (outcome.findings, outcome.size_bytes) == ((), 0)
    assert fetch(destination, "SELECT count(*) FROM pg_indexes WHERE tablename = 'big'") == [(1,)]


def _die(*_, **__):
    raise KeyboardInterrupt


def test_a_flipped_row_in_the_destination_is_a_finding(exported, other_postgres, monkeypatch):
    _, reader = exported("CREATE TABLE t AS SELECT n AS x FROM generate_series(1, 10) n")
    destination = other_postgres.database()
    real = after_rows.complete

    def sabotage(run, done):
        script = real(run, done)
        run.destination.connection.execute("UPDATE public.t SET x = 99 WHERE x = 5")
        return script

    monkeypatch.setattr(after_rows, "complete", sabotage)
    outcome = restore_from(reader, "app", destination)
    assert len(outcome.findings) == 1
    assert '"public"."t"' in outcome.findings[0]
