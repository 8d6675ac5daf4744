"""What pg_dump's scripts stumble over comes back; what can not come back as it was is named, with all else there."""

import psycopg
import pytest

from exporters.postgres.live_digests import live_tables
from tests.exporters.postgres.databases import dump, export_database, fetch, make_refused, run_sql, script
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle, restore_from


@pytest.fixture
def remade(postgres, other_postgres, tmp_path):
    """Make a database by a script, export it, restore it; URLs of both, the bundle and the outcome."""

    def make(name: str):
        url, destination = postgres.database(), other_postgres.database()
        make_refused(url) if name == "refused.sql" else run_sql(url, script(name))
        assert export_database(url, tmp_path / "bundle").complete
        reader = read_bundle(tmp_path / "bundle")
        assert check_parquet(reader, reader.catalog()) == []
        outcome = restore_from(reader, "app", destination, workers=2)
        assert outcome.findings == ()
        compared = differences(reader, destination)
        assert all(finding.incomplete for finding in compared)
        assert live_tables(destination) == live_tables(url)
        return url, destination, outcome

    return make


def test_code_that_needs_what_comes_later_or_names_without_schemas_comes_back(remade):
    url, destination, outcome = remade("refused.sql")
    assert outcome.left_out == ()
    assert dump(destination) == dump(url)
    query = "SELECT (SELECT n FROM counted), (SELECT n FROM a_second)"
    assert fetch(destination, query) == fetch(url, query) == [(1, 5)]
    assert [note.partition(" needs")[0] for note in outcome.notes] == [
        "INDEX code.ti",
        "MATERIALIZED VIEW DATA public.counted",
    ]


def test_rows_that_their_checks_would_refuse_come_back_and_the_checks_hold_for_new_ones(remade):
    _, destination, outcome = remade("untrue.sql")
    assert {one.partition(":")[0] for one in outcome.left_out} == {
        'check "pos" of DOMAIN public.positive for rows that are there',
        'check "odd ""c" of TABLE public.parent for rows that are there',
        'check "of_whole" of TABLE public.whole for rows that are there',
        "MATERIALIZED VIEW DATA public.divided",
        'the rows of materialized view "public"."divided"',
    }
    checks = fetch(
        destination,
        "SELECT coalesce(nullif(conrelid, 0)::regclass::text, 'domain'), obj_description(oid) FROM pg_constraint"
        " WHERE contype = 'c' AND NOT convalidated ORDER BY 1",
    )
    tables = [("child", None), ("domain", "of a domain"), ("parent", "of a table")]
    assert checks == [*tables, ("part1", None), ("part2", None), ("whole", None)]
    with pytest.raises(psycopg.errors.CheckViolation):
        run_sql(destination, "INSERT INTO whole VALUES (-9, 1)")
    of_later = "SELECT contype::text FROM pg_constraint WHERE conrelid = 'later'::regclass ORDER BY 1"
    assert {("f",), ("p",)} <= set(fetch(destination, of_later))


def test_what_asks_a_server_that_is_not_reached_is_left_out_by_name(postgres, other_postgres, tmp_path):
    """The password of the other server is not in the bundle."""
    if not fetch(postgres.url, "SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        pytest.skip("this PostgreSQL is built without contrib: foreign servers are not tried")
    url, destination = postgres.database(), other_postgres.database()
    where = f"host '{postgres.host}', port '{postgres.port}', dbname '{url.rpartition('/')[2]}'"
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS a; CREATE INDEX ON t (a); CREATE EXTENSION postgres_fdw")
    run_sql(
        url,
        f"CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({where});"
        f"CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (user 'postgres', password '{postgres.password}');"
        "CREATE FOREIGN TABLE far (a int) SERVER s OPTIONS (schema_name 'public', table_name 't');"
        "CREATE MATERIALIZED VIEW stored AS SELECT * FROM far; CREATE UNIQUE INDEX ON stored (a);"
        "CREATE TABLE ranged (a int) PARTITION BY RANGE (a); CREATE TABLE near PARTITION OF ranged DEFAULT;"
        "CREATE FOREIGN TABLE away PARTITION OF ranged FOR VALUES FROM (5) TO (9) SERVER s;"
        "INSERT INTO near VALUES (1)",
    )
    assert export_database(url, tmp_path / "bundle").complete
    outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", destination, workers=2)
    assert outcome.findings == ()
    assert [one.partition(": ")[0] for one in outcome.left_out] == [
        "MATERIALIZED VIEW DATA public.stored",
        'the rows of materialized view "public"."stored"',
    ]
    assert fetch(
        destination, "SELECT relispopulated, relhasindex FROM pg_class WHERE relname = 'stored'"
    ) == [(False, True)]
    assert fetch(destination, "SELECT count(*) FROM pg_indexes WHERE tablename = 't'") == [(1,)]
    assert sum("public.ranged (" in note for note in outcome.notes) == 1
    assert fetch(destination, "SELECT tablename FROM pg_stats WHERE schemaname = 'public' ORDER BY 1") == [
        ("near",),
        ("t",),
    ]


RAISING = """
CREATE DOMAIN full_ AS int NOT NULL; CREATE TABLE outer_ (a full_);
INSERT INTO outer_ SELECT (SELECT a FROM outer_ WHERE false);
CREATE TABLE known (i int); INSERT INTO known VALUES (1);
CREATE FUNCTION ask(i int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
  IF NOT EXISTS (SELECT FROM public.known k WHERE k.i = ask.i) THEN RAISE 'unknown: %', i; END IF; RETURN true; END $$;
CREATE TABLE a_asks (i int CHECK (ask(i))); INSERT INTO a_asks VALUES (1);
CREATE TABLE asked (i int CONSTRAINT later CHECK (ask(i)), j int CONSTRAINT true_ CHECK (j > 0));
INSERT INTO asked VALUES (1, 1);
CREATE FUNCTION double(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN i * 2; END';
CREATE TABLE doubled (i int, d int GENERATED ALWAYS AS (double(i)) STORED); INSERT INTO doubled VALUES (1), (2);
CREATE TABLE last_ (i int PRIMARY KEY); INSERT INTO last_ VALUES (1);
CREATE TABLE orphan (i int CONSTRAINT "no, parent" REFERENCES last_ ON DELETE CASCADE DEFERRABLE);
SET session_replication_role = replica; INSERT INTO orphan VALUES (77); SET session_replication_role = origin;
"""


def test_what_raises_an_error_does_not_stop_the_rest(postgres, other_postgres, tmp_path):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, RAISING)
    run_sql(url, "INSERT INTO known VALUES (2)")
    run_sql(url, "INSERT INTO asked VALUES (2, 2); DELETE FROM known WHERE i = 2")
    run_sql(
        url,
        "CREATE OR REPLACE FUNCTION double(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql"
        " AS 'BEGIN RAISE ''no'' USING ERRCODE = ''MY001''; END'",
    )
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    outcome = restore_from(reader, "app", destination, workers=2)
    assert [one.partition(":")[0] for one in outcome.findings] == ['"public"."doubled"']
    assert {one.partition(":")[0].partition(" (")[0] for one in outcome.left_out} == {
        'NOT NULL of DOMAIN "public"."full_" for rows that are there',
        'check "later" of TABLE public.asked for rows that are there',
        'rows of "public"."doubled"',
        "FK CONSTRAINT public.orphan no, parent for rows that are there",
    }
    assert fetch(destination, "SELECT * FROM asked, last_ ORDER BY 1") == [(1, 1, 1), (2, 2, 1)]
    query = "SELECT conname FROM pg_constraint WHERE NOT convalidated ORDER BY 1"
    assert fetch(destination, query) == [("later",), ("no, parent",)]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        run_sql(destination, "INSERT INTO orphan VALUES (78)")
    run_sql(
        destination,
        "CREATE OR REPLACE FUNCTION double(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i * 2'",
    )
    again = restore_from(reader, "app", destination, workers=2)
    assert again.findings == ()
    assert set(again.left_out) == {one for one in outcome.left_out if "doubled" not in one}
