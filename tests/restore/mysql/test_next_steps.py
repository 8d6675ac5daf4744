"""What the destination refuses for a setting of its own is told with the step that helps; the same command then ends
it."""

import pytest

from migrate.errors import IncompleteError, UsageError
from tests.exporters.mysql.databases import definitions, run_sql
from tests.restore.mysql.killed_repair import kill_repair
from tests.tools.bundles import restore_from
from tests.tools.mysql_settings import global_settings

ZONE = """
INSERT INTO mysql.time_zone VALUES (7777, 'N'); INSERT INTO mysql.time_zone_name VALUES ('Test/Zone', 7777);
INSERT INTO mysql.time_zone_transition_type VALUES (7777, 0, 3600, 0, 'TST');
"""
NO_ZONE = """
DELETE FROM mysql.time_zone WHERE Time_zone_id = 7777; DELETE FROM mysql.time_zone_name WHERE Time_zone_id = 7777;
DELETE FROM mysql.time_zone_transition_type WHERE Time_zone_id = 7777;
"""
SCRIPT = """
CREATE TABLE t (id INT PRIMARY KEY); SET time_zone = 'Test/Zone';
CREATE EVENT there ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 00:00:00' DISABLE DO DELETE FROM t;
"""


@pytest.fixture
def zone(mariadb, other_mariadb):
    run_sql(mariadb.url, ZONE)
    yield
    for server in (mariadb, other_mariadb):
        run_sql(server.url, NO_ZONE)


def restored(reader, destination):
    return restore_from(reader, "app", destination)


@pytest.mark.usefixtures("zone")
def test_an_event_of_a_time_zone_that_the_destination_does_not_know_waits_for_it(my_exported, other_mariadb):
    url, reader = my_exported(SCRIPT)
    destination = other_mariadb.database()
    with pytest.raises(
        UsageError, match="event there cannot be made: Unknown or incorrect time zone"
    ) as refused:
        restored(reader, destination)
    assert refused.value.next_step.startswith("load the time zones into the destination")
    run_sql(other_mariadb.url, ZONE)
    assert restored(reader, destination).findings == ()
    assert definitions(destination) == definitions(url)


def test_a_trigger_that_a_killed_repair_has_dropped_comes_back(my_exported, other_mariadb):
    url, reader = my_exported(
        "CREATE TABLE t (id INT); CREATE TRIGGER seen AFTER INSERT ON t FOR EACH ROW SET @seen = 1"
    )
    destination = other_mariadb.database()
    assert restored(reader, destination).findings == ()
    kill_repair(destination, "t")
    run_sql(destination, "RENAME TABLE t TO away")
    with pytest.raises(IncompleteError, match="a repair has dropped the trigger `seen`") as refused:
        restored(reader, destination)
    assert "TRIGGER seen AFTER INSERT" in refused.value.next_step
    run_sql(destination, "RENAME TABLE away TO t")
    assert restored(reader, destination).findings == ()
    assert definitions(destination) == definitions(url)


def test_a_function_of_which_the_destination_wants_more_waits_for_its_trust(
    my_exported, mariadb, other_mariadb
):
    with global_settings(mariadb.url, log_bin_trust_function_creators=1):
        url, reader = my_exported("CREATE TABLE t (id INT); CREATE FUNCTION f() RETURNS INT RETURN RAND()")
        destination = other_mariadb.database()
        with (
            global_settings(other_mariadb.url, log_bin_trust_function_creators=0),
            pytest.raises(UsageError) as refused,
        ):
            restored(reader, destination)
        assert refused.value.next_step.startswith("SET GLOBAL log_bin_trust_function_creators = 1")
        with global_settings(other_mariadb.url, log_bin_trust_function_creators=1):
            assert restored(reader, destination).findings == ()
        assert definitions(destination) == definitions(url)
