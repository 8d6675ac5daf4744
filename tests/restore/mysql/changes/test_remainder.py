"""What no binary log carries is brought over before the switch."""

import pytest

from migrate.changes.remainder import BothSides, RemainderRequest
from migrate.restore.mysql.changes.remainder import carry_remainder
from tests.exporters.mysql.databases import fetch, run_sql

KEPT = """
CREATE TABLE kept (id INT PRIMARY KEY, v TEXT) ENGINE={engine} WITH SYSTEM VERSIONING;
SET timestamp = 1000000000; INSERT INTO kept VALUES (1, 'a'), (2, 'b');
"""
LATER = """
SET timestamp = 1100000000; UPDATE kept SET v = 'c' WHERE id = 1; INSERT INTO kept VALUES (3, 'at once');
DELETE FROM kept WHERE id = 3; SET timestamp = 1200000000; DELETE FROM kept WHERE id = 2;
"""
HISTORY = "SELECT *, row_start, row_end FROM kept FOR SYSTEM_TIME ALL ORDER BY id, row_start, row_end"


@pytest.mark.parametrize("log", [{"apart": ["kept"]}, None])
def test_a_table_that_keeps_its_history_is_read_again_with_it(followed_mariadb, other_mariadb, log):
    """No TRUNCATE empties it, what is deleted from it becomes history, and no delta pass changes that."""
    source, destination = followed_mariadb.database(), other_mariadb.database()
    for url in (source, destination):
        run_sql(url, KEPT.format(engine="MyISAM"))
    run_sql(source, LATER)
    request = RemainderRequest(BothSides(source, {}, destination, {}), log)
    carried = carry_remainder(request)
    assert carried.counts["tables"] == 1
    assert fetch(destination, HISTORY) == fetch(source, HISTORY)
    assert len(fetch(source, HISTORY)) == 4
    assert carry_remainder(request).counts["tables"] == 0
