"""What pg_dump's scripts stumble over comes back; what can not come back as it was is named, with all else there."""

import psycopg
import pytest

from exporters.postgres.live import live_tables
from migrate.progress import Silent
from migrate.restore.postgres.database import restore_database
from migrate.verify.database import check_parquet, compare_database
from tests.postgres.databases import dump, export_database, fetch, read_bundle, run_sql, script


@pytest.fixture
def remade(postgres, other_postgres, tmp_path):
    """Make a database by a script, export it, restore it; URLs of both, the bundle and the outcome."""

    def make(name: str):
        url, target = postgres.database(), other_postgres.database()
        run_sql(url, script(name))
        assert export_database(url, tmp_path / "bundle").complete
        reader = read_bundle(tmp_path / "bundle")
        assert check_parquet(reader, reader.catalog()) == []
        outcome = restore_database(reader, "app", target, workers=2, progress=Silent())
        assert outcome.findings == ()
        assert compare_database(reader, "app", target, workers=2, progress=Silent()) == []
        assert live_tables(target) == live_tables(url)
        return url, target, outcome

    return make


def test_code_that_needs_what_comes_later_or_names_without_schemas_comes_back(remade):
    url, target, outcome = remade("refused.sql")
    assert outcome.left_out == ()
    assert dump(target) == dump(url)
    query = "SELECT (SELECT n FROM counted), (SELECT n FROM a_second)"
    assert fetch(target, query) == fetch(url, query) == [(1, 5)]
    assert [note.partition(" needs")[0] for note in outcome.notes] == [
        "INDEX code.ti",
        "MATERIALIZED VIEW DATA public.counted",
    ]


def test_rows_that_their_checks_would_refuse_come_back_and_the_checks_hold_for_new_ones(remade):
    _, target, outcome = remade("untrue.sql")
    assert {one.partition(":")[0] for one in outcome.left_out} == {
        'check "pos" of DOMAIN public.positive for rows that are there',
        'check "odd ""c" of TABLE public.parent for rows that are there',
        'check "of_whole" of TABLE public.whole for rows that are there',
        "MATERIALIZED VIEW DATA public.divided",
    }
    checks = fetch(
        target,
        "SELECT coalesce(nullif(conrelid, 0)::regclass::text, 'domain'), obj_description(oid) FROM pg_constraint"
        " WHERE contype = 'c' AND NOT convalidated ORDER BY 1",
    )
    tables = [("child", None), ("domain", "of a domain"), ("parent", "of a table")]
    assert checks == [*tables, ("part1", None), ("part2", None), ("whole", None)]
    with pytest.raises(psycopg.errors.CheckViolation):
        run_sql(target, "INSERT INTO whole VALUES (-9, 1)")
    of_later = "SELECT contype::text FROM pg_constraint WHERE conrelid = 'later'::regclass ORDER BY 1"
    assert {("f",), ("p",)} <= set(fetch(target, of_later))


def test_what_asks_a_server_that_is_not_reached_is_left_out_by_name(postgres, other_postgres, tmp_path):
    """The password of the other server is not in the bundle."""
    if not fetch(postgres.url, "SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        pytest.skip("this PostgreSQL is built without contrib: foreign servers are not tried")
    url, target = postgres.database(), other_postgres.database()
    where = f"host '{postgres.host}', port '{postgres.port}', dbname '{url.rpartition('/')[2]}'"
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS a; CREATE INDEX ON t (a); CREATE EXTENSION postgres_fdw")
    run_sql(
        url,
        f"CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({where});"
        f"CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (user 'postgres', password '{postgres.password}');"
        "CREATE FOREIGN TABLE far (a int) SERVER s OPTIONS (schema_name 'public', table_name 't');"
        "CREATE MATERIALIZED VIEW stored AS SELECT * FROM far; CREATE UNIQUE INDEX ON stored (a)",
    )
    assert export_database(url, tmp_path / "bundle").complete
    outcome = restore_database(read_bundle(tmp_path / "bundle"), "app", target, workers=2, progress=Silent())
    assert outcome.findings == ()
    assert [one.partition(": ")[0] for one in outcome.left_out] == ["MATERIALIZED VIEW DATA public.stored"]
    assert fetch(target, "SELECT relispopulated, relhasindex FROM pg_class WHERE relname = 'stored'") == [
        (False, True)
    ]
    assert fetch(target, "SELECT count(*) FROM pg_indexes WHERE tablename = 't'") == [(1,)]
