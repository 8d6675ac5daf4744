"""Rows with values that are never whole in memory leave a SQLite file and come back."""

import pytest

from exporters.sqlite.rows import chunk_export
from tests.exporters.sqlite.databases import everything, export_file, restore_file, run_sql, url_of
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle
from tests.tools.long_rows import UNIT, short_long_rows

__all__ = ["short_long_rows"]

TABLES = f"""
CREATE TABLE plain (id INTEGER PRIMARY KEY, v, n TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
  INSERT INTO plain SELECT i, 'text', 'short' FROM n;
INSERT INTO plain VALUES (400, zeroblob({9 * UNIT}), 'beside it');
INSERT INTO plain VALUES (401, 'text', NULL), (402, CAST(zeroblob({9 * UNIT}) AS TEXT), NULL);
INSERT INTO plain VALUES (403, CAST(replace(hex(zeroblob({2 * UNIT})), '00', 'é,') || x'ff' AS TEXT), 1.5);
INSERT INTO plain SELECT -1, replace(hex(zeroblob({2 * UNIT})), '0', 'ü"'), x'00ff';
CREATE TABLE hidden (a, b);
INSERT INTO hidden VALUES (replace(hex(zeroblob({5 * UNIT})), '0', 'x'), 1), ('y', zeroblob(70000)), (NULL, NULL);
INSERT INTO hidden VALUES (zeroblob({5 * UNIT}), zeroblob({5 * UNIT}));
CREATE TABLE computed (a, b AS (a || 'b'), c AS (hex(a)) STORED);
INSERT INTO computed (a) VALUES (CAST(zeroblob({3 * UNIT}) AS TEXT)), ('x');
CREATE TABLE keyed (k TEXT PRIMARY KEY, v, w) WITHOUT ROWID;
INSERT INTO keyed VALUES ('a', 1, NULL), ('b', zeroblob({9 * UNIT}), 'x'),
  ('c', replace(hex(zeroblob({5 * UNIT})), '0', 'ü'), 2);
CREATE TABLE once (v UNIQUE, w, x);
INSERT INTO once VALUES (zeroblob({9 * UNIT}), NULL, NULL),
  ('short', zeroblob({9 * UNIT}), replace(hex(zeroblob({5 * UNIT})), '0', 'z'));
"""


@pytest.fixture(scope="module", params=[pytest.param("UTF-8", marks=pytest.mark.torture), "UTF-16le"])
def source(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "source.db"
    return run_sql(path, f"PRAGMA encoding = '{request.param}'; BEGIN; {TABLES} COMMIT;")


@pytest.fixture(scope="module")
def location(source):
    long = []
    with pytest.MonkeyPatch.context() as patch:
        real = chunk_export._write_long
        patch.setattr(chunk_export, "_write_long", lambda *args: (long.append(args), real(*args))[1])
        location = source.parent / "bundle"
        assert export_file(source, location).complete
    assert len(long) >= 9
    return location


def test_the_values_are_in_the_files(location):
    bundle = read_bundle(location)
    assert check_parquet(bundle, bundle.catalog()) == []


def test_they_come_back_and_one_that_differs_afterwards_is_found(source, location):
    destination = source.parent / "destination.db"
    assert restore_file(location, destination).findings == ()
    assert everything(destination) == everything(source)
    assert differences(read_bundle(location), url_of(destination)) == []
    run_sql(destination, "UPDATE plain SET v = v || '!' WHERE id = 402")
    ((row,),) = [one.rows for one in differences(read_bundle(location), url_of(destination))]
    assert (row.side, row.key, [name for name, _ in row.found]) == ("changed", (("id", "402"),), ["v"])
