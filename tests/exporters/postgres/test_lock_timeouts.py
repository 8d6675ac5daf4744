"""A table that another session keeps locked does not keep the rest from leaving."""

import threading

import psycopg
import pytest

from exporters.errors import SourceUnreachableError
from exporters.postgres.exporter import PostgresExporter
from exporters.postgres.sessions.connection import parse_url
from exporters.postgres.sessions.session_limits import SessionLimits
from exporters.postgres.sessions.snapshot_session import join_snapshot, open_snapshot
from tests.exporters.postgres.databases import export_database, fetch, run_sql
from tests.exporters.postgres.test_session_settings import LimitedHost, export_with, locked
from tests.tools.bundles import differences, read_bundle, restore_from, restore_whole

AROUND = """
CREATE TABLE held (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, x text); INSERT INTO held (x) VALUES ('kept');
CREATE TABLE "odd . ""n"" x" AS SELECT 1 AS y;
CREATE TABLE free (id int REFERENCES held, z int); INSERT INTO free VALUES (1, 2);
CREATE VIEW looks AS SELECT x FROM held; CREATE MATERIALIZED VIEW looks_there AS SELECT * FROM looks;
CREATE VIEW other AS SELECT z FROM free;
CREATE TABLE parts (n int) PARTITION BY LIST (n); CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1);
INSERT INTO parts VALUES (1);
"""


def gaps(outcome) -> dict[str, str]:
    return {gap.item: gap.reason for gap in outcome.sources[0].gaps}


def test_all_but_what_is_locked_leaves_and_the_same_command_takes_the_rest(
    postgres, other_postgres, tmp_path
):
    url, location = postgres.database(), tmp_path / "bundle"
    run_sql(url, AROUND)
    host = LimitedHost(lock_seconds=1.0)
    statement = 'LOCK TABLE held; ALTER TABLE "odd . ""n"" x" ADD secret_name text'
    with locked(url, statement) as pid:
        missing = gaps(export_with(host, url, location))
    assert missing.keys() == {
        '"public"."held"',
        '"public"."odd . ""n"" x"',
        'view "public"."looks"',
        'materialized view "public"."looks_there"',
    }
    assert all(f"session {pid} (postgres, migration tool, 127.0.0.1" in reason for reason in missing.values())
    assert "secret" not in "".join([*missing.values(), *host.notes])
    reader = read_bundle(location)
    assert {(row.name, row.items) for row in reader.catalog()} == {
        ("free", 1),
        ("part_1", 1),
        ("looks_there", 1),
    }
    assert {loss.item for _, loss in reader.losses() if loss.property == "definition"} >= missing.keys()
    destination = other_postgres.database()
    restored = restore_from(reader, "app", destination)
    lacking = [f"the bundle itself lacks {name}" for name in sorted(missing)]
    assert sorted(one.partition(":")[0] for one in restored.left_out) == [
        "FK CONSTRAINT public.free free_id_fkey",
        *lacking,
        'the rows of materialized view "public"."looks_there"',
    ]
    assert fetch(destination, "SELECT z, (SELECT n FROM parts) FROM other") == [(2, 1)]
    again = export_with(host, url, location)
    assert again.complete
    destination = other_postgres.database()
    restore_whole(read_bundle(location), "app", destination)
    assert fetch(destination, "SELECT x FROM looks_there") == [("kept",)]


def test_what_has_no_rows_is_a_gap_too_and_nothing_waits_for_ever(postgres, tmp_path):
    url = postgres.database()
    run_sql(url, AROUND + "CREATE SEQUENCE own")
    statement = (
        "CREATE OR REPLACE VIEW other AS SELECT z FROM free WHERE true; LOCK TABLE ONLY parts;"
        "REFRESH MATERIALIZED VIEW looks_there; DROP SEQUENCE own"
    )
    with locked(url, statement):
        outcome = export_with(LimitedHost(lock_seconds=0.5), url, tmp_path / "bundle")
    assert gaps(outcome).keys() == {
        '"public"."parts"',
        'materialized view "public"."looks_there"',
        'sequence "public"."own"',
        'view "public"."other"',
    }
    assert sum(row.items for row in read_bundle(tmp_path / "bundle").catalog()) == 4
    assert export_database(url, tmp_path / "bundle").complete


def test_a_function_that_cannot_be_dumped_without_it_ends_the_export(postgres, tmp_path):
    url = postgres.database()
    run_sql(url, AROUND + "CREATE FUNCTION reads() RETURNS text BEGIN ATOMIC SELECT x FROM held; END")
    with locked(url, "LOCK TABLE held") as pid:
        [broken] = export_with(LimitedHost(lock_seconds=0.5), url, tmp_path / "bundle").broken
    assert isinstance(broken.error, SourceUnreachableError)
    assert "function public.reads() cannot be dumped" in str(broken.error)
    assert f"session {pid}" in str(broken.error)


def test_a_table_with_a_rule_or_a_policy_that_reads_it_leaves_without_its_definition(
    postgres, other_postgres, tmp_path
):
    url, location = postgres.database(), tmp_path / "bundle"
    run_sql(
        url,
        AROUND + "CREATE TABLE ruled AS SELECT 1 AS n; CREATE TABLE guarded AS SELECT 2 AS n;"
        "CREATE RULE r AS ON INSERT TO ruled DO ALSO INSERT INTO free SELECT id, 3 FROM held;"
        "CREATE POLICY p ON guarded USING (EXISTS (SELECT FROM held WHERE id = n));"
        "CREATE VIEW of_ruled AS SELECT n FROM ruled;"
        "CREATE FUNCTION reads() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM looks; END",
    )
    host = LimitedHost(lock_seconds=0.5)
    with locked(url, "LOCK TABLE held") as pid:
        missing = gaps(export_with(host, url, location))
    assert missing['"public"."ruled"'].startswith(
        "its definition cannot be read: rule r on table public.ruled reads what is locked: "
    )
    assert f"session {pid}" in missing['"public"."guarded"']
    assert "policy p on table public.guarded reads" in missing['"public"."guarded"']
    reader = read_bundle(location)
    assert {row.name: row.items for row in reader.catalog()}["ruled"] == 1
    destination = other_postgres.database()
    restored = restore_from(reader, "app", destination)
    assert {'the rows of "public"."ruled": it could not be made'} < set(restored.left_out)
    assert fetch(destination, "SELECT z FROM other") == [(2,)]
    assert export_with(host, url, location).complete
    destination = other_postgres.database()
    restore_whole(read_bundle(location), "app", destination)


def test_with_every_table_locked_the_rest_leaves(postgres, tmp_path):
    url = postgres.database()
    run_sql(
        url, "CREATE TABLE a AS SELECT 1 AS x; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    )
    with locked(url, "LOCK TABLE a") as pid:
        outcome = export_with(LimitedHost(lock_seconds=0.5), url, tmp_path / "bundle")
    assert list(gaps(outcome)) == ['"public"."a"']
    assert f"session {pid}" in gaps(outcome)['"public"."a"']
    assert b"FUNCTION public.f()" in (tmp_path / "bundle/data/app/schema/pre-data.sql").read_bytes()
    assert export_database(url, tmp_path / "bundle").complete


def test_a_lock_that_goes_in_time_makes_no_gap(postgres, tmp_path):
    url = postgres.database()
    run_sql(url, AROUND)
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE held")
        timer = threading.Timer(1, connection.rollback)
        timer.start()
        try:
            assert export_with(LimitedHost(lock_seconds=20), url, tmp_path / "bundle").complete
        finally:
            timer.join()


def test_a_plan_and_another_machine_do_without_it_too_and_a_comparison_does_not(postgres, tmp_path):
    url = postgres.database()
    run_sql(url, AROUND)
    host = LimitedHost(lock_seconds=0.5)
    session_limits = SessionLimits(host.limits())
    assert export_database(url, tmp_path / "bundle").complete
    with locked(url, "LOCK TABLE held") as pid:
        survey = PostgresExporter().open("app", url, host).survey()
        assert any("held" in warning and f"session {pid}" in warning for warning in survey.warnings)
        with (
            open_snapshot(parse_url(url), session_limits, tolerant=True) as (session, tables),
            join_snapshot(parse_url(url), session.ticket, session_limits) as (joined, there),
        ):
            assert there == tables
            assert joined.locked == session.locked != {}
        with pytest.raises(SourceUnreachableError), open_snapshot(parse_url(url), session_limits):
            raise AssertionError
    assert differences(read_bundle(tmp_path / "bundle"), url) == []
