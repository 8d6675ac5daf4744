"""What no change log carries arrives at the cutover, and only what differs is written."""

import pytest
from msgspec.structs import replace

from exporters.postgres.definitions.object_access import state_at
from migrate.changes.remainder import BothSides, RemainderRequest
from migrate.restore.postgres.changes.remainder import _Remainder, carry_remainder
from tests.exporters.postgres.databases import fetch, run_sql

SCHEMA = """
CREATE TABLE keyed (id int PRIMARY KEY, v text); CREATE TABLE keyless (n int, g int GENERATED ALWAYS AS (n + 1) STORED,
  i int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE no_columns (); CREATE TABLE all_generated (g int GENERATED ALWAYS AS (1) STORED);
CREATE SEQUENCE plain; CREATE SEQUENCE "odd "" name" START 5; CREATE SEQUENCE untouched;
CREATE MATERIALIZED VIEW below AS SELECT count(*) AS n FROM keyless;
CREATE MATERIALIZED VIEW "a view above" AS SELECT n FROM below; CREATE MATERIALIZED VIEW empty AS SELECT 1 WITH NO DATA;
CREATE PUBLICATION app FOR TABLE keyed;
"""
OF_OBJECTS = """
GRANT UPDATE ON LARGE OBJECT 4713 TO {0}; GRANT SELECT ON LARGE OBJECT 4713 TO {0}, PUBLIC;
COMMENT ON LARGE OBJECT 4714 IS 'old';
"""


@pytest.fixture
def sides(postgres, other_postgres):
    """Both sides with the same definitions, and the request."""
    source, destination = postgres.database(), other_postgres.database()
    for url in (source, destination):
        run_sql(url, SCHEMA)
    secrets = [{"password": server.password} for server in (postgres, other_postgres)]
    return (
        source,
        destination,
        RemainderRequest(BothSides(source, secrets[0], destination, secrets[1]), {"publication": "app"}),
    )


def test_all_of_it_arrives_once(sides):
    source, destination, request = sides
    run_sql(
        source,
        "INSERT INTO no_columns DEFAULT VALUES; INSERT INTO all_generated DEFAULT VALUES;"
        "INSERT INTO keyless (n) VALUES (1), (1), (NULL); SELECT nextval('plain'), nextval('plain');"
        """ SELECT setval('"odd "" name"', 77, false); REFRESH MATERIALIZED VIEW below; INSERT INTO keyed VALUES (1);"""
        " REFRESH MATERIALIZED VIEW \"a view above\"; SELECT lo_from_bytea(4711, repeat('x', 9000000)::bytea);"
        "SELECT lo_create(4712), lo_from_bytea(4713, 'short')",
    )
    run_sql(
        destination,
        "INSERT INTO keyless (n) VALUES (9); SELECT lo_from_bytea(4713, 'longer'), lo_create(4714);"
        "COMMENT ON LARGE OBJECT 4713 IS 'stays'",
    )
    carried = carry_remainder(request)
    expected = {"tables": 3, "large objects": 4, "materialized views": 2, "sequences": 3}
    assert (dict(carried.counts), carried.notes) == (expected, [])
    for query in (
        "SELECT n, g, i FROM keyless ORDER BY i",
        "SELECT count(*) FROM no_columns UNION ALL SELECT count(*) FROM all_generated",
        'SELECT last_value, is_called FROM plain UNION ALL SELECT last_value, is_called FROM "odd "" name"',
        'SELECT n FROM "a view above" UNION ALL SELECT n FROM below',
        "SELECT oid, length(lo_get(oid)), md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY 1",
    ):
        assert fetch(destination, query) == fetch(source, query), query
    assert fetch(destination, "SELECT obj_description(4713, 'pg_largeobject')") == [("stays",)]
    assert fetch(destination, "SELECT count(*) FROM keyed") == [(0,)]  # its rows come by the log
    assert set(carry_remainder(request).counts.values()) == {0}


def test_a_trigger_that_fires_on_replicas_does_not_act_again_for_rows_that_are_copied(sides):
    """What it wrote at the source is in the log, and its table was compared before."""
    source, destination, request = sides
    for url in (source, destination):
        run_sql(
            url,
            "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.keyed VALUES (new.n);"
            " RETURN new; END'; CREATE TRIGGER seen AFTER INSERT ON keyless FOR EACH ROW EXECUTE FUNCTION seen();"
            " ALTER TABLE keyless ENABLE ALWAYS TRIGGER seen",
        )
    run_sql(source, "INSERT INTO keyless (n) VALUES (1), (2)")
    carry_remainder(request)
    assert fetch(destination, "SELECT n FROM keyless ORDER BY n") == [(1,), (2,)]
    assert fetch(destination, "SELECT id FROM keyed") == []
    assert fetch(destination, "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'seen'") == [("A",)]


@pytest.mark.parametrize("state", [pytest.param("", marks=pytest.mark.torture), "ALWAYS"])
def test_an_event_trigger_does_not_act_on_a_view_that_is_refreshed(sides, state):
    source, destination, request = sides
    for url in (source, destination):
        run_sql(
            url,
            "CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS"
            " 'BEGIN INSERT INTO public.keyed VALUES (0); END'; CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE"
            f" FUNCTION noted(); ALTER EVENT TRIGGER noted ENABLE {state}",
        )
    run_sql(source, "INSERT INTO keyless (n) VALUES (1); REFRESH MATERIALIZED VIEW below")
    assert carry_remainder(request).counts["materialized views"] == 2
    assert fetch(destination, "SELECT id FROM keyed") == []
    query = "SELECT evtenabled::text FROM pg_event_trigger WHERE evtname = 'noted'"
    assert fetch(destination, query) == [("A" if state else "O",)]


UNQUALIFIED = """
CREATE SCHEMA apart; CREATE FUNCTION apart.twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2';
CREATE FUNCTION apart.outer_one(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN twice($1); END';
CREATE FUNCTION apart.fails(n bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 10 / (5 - n)';
SET search_path = apart, public; CREATE MATERIALIZED VIEW found AS SELECT outer_one(n) AS n FROM public.keyless;
CREATE MATERIALIZED VIEW failing AS SELECT fails(count(*)) AS n FROM public.keyless;
"""


def test_a_view_is_refreshed_whose_code_names_things_without_a_schema_and_one_that_fails_is_named(sides):
    source, destination, request = sides
    for url in (source, destination):
        run_sql(url, UNQUALIFIED)
    if int(fetch(source, "SHOW server_version_num")[0][0]) >= 170000:
        run_sql(source, "ALTER FUNCTION apart.outer_one SET search_path = apart")
    rows = "INSERT INTO keyless (n) VALUES (1), (2), (3); SET search_path = apart, public;"
    run_sql(source, f"{rows} REFRESH MATERIALIZED VIEW apart.found; REFRESH MATERIALIZED VIEW apart.failing")
    run_sql(destination, "INSERT INTO keyless (n) VALUES (4), (5)")
    run_sql(source, "INSERT INTO keyless (n) VALUES (4), (5)")
    carried = carry_remainder(request)
    assert fetch(destination, "SELECT n FROM apart.found ORDER BY n") == [(2,), (4,), (6,), (8,), (10,)]
    assert [one for one in carried.missing if "view" in one] == [
        "rows of materialized view apart.failing as they are now: division by zero"
    ]


def test_new_large_objects_belong_to_whom_they_belong_at_the_source(sides):
    source, destination, request = sides
    known, unknown = (f"{name}_{source[-8:]}" for name in ("app", "only_at_source"))
    for url, roles in ((source, (known, unknown)), (destination, (known,))):
        run_sql(url, "; ".join(f"CREATE ROLE {role}" for role in roles))
    try:
        run_sql(
            source,
            f"SELECT lo_from_bytea(4711, 'a'), lo_from_bytea(4712, 'b'); ALTER LARGE OBJECT 4711 OWNER TO {known};"
            f" GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC; COMMENT ON LARGE OBJECT 4711 IS 'new';"
            f" ALTER LARGE OBJECT 4712 OWNER TO {unknown}",
        )
        carried = carry_remainder(request)
        assert carried.missing == ["owner, privileges or comment of 1 new large object"]
        query = (
            "SELECT pg_get_userbyid(lomowner)::text, lomacl::text, obj_description(oid, 'pg_largeobject')"
            " FROM pg_largeobject_metadata WHERE oid = 4711"
        )
        assert fetch(destination, query) == fetch(source, query)
    finally:
        for url, roles in ((source, (known, unknown)), (destination, (known,))):
            run_sql(url, "; ".join(f"DROP OWNED BY {role}; DROP ROLE {role}" for role in roles))


def test_a_new_large_object_gets_its_owner_also_where_the_session_has_another_role(sides):
    source, destination, request = sides
    role = f"mover_{destination[-8:]}"
    run_sql(destination, f"CREATE ROLE {role} SUPERUSER")
    run_sql(source, "SELECT lo_create(4711)")
    try:
        sides = replace(request.sides, destination_url=f"{destination}?options=-crole%3D{role}")
        carry_remainder(replace(request, sides=sides))
        query = "SELECT pg_get_userbyid(lomowner)::text FROM pg_largeobject_metadata WHERE oid = 4711"
        assert fetch(destination, query) == fetch(source, query)
    finally:
        run_sql(destination, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_large_objects_that_are_there_get_what_has_changed_since_the_base(sides):
    """What was otherwise before is the restore's, or somebody's at the destination."""
    source, destination, request = sides
    known, unknown = (f"{name}_{source[-8:]}" for name in ("app", "only_at_source"))
    for url, roles in ((source, (known, unknown)), (destination, (known,))):
        run_sql(url, "; ".join(f"CREATE ROLE {role}" for role in roles))
        run_sql(
            url,
            f"SELECT lo_from_bytea(n, 'a') FROM generate_series(4711, 4716) n; {OF_OBJECTS.format(known)}",
        )
    run_sql(source, "COMMENT ON LARGE OBJECT 4715 IS 'of the source'")
    run_sql(destination, "COMMENT ON LARGE OBJECT 4715 IS 'of the destination'")
    try:
        log = {"publication": "app"} | state_at(source, request.sides.source_secrets, {})
        run_sql(
            source,
            f"ALTER LARGE OBJECT 4711 OWNER TO {known}; COMMENT ON LARGE OBJECT 4711 IS 'it''s new';"
            f" GRANT SELECT ON LARGE OBJECT 4712 TO {known} WITH GRANT OPTION;"
            f" REVOKE UPDATE ON LARGE OBJECT 4713 FROM {known}; COMMENT ON LARGE OBJECT 4714 IS NULL;"
            f" ALTER LARGE OBJECT 4716 OWNER TO {unknown}",
        )
        followed = replace(request, log=log)
        carried = carry_remainder(followed)
        assert carried.missing == ["owner, privileges or comment of 1 large object as it is now"]
        assert carried.counts["large objects"] == 4
        query = (
            "SELECT oid::int, pg_get_userbyid(lomowner)::text, obj_description(oid, 'pg_largeobject'),"
            " ARRAY(SELECT ROW(x.grantee::regrole, x.privilege_type, x.is_grantable)::text FROM aclexplode("
            "coalesce(lomacl, acldefault('L', lomowner))) x WHERE x.grantee <> lomowner ORDER BY 1)"
            " FROM pg_largeobject_metadata WHERE oid < 4715 ORDER BY 1"
        )
        assert fetch(destination, query) == fetch(source, query)
        comment = "SELECT obj_description(4715, 'pg_largeobject')"
        assert fetch(destination, comment) == [("of the destination",)]
        assert carry_remainder(followed).counts["large objects"] == 0
        assert carry_remainder(replace(request, log=None)).counts["large objects"] == 1
        assert fetch(destination, comment) == [("of the source",)]
    finally:
        for url, roles in ((source, (known, unknown)), (destination, (known,))):
            run_sql(url, "; ".join(f"DROP OWNED BY {role}; DROP ROLE {role}" for role in roles))


def test_a_large_object_arrives_together_with_what_describes_it(sides, monkeypatch):
    """A command that is ended between two objects leaves the first one as it is at the source."""
    source, destination, request = sides
    run_sql(
        source,
        "SELECT lo_from_bytea(4711, 'a'), lo_from_bytea(4712, 'b'); COMMENT ON LARGE OBJECT 4711 IS 'first'",
    )
    copy = _Remainder._copy_object

    def copy_first(remainder, oid, starts):
        if oid == 4712:
            raise KeyboardInterrupt
        copy(remainder, oid, starts)

    monkeypatch.setattr(_Remainder, "_copy_object", copy_first)
    with pytest.raises(KeyboardInterrupt):
        carry_remainder(request)
    query = "SELECT oid::int, obj_description(oid, 'pg_largeobject') FROM pg_largeobject_metadata"
    assert fetch(destination, query) == [(4711, "first")]


def test_what_cannot_be_as_at_the_source_is_named(sides):
    source, destination, request = sides
    run_sql(source, "INSERT INTO keyless (n) VALUES (1); CREATE TABLE late (n int); CREATE SEQUENCE later")
    run_sql(
        destination,
        "DROP SEQUENCE untouched; INSERT INTO keyless (n) VALUES (1), (2); REFRESH MATERIALIZED VIEW below",
    )
    carried = carry_remainder(request)
    assert carried.missing == ["sequence public.later", "sequence public.untouched", "table public.late"]
    assert "public.below was refreshed" in " ".join(carried.notes)


def test_what_the_source_has_dropped_since_is_named(sides):
    """A trigger would go on firing, and a constraint refuse what the application writes now."""
    _, destination, request = sides
    run_sql(
        destination,
        "ALTER TABLE keyed ADD CONSTRAINT gone CHECK (id > 0); CREATE INDEX by_v ON keyed (v);"
        " CREATE VIEW old AS SELECT 1; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        " CREATE TRIGGER t BEFORE INSERT ON keyed FOR EACH ROW EXECUTE FUNCTION f()",
    )
    carried = carry_remainder(request)
    only_there = ("constraint gone of public.keyed", "function public.f()", "index public.by_v",
                  "trigger t of public.keyed", "view public.old")  # fmt: skip
    assert carried.notes == [f"{label} is only at the new side" for label in only_there]


def test_a_publication_of_the_application_hinders_nothing(sides):
    """At the destination, too, a table that it publishes without a replica identity refuses DELETE."""
    source, destination, request = sides
    for url in (source, destination):
        run_sql(url, "CREATE PUBLICATION theirs FOR ALL TABLES")
    run_sql(source, "INSERT INTO keyless (n) VALUES (1), (2)")
    run_sql(destination, "INSERT INTO keyless (n) VALUES (9)")
    run_sql(source, "CREATE PUBLICATION later FOR TABLE keyed; CREATE COLLATION sorted (locale = 'C')")
    carried = carry_remainder(request)
    assert carried.counts["tables"] == 1
    assert fetch(destination, "SELECT n FROM keyless ORDER BY 1") == [(1,), (2,)]
    assert carried.missing == ["collation public.sorted", "publication later"]
