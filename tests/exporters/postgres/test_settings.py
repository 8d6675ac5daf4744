"""What is set for a database or a role changes neither what leaves nor what comes back."""

import pytest

from exporters.doctor import ExamineRequest
from exporters.postgres.doctor import examine
from tests.exporters.postgres.databases import dump, export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from, restore_whole

VALUES = r"""
CREATE SCHEMA apart;
CREATE TABLE apart.odd (id int PRIMARY KEY, i interval, d timestamptz, f float8, r real, b bytea, m money, a text[],
  t text, n date[]);
INSERT INTO apart.odd VALUES (1, '1 year -2 days 03:00', '2024-02-29 12:00+00', 0.1, 1e-45, '\x00ff', 1.5,
  '{NULL,"NULL"}', E'back\\slash\'', '{2024-01-02,NULL}'), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE FUNCTION apart.slash() RETURNS text LANGUAGE sql AS $$SELECT 'a\b'::text$$;
CREATE INDEX ON apart.odd (length(t));
CREATE FUNCTION apart.set_config(text, text, bool) RETURNS text LANGUAGE sql AS 'SELECT $2';
ALTER TABLE apart.odd ENABLE ROW LEVEL SECURITY; ALTER TABLE apart.odd FORCE ROW LEVEL SECURITY;
"""
VIEW = "CREATE MATERIALIZED VIEW apart.written AS SELECT (o.i, o.d, o.f, o.b)::text AS w FROM apart.odd o"
ODD = {
    "statement_timeout": "1ms",
    "lock_timeout": "50ms",
    "idle_in_transaction_session_timeout": "50ms",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "row_security": "on",
    "search_path": "apart, pg_catalog",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "lc_monetary": "C.utf8",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "client_encoding": "LATIN1",
    "xmloption": "document",
    "enable_seqscan": "off",
}


def name_of(url: str) -> str:
    return f'"{url.rpartition("/")[2]}"'


def set_all(server, url: str, whose: str) -> None:
    for name, value in ODD.items():
        values = ", ".join(f"'{word}'" for word in value.split(", "))
        run_sql(server.url, f"ALTER {whose}DATABASE {name_of(url)} SET {name} = {values}")


@pytest.mark.parametrize("whose", [pytest.param("", marks=pytest.mark.torture), "ROLE postgres IN "])
def test_settings_change_neither_export_nor_restore(postgres, other_postgres, tmp_path, whose):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, VALUES)
    assert export_database(url, tmp_path / "plain").complete
    (plain,) = read_bundle(tmp_path / "plain").catalog()
    defined = dump(url, "--schema-only")
    set_all(postgres, url, whose)
    set_all(other_postgres, destination, whose)
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert [(row.items, row.digest) for row in reader.catalog()] == [(plain.items, plain.digest)]
    assert (tmp_path / "bundle/data/app/schema/globals.sql").exists()
    restore_whole(reader, "app", destination, workers=2)
    for words in ("", "ROLE postgres IN "):
        run_sql(other_postgres.url, f"ALTER {words}DATABASE {name_of(destination)} RESET ALL")
    assert dump(destination, "--schema-only") == defined
    query = "SELECT a, t, apart.slash() FROM apart.odd WHERE id = 1"
    assert fetch(destination, query) == [([None, "NULL"], "back\\slash'", "a\\b")]


def test_a_materialized_view_writes_values_as_sessions_of_the_source_do(postgres, other_postgres, tmp_path):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, VALUES)
    for name in ("datestyle", "intervalstyle", "timezone", "bytea_output"):
        run_sql(postgres.url, f"ALTER DATABASE {name_of(url)} SET {name} = '{ODD[name]}'")
    run_sql(url, VIEW)
    assert export_database(url, tmp_path / "bundle").complete
    restore_whole(read_bundle(tmp_path / "bundle"), "app", destination)
    query = "SELECT w FROM apart.written ORDER BY w"
    assert fetch(destination, query) == fetch(url, query)
    assert "29/02/2024" in fetch(destination, query)[0][0]


def test_a_refused_definition_ends_no_session_that_would_end_with_each_error(
    postgres, other_postgres, tmp_path
):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(
        url,
        "CREATE TABLE t AS SELECT 1 AS x; CREATE FOREIGN DATA WRAPPER refused OPTIONS (debug 'x');"
        "ALTER FOREIGN DATA WRAPPER refused VALIDATOR postgresql_fdw_validator",
    )  # no server takes the option together with the validator
    assert export_database(url, tmp_path / "bundle").complete
    run_sql(other_postgres.url, f"ALTER DATABASE {name_of(destination)} SET exit_on_error = on")
    assert restore_from(read_bundle(tmp_path / "bundle"), "app", destination).findings == ()
    assert fetch(destination, "SELECT x FROM t") == [(1,)]


def test_a_server_that_hides_damaged_pages_says_no_more_that_all_rows_are_there(postgres, tmp_path):
    """It shows none of their rows, and counts none. A page that was read so stays so for sessions of other settings."""
    url = postgres.database()
    run_sql(url, "CREATE TABLE damaged AS SELECT 1 AS x; CHECKPOINT")
    query = "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('damaged')"
    ((path,),) = fetch(url, query)
    run_sql(url, f"COPY (SELECT WHERE false) TO PROGRAM 'yes | head -c 8192 >> {path}'")
    run_sql(postgres.url, f"ALTER DATABASE {name_of(url)} SET zero_damaged_pages = on")
    assert fetch(url, "SELECT x FROM damaged") == [(1,)]
    outcome = export_database(url, tmp_path / "bundle")
    assert outcome.exit_code == 3
    assert [gap.item for gap in outcome.sources[0].gaps] == ["rows in damaged pages (zero_damaged_pages)"]
    findings = examine(ExamineRequest(url)).findings
    assert "rows in damaged pages (zero_damaged_pages)" in {finding.object for finding in findings}


def test_definitions_are_read_from_the_host_that_has_the_snapshot(postgres, other_postgres, tmp_path):
    here = postgres.database()
    there = other_postgres.database(here.rpartition("/")[2])
    run_sql(
        there,
        f"CREATE TABLE kept (a int); ALTER DATABASE {name_of(there)} SET default_transaction_read_only = on",
    )
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in (postgres, other_postgres))
    url = f"postgresql://postgres@{hosts}/{here.rpartition('/')[2]}?target_session_attrs=read-only"
    assert export_database(url, tmp_path / "bundle").complete
    run_sql(other_postgres.url, f"DROP DATABASE {name_of(there)} WITH (FORCE)")
