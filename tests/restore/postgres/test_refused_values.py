"""Values that the destination does not take cost only themselves; those that name what comes later come back."""

import pytest

from scripts.postgres_versions import find_postgres_of
from scripts.process import ServerError
from tests.exporters.postgres.databases import as_role, export_database, fetch, login, run_sql
from tests.tools.bundles import read_bundle, restore_from, restore_whole

ODD = """
CREATE TABLE t (a int PRIMARY KEY DEFAULT 5); INSERT INTO t VALUES (1);
CREATE TABLE notes (rel regclass, said text); INSERT INTO notes VALUES ('t_pkey', 'rebuilt'), ('t', 'x');
CREATE TABLE counted (n int); INSERT INTO counted VALUES (0); CREATE MATERIALIZED VIEW of_notes AS SELECT FROM notes;
CREATE TABLE kept AS SELECT adbin, g, '"b, "'::text FROM pg_attrdef, generate_series(1, 20) g;
INSERT INTO kept VALUES (NULL, 0);
DROP ROLE IF EXISTS only_here; CREATE ROLE only_here;
CREATE TABLE who (r regrole, acl aclitem[], n int GENERATED ALWAYS AS (7) STORED);
INSERT INTO who VALUES ('only_here', '{postgres=r/postgres}'), ('postgres', '{only_here=r/postgres}');
INSERT INTO who VALUES ('postgres', '{}');
CREATE TABLE must (r regrole NOT NULL, n int); INSERT INTO must VALUES ('only_here', 1), ('postgres', 2);
CREATE FUNCTION twice(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN i * 2; END';
CREATE TABLE doubled (i int, d int GENERATED ALWAYS AS (twice(i)) STORED); INSERT INTO doubled VALUES (1), (2);
CREATE FUNCTION count_() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN UPDATE public.counted SET n = n + 1; RETURN new; END';
CREATE TRIGGER counts BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION count_();
CREATE TRIGGER counts BEFORE INSERT ON doubled FOR EACH ROW EXECUTE FUNCTION count_();
ALTER TABLE doubled ENABLE ALWAYS TRIGGER counts;
CREATE OR REPLACE FUNCTION twice(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
CREATE TABLE packed (v text); INSERT INTO packed VALUES (repeat('x', 12000));
ALTER TABLE packed ALTER v SET STORAGE PLAIN;
"""
GONE = 'role "only_here" does not exist'
NO_INPUT = "cannot accept a value of type pg_node_tree"
LOST = [
    f'the values of "public"."kept"."adbin": 20 came as NULL, which the bundle has: {NO_INPUT}',
    f'the rows of "public"."must": 1 did not come, for column "r", which the bundle has: {GONE}',
    f'the values of "public"."who"."acl": 1 came as NULL, which the bundle has: {GONE}',
    f'the values of "public"."who"."r": 1 came as NULL, which the bundle has: {GONE}',
]


def test_values_that_a_destination_does_not_take_cost_only_themselves(
    postgres, other_postgres, tmp_path, monkeypatch
):
    url, destination = postgres.database(), login(other_postgres, "borrower")
    run_sql(other_postgres.url, f"ALTER DATABASE {destination.rpartition('/')[2]} OWNER TO borrower")
    run_sql(url, ODD)
    assert export_database(url, tmp_path / "bundle").complete
    reader, outcomes = read_bundle(tmp_path / "bundle"), []
    repaired = "CREATE OR REPLACE FUNCTION twice(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i * 2'"
    for mend in ("", repaired, ""):
        run_sql(destination, mend)
        with monkeypatch.context() as patch:
            patch.setenv("PGPASSWORD", other_postgres.password)
            where = as_role(destination, "borrower")
            outcomes.append(restore_from(reader, "app", where, workers=2))
    first, second, third = outcomes
    assert [one.partition(":")[0] for one in first.findings] == ['"public"."doubled"']
    assert second.findings == third.findings == ()
    assert list(second.left_out) == list(third.left_out) == LOST
    assert {*LOST} < {*first.left_out}
    for query in (
        "SELECT rel::text, said FROM notes ORDER BY 1",
        "SELECT g, text FROM kept ORDER BY 1",
        "SELECT count(*) FROM of_notes",
        "SELECT i, d FROM doubled ORDER BY 1",
        "SELECT n FROM counted",
        "SELECT length(v), attstorage FROM packed, pg_attribute WHERE attname = 'v' AND attrelid = 'packed'::regclass",
        "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
    ):
        assert fetch(destination, query) == fetch(url, query)
    assert fetch(destination, "SELECT r::text, acl::text, n FROM who ORDER BY 1, 2") == [
        ("postgres", "{}", 7),
        ("postgres", None, 7),
        (None, "{postgres=r/postgres}", 7),
    ]
    assert fetch(destination, "SELECT r::text, n FROM must") == [("postgres", 2)]


NULLS = (
    "CREATE TABLE t (a int, b text); INSERT INTO t SELECT nullif(n % 5, 0), n FROM generate_series(1, 20) n"
)


def test_rows_with_null_in_a_column_that_does_not_take_it_cost_only_themselves(
    postgres, other_postgres, tmp_path
):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, NULLS)
    assert export_database(url, tmp_path / "bundle").complete
    run_sql(destination, "CREATE TABLE t (a int NOT NULL, b text)")
    outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", destination, only=("data",), workers=2)
    assert outcome.findings == ()
    reason = 'for column "a", which the bundle has: the column is NOT NULL here'
    assert outcome.left_out == (f'the rows of "public"."t": 4 did not come, {reason}',)
    kept = "SELECT a, b FROM t WHERE a IS NOT NULL ORDER BY b"
    assert fetch(destination, "SELECT a, b FROM t ORDER BY b") == fetch(url, kept)


NULLABLE = """
CREATE TABLE top (a int NOT NULL, b int PRIMARY KEY); CREATE TABLE middle () INHERITS (top);
CREATE TABLE "Lo w" () INHERITS (middle); ALTER TABLE middle ALTER a DROP NOT NULL, ALTER b DROP NOT NULL;
INSERT INTO middle VALUES (NULL, NULL), (1, 2); INSERT INTO "Lo w" VALUES (NULL, 3); INSERT INTO top VALUES (1, 1);
"""
MAY_BE_NULL = "SELECT attrelid::regclass::text, attname FROM pg_attribute WHERE attname IN ('a', 'b')"
MAY_BE_NULL += " AND NOT attnotnull AND attrelid::regclass::text !~ '^pg_' ORDER BY 1, 2"


def test_a_column_that_takes_null_below_a_parent_that_does_not_takes_it_again(
    postgres, other_postgres, tmp_path
):
    if int(fetch(postgres.url, "SHOW server_version_num")[0][0]) >= 180000:
        pytest.skip("PostgreSQL 18 has no such columns")
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, NULLABLE)
    assert export_database(url, tmp_path / "bundle").complete
    restore_whole(read_bundle(tmp_path / "bundle"), "app", destination, workers=2)
    assert fetch(destination, MAY_BE_NULL) == fetch(url, MAY_BE_NULL) != []
    assert fetch(destination, "SELECT a, b FROM top ORDER BY b") == fetch(
        url, "SELECT a, b FROM top ORDER BY b"
    )


SOONEST = (
    "interval '-178956970 years -8 mons' - interval '2147483647 days' - interval '1 day'"
    " - interval '2000000000 hours' - interval '562047788 hours' - interval '54.775808 s'"
)
ENDLESS = f"""
CREATE TABLE t (id int, i interval, a interval[], said text);
INSERT INTO t VALUES (1, {SOONEST}, NULL, 'x'), (2, '1 day', ARRAY['1 day', {SOONEST}], NULL);
CREATE TABLE u (i interval, odd aclitem); INSERT INTO u VALUES ({SOONEST}, 'postgres=r/postgres'), (NULL, NULL);
"""


@pytest.mark.torture
def test_an_interval_that_a_newer_server_reads_as_infinite_is_named(servers, tmp_path):
    try:
        older, newer = (servers.postgres(f"of-{major}", find_postgres_of(major)) for major in (16, 17))
    except ServerError as error:
        pytest.skip(f"NOT TESTED: {error}")
    url, destination = older.database(), newer.database()
    run_sql(url, ENDLESS)
    assert export_database(url, tmp_path / "bundle").complete
    outcomes = [restore_from(read_bundle(tmp_path / "bundle"), "app", destination) for _ in range(2)]
    for outcome in outcomes:
        assert outcome.findings == ()
        named = [sentence.partition(" infinite here")[0] for sentence in outcome.left_out]
        assert named == [
            f"the values of {column}: 1 are"
            for column in ('"public"."t"."a"', '"public"."t"."i"', '"public"."u"."i"')
        ]
    assert fetch(destination, "SELECT id, i::text, a::text, said FROM t ORDER BY id") == [
        (1, "-infinity", None, "x"),
        (2, "1 day", '{"1 day",-infinity}', None),
    ]
