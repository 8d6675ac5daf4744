"""Rows with values that are never whole in memory leave MariaDB and come back."""

import pytest

from migrate.restore.mysql.rows import insert_statements
from tests.exporters.mysql.databases import checksums, export_database, fetch, run_sql
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle, restore_from
from tests.tools.long_rows import UNIT, long_rows, short_long_rows
from tests.tools.mysql_settings import global_settings

__all__ = ["short_long_rows"]

TABLES = f"""
CREATE TABLE plain (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT, j JSON, n DECIMAL(9, 2)) CHARACTER SET utf8mb4;
INSERT INTO plain SELECT seq, 'b', 'é''', '{{}}', 1.5 FROM seq_1_to_300;
INSERT INTO plain VALUES (400, REPEAT(X'00ff27', {3 * UNIT}), REPEAT('it''s é', 20000), NULL, 2);
INSERT INTO plain SELECT seq, 'b', 'é''', '{{}}', 1.5 FROM seq_401_to_700;
INSERT INTO plain VALUES (800, NULL, REPEAT('"it''s" é', {UNIT}), CONCAT('["', REPEAT('j', {UNIT}), '"]'), NULL);
CREATE TABLE wide (u LONGTEXT CHARACTER SET ucs2, l LONGTEXT CHARACTER SET latin1);
INSERT INTO wide VALUES (REPEAT('ü''', {2 * UNIT}), REPEAT('ü''', {2 * UNIT})), (NULL, 'x'),
  (REPEAT(_ucs2 X'D800', {3 * UNIT}), NULL), (CONCAT(_ucs2 X'006E0680', _ucs2 X'D83D'), 'n'),
  (REPEAT(_ucs2 X'006E0680', {3 * UNIT}), NULL);
CREATE TABLE isam (id INT PRIMARY KEY, b LONGBLOB) ENGINE = MyISAM;
INSERT INTO isam VALUES (1, 'b'), (2, REPEAT('b', 5 * {UNIT})), (3, 'b');
CREATE TABLE small (n INT);
INSERT INTO small VALUES (1);
CREATE TRIGGER of_small BEFORE INSERT ON small FOR EACH ROW SET NEW.n = 2;
CREATE TRIGGER of_plain BEFORE INSERT ON plain FOR EACH ROW SET NEW.n = 2;
"""


@pytest.fixture(scope="module")
def large_packets(mariadb, other_mariadb):
    with global_settings(mariadb.url, other_mariadb.url, max_allowed_packet=2**26):
        yield


@pytest.fixture(scope="module")
def source(mariadb, large_packets):
    url = mariadb.database()
    run_sql(url, TABLES)
    return url


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory):
    location = tmp_path_factory.mktemp("long") / "bundle"
    with long_rows() as long:
        assert export_database(source, location).complete
    assert len(long) == 5
    return read_bundle(location)


def test_the_values_are_in_the_files(bundle):
    assert check_parquet(bundle, bundle.catalog()) == []
    details = {row.name: row.details for row in bundle.catalog()}
    assert details["wide"]["exact"] == ["u"]
    assert details["plain"]["octets"] == details["plain"]["server_octets"]


def test_they_come_back(source, bundle, other_mariadb):
    destination = other_mariadb.database()
    outcome = restore_from(bundle, "app", destination, workers=2)
    assert outcome.findings == ()
    assert checksums(destination) == checksums(source)
    query = "SELECT MD5(u), MD5(l), LENGTH(u) FROM wide ORDER BY 3"
    assert fetch(destination, query) == fetch(source, query)
    assert differences(bundle, destination) == []


def test_a_row_above_the_servers_limit_waits_for_it_and_all_other_tables_come(source, bundle, other_mariadb):
    destination = other_mariadb.database()
    with global_settings(other_mariadb.url, max_allowed_packet=5 * UNIT):
        outcome = restore_from(bundle, "app", destination)
    assert outcome.findings == ()
    assert {sentence.partition(" (")[0] for sentence in outcome.left_out} == {
        "rows of `plain`",
        "rows of `wide`",
        "rows of `isam`",
        "trigger `of_plain`: it comes when the rows of its table are there",
    }
    [plain] = [sentence for sentence in outcome.left_out if "`plain`" in sentence]
    assert "`id` = 400, `id` = 800: a row takes 3," in plain
    assert fetch(destination, "SELECT COUNT(*) FROM small") == [(1,)]
    [note] = [note for note in outcome.notes if "SET GLOBAL" in note]
    size = int(note.partition("max_allowed_packet = ")[2].split()[0])
    with global_settings(other_mariadb.url, max_allowed_packet=size):
        outcome = restore_from(bundle, "app", destination)
    assert (outcome.findings, outcome.left_out) == ((), ())
    assert not [note for note in outcome.notes if "not finished" in note]
    assert checksums(destination) == checksums(source)


def test_a_row_that_no_server_takes_is_left_out_alone(bundle, other_mariadb, monkeypatch):
    monkeypatch.setattr(insert_statements, "MOST_BYTES", 5 * UNIT)
    destination = other_mariadb.database()
    with global_settings(other_mariadb.url, max_allowed_packet=5 * UNIT):
        outcome = restore_from(bundle, "app", destination, only=["plain", "isam"])
    isam, plain = sorted(outcome.left_out)
    assert isam.startswith("`isam`: 1 row is left out: a row takes ")
    assert plain.startswith("`plain`: 2 rows are left out: a row takes ")
    assert plain.endswith("no server takes more than 1,310,720")
    assert fetch(destination, "SELECT COUNT(*) FROM plain") == [(600,)]
    assert fetch(destination, "SELECT id FROM isam ORDER BY id") == [(1,), (3,)]
