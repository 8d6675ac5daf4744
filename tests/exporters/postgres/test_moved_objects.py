"""Objects that an export does not lock are dropped or renamed while their definitions are read: those of a new snapshot
fit together.
"""

import re

import pytest

from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.cli.common.sources import open_sources
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.export.test_lost_snapshot import Watching
from tests.exporters.postgres.databases import dump, fetch, run_sql

SCRIPT = """
CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE SCHEMA code;
CREATE FUNCTION code.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE TABLE t (id int PRIMARY KEY, m mood, twice int GENERATED ALWAYS AS (code.twice(id)) STORED);
INSERT INTO t SELECT n, 'good' FROM generate_series(1, 50) n;
CREATE INDEX i ON t (code.twice(id));
CREATE SEQUENCE s; CREATE VIEW v AS SELECT id, m FROM t; CREATE VIEW w AS SELECT * FROM v;
CREATE TABLE parts (n int) PARTITION BY LIST (n);
CREATE TYPE pair AS (a int, b int); CREATE TABLE pairs (p pair); CREATE VIEW firsts AS SELECT (p).a FROM pairs;
CREATE FUNCTION unused() RETURNS int LANGUAGE sql AS 'SELECT 1'
"""
EXCHANGED = """
ALTER TYPE pair RENAME ATTRIBUTE a TO c; ALTER TYPE pair RENAME ATTRIBUTE b TO a;
ALTER TYPE pair RENAME ATTRIBUTE c TO b
"""


def exported(url, location, *on_export):
    progress = Watching(on_export)
    with open_sources({"app": Endpoint(url)}) as opened:
        outcome = export(
            opened, open_location(str(location)), workers=1, progress=progress, options=ExportOptions()
        )
    return outcome, progress.notes


@pytest.mark.parametrize(
    ("statement", "item"),
    [
        ("DROP VIEW w", "relation public.w"),
        pytest.param("ALTER TYPE mood RENAME TO humour", "type public.mood", marks=pytest.mark.torture),
        pytest.param(EXCHANGED, r"column [12] \(public\.pair\.[ab]\)", marks=pytest.mark.torture),
        pytest.param(
            "ALTER VIEW v RENAME TO u; ALTER VIEW u RENAME TO v",
            "relation public.v",
            marks=pytest.mark.torture,
        ),
        pytest.param(
            "ALTER TYPE mood RENAME TO humour; ALTER TYPE humour RENAME TO mood",
            "type public.mood",
            marks=pytest.mark.torture,
        ),
        pytest.param(
            f"{EXCHANGED}; {EXCHANGED}", r"column [12] \(public\.pair\.[ab]\)", marks=pytest.mark.torture
        ),
        pytest.param("DROP SEQUENCE s", "relation public.s", marks=pytest.mark.torture),
        pytest.param("DROP TABLE parts", "relation public.parts", marks=pytest.mark.torture),
        pytest.param("ALTER VIEW v RENAME TO u", "relation public.v", marks=pytest.mark.torture),
        pytest.param("DROP FUNCTION unused()", "function public.unused", marks=pytest.mark.torture),
        pytest.param("ALTER TYPE mood SET SCHEMA code", "type public.mood", marks=pytest.mark.torture),
        pytest.param("ALTER SCHEMA code RENAME TO other", "schema code", marks=pytest.mark.torture),
    ],
)
def test_definitions_are_read_again_under_a_new_snapshot(postgres, other_postgres, tmp_path, statement, item):
    url, new = postgres.database(), other_postgres.database()
    run_sql(url, SCRIPT)
    outcome, notes = exported(url, tmp_path / "bundle", lambda: run_sql(url, statement), lambda: None)
    assert outcome.complete, outcome.broken
    (note,) = [note for note in notes if "new snapshot" in note]
    assert re.search(f"{item} was dropped or renamed while definitions were read", note), note
    assert call("restore", tmp_path / "bundle", new).code == 0
    assert sorted(dump(new).splitlines()) == sorted(dump(url).splitlines())


def test_what_is_made_meanwhile_costs_nothing(postgres, tmp_path):
    url = postgres.database()
    run_sql(url, SCRIPT)
    statement = (
        "CREATE VIEW x AS SELECT 1; CREATE OR REPLACE VIEW v AS SELECT id, m FROM t WHERE true; ANALYZE t"
    )
    outcome, notes = exported(url, tmp_path / "bundle", lambda: run_sql(url, statement))
    assert (outcome.complete, notes) == (True, [])


def test_where_one_is_dropped_under_each_snapshot_all_rows_and_what_was_read_of_definitions_are_there(
    postgres, other_postgres, tmp_path
):
    url, new, numbers = postgres.database(), other_postgres.database(), iter(range(9))
    run_sql(url, SCRIPT)
    for number in range(9):
        run_sql(url, f"CREATE FUNCTION f{number}() RETURNS int LANGUAGE sql AS 'SELECT 1'")

    def drop():
        run_sql(url, f"DROP FUNCTION f{next(numbers)}()")

    outcome, _ = exported(url, tmp_path / "bundle", *[drop] * 9)
    assert outcome.exit_code == 3
    assert "was dropped or renamed while definitions were read" in outcome.sources[0].reasons[0]
    gaps = {gap.item for _, gap in BundleReader(open_location(str(tmp_path / "bundle"))).gaps()}
    assert "definitions" not in gaps
    assert call("restore", tmp_path / "bundle", new).code == 3
    assert fetch(new, "SELECT count(*), sum(twice) FROM t") == fetch(
        url, "SELECT count(*), sum(twice) FROM t"
    )
    assert fetch(new, "SELECT count(*) FROM w") == [(50,)]
