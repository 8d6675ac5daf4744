"""Rows with values that are never whole in memory leave PostgreSQL and come back."""

import pytest

from exporters.postgres.rows import copy_feed
from tests.exporters.postgres.databases import export_database, fetch, has_xml, run_sql
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle, restore_from
from tests.tools.long_rows import UNIT, long_rows, short_long_rows

__all__ = ["short_long_rows"]

QUOTED = 'line\\n, "quoted" \\\\ ü'
TABLES = f"""
CREATE TABLE plain (id int PRIMARY KEY, b bytea, t text, n text);
INSERT INTO plain SELECT n, '\\x00ff', 'short', NULL FROM generate_series(1, 300) n;
INSERT INTO plain VALUES (400, decode(repeat('00ff27', {3 * UNIT}), 'hex'), repeat(E'{QUOTED}', 1000), 'x');
INSERT INTO plain SELECT n, '\\x00ff', 'short', NULL FROM generate_series(401, 700) n;
INSERT INTO plain VALUES (800, NULL, repeat(E'{QUOTED}', {UNIT // 2}), repeat('no quotes', {UNIT // 8}));
CREATE TABLE odd (list int[], j jsonb, x xml, alone char(7), d text);
INSERT INTO odd VALUES (NULL, '{{"a": "{{"}}', NULL, 'a', ''),
  ((SELECT array_agg(n) FROM generate_series(1000000, {1000000 + 3 * UNIT // 2}) n), NULL, NULL, NULL,
   repeat('d', 70000)),
  ('{{{{1,2}},{{3,4}}}}', to_jsonb(repeat('j"', {5 * UNIT})), 'x', 'b', NULL);
CREATE TABLE one (t text);
INSERT INTO one VALUES (repeat('\\.', {5 * UNIT})), ('\\.'), (NULL), ('');
CREATE TABLE computed (t text, u text GENERATED ALWAYS AS (t || '"') STORED);
INSERT INTO computed VALUES (repeat('c,', {3 * UNIT}));
"""


@pytest.fixture(scope="module")
def source(postgres):
    url = postgres.database()
    run_sql(url, TABLES if has_xml(url) else TABLES.replace("x xml", "x text"))
    return url


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory):
    location = tmp_path_factory.mktemp("long") / "bundle"
    with long_rows() as long:
        assert export_database(source, location).complete
    assert len(long) == 6
    return read_bundle(location)


def test_the_values_are_in_the_files(bundle):
    assert check_parquet(bundle, bundle.catalog()) == []
    details = {row.name: row.details for row in bundle.catalog()}
    assert details["odd"]["exact"] == ["list"]
    assert details["plain"]["octets"] == details["plain"]["server_octets"]


def test_long_rows_that_were_not_foreseen_leave_whole(source, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(copy_feed, "may_have_long_rows", lambda _: False)
    with long_rows():
        assert export_database(source, tmp_path / "bundle").complete
    unforeseen, foreseen = read_bundle(tmp_path / "bundle"), bundle
    digests = [{row.name: row.digest for row in reader.catalog()} for reader in (unforeseen, foreseen)]
    assert digests[0] == digests[1]


def test_they_come_back_and_a_long_value_that_differs_is_found(source, bundle, other_postgres):
    destination = other_postgres.database()
    outcome = restore_from(bundle, "app", destination, workers=2)
    assert outcome.findings == ()
    for table in ("plain", "odd", "one", "computed"):
        query = f"SELECT md5(t::text) FROM {table} t ORDER BY 1"
        assert fetch(destination, query) == fetch(source, query)
    assert differences(bundle, destination) == []
    run_sql(destination, "UPDATE plain SET t = t || '!' WHERE id = 800")
    (finding,) = differences(bundle, destination)
    (row,) = finding.rows
    assert (row.side, row.key, [name for name, _ in row.found]) == ("changed", (("id", "800"),), ["t"])
