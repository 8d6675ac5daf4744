"""Servers of every version that we read: all leave, and come back on a server like it and on a newer one."""

import re

import pytest

from exporters.postgres import chunk_plan
from exporters.postgres.live_digests import live_tables
from migrate.changes.remainder import BothSides
from migrate.restore.postgres.changes.definition_gaps import definition_gaps
from scripts.postgres_versions import PACKAGES, find_postgres_of
from scripts.process import ServerError
from tests.exporters.postgres.databases import dump, export_database, fetch, run_each, run_sql, script
from tests.exporters.postgres.test_resume import broken_export
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle, restore_from, restore_whole

BIG = "CREATE TABLE big AS SELECT n AS id, md5(n::text) AS t, ARRAY[n, NULL] AS a FROM generate_series(1, 40000) n;\n"
BIG += "CREATE UNLOGGED TABLE fleeting_ids (id int GENERATED ALWAYS AS IDENTITY, x int);\n"
PRIVILEGES = """
SELECT n.nspname, g.rolname, x.privilege_type FROM pg_namespace n
CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS x
LEFT JOIN pg_roles g ON g.oid = x.grantee WHERE n.nspname !~ '^pg_' ORDER BY 1, 2, 3
"""
"""What pg_dump says of them is relative to a default."""


@pytest.fixture(params=PACKAGES)
def server(request, servers):
    """A server of that major version."""
    try:
        programs = find_postgres_of(request.param)
    except ServerError as error:
        pytest.skip(f"NOT TESTED: {error}")
    started = servers.postgres(f"postgres-{request.param}", programs)
    yield request.param, started
    started.child.stop()


def definitions(major: int) -> list[str]:
    """Of our own scripts what a server of this version can have, each for a database of its own."""
    torture = script("torture.sql")
    if major < 15:
        torture = torture.replace("numeric(3, -2)", "numeric(5)")
    if major < 14:
        return ["".join(line for line in torture.splitlines(keepends=True) if "BEGIN ATOMIC" not in line)]
    objects = script("objects.sql")
    _, *newer = re.split(r"^-- (\d+)\n", script("newer.sql"), flags=re.MULTILINE)
    known = [
        definition for since, definition in zip(newer[::2], newer[1::2], strict=True) if int(since) <= major
    ]
    return [torture, objects, "".join(known)]


def entries(url: str) -> list[str]:
    """What pg_dump says of the definitions, entry by entry. Some it puts in the order in which they were made."""
    return sorted(dump(url, "--schema-only").split("\n--\n-- "))


@pytest.mark.torture
def test_databases_of_this_version_leave_and_come_back(server, other_postgres, tmp_path, monkeypatch):
    major, started = server
    assert fetch(started.url, "SHOW server_version_num")[0][0].startswith(str(major))
    monkeypatch.setattr(chunk_plan, "CHUNK_BYTES", 2**20)
    newest = int(fetch(other_postgres.url, "SHOW server_version_num")[0][0]) // 10000
    for number, statements in enumerate(definitions(major)):
        url, location = started.database(), tmp_path / str(number)
        run_each(url, statements + BIG)
        outcome = export_database(url, location)
        assert outcome.complete, outcome.sources
        reader = read_bundle(location)
        tables = [row for row in reader.catalog() if row.kind == "table"]
        assert check_parquet(reader, tables) == []
        (big,) = (row for row in tables if row.name == "big")
        assert len(big.details["chunks"]) > 1
        destination = started.database()
        restore_whole(reader, "app", destination, workers=2)
        assert entries(destination) == entries(url)
        assert fetch(destination, PRIVILEGES) == fetch(url, PRIVILEGES)
        assert live_tables(destination) == live_tables(url)
        if newest >= major:
            newer = other_postgres.database()
            assert restore_from(reader, "app", newer, workers=2).findings == ()
            assert differences(reader, newer) == []


@pytest.mark.torture
def test_rows_have_the_same_digests_at_every_version_and_come_from_the_oldest_and_the_newest_to_each(
    servers, tmp_path
):
    started = {}
    try:
        for major in PACKAGES:
            started[major] = servers.postgres(f"postgres-{major}-like-others", find_postgres_of(major))
        (statements,) = definitions(min(PACKAGES))
        urls = {major: server.database() for major, server in started.items()}
        for url in urls.values():
            run_each(url, statements + BIG)
        digests = {major: live_tables(url) for major, url in urls.items()}
        oldest, newest = min(urls), max(urls)
        assert [major for major in urls if digests[major] != digests[newest]] == []
        for source in (oldest, newest):
            assert export_database(urls[source], tmp_path / str(source)).complete
            for major, server in started.items():
                destination = server.database()
                reader = read_bundle(tmp_path / str(source))
                assert restore_from(reader, "app", destination, workers=2).findings == (), (source, major)
                assert differences(reader, destination) == [], (source, major)
                assert live_tables(destination) == digests[source], (source, major)
    finally:
        for server in started.values():
            server.child.stop()


@pytest.mark.torture
def test_a_virtual_column_with_another_expression_has_other_values(server, tmp_path):
    major, started = server
    if major < 18:
        pytest.skip("its columns are not computed when they are read")
    url = started.database()
    run_each(url, "CREATE TABLE t (n int, v int GENERATED ALWAYS AS (n * 2));\nINSERT INTO t VALUES (1);\n")
    run_each(url, "CREATE TABLE z AS SELECT 1 AS x;\n")
    broken_export(url, tmp_path, after=1)
    run_each(url, "ALTER TABLE t ALTER v SET EXPRESSION AS (n * 3);\n")
    assert export_database(url, tmp_path).complete
    assert differences(read_bundle(tmp_path), url) == []


@pytest.mark.torture
def test_virtual_columns_are_stored_at_a_server_that_has_none(server, other_postgres, tmp_path):
    major, started = server
    if major < 18 or int(fetch(other_postgres.url, "SHOW server_version_num")[0][0]) >= 180000:
        pytest.skip("both or none have such columns")
    url, destination = started.database(), other_postgres.database()
    columns = "a int, v int GENERATED ALWAYS AS (a * 2), s int GENERATED ALWAYS AS (a * 3) STORED"
    numbered = "CREATE TABLE p (k int, i int GENERATED ALWAYS AS IDENTITY) PARTITION BY LIST (k);\n"
    run_each(url, f"{numbered}CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1);\n")
    run_each(url, f"CREATE TABLE t ({columns});\nINSERT INTO t VALUES (1), (NULL);\n")
    assert export_database(url, tmp_path).complete
    reader = read_bundle(tmp_path)
    restored = restore_whole(reader, "app", destination)
    (note,) = [note for note in restored.notes if "virtual" in note]
    assert note.startswith("TABLE public.t: v stored")
    run_each(destination, "INSERT INTO t VALUES (2);\n")
    assert fetch(destination, "SELECT * FROM t ORDER BY a") == [(1, 2, 3), (2, 4, 6), (None, None, None)]
    run_each(destination, "DELETE FROM t WHERE a = 2;\n")
    assert differences(reader, destination) == []
    assert definition_gaps(BothSides(url, {}, destination, {}), (), None) == []


NEWER = """
CREATE TABLE t (a int CONSTRAINT there NOT NULL NO INHERIT, b text COLLATE pg_c_utf8) WITH (fillfactor = 50,
  autovacuum_vacuum_max_threshold = 7); INSERT INTO t VALUES (1, 'b');
GRANT SELECT, MAINTAIN ON t TO pg_monitor; GRANT INSERT ON t TO pg_maintain;
CREATE TABLE above (a int); CREATE TABLE below (x int, NOT NULL a, CONSTRAINT named NOT NULL x) INHERITS (above);
INSERT INTO below VALUES (1, 2);
"""


@pytest.mark.torture
def test_what_an_older_server_lacks_costs_neither_rows_nor_other_privileges(server, other_postgres, tmp_path):
    major, started = server
    if major < 18 or int(fetch(other_postgres.url, "SHOW server_version_num")[0][0]) >= 170000:
        pytest.skip("it has nothing that the other one lacks")
    url, destination = started.database(), other_postgres.database()
    run_each(url, NEWER)
    assert export_database(url, tmp_path).complete
    reader = read_bundle(tmp_path)
    restored = restore_from(reader, "app", destination)
    assert restored.findings == ()
    of_acl = "of ACL public.TABLE t"
    assert {one.partition(": ")[0] for one in restored.left_out} == {
        "NO INHERIT of column a of TABLE public.t",
        "collation of column b of TABLE public.t",
        "storage parameter autovacuum_vacuum_max_threshold of TABLE public.t",
        f"GRANT MAINTAIN ON TABLE public.t TO pg_monitor {of_acl}",
        f"GRANT INSERT ON TABLE public.t TO pg_maintain {of_acl}",
    }
    assert differences(reader, destination) == []
    query = "SELECT reloptions, has_table_privilege('pg_monitor', 't', 'SELECT') FROM pg_class WHERE relname = 't'"
    assert fetch(destination, query) == [(["fillfactor=50"], True)]
    query = "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'below'::regclass AND attnum > 0"
    assert fetch(destination, query) == [(True,), (True,)]


UNQUALIFIED = """
CREATE SCHEMA inner_one; SET search_path = inner_one, public;
CREATE FUNCTION inner_one.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION public.outer_one(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN twice($1); END';
CREATE TABLE public.t (a int); INSERT INTO public.t VALUES (1), (2);
CREATE UNIQUE INDEX by_twice ON public.t (outer_one(a)); CREATE VIEW public.seen AS SELECT outer_one(a) FROM public.t;
CREATE MATERIALIZED VIEW public.m AS TABLE public.seen;
"""


@pytest.mark.torture
def test_names_without_a_schema_are_looked_up_also_where_the_server_lets_no_session_say_where(
    server, other_postgres, tmp_path
):
    major, started = server
    if major < 17 or int(fetch(other_postgres.url, "SHOW server_version_num")[0][0]) >= 170000:
        pytest.skip("the source refuses such an index, or the destination does not")
    url, destination = other_postgres.database(), started.database()
    run_sql(url, UNQUALIFIED)
    assert export_database(url, tmp_path).complete
    reader = read_bundle(tmp_path)
    restored = restore_from(reader, "app", destination)
    assert (restored.findings, restored.left_out) == ((), ())
    assert {
        note.partition(" needs ")[0] for note in restored.notes if "all schemas were searched" in note
    } == {
        "INDEX public.by_twice",
        "MATERIALIZED VIEW DATA public.m",
    }
    assert fetch(
        destination, "SELECT count(*) FROM pg_proc WHERE proconfig IS NOT NULL AND oid >= 16384"
    ) == [(0,)]
    assert differences(reader, destination) == []


@pytest.mark.torture
def test_virtual_columns_stay_virtual_where_a_table_is_made_with_its_columns_in_another_order(
    server, tmp_path
):
    major, started = server
    if major < 18:
        pytest.skip("it has no virtual columns")
    url, destination = started.database(), started.database()
    run_each(
        url,
        "CREATE TABLE above (a int);\nCREATE TABLE t (x int, v int GENERATED ALWAYS AS (x * 2), a int);\n"
        "ALTER TABLE t INHERIT above;\nINSERT INTO t VALUES (1, DEFAULT, 2);\n",
    )
    assert export_database(url, tmp_path).complete
    restore_whole(read_bundle(tmp_path), "app", destination)
    query = "SELECT attname::text, attgenerated::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"
    assert fetch(destination, query) == fetch(url, query) == [("x", ""), ("v", "v"), ("a", "")]
