"""What the server says of bytes stands beside what was exported, and a value that was cut on the way is a gap."""

import pyarrow as pa
import pytest

from exporters.sql import chunk_export
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.exporters.sqlite import databases as sqlite
from tests.tools.bundles import read_bundle

ROWS = """
    CREATE TABLE t (id int PRIMARY KEY, a varchar(50), b {bytes}, n int, c char(5));
    INSERT INTO t VALUES (1, 'ä€😀', {value}, 7, 'x'), (2, '', NULL, 8, NULL), (3, NULL, {value}, 9, 'yy'),
      (4, 'plain', {value}, 1, '');
    CREATE TABLE none (x int)
"""


def make(kind, request, folder):
    if kind == "postgres":
        url = request.getfixturevalue("postgres").database()
        postgres.run_sql(url, ROWS.format(bytes="bytea", value="'\\x00ff'"))
        return lambda location: postgres.export_database(url, location)
    if kind == "mariadb":
        url = request.getfixturevalue("mariadb").database()
        mysql.run_sql(url, ROWS.format(bytes="blob", value="x'00ff'"))
        return lambda location: mysql.export_database(url, location)
    path = sqlite.run_sql(folder / "a.db", ROWS.format(bytes="blob", value="x'00ff'"))
    return lambda location: sqlite.export_file(path, location)


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_bytes_are_counted_in_two_ways(kind, request, tmp_path):
    outcome = make(kind, request, tmp_path)(tmp_path / "bundle")
    assert outcome.complete, outcome.sources
    reader = read_bundle(tmp_path / "bundle")
    details = {row.name: row.details for row in reader.catalog()}["t"]
    assert details["octets"] == details["server_octets"]
    assert (details["octets"]["a"], details["octets"]["b"]) == (9 + 5, 6)
    counts = [
        one.count
        for one in reader.reconciliation()[0].summary.enumerations
        if one.what == "bytes of text and binary values"
    ]
    assert len(counts) == 2
    assert counts[0] == counts[1] >= 20


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_value_that_was_cut_on_the_way_is_a_gap(kind, request, tmp_path, monkeypatch):
    """As by a reader that is wrong about text: rows and their number are right, and the digest is of what was read."""
    export = make(kind, request, tmp_path)
    real = chunk_export.Octets.add

    def shorter(self, typed):
        columns = [
            pa.array(["plai" if v == "plain" else v for v in c.to_pylist()]) if c.type == pa.string() else c
            for c in typed.columns
        ]
        real(self, type(typed)(tuple(columns), typed.sides, typed.rows))

    monkeypatch.setattr(chunk_export.Octets, "add", shorter)
    outcome = export(tmp_path / "bundle")
    assert not outcome.complete
    (gap,) = outcome.sources[0].gaps
    assert gap.item.replace('"', "").replace("`", "").endswith("t.a")
    assert gap.reason == "13 of 14 bytes of its values were exported"
