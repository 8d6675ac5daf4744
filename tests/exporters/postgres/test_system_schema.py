"""What users have made among the server's own objects comes back, or is named."""

from tests.exporters.postgres.databases import dump, export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from, restore_whole

SCRIPT = """
CREATE TYPE myint;
CREATE FUNCTION myint_in(cstring) RETURNS myint STRICT IMMUTABLE LANGUAGE internal AS 'int8in';
CREATE FUNCTION myint_out(myint) RETURNS cstring STRICT IMMUTABLE LANGUAGE internal AS 'int8out';
CREATE TYPE myint (input = myint_in, output = myint_out, like = int8);
CREATE FUNCTION eq(int8, myint) RETURNS bool STRICT IMMUTABLE LANGUAGE internal AS 'int8eq';
CREATE FUNCTION hashed(myint) RETURNS int STRICT IMMUTABLE LANGUAGE internal AS 'hashint8';
CREATE OPERATOR = (procedure = eq, leftarg = int8, rightarg = myint, merges);
ALTER OPERATOR FAMILY integer_ops USING btree ADD OPERATOR 3 = (int8, myint);
ALTER OPERATOR FAMILY integer_ops USING hash ADD FUNCTION 1 hashed(myint);
CREATE FUNCTION pg_catalog.nvl(anyelement, anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT coalesce($1, $2)';
COMMENT ON FUNCTION pg_catalog.nvl(anyelement, anyelement) IS 'as elsewhere';
CREATE FUNCTION pg_catalog.of_mine(myint) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE pg_catalog.doit() LANGUAGE sql AS 'SELECT 1';
CREATE VIEW v AS SELECT nvl(NULL, 1) AS x;
CREATE AGGREGATE pg_catalog.myagg (int) (sfunc = int4pl, stype = int);
CREATE TYPE pg_catalog.mood AS ENUM ('a');
CREATE OPERATOR pg_catalog.=== (procedure = int4eq, leftarg = int, rightarg = int);
"""
MADE = """
SELECT pg_get_functiondef(oid), pg_get_userbyid(proowner), obj_description(oid) FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND oid >= 16384 AND prokind <> 'a'
UNION ALL SELECT amopstrategy::text, amopopr::regoperator::text, '' FROM pg_amop WHERE oid >= 16384
UNION ALL SELECT amprocnum::text, amproc::regproc::text, '' FROM pg_amproc WHERE oid >= 16384
"""


def test_functions_and_members_of_operator_families_come_back(postgres, other_postgres, tmp_path):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, SCRIPT)
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert {loss.item for _, loss in reader.losses()} == {
        "roles",
        "aggregate pg_catalog.myagg(integer)",
        "type pg_catalog.mood",
        "operator pg_catalog.===(integer,integer)",
    }
    run_sql(destination, "CREATE PROCEDURE pg_catalog.doit() LANGUAGE sql AS 'SELECT 1'")
    restore_whole(reader, "app", destination, workers=2)
    assert dump(destination) == dump(url)
    assert sorted(fetch(destination, MADE), key=str) == sorted(fetch(url, MADE), key=str)
    assert fetch(destination, "SELECT x FROM v") == [(1,)]


def test_what_only_a_superuser_may_make_there_costs_no_owners(
    postgres, other_postgres, tmp_path, monkeypatch
):
    url, destination = postgres.database(), other_postgres.database()
    role = (
        "DROP ROLE IF EXISTS resident; CREATE ROLE resident LOGIN PASSWORD '{}';"
        " GRANT ALL ON SCHEMA public TO resident;"
    )
    run_sql(
        url, role.format("x") + "CREATE FUNCTION pg_catalog.nvl(int) RETURNS int LANGUAGE sql AS 'SELECT 1'"
    )
    run_sql(url, "CREATE TABLE t (a int); ALTER TABLE t OWNER TO resident; GRANT SELECT ON t TO PUBLIC")
    assert export_database(url, tmp_path / "bundle").complete
    run_sql(destination, role.format(other_postgres.password))
    run_sql(destination, f"GRANT ALL ON DATABASE {destination.rpartition('/')[2]} TO resident")
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    resident = destination.replace("postgres@", "resident@")
    restored = restore_from(read_bundle(tmp_path / "bundle"), "app", resident)
    assert restored.findings == ()
    assert restored.left_out == ("FUNCTION pg_catalog.nvl(integer): permission denied for schema pg_catalog",)
    assert not any("owners were left out" in note for note in restored.notes)
    assert [note for note in restored.notes if 'no privileges were granted for "public"' in note]
    assert fetch(destination, "SELECT relacl IS NULL FROM pg_class WHERE relname = 't'") == [(False,)]
