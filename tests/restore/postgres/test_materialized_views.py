"""Rows of materialized views leave like those of tables, and a destination that computes others says so."""

import psycopg
import pytest

from exporters.postgres.sessions.connection import parse_url
from exporters.postgres.sessions.snapshot_session import open_snapshot
from tests.cli.conftest import call
from tests.exporters.postgres.databases import column, export_database, fetch, run_sql
from tests.tools.bundles import read_bundle
from tests.tools.pages import parse

SCRIPT = """
CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 5);
CREATE MATERIALIZED VIEW stale AS SELECT a, now() AS taken FROM t;
DELETE FROM t WHERE a > 2;
CREATE MATERIALIZED VIEW fresh AS SELECT a, 'row ' || a AS b FROM t; CREATE UNIQUE INDEX ON fresh (a);
CREATE MATERIALIZED VIEW empty AS SELECT a FROM t WITH NO DATA;
CREATE MATERIALIZED VIEW fails AS SELECT 1 / a AS x FROM t;
INSERT INTO t VALUES (0); REFRESH MATERIALIZED VIEW fresh;
"""
STALE = (
    'the rows of materialized view "public"."stale": REFRESH computes others here than the source had stored'
    " (3 instead of 5); the bundle has the source's"
)
FAILS = (
    'the rows of materialized view "public"."fails": it has none here, for it could not be made or refreshed; the'
    " bundle has the source's 2"
)


def restored(*words):
    ended = call("restore", *words, "--json")
    return ended.code, ended.json["result"]["restored"][0]


def test_rows_that_a_refresh_does_not_bring_back_stay_in_the_bundle_and_are_named(
    postgres, other_postgres, tmp_path
):
    url, destination, bundle = postgres.database(), other_postgres.database(), tmp_path / "bundle"
    run_sql(url, SCRIPT)
    assert call("export", f"app={url}", "--to", bundle, "-q").code == 0
    reader = read_bundle(bundle)
    kinds = {row.name: (row.kind, row.items) for row in reader.catalog()}
    views = {name: ("materialized view", rows) for name, rows in (("stale", 5), ("fresh", 3), ("fails", 2))}
    assert kinds == {"t": ("table", 3)} | views
    assert column(reader, "stale", "a") == [1, 2, 3, 4, 5]
    assert call("verify", bundle, "--level", "full", "--against", f"app={url}").code == 0

    account = ("--report-to", tmp_path / "account")
    code, first = restored(bundle, f"app={destination}", *account)
    assert (code, first["findings"], set(first["left_out"])) == (
        3,
        [],
        {STALE, FAILS, "MATERIALIZED VIEW DATA public.fails: division by zero"},
    )
    assert (first["items"], first["computed_items"]) == (3, 3 + 3)
    populated = "SELECT relname FROM pg_class WHERE relkind = 'm' AND relispopulated ORDER BY 1"
    assert fetch(destination, populated) == [("fresh",), ("stale",)]
    code, second = restored(bundle, f"app={destination}", *account)
    assert (code, second["items"], set(second["left_out"])) == (
        3,
        second["skipped_items"],
        set(first["left_out"]),
    )

    compared = call("verify", bundle, "--against", f"app={destination}")
    assert compared.code == 3
    assert "agree, but for what was left out (3)" in compared.out
    page = tmp_path / "page.html"
    assert call("report", bundle, "--against", f"app={destination}", "--out", page).code == 3
    assert "public.stale (materialized view)" in parse(page.read_bytes()).text
    run_sql(destination, "UPDATE t SET a = 9 WHERE a = 2")
    assert call("verify", bundle, "--against", f"app={destination}", "-q").code == 6

    part = other_postgres.database()
    run_sql(part, "CREATE TABLE t AS SELECT a FROM generate_series(0, 2) AS a")
    code, only = restored(bundle, f"app={part}", "--only", "fresh", *account)
    assert (code, only["left_out"]) == (0, [])
    assert fetch(part, "SELECT b FROM fresh ORDER BY a") == [("row 0",), ("row 1",), ("row 2",)]


def test_a_view_that_is_refreshed_meanwhile_or_may_not_be_read(postgres, tmp_path, monkeypatch):
    url = postgres.database()
    run_sql(url, SCRIPT + "DROP MATERIALIZED VIEW fails")
    with open_snapshot(parse_url(url)), pytest.raises(psycopg.errors.LockNotAvailable):
        run_sql(url, "SET lock_timeout = 200; REFRESH MATERIALIZED VIEW stale")
    make = "DROP ROLE IF EXISTS {0}; CREATE ROLE {0} LOGIN PASSWORD '{1}'; GRANT SELECT ON t, fresh TO {0}"
    run_sql(url, make.format("of_some", postgres.password))
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    outcome = export_database(url.replace("postgres@", "of_some@"), tmp_path / "bundle")
    assert {gap.item: gap.reason for gap in outcome.sources[0].gaps} == {
        'materialized view "public"."stale"': "the role may not read it"
    }
    losses = {loss.item for _, loss in read_bundle(tmp_path / "bundle").losses()}
    assert losses == {"roles"}
