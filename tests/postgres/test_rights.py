"""What somebody could do once and may not do any more is made all the same, and nobody keeps a right for that."""

from migrate.progress import Silent
from migrate.restore.postgres.database import restore_database
from tests.postgres.databases import dump, export_database, fetch, read_bundle, run_sql

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


def restored(postgres, other_postgres, place, statements):
    url, target = postgres.database(), other_postgres.database()
    run_sql(url, ROLES + statements)
    try:
        assert export_database(url, place).complete
        outcome = restore_database(read_bundle(place), "app", target, workers=2, progress=Silent())
        assert dump(target) == dump(url)
    finally:
        run_sql(url, "DROP OWNED BY once_owner, once_reader CASCADE")
    assert (outcome.findings, outcome.left_out) == ((), ())
    assert fetch(target, "SELECT count(*) FROM pg_roles WHERE rolname ~ '^once_' AND rolsuper") == [(0,)]
    return target, outcome.notes


def test_a_privilege_that_was_passed_on_by_one_who_is_shut_out_since(postgres, other_postgres, tmp_path):
    restored(postgres, other_postgres, tmp_path / "bundle", PASSED_ON)


def test_what_reads_what_its_owner_may_not_read_any_more(postgres, other_postgres, tmp_path):
    target, notes = restored(postgres, other_postgres, tmp_path / "bundle", MADE_ONCE)
    assert fetch(target, "SELECT n FROM seen") == [(3,)]
    assert [note.partition(" needs rights")[0] for note in notes if "needs rights" in note] == [
        "INDEX public.by_lowest",
        "MATERIALIZED VIEW DATA public.seen",
    ]
