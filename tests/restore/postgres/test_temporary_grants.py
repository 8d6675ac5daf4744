"""What somebody could do once and may not do any more: privileges come back; no code is given more rights for it."""

from tests.exporters.postgres.databases import dump, export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from

ROLES = """
DROP ROLE IF EXISTS once_owner; CREATE ROLE once_owner;
DROP ROLE IF EXISTS once_reader; CREATE ROLE once_reader;
"""
PASSED_ON = """
CREATE SCHEMA closed; GRANT USAGE ON SCHEMA closed TO once_owner; CREATE TABLE closed.t (a int, b int);
GRANT SELECT, UPDATE (b) ON closed.t TO once_owner WITH GRANT OPTION;
SET ROLE once_owner; GRANT SELECT, UPDATE (b) ON closed.t TO once_reader; RESET ROLE;
REVOKE USAGE ON SCHEMA closed FROM once_owner; ALTER TABLE closed.t OWNER TO once_reader;
"""
MADE_ONCE = """
CREATE TABLE secret AS SELECT n FROM generate_series(1, 3) n; ALTER TABLE secret ADD PRIMARY KEY (n);
GRANT SELECT ON secret TO once_owner; GRANT CREATE ON SCHEMA public TO once_owner; SET ROLE once_owner;
CREATE MATERIALIZED VIEW seen AS SELECT count(*) AS n FROM secret; CREATE UNIQUE INDEX ON seen (n);
CREATE FUNCTION lowest() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT min(n) FROM public.secret';
CREATE TABLE t AS SELECT 1 AS a; CREATE INDEX by_lowest ON t ((a + public.lowest())); RESET ROLE;
REVOKE SELECT ON secret FROM once_owner;
"""


CLIMBING = """
CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE ladder (); ALTER TABLE t OWNER TO once_owner;
CREATE FUNCTION climb() RETURNS void LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE once_reader SUPERUSER; END $$;
CREATE FUNCTION tried(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
  IF pg_catalog.to_regclass('public.ladder') IS NULL THEN PERFORM public.climb(); END IF;
  RETURN a;
END $$;
CREATE INDEX by_climb ON t (public.tried(a)); DROP TABLE ladder;
"""


def restored(postgres, other_postgres, location, statements):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, ROLES + statements)
    try:
        assert export_database(url, location).complete
        outcome = restore_from(read_bundle(location), "app", destination, workers=2)
        wanted = dump(url)
    finally:
        run_sql(url, "DROP OWNED BY once_owner, once_reader CASCADE")
    assert outcome.findings == ()
    assert fetch(destination, "SELECT count(*) FROM pg_roles WHERE rolname ~ '^once_' AND rolsuper") == [(0,)]
    return destination, outcome, wanted


def test_a_privilege_that_was_passed_on_by_one_who_is_shut_out_since(postgres, other_postgres, tmp_path):
    destination, outcome, wanted = restored(postgres, other_postgres, tmp_path / "bundle", PASSED_ON)
    assert (dump(destination), outcome.left_out) == (wanted, ())
    allowed = (
        "SELECT rolname, has_schema_privilege(oid, 'closed', 'USAGE') FROM pg_roles WHERE rolname ~ '^once_'"
    )
    assert sorted(fetch(destination, allowed)) == [("once_owner", False), ("once_reader", False)]


def test_what_reads_what_its_owner_may_not_read_any_more_shows_it_to_nobody(
    postgres, other_postgres, tmp_path
):
    destination, outcome, _ = restored(postgres, other_postgres, tmp_path / "bundle", MADE_ONCE)
    assert [one.partition(": ")[0] for one in sorted(outcome.left_out)] == [
        "INDEX public.by_lowest",
        "MATERIALIZED VIEW DATA public.seen",
        'the rows of materialized view "public"."seen"',
    ]
    assert fetch(destination, "SELECT relispopulated FROM pg_class WHERE relname = 'seen'") == [(False,)]


def test_code_that_fails_to_be_given_more_rights_is_given_none(postgres, other_postgres, tmp_path):
    _, outcome, _ = restored(postgres, other_postgres, tmp_path / "bundle", CLIMBING)
    assert [one.partition(": ")[0] for one in outcome.left_out] == ["INDEX public.by_climb"]
