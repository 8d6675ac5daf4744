"""Shapes that no row was ever given: MariaDB has nothing there where a column is new, and takes no such value."""

from tests.exporters.mysql.databases import checksums, fetch
from tests.tools.bundles import restore_from

SCRIPT = """
CREATE TABLE t (id INT PRIMARY KEY, n INT); INSERT INTO t VALUES (1,1), (2,2), (3,3);
ALTER TABLE t ADD p POINT NOT NULL, ADD g GEOMETRY NOT NULL, ADD h GEOMETRY;
INSERT INTO t VALUES (4, 4, POINT(1,2), POINT(3,4), NULL);
UPDATE t SET g = POINT(5,5) WHERE id = 2; UPDATE t SET p = POINT(5,5) WHERE id = 3;
SET sql_mode = ''; ALTER TABLE t ADD d POINT NOT NULL DEFAULT POINT(9,9);
INSERT INTO t (id, d, p) VALUES (5, NULL, POINT(1,2)), (6, NULL, NULL), (7, POINT(1,1), POINT(1,2))
"""


def test_they_come_back_as_they_are(my_exported, other_mariadb):
    url, reader = my_exported(SCRIPT)
    query = "SELECT id, HEX(p), HEX(g), h, HEX(d) FROM t ORDER BY id"
    assert fetch(url, query)[0][:4] == (1, "", "", None)
    assert [row[0] for row in fetch(url, query) if row[4] == ""] == [5, 6]
    destination = other_mariadb.database()
    outcome = restore_from(reader, "app", destination)
    assert outcome.findings == ()
    assert fetch(destination, query) == fetch(url, query)
    assert checksums(destination) == checksums(url)
