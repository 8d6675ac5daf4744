"""What has the name under which a restore keeps its place is no part of the data: it is left out, and named."""

from migrate.bundle.reader import BundleReader
from tests.exporters.postgres import databases as of_postgres
from tests.exporters.sqlite import databases as of_sqlite
from tests.tools.bundles import read_bundle, restore_from

SCRIPT = "CREATE TABLE mine (a INT); CREATE TABLE {0}moveout_restore (a INT); INSERT INTO {0}moveout_restore VALUES (1)"


def check(reader: BundleReader, item: str) -> None:
    assert [row.name for row in reader.catalog()] == ["mine"]
    assert [loss.reason for _, loss in reader.losses() if loss.item == item] == [
        "a restore that is not finished keeps its place there; it is no part of the data"
    ]


def test_a_schema_of_postgresql(postgres, other_postgres, tmp_path):
    url, destination = postgres.database(), other_postgres.database()
    of_postgres.run_sql(url, "CREATE SCHEMA moveout_restore;" + SCRIPT.format("moveout_restore."))
    assert of_postgres.export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    check(reader, "schema moveout_restore")
    assert restore_from(reader, "app", destination).findings == ()


def test_a_table_of_sqlite(tmp_path):
    path = of_sqlite.run_sql(tmp_path / "a.db", SCRIPT.format(""))
    assert of_sqlite.export_file(path, tmp_path / "bundle").complete
    check(read_bundle(tmp_path / "bundle"), '"main"."moveout_restore"')
