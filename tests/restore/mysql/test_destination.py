"""A table that cannot lie where it lay, or as it lay there, is made as the server has it, and that is told."""

import pyarrow.parquet as pq
import pymysql
import pytest

from migrate.errors import NotEmptyError
from migrate.restore.mysql.definitions.table_ddl import unplaced
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.compare import ComparisonRequest
from migrate.verify.live_database import compare_database
from tests.exporters.mysql.databases import checksums, export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from, restore_whole


def test_a_directory_that_is_taken_is_a_row_of_the_ledger(mariadb, my_exported, other_mariadb, tmp_path):
    url, reader = my_exported(
        f"CREATE TABLE placed (id INT PRIMARY KEY) ENGINE=MyISAM DATA DIRECTORY='{mariadb.directory / 'tmp'}';"
        "INSERT INTO placed VALUES (1)"
    )
    destination = other_mariadb.database()
    kept = open_location(str(tmp_path / "kept"))
    restore_whole(reader, "app", destination, report=kept)
    (loss,) = pq.read_table(tmp_path / "kept/app/losses.parquet").to_pylist()
    assert (loss["item"], loss["property"]) == ("table `placed`", "location")
    assert checksums(destination) == checksums(url)


def test_how_a_table_is_encrypted_is_left_out_where_the_server_has_no_keys(mariadb):
    sql = (
        "CREATE TABLE `t` (\n  `ENCRYPTED` int COMMENT ' `ENCRYPTED`=YES'\n) ENGINE=InnoDB `ENCRYPTED`=YES"
        " `ENCRYPTION_KEY_ID`=7 COMMENT='DATA DIRECTORY=''x'''"
    )
    url = mariadb.database()
    with pytest.raises(pymysql.Error):
        run_sql(url, sql)
    made, words = unplaced(sql)
    assert sorted(words) == ["`ENCRYPTED`=YES", "`ENCRYPTION_KEY_ID`=7"]
    run_sql(url, made)
    definition = fetch(url, "SHOW CREATE TABLE t")[0][1]
    assert "COMMENT ' `ENCRYPTED`=YES'" in definition
    assert "COMMENT='DATA DIRECTORY=''x'''" in definition


def test_an_engine_that_the_destination_has_not_is_in_the_ledger(mariadb, other_mariadb, tmp_path):
    url = mariadb.database()
    run_sql(url, "INSTALL SONAME 'ha_blackhole'")
    try:
        run_sql(url, "CREATE TABLE nothing (id INT PRIMARY KEY) ENGINE=BLACKHOLE")
        assert export_database(url, tmp_path / "bundle").complete
    finally:
        run_sql(url, "UNINSTALL SONAME 'ha_blackhole'")
    reader, kept = read_bundle(tmp_path / "bundle"), open_location(str(tmp_path / "kept"))
    outcome = restore_from(reader, "app", other_mariadb.database(), report=kept)
    assert outcome.notes == ("`nothing` is of engine InnoDB here: the destination has no BLACKHOLE",)
    (loss,) = pq.read_table(tmp_path / "kept/app/losses.parquet").to_pylist()
    assert (loss["item"], loss["property"]) == ("table `nothing`", "engine")


def test_a_database_without_tables_is_restored_twice(my_exported, other_mariadb):
    _, reader = my_exported(
        "CREATE SEQUENCE numbers; CREATE VIEW next_one AS SELECT NEXT VALUE FOR numbers;"
        "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1; CREATE PROCEDURE p() SELECT 1;"
        "CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1"
    )
    destination = other_mariadb.database()

    def restore():
        return restore_from(reader, "app", destination)

    assert restore().notes == ()
    again = restore()
    assert (again.findings, again.left_out) == ((), ())
    assert "holds every object" in again.routine[0]
    run_sql(destination, "DROP EVENT nightly")
    with pytest.raises(NotEmptyError, match="sequence numbers"):
        restore()


def test_virtual_columns_that_are_another_thing_each_time_are_no_difference(mariadb, other_mariadb, tmp_path):
    url, destination = mariadb.database(), other_mariadb.database()
    run_sql(
        url,
        "CREATE TABLE t (id INT, `at random` DOUBLE AS (RAND()), above DOUBLE AS (`at random` + 1),"
        " who TEXT AS (USER()), seen DATETIME(6) AS (NOW(6)), said VARCHAR(20) AS (CONCAT('rand() @', id)));"
        "INSERT INTO t (id) VALUES (1), (1), (2);"
        "CREATE TABLE nothing_else (r DOUBLE AS (RAND())); INSERT INTO nothing_else VALUES (), ()",
    )
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    lost = {loss.item for _, loss in reader.losses() if loss.property == "values"}
    assert lost == {f"`t`.{name}" for name in ("at random", "above", "who", "seen")}
    outcome = restore_from(reader, "app", destination)
    assert outcome.findings == ()
    (left_out,) = outcome.left_out
    assert left_out.startswith("values of `nothing_else`.`r`: the destination computes other values")
    for live in (url, destination):
        request = ComparisonRequest(reader, "app", live, workers=1, progress=Silent())
        assert [finding.key for finding in compare_database(request).findings] == ["`nothing_else`"]
    assert fetch(destination, "SELECT id, said FROM t WHERE above > 1 ORDER BY id") == [
        (1, "rand() @1"),
        (1, "rand() @1"),
        (2, "rand() @2"),
    ]
