"""Export, then restore: the destination is the source."""

import re

import duckdb
import pytest

from exporters.postgres.live_digests import live_tables
from migrate.bundle import layout
from tests.exporters.postgres.databases import column, dump, export_database, fetch, has_xml, run_sql, table
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle, restore_from


@pytest.fixture(scope="module")
def restored(torture_bundle, other_postgres) -> str:
    url = other_postgres.database()
    outcome = restore_from(torture_bundle, "app", url, workers=2)
    assert outcome.findings == ()
    return url


def test_definitions_and_rows_are_equal_as_pg_dump_sees_them(torture, restored):
    assert dump(restored) == dump(torture)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("section", ["pre-data", "post-data"])
def test_definitions_are_what_pg_dump_prints(torture, torture_bundle, section, portable):
    """It is asked once; its sections are made here of what it said."""
    name = f"schema/{section}{'-portable' if portable else ''}.sql"
    kept = torture_bundle.open(layout.source_file("app", name)).read().decode()
    less = ["--no-owner", "--no-privileges"] if portable else []
    printed = dump(torture, f"--section={section}", "--no-tablespaces", "--no-subscriptions", *less)
    assert re.sub(r"^(\\(?:un)?restrict) \S+", r"\1 key", kept, flags=re.MULTILINE) == printed


def test_live_digests_are_equal(torture, restored):
    tallies = live_tables(torture)
    assert live_tables(restored) == tallies
    assert tallies["public", "no_columns"].rows == 7


def test_parquet_renders_to_the_very_text_of_the_source(torture_bundle):
    tables = [row for row in torture_bundle.catalog() if row.kind == "table"]
    assert len(tables) == 14
    assert check_parquet(torture_bundle, tables) == []


def test_values_that_a_type_cannot_hold_keep_their_text_beside_it(torture_bundle):
    assert column(torture_bundle, "torture", "tz")[:2] == [None, None]
    assert column(torture_bundle, "torture", "tz$exact")[:2] == [
        "-infinity",
        "294276-12-31 23:59:59.999999+00",
    ]
    assert column(torture_bundle, "torture", "n_small$exact")[0] == "NaN"
    assert "uuid" not in torture_bundle.catalog()[0].details["exact"]


def test_intervals_and_arrays_are_typed_where_they_can_be(torture_bundle):
    months = column(torture_bundle, "torture", "iv")
    assert months[0] == {"months": 14, "days": -3, "micros": 14706789000}
    assert months[1] == {"months": -2136000000, "days": 0, "micros": 0}
    assert column(torture_bundle, "torture", "ai")[:3] == [[1, None, 3], [], None]
    assert column(torture_bundle, "torture", "ai$exact")[2] == "[0:1]={7,8}"
    assert column(torture_bundle, "torture", "am$exact")[0] == "{{1,2},{3,4}}"


def test_another_reader_understands_intervals_and_arrays(torture_bundle):
    part = table(torture_bundle, "torture").details["parts"][0]["name"]
    path = torture_bundle.store.location.removeprefix("file://") + "/" + layout.source_file("app", part)
    query = f"SELECT len(ai), iv.months FROM '{path}' WHERE ai IS NOT NULL ORDER BY 1 DESC"
    assert duckdb.sql(query).fetchall() == [(3, 14), (0, -2136000000)]


def test_a_side_column_never_takes_a_real_columns_name(torture_bundle):
    assert column(torture_bundle, "torture", "f8$exact")[:2] == [1, 0]


def test_a_second_restore_finds_everything_there(torture_bundle, restored):
    outcome = restore_from(torture_bundle, "app", restored, workers=2)
    assert outcome.size_bytes == 0
    assert "already" in outcome.routine[0]


def test_nothing_of_the_restore_stays_in_the_destination(restored):
    assert fetch(restored, "SELECT count(*) FROM pg_namespace WHERE nspname = 'moveout_restore'") == [(0,)]


def test_compare_finds_nothing_in_an_equal_database(torture, torture_bundle):
    assert differences(torture_bundle, torture) == []


def test_compare_names_changed_missing_and_added_tables(exported):
    url, reader = exported(
        "CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT 1 AS x; CREATE TABLE c (x int)"
    )
    run_sql(url, "UPDATE a SET x = 2; DROP TABLE b; INSERT INTO c VALUES (1); CREATE TABLE d (x int)")
    findings = differences(reader, url)
    assert {finding.key: finding.what for finding in findings} == {
        '"public"."a"': (
            "has other rows (their digest differs): 1 only in the bundle, 1 only in the database (it has no key)"
        ),
        '"public"."b"': "is missing in the database",
        '"public"."c"': "has another number of rows: 1 only in the database",
        '"public"."d"': "is in the database, not in the bundle",
    }


def test_losses_and_sequences_are_written_down(torture_bundle):
    losses = {loss.property for _, loss in torture_bundle.losses()}
    assert "password" in losses
    files = {file.key for file in torture_bundle.source_files("app", "schema/")}
    assert layout.source_file("app", "schema/globals.sql") in files


def test_an_empty_database_is_counted_as_empty(postgres, other_postgres, tmp_path):
    assert export_database(postgres.database(), tmp_path / "bundle").exit_code == 3
    reader = read_bundle(tmp_path / "bundle")
    assert reader.catalog() == []
    outcome = restore_from(reader, "app", other_postgres.database())
    assert (outcome.items, outcome.findings) == (0, ())


def test_an_extensions_types_come_back_and_its_own_tables_are_its_own(postgres, exported, other_postgres):
    if not fetch(postgres.url, "SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'"):
        pytest.skip("this PostgreSQL is built without contrib: hstore is not tried")
    _, reader = exported(
        "CREATE EXTENSION hstore; CREATE TABLE t (h hstore); INSERT INTO t VALUES ('a=>1, b=>NULL'), (NULL), ('')"
    )
    destination = other_postgres.database()
    assert restore_from(reader, "app", destination).findings == ()
    assert fetch(destination, "SELECT h -> 'a' FROM t WHERE h ? 'a'") == [("1",)]


def test_xml_comes_back_as_it_was(postgres, exported, other_postgres):
    if not has_xml(postgres.url):
        pytest.skip("this PostgreSQL is built without libxml: xml is not tried")
    _, reader = exported(
        "CREATE TABLE t AS SELECT unnest(ARRAY['<a>b &amp; c</a>', 'text only', '', NULL]::xml[]) AS x"
    )
    destination = other_postgres.database()
    assert restore_from(reader, "app", destination).findings == ()


@pytest.mark.torture
def test_values_larger_than_a_block_come_back(exported, other_postgres):
    _, reader = exported(
        "CREATE TABLE t AS SELECT n AS id, repeat(E'a,\\n\"', 1000000) AS t,"
        ""
        " decode(repeat('00ff', 1500000), 'hex') AS b FROM generate_series(1, 3) n;"
        " INSERT INTO t VALUES (4, '', ''), (5, NULL, NULL)"
    )
    destination = other_postgres.database()
    assert restore_from(reader, "app", destination).findings == ()
    assert fetch(destination, "SELECT length(t), length(b) FROM t WHERE id = 1") == [(4000000, 3000000)]


def test_bytes_of_a_database_without_encoding_come_back(postgres, other_postgres, tmp_path):
    url, destination = (postgres.url_of("bytes_only"), other_postgres.url_of("bytes_only"))
    for server in (postgres, other_postgres):
        run_sql(
            server.url,
            "CREATE DATABASE bytes_only ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
        )
    run_sql(
        url,
        "CREATE TABLE t (a text, j json, n int, x text[], i int[], r int4range, z timetz);"
        "INSERT INTO t VALUES (E'\\xff\\xfe,\\n', '{}', 1, ARRAY[E'\\xfe', NULL, ''], '{1,NULL}', '[1,2)', '12:00+01'),"
        "(NULL, NULL, 2, NULL, NULL, NULL, NULL), ('', '\"\"', 3, '{}', '{}', 'empty', NULL)",
    )
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert column(reader, "t", "a") == [b"\xff\xfe,\n", None, b""]
    assert column(reader, "t", "x") == [b'{\xfe,NULL,""}', None, b"{}"]
    assert column(reader, "t", "i") == [[1, None], None, []]
    assert restore_from(reader, "app", destination).findings == ()


def test_a_server_that_only_libpq_can_log_in_to_is_exported_the_slow_way(exported, monkeypatch):
    def refuse(*_):
        raise ValueError("no such login")

    monkeypatch.setattr("exporters.postgres.rows.asyncpg_feed.AsyncpgFeed", refuse)
    url, reader = exported(
        "CREATE TABLE t AS SELECT n AS x, E'a\\nb' AS t FROM generate_series(1, 1000) n; CREATE TABLE e ()"
    )
    assert differences(reader, url) == []
    assert table(reader, "t").items == 1000
