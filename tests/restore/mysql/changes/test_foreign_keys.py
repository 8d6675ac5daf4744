"""Foreign keys act once: at the destination, or in the log."""

import pytest

from tests.exporters.mysql.databases import fetch, run_sql
from tests.restore.mysql.changes.conftest import pair_maker

FAMILY = """
CREATE TABLE parent (id INT PRIMARY KEY, v TEXT, other INT UNIQUE);
CREATE TABLE child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES parent (id)
  ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE grandchild (id INT PRIMARY KEY, child INT, FOREIGN KEY (child) REFERENCES child (id) ON DELETE SET NULL);
INSERT INTO parent VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', 4), (5, 'e', 5);
INSERT INTO child VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5);
INSERT INTO grandchild VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5);
"""
WRITES = (
    "UPDATE parent SET id = id + 10 ORDER BY id DESC",
    "REPLACE INTO parent VALUES (11, 'replaced', 1)",
    "REPLACE INTO parent VALUES (20, 'replaced by another key', 2)",
    "DELETE FROM parent WHERE id = 13",
    "SET foreign_key_checks = 0; DELETE FROM parent WHERE id = 14; SET foreign_key_checks = 1",
    "INSERT INTO parent VALUES (15, 'x', 9) ON DUPLICATE KEY UPDATE id = 16",
)


@pytest.mark.torture
@pytest.mark.parametrize("native", ["OFF", "ON"])
def test_keys_of_mysql_act_as_at_the_source(native, servers, other_mysql, tmp_path_factory):
    """The source lets the server act for its foreign keys, or InnoDB."""
    settings = ["binlog-row-metadata=FULL", f"innodb-native-foreign-keys={native}"]
    followed = servers.mysql(f"mysql-keys-{native}", settings=settings)
    try:
        pair = pair_maker(followed, other_mysql, tmp_path_factory)(FAMILY)
        before = fetch(pair.source, "SELECT * FROM child")
        for write in WRITES:
            run_sql(pair.source, write)
            pair.follow()
        assert pair.single_changes == 0
        assert fetch(pair.source, "SELECT * FROM child") != before
    finally:
        followed.child.stop()
