"""What was made when things were otherwise: under another charset of the database, at a time that is over, or by a
server that was killed.
"""

import time
from contextlib import closing

import pyarrow.parquet as pq
import pymysql
import pytest

from exporters.mysql.connection import connect, parse_url
from migrate.restore.mysql.definitions.object_maker import ObjectMaker
from migrate.restore.mysql.definitions.recorded_definitions import read_definitions
from migrate.storage.registry import open_location
from tests.exporters.mysql.databases import definitions, fetch
from tests.tools.bundles import restore_from

ROUTINES = """
CREATE TABLE t (id INT PRIMARY KEY, n INT);
CREATE FUNCTION sized(a VARCHAR(9)) RETURNS INT DETERMINISTIC RETURN LENGTH(a);
CREATE TRIGGER counting BEFORE INSERT ON t FOR EACH ROW SET NEW.n = sized('ü');
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1;
SET @words = " CHARACTER SET latin2 COLLATE latin2_bin COMMENT 'it''s ours'";
SET @alter = CONCAT('ALTER DATABASE ', DATABASE(), @words);
EXECUTE IMMEDIATE @alter;
CREATE FUNCTION sized_now(a VARCHAR(9)) RETURNS INT DETERMINISTIC RETURN LENGTH(a);
"""
EVENTS = """
CREATE TABLE t (id INT PRIMARY KEY);
CREATE EVENT gone ON SCHEDULE AT NOW() + INTERVAL 1 SECOND DO DELETE FROM t;
CREATE EVENT kept ON SCHEDULE AT NOW() + INTERVAL 1 SECOND ON COMPLETION PRESERVE DO DELETE FROM t;
CREATE EVENT off ON SCHEDULE AT NOW() + INTERVAL 1 SECOND ON COMPLETION PRESERVE DISABLE DO DELETE FROM t;
CREATE EVENT to_come ON SCHEDULE AT '2035-01-01 00:00:00' DO DELETE FROM t;
"""
OVER = (
    "SELECT MAX(EXECUTE_AT) < NOW() FROM information_schema.EVENTS"
    " WHERE EVENT_SCHEMA = DATABASE() AND EVENT_NAME <> 'to_come'"
)
SIZES = (
    "SELECT sized('ü'), sized_now('ü'), SCHEMA_COMMENT FROM information_schema.SCHEMATA"
    " WHERE SCHEMA_NAME = DATABASE()"
)


def test_the_database_is_as_it_was_when_each_routine_was_made(my_exported, other_mariadb):
    url, reader = my_exported(ROUTINES)
    destination = other_mariadb.database()
    outcome = restore_from(reader, "app", destination)
    assert (outcome.findings, outcome.left_out, outcome.notes) == ((), (), ())
    assert definitions(destination) == definitions(url)
    assert fetch(destination, SIZES) == fetch(url, SIZES) == [(2, 1, "it's ours")]


def test_events_whose_time_is_over_are_in_the_ledger(my_exported, other_mariadb, tmp_path):
    url, reader = my_exported(EVENTS)
    destination = other_mariadb.database()
    while not fetch(url, OVER)[0][0]:
        time.sleep(0.2)
    kept = open_location(str(tmp_path / "kept"))
    outcome = restore_from(reader, "app", destination, report=kept)
    assert outcome.findings == ()
    assert outcome.left_out == (
        "event `gone`: its time is over: the server drops it at once",
        "event `kept`: it is disabled: its time is over",
    )
    losses = pq.read_table(tmp_path / "kept/app/losses.parquet").to_pylist()
    assert {(loss["item"], loss["property"]) for loss in losses} == {
        ("event `gone`", "definition"),
        ("event `kept`", "state"),
    }
    there = "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE() ORDER BY 1"
    assert [name for (name,) in fetch(destination, there)] == ["kept", "off", "to_come"]


@pytest.mark.torture
def test_a_sequence_that_a_killed_server_has_left_without_its_row_is_made_again(my_exported, servers):
    """As where a restore was killed with the server, before it could note that the sequence is made."""
    _, reader = my_exported("CREATE SEQUENCE tickets; SELECT SETVAL(tickets, 41)")
    server = servers.mariadb("mariadb-forgetful")
    destination = server.database()
    fetch(destination, "CREATE SEQUENCE tickets")
    server.child.start_again(server.accepts)
    with pytest.raises(pymysql.Error, match="Can't find record"):
        fetch(destination, "SELECT NEXTVAL(tickets)")
    (sequence,) = [one for one in read_definitions(reader, "app") if one["kind"] == "sequence"]
    with closing(connect(parse_url(destination))) as connection:
        ObjectMaker(connection, [], []).make(sequence)
    assert fetch(destination, "SELECT NEXTVAL(tickets)") == [(42,)]
