"""Control tables of a restore are told from a customer's tables of the same names by their columns."""

from exporters.mysql.connection import parse_url
from migrate.restore.common.table_restore import State
from migrate.restore.mysql.destination import open_destination
from migrate.restore.mysql.restore_state import begin_state
from tests.exporters.mysql.databases import checksums, definitions, export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from, restore_whole

CUSTOMERS = """
CREATE TABLE moveout_restore (x INT); INSERT INTO moveout_restore VALUES (42);
CREATE TABLE moveout_restore_done (y INT); INSERT INTO moveout_restore_done VALUES (43);
CREATE TABLE moveout_restore_again (z INT); CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1);
"""


def test_tables_of_a_customer_that_are_named_alike_come_back_whole(mariadb, other_mariadb, tmp_path):
    url, destination = mariadb.database(), other_mariadb.database()
    run_sql(url, CUSTOMERS)
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    restore_whole(reader, "app", destination, workers=2)
    assert definitions(destination) == definitions(url)
    assert checksums(destination) == checksums(url)


def test_a_customers_table_in_the_destination_stays(my_exported, other_mariadb):
    url, reader = my_exported("CREATE TABLE mine (a INT); INSERT INTO mine VALUES (1)")
    destination = other_mariadb.database()
    run_sql(destination, "CREATE TABLE moveout_restore (x INT); INSERT INTO moveout_restore VALUES (42)")
    outcome = restore_from(reader, "app", destination, merge=True)
    assert outcome.findings == ()
    assert fetch(destination, "SHOW TABLES") == [("mine",), ("moveout_restore",)]
    assert fetch(destination, "SELECT x FROM moveout_restore") == [(42,)]
    assert checksums(destination)["mine"] == checksums(url)["mine"]


def test_the_state_of_an_unfinished_restore_is_left_out_of_an_export_and_named(mariadb, tmp_path):
    url = mariadb.database()
    run_sql(url, CUSTOMERS)
    with open_destination(parse_url(url)) as destination:
        begin_state(destination, State("bundle", "app"))
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert [row.name for row in reader.catalog()] == [
        "moveout_restore",
        "moveout_restore_again",
        "moveout_restore_done",
        "t",
    ]
    reason = "a restore that is not finished keeps its place there; it is no part of the data"
    left_out = {loss.item for _, loss in reader.losses() if loss.reason == reason}
    assert left_out == {"`moveout_restore2`", "`moveout_restore2_done`", "`moveout_restore2_left_out`"}
