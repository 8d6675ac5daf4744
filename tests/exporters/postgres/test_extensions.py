"""Versions of extensions, what was added to them and what was changed of them come back, or are named."""

import pytest

from exporters.postgres.definitions.extensions import read_extensions
from exporters.postgres.sessions.connection import connect, parse_url
from migrate.restore.postgres.definitions.extensions import unlike
from tests.exporters.postgres.databases import (
    as_role,
    dump,
    export_database,
    fetch,
    login,
    run_sql,
    table,
)
from tests.tools.bundles import differences, read_bundle, restore_from, restore_whole

SCRIPT = """
CREATE EXTENSION lo; CREATE EXTENSION citext VERSION '1.4';
CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER EXTENSION lo ADD FUNCTION mine();
CREATE TABLE added (a int PRIMARY KEY, b text DEFAULT 'x' NOT NULL, c numeric CHECK (c > 0)); CREATE INDEX ON added (b);
INSERT INTO added VALUES (1, 'b', 2); COMMENT ON TABLE added IS 'by hand'; ALTER EXTENSION lo ADD TABLE added;
CREATE VIEW shown AS SELECT 1 AS one; ALTER EXTENSION lo ADD VIEW shown;
CREATE TYPE pair AS (a int, b text); ALTER EXTENSION lo ADD TYPE pair;
CREATE TYPE mood AS ENUM ('p', 'q'); ALTER EXTENSION lo ADD TYPE mood;
CREATE DOMAIN few AS int DEFAULT 3 CHECK (VALUE < 9); ALTER EXTENSION lo ADD DOMAIN few;
COMMENT ON FUNCTION lo_oid(lo) IS 'ours'; ALTER FUNCTION lo_oid(lo) COST 77;
ALTER FUNCTION lo_manage() SET work_mem TO '1MB';
DROP ROLE IF EXISTS "the keeper"; CREATE ROLE "the keeper"; ALTER FUNCTION mine() OWNER TO "the keeper";
ALTER FUNCTION lo_manage() OWNER TO "the keeper"; ALTER DOMAIN lo OWNER TO "the keeper";
ALTER OPERATOR = (citext, citext) OWNER TO "the keeper"; ALTER TABLE added OWNER TO "the keeper";
CREATE TABLE t (a few, m mood DEFAULT 'q'); INSERT INTO t VALUES (1);
CREATE VIEW uses AS SELECT mine() AS m, a FROM added;
GRANT SELECT ON added TO public;
"""
OPERATOR = """
CREATE OPERATOR === (procedure = int4eq, leftarg = int, rightarg = int); ALTER EXTENSION lo ADD OPERATOR === (int, int);
"""


def extensions(url):
    with connect(parse_url(url)) as connection:
        return read_extensions(connection, definitions=True)


def test_extensions_come_back_with_what_was_added_and_altered(postgres, other_postgres, tmp_path):
    if not fetch(
        postgres.url, "SELECT FROM pg_available_extension_versions WHERE (name, version) = ('citext', '1.4')"
    ):
        pytest.skip("this PostgreSQL is built without contrib: extensions are not tried")
    url, destinations = postgres.database(), [other_postgres.database(), other_postgres.database()]
    run_sql(url, SCRIPT)
    assert export_database(url, tmp_path / "bundle").complete
    bundle = read_bundle(tmp_path / "bundle")
    assert {loss.item for _, loss in bundle.losses()} == {"roles"}
    assert (table(bundle, "added").items, table(bundle, "added").details["extension"]) == (1, "lo")
    restored = restore_from(bundle, "app", destinations[0], workers=2)
    assert (restored.findings, restored.left_out, restored.notes) == ((), (), ())
    assert sorted(extensions(destinations[0]), key=str) == sorted(extensions(url), key=str)
    assert dump(destinations[0]) == dump(url)
    assert fetch(destinations[0], "SELECT m, a, (SELECT b FROM added) FROM uses") == [(1, 1, "b")]
    assert differences(bundle, destinations[0]) == []

    run_sql(url, OPERATOR)
    run_sql(
        destinations[1],
        "CREATE EXTENSION citext; CREATE EXTENSION lo; CREATE TABLE added AS SELECT 7 AS a, 'y' AS b, 1.0 AS c",
    )
    run_sql(destinations[1], "ALTER EXTENSION lo ADD TABLE added")
    assert export_database(url, tmp_path / "other").complete
    bundle = read_bundle(tmp_path / "other")
    restored = restore_from(bundle, "app", destinations[1], workers=2, merge=True)
    assert restored.findings == ()
    rows = "the extension lo makes the table here, with 1 rows; the bundle has the source's 1"
    assert set(restored.left_out) == {
        f'the rows of table "public"."added": {rows}',
        "operator public.===(integer,integer) of extension lo: the extension does not make it here",
    }
    assert any("extension citext is of version" in note for note in restored.notes)
    compared = differences(bundle, destinations[1])
    assert [(finding.key, finding.incomplete) for finding in compared] == [('"public"."added"', True)]


def test_members_are_the_same_where_a_newer_server_names_them_without_their_schema(postgres):
    """PostgreSQL 17 prints the cast (hstore AS pg_catalog.json) as (hstore AS json)."""
    url = postgres.database()
    run_sql(url, "CREATE FUNCTION as_int(json) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    run_sql(url, "CREATE CAST (json AS int) WITH FUNCTION as_int(json)")
    run_sql(url, "ALTER EXTENSION plpgsql ADD CAST (json AS int)")
    with connect(parse_url(url)) as connection:
        (extension,) = read_extensions(connection, definitions=True)
        members = [
            member | {"identity": member["identity"].replace("pg_catalog.json", "json")}
            for member in extension["members"]
        ]
        assert members != extension["members"]
        assert unlike(connection, [extension | {"members": members}], []) == ([], [])


def test_an_extension_of_another_owner_is_named(postgres, other_postgres, tmp_path):
    """Of a trusted extension that is the role that has made it; no dump says so."""
    if not fetch(postgres.url, "SELECT FROM pg_available_extensions WHERE name = 'citext'"):
        pytest.skip("this PostgreSQL is built without contrib: extensions are not tried")
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, "DROP ROLE IF EXISTS extender; CREATE ROLE extender")
    run_sql(
        url,
        f"GRANT CREATE ON DATABASE {url.rpartition('/')[2]} TO extender; GRANT CREATE ON SCHEMA public TO extender",
    )
    run_sql(url, "SET ROLE extender; CREATE EXTENSION citext; RESET ROLE")
    try:
        assert export_database(url, tmp_path / "bundle").complete
        bundle = read_bundle(tmp_path / "bundle")
        restored = restore_whole(bundle, "app", destination, workers=2)
    finally:
        for where in (url, destination):
            run_sql(where, "DROP EXTENSION IF EXISTS citext; DROP OWNED BY extender; DROP ROLE extender")
    assert (
        "extension citext belongs to postgres here, to extender at the source, and so may its members:"
        " no statement gives an extension to another role" in restored.notes
    )


def test_a_member_of_another_role_costs_no_owner_of_other_objects(
    postgres, other_postgres, tmp_path, monkeypatch
):
    if not fetch(postgres.url, "SELECT FROM pg_available_extensions WHERE name = 'citext'"):
        pytest.skip("this PostgreSQL is built without contrib: extensions are not tried")
    url, destination = postgres.database(), login(other_postgres, "member_owner", "CREATEROLE")
    run_sql(
        url,
        "DROP ROLE IF EXISTS member_owner, member_page; CREATE ROLE member_owner; CREATE ROLE member_page",
    )
    run_sql(
        url,
        "CREATE EXTENSION citext; ALTER FUNCTION citextsend(citext) OWNER TO member_page;"
        "ALTER SCHEMA public OWNER TO member_owner; CREATE TABLE t (a int); ALTER TABLE t OWNER TO member_owner;"
        "GRANT SELECT ON t TO member_page",
    )
    run_sql(
        destination,
        f"ALTER DATABASE {destination.rpartition('/')[2]} OWNER TO member_owner;"
        "ALTER SCHEMA public OWNER TO member_owner",
    )
    assert export_database(url, tmp_path / "bundle").complete
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    where = as_role(destination, "member_owner")
    restored = restore_from(read_bundle(tmp_path / "bundle"), "app", where)
    assert restored.findings == ()
    member = "function public.citextsend(public.citext) of extension citext"
    assert restored.left_out == (f"{member}: it belongs to member_page at the source, and does not here",)
    assert not [note for note in restored.notes if "owners were left out" in note]
    assert fetch(where, "SELECT has_table_privilege('member_page', 't', 'SELECT')") == [(True,)]
