"""What a destination refuses to make costs only itself and what needs it: all else comes, and the rest is named."""

import psycopg

from migrate.restore.postgres.definitions.dump_script import DumpEntry
from migrate.restore.postgres.definitions.optional_clauses import as_before_18, parse_statement
from migrate.restore.postgres.definitions.pre_data_entries import EntryMaker
from tests.exporters.postgres.databases import as_role, export_database, fetch, login, run_sql
from tests.tools.bundles import differences, read_bundle, restore_from

SUPERUSERS = """
CREATE FUNCTION lacking(int) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'int4abs';
CREATE AGGREGATE collected(anynonarray)
  (sfunc = array_agg_transfn, stype = internal, finalfunc = array_agg_finalfn, finalfunc_extra);
CREATE TYPE whole; CREATE FUNCTION whole_in(cstring) RETURNS whole STRICT IMMUTABLE LANGUAGE internal AS 'int8in';
CREATE FUNCTION whole_out(whole) RETURNS cstring STRICT IMMUTABLE LANGUAGE internal AS 'int8out';
CREATE TYPE whole (input = whole_in, output = whole_out, like = int8);
CREATE TABLE gone (a whole); INSERT INTO gone VALUES ('1'), ('2'); CREATE SEQUENCE of_gone OWNED BY gone.a;
CREATE DOMAIN positive AS int DEFAULT lacking(-5)
  CONSTRAINT small CHECK (VALUE < 100) CONSTRAINT pos CHECK (lacking(VALUE) = VALUE);
CREATE TABLE reduced (id serial PRIMARY KEY, a int DEFAULT lacking(-3) NOT NULL, "b, )" text DEFAULT ')''(, x',
  d positive, g int GENERATED ALWAYS AS (lacking(a) * 2) STORED,
  CONSTRAINT "is, 'odd" CHECK (a % 2 <> 0), CONSTRAINT lacks CHECK (lacking(a) < 1000));
INSERT INTO reduced (a, d) VALUES (-5, 1), (3, 2); INSERT INTO reduced DEFAULT VALUES;
CREATE VIEW v AS SELECT lacking(a) FROM reduced; CREATE VIEW of_v AS SELECT * FROM v;
CREATE VIEW fine AS SELECT a FROM reduced; CREATE INDEX ON reduced (lacking(a)); CREATE INDEX ON reduced (a);
CREATE TABLE above (a int); CREATE TABLE below (c text) INHERITS (above); ALTER TABLE above ADD COLUMN b int;
INSERT INTO below VALUES (1, 'x', 2);
CREATE FUNCTION tight(int) RETURNS bool LEAKPROOF LANGUAGE sql AS 'SELECT true'; CREATE PUBLICATION p FOR ALL TABLES;
CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f();
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR PUBLIC SERVER s;
"""
LOST = {
    "AGGREGATE public.collected(anynonarray)",
    "EVENT TRIGGER e",
    "FOREIGN DATA WRAPPER w",
    "FUNCTION public.lacking(integer)",
    "FUNCTION public.tight(integer)",
    "FUNCTION public.whole_in(cstring)",
    "FUNCTION public.whole_out(public.whole)",
    "INDEX public.reduced_lacking_idx",
    "PUBLICATION p",
    "SEQUENCE OWNED BY public.of_gone",
    "SERVER s",
    "SHELL TYPE public.whole",
    "TABLE public.gone",
    "TYPE public.whole",
    "USER MAPPING public SERVER s",
    "VIEW public.of_v",
    "VIEW public.v",
    "constraint lacks of TABLE public.reduced",
    "constraint pos of DOMAIN public.positive",
    "default of DOMAIN public.positive",
    "default of column a of TABLE public.reduced",
    "generation expression of column g of TABLE public.reduced",
    'inheritance of columns ("a", "b") of TABLE public.below',
    'the rows of "public"."gone"',
}


COLLATED = """
SET allow_system_table_mods = on; CREATE COLLATION pg_catalog."only here" (locale = 'C');
CREATE TYPE c AS (a text COLLATE "only here", b int); CREATE DOMAIN d AS text COLLATE "only here" CHECK (VALUE <> '');
CREATE TYPE r AS RANGE (subtype = text, collation = "only here");
CREATE TABLE t (a text COLLATE "only here" PRIMARY KEY, b text DEFAULT 'x' NOT NULL COLLATE "only here", c c, d d, r r)
  PARTITION BY RANGE (a); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('a') TO ('z');
INSERT INTO t VALUES ('m', DEFAULT, ROW('c', 1), 'd', '[a,b]'), ('k', 'y', NULL, NULL, NULL);
CREATE INDEX ON t (b); CREATE VIEW v AS SELECT a FROM t; CREATE VIEW sorted AS SELECT a COLLATE "only here" FROM t;
"""
UNCOLLATED = [
    "VIEW public.sorted",
    *(f"collation of {what}" for what in ("DOMAIN public.d", "TYPE public.r", "column a of TABLE public.t")),
    *(f"collation of column {what}" for what in ("a of TABLE public.t_1", "a of TYPE public.c")),
    *(f"collation of column b of TABLE public.{table}" for table in ("t", "t_1")),
]


def test_a_collation_that_the_destination_lacks_costs_no_rows(postgres, other_postgres, tmp_path):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, COLLATED)
    assert export_database(url, tmp_path).complete
    reader = read_bundle(tmp_path)
    outcome = restore_from(reader, "app", destination)
    assert outcome.findings == ()
    assert sorted(one.partition(": ")[0] for one in outcome.left_out) == UNCOLLATED
    assert any(one.endswith("; it sorts by the database's collation") for one in outcome.left_out)
    assert differences(reader, destination) == []
    for query in ("SELECT count(*) FROM t", "SELECT a FROM v ORDER BY a"):
        assert fetch(destination, query) == fetch(url, query)


def test_partitions_by_a_collation_that_the_destination_lacks_keep_their_rows(
    postgres, other_postgres, tmp_path
):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(
        url,
        """SET allow_system_table_mods = on;
        CREATE COLLATION pg_catalog."only here" (provider = icu, locale = 'en');
        CREATE TABLE fits (a text) PARTITION BY LIST (lower(a) COLLATE "only here");
        CREATE TABLE fits_1 PARTITION OF fits FOR VALUES IN ('m'); INSERT INTO fits VALUES ('M');
        CREATE TABLE k (a text, b int) PARTITION BY RANGE (a COLLATE "only here");
        CREATE TABLE k_1 PARTITION OF k FOR VALUES FROM ('a') TO ('n');
        CREATE TABLE k_2 PARTITION OF k FOR VALUES FROM ('n') TO ('z');
        CREATE TABLE k_3 PARTITION OF k FOR VALUES FROM ('z') TO ('zz');
        INSERT INTO k VALUES ('m', 1), ('B', 2), ('p', 3), ('Za', 4); CREATE INDEX ON k (b)""",
    )
    assert export_database(url, tmp_path).complete
    reader = read_bundle(tmp_path)
    outcome = restore_from(reader, "app", destination)
    assert outcome.findings == ()
    assert [one.partition(": ")[0] for one in outcome.left_out] == [
        'collation "only here" of the partition key of TABLE public.fits',
        'collation "only here" of the partition key of TABLE public.k',
        "TABLE ATTACH public.k_1",
        "TABLE ATTACH public.k_3",
        "INDEX ATTACH public.k_1_b_idx",
        "INDEX ATTACH public.k_3_b_idx",
    ]
    assert differences(reader, destination) == []
    rows = "SELECT a, tableoid::regclass::text FROM {} ORDER BY 1"
    assert fetch(destination, rows.format("fits")) == [("M", "fits_1")]
    assert fetch(destination, rows.format("k")) == [("p", "k_2")]
    assert fetch(destination, rows.format("k_1")) == [("B", "k_1"), ("m", "k_1")]
    assert fetch(destination, rows.format("k_3")) == [("Za", "k_3")]


def test_what_only_a_superuser_may_make_costs_only_itself(postgres, other_postgres, tmp_path, monkeypatch):
    url, destination = postgres.database(), login(other_postgres, "occupant")
    run_sql(other_postgres.url, f"ALTER DATABASE {destination.rpartition('/')[2]} OWNER TO occupant")
    run_sql(url, SUPERUSERS)
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", other_postgres.password)
        outcome = restore_from(reader, "app", as_role(destination, "occupant"), workers=2)
    assert outcome.findings == ()
    assert {one.partition(": ")[0] for one in outcome.left_out} == LOST
    for name in ("reduced", "fine", "ONLY above", "below"):
        query = f"SELECT * FROM {name} ORDER BY 1"
        assert fetch(destination, query) == fetch(url, query)
    query = "SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace ORDER BY 1"
    assert fetch(destination, query) == [("is, 'odd",), ("small",)]
    assert fetch(destination, "SELECT count(*) FROM pg_indexes WHERE tablename = 'reduced'") == [(2,)]
    run_sql(destination, "INSERT INTO reduced (a) VALUES (7)")
    assert fetch(destination, 'SELECT id, "b, )" FROM reduced WHERE a = 7') == [(4, ")'(, x")]


TABLE = b"""SET default_tablespace = '';

CREATE TABLE public.t (
    a text DEFAULT ('x; '::text) NOT NULL COLLATE pg_catalog."C",
    "b;c" integer DEFAULT public.f(2) CONSTRAINT n NOT NULL NO INHERIT,
    CONSTRAINT k CHECK ((a <> 'x, y)'::text))
)
WITH (fillfactor='50', toast.new_one='a, (b'')');
ALTER TABLE ONLY public.t ALTER COLUMN a SET COMPRESSION pglz;


ALTER TABLE public.t OWNER TO someone;
"""
BARE_TABLE = b"""SET default_tablespace = '';

CREATE TABLE public.t (
    a text NOT NULL ,
    "b;c" integer CONSTRAINT n NOT NULL );


ALTER TABLE public.t OWNER TO someone;
"""
RANGE = b"""CREATE TYPE public.r AS RANGE (
    subtype = text,
    multirange_type_name = public.m,
    collation = public.c
);
"""
BARE_RANGE = b"CREATE TYPE public.r AS RANGE (\n    subtype = text);\n"
COMPOSITE = b'CREATE TYPE public.c AS (\n\ta text COLLATE public."x (y",\n\tb integer\n);\n'
BARE_COMPOSITE = b"CREATE TYPE public.c AS (\n\ta text ,\n\tb integer\n);\n"
DOMAIN = b"""CREATE DOMAIN public.d AS text COLLATE public.c NOT NULL DEFAULT 'x'::text
\tCONSTRAINT k CHECK ((VALUE <> 'y'::text));
"""
BARE_DOMAIN = b"CREATE DOMAIN public.d AS text NOT NULL ;\n"
OF_TABLE = [
    "default of column a",
    "collation of column a",
    'default of column "b;c"',
    'NO INHERIT of column "b;c"',
    "constraint k",
    "storage parameter fillfactor",
    "storage parameter toast.new_one",
    "ALTER COLUMN a SET COMPRESSION pglz",
]
SERVER = b"CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (\n    host 'y'\n);\n"
BARE_SERVER = b"CREATE SERVER s FOREIGN DATA WRAPPER w;\n"


def test_statements_hold_without_their_optional_clauses():
    for kind, sql, bare, labels in (
        ("TABLE", TABLE, BARE_TABLE, OF_TABLE),
        ("TYPE", RANGE, BARE_RANGE, ["multirange type", "collation"]),
        ("TYPE", COMPOSITE, BARE_COMPOSITE, ["collation of column a"]),
        ("DOMAIN", DOMAIN, BARE_DOMAIN, ["collation", "default", "constraint k"]),
        ("SERVER", SERVER, BARE_SERVER, ["option host"]),
    ):
        statement = parse_statement(DumpEntry(0, kind, "name", "public", sql))
        assert statement is not None
        assert statement.without([]) == sql
        assert statement.without(statement.optional()) == bare
        assert [clause.label for clause in statement.optional()] == labels


GRANTS = b"""SET default_tablespace = '';
--

REVOKE ALL ON TABLE public."t;" FROM a;
GRANT SELECT,NEW ONE ON TABLE public."t;" TO b WITH GRANT OPTION;
SET SESSION AUTHORIZATION b;
GRANT UPDATE(x, y) ON TABLE public."t;" TO c;
RESET SESSION AUTHORIZATION;
"""


def test_each_privilege_holds_without_the_others():
    statement = parse_statement(DumpEntry(0, "ACL", "t", "public", GRANTS))
    labels = [clause.label for clause in statement.optional()]
    assert labels == [
        'REVOKE ALL ON TABLE public."t;" FROM a',
        'GRANT SELECT ON TABLE public."t;" TO b WITH GRANT OPTION',
        'GRANT NEW ONE ON TABLE public."t;" TO b WITH GRANT OPTION',
        'GRANT UPDATE(x, y) ON TABLE public."t;" TO c',
    ]
    (new,) = [clause for clause in statement.optional() if "NEW ONE" in clause.label]
    assert statement.without([new]) == GRANTS.replace(b",NEW ONE", b"")
    kept = b"SET default_tablespace = '';\nSET SESSION AUTHORIZATION b;\nRESET SESSION AUTHORIZATION;\n"
    assert statement.without(statement.optional()) == kept
    rights = b"ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s GRANT SELECT,NEW ON TABLES TO b;\n"
    first, second = parse_statement(DumpEntry(0, "DEFAULT ACL", "t", "s", rights)).optional()
    assert first.sql.endswith(b" GRANT SELECT ON TABLES TO b;")
    assert second.label == "ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s GRANT NEW ON TABLES TO b"


VIRTUAL = b"""CREATE TABLE public.t (
    a integer,
    "b, )" integer GENERATED ALWAYS AS ((a * 2)) NOT NULL,
    c text DEFAULT 'GENERATED ALWAYS AS (1)'::text,
    d integer GENERATED ALWAYS AS ((a * 3)) STORED,
    e text GENERATED ALWAYS AS ((c || ')'::text))
);
"""


def test_virtual_columns_are_stored_where_the_server_has_none():
    entry = DumpEntry(0, "TABLE", "t", "public", VIRTUAL)
    stored, names = as_before_18(entry)
    assert names == ['"b, )"', "e"]
    assert stored.sql == VIRTUAL.replace(b"2)) N", b"2)) STORED N").replace(b"text))", b"text)) STORED")
    assert as_before_18(stored) == (stored, [])
    plain = DumpEntry(0, "TABLE", "t", "public", TABLE)
    assert as_before_18(plain) == (plain, ())


HEIR = b"""CREATE TABLE public.t (
    NOT NULL a,
    x integer,
    CONSTRAINT "NOT NULL y" NOT NULL "b ,"
)
INHERITS (public.above)
WITH (fillfactor='50');


ALTER TABLE public.t OWNER TO someone;
"""
HEIR_BEFORE_18 = b"""CREATE TABLE public.t (
    x integer)
INHERITS (public.above)
WITH (fillfactor='50');
ALTER TABLE ONLY "public"."t" ALTER COLUMN "b ," SET NOT NULL;
ALTER TABLE ONLY "public"."t" ALTER COLUMN a SET NOT NULL;


ALTER TABLE public.t OWNER TO someone;
"""


def test_a_column_that_another_table_has_is_set_not_null_where_the_server_has_no_such_element():
    entry, names = as_before_18(DumpEntry(0, "TABLE", "t", "public", HEIR))
    assert (entry.sql, names) == (HEIR_BEFORE_18, [])


def test_a_comment_on_a_constraint_that_has_no_name_here_is_left_out_by_name(postgres):
    """NOT NULL is a constraint from version 18 on only."""
    url = postgres.database()
    run_sql(url, "CREATE TABLE t (a int NOT NULL)")
    entries = [
        DumpEntry(
            0, "COMMENT", "CONSTRAINT there ON t", "public", b"COMMENT ON CONSTRAINT there ON t IS 'x';"
        ),
        DumpEntry(1, "COMMENT", "TABLE gone", "public", b"COMMENT ON TABLE gone IS 'x';"),
    ]
    with psycopg.connect(url, password=postgres.password) as connection:
        maker = EntryMaker(connection, alone=True, privileged=True, orders={})
        lines = maker.make(entries)
    assert [line.partition(": ")[0] for line in lines] == ["COMMENT public.CONSTRAINT there ON t"]
