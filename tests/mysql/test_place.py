"""A table that cannot lie where it lay is made where the server puts it, and that is told."""

import pyarrow.parquet as pq

from migrate.progress import Silent
from migrate.restore.mysql.database import restore_database
from migrate.store import open_place
from tests.mysql.databases import checksums


def test_a_directory_that_is_taken_is_a_row_of_the_ledger(mariadb, my_exported, other_mariadb, tmp_path):
    url, reader = my_exported(
        f"CREATE TABLE placed (id INT PRIMARY KEY) ENGINE=MyISAM DATA DIRECTORY='{mariadb.directory / 'tmp'}';"
        "INSERT INTO placed VALUES (1)"
    )
    target = other_mariadb.database()
    kept = open_place(str(tmp_path / "kept"))
    outcome = restore_database(reader, "app", target, workers=1, progress=Silent(), account=kept)
    assert (outcome.findings, outcome.left_out) == ((), ())
    (loss,) = pq.read_table(tmp_path / "kept/app/losses.parquet").to_pylist()
    assert (loss["item"], loss["property"]) == ("table `placed`", "place")
    assert checksums(target) == checksums(url)
