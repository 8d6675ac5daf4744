"""Random workloads: what applications do to tables with and without keys."""

import pymysql
from hypothesis import strategies as st

from tests.exporters.mysql.databases import open_database

SCHEMA = """
CREATE TABLE keyed (id INT PRIMARY KEY, v VARCHAR(60), big LONGTEXT, n DECIMAL(10,3));
CREATE TABLE paired (a INT, b VARCHAR(60), v TEXT, n DECIMAL(10,3) UNIQUE, PRIMARY KEY (a, b));
CREATE TABLE keyless (a INT, v TEXT, j JSON);
CREATE TABLE counted (id INT AUTO_INCREMENT PRIMARY KEY, v TEXT, twice INT AS (CHAR_LENGTH(v) * 2) STORED,
  thrice INT AS (CHAR_LENGTH(v) * 3) VIRTUAL, KEY (thrice));
CREATE TABLE parts (id INT, place INT, v TEXT, PRIMARY KEY (id, place)) PARTITION BY HASH (place) PARTITIONS 3;
CREATE TABLE child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES keyed (id)
  ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE grandchild (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES child (id) ON DELETE SET NULL);
CREATE TABLE noted (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(60));
CREATE TRIGGER keyed_noted AFTER UPDATE ON keyed FOR EACH ROW INSERT INTO noted (what) VALUES (NEW.v);
"""
_NUMBERS = st.integers(0, 9)
_TEXTS = st.sampled_from(["NULL", "''", "'a'", "'\\\\'", "'é€😀'", "'\"{},'", "REPEAT('z', 50)"])
_LONG = st.sampled_from(["NULL", "REPEAT('long', 9000)", "REPEAT('other', 900)", "'short'"])


def _sql(pattern: str, **fields: st.SearchStrategy) -> st.SearchStrategy[str]:
    numbers = {name: _NUMBERS for name in ("i", "k") if f"{{{name}}}" in pattern}
    texts = {name: _TEXTS for name in ("v", "w") if f"{{{name}}}" in pattern}
    chosen = st.fixed_dictionaries(numbers | texts | fields)
    return chosen.map(lambda values: pattern.format(**values))


STATEMENTS = st.one_of(
    _sql("INSERT INTO keyed VALUES ({i}, {v}, {long}, {k})", long=_LONG),
    _sql("REPLACE INTO keyed VALUES ({i}, {v}, {long}, {k})", long=_LONG),
    _sql("INSERT INTO keyed VALUES ({i}, {v}, NULL, 1) ON DUPLICATE KEY UPDATE n = n + 1"),
    _sql("UPDATE keyed SET v = {v} WHERE id = {i}"),
    _sql("UPDATE keyed SET big = {long}, n = n + 1 WHERE id >= {i}", long=_LONG),
    _sql("UPDATE keyed SET id = id + 10 * {k} WHERE id = {i}"),
    _sql("UPDATE keyed SET id = id + 1 ORDER BY id DESC"),
    _sql("DELETE FROM keyed WHERE id = {i}"),
    _sql("INSERT INTO paired VALUES ({i}, COALESCE({v}, 'n'), {w}, {k})"),
    _sql("UPDATE paired SET b = COALESCE({v}, 'n') WHERE a = {i}"),
    _sql("UPDATE paired SET n = -n WHERE a > {i}"),
    _sql("DELETE FROM paired WHERE a < {i}"),
    _sql("INSERT INTO keyless VALUES ({i}, {v}, '{{}}'), ({k}, {w}, NULL), ({i}, {v}, '{{}}')"),
    _sql("UPDATE keyless SET v = {v} WHERE a = {i} LIMIT 1"),
    _sql("DELETE FROM keyless WHERE a = {i} LIMIT 1"),
    _sql("INSERT INTO counted (v) VALUES ({v}), ({w})"),
    _sql("UPDATE counted SET v = {v} WHERE id % 5 = {k} % 5"),
    _sql("DELETE FROM counted WHERE id % 7 = {i} % 7"),
    _sql("INSERT INTO parts VALUES ({i}, {k}, {v})"),
    _sql("UPDATE parts SET place = {k} WHERE id = {i}"),
    _sql("INSERT INTO child VALUES ({i}, {k})"),
    _sql("INSERT INTO grandchild VALUES ({i}, {k})"),
    _sql("UPDATE child SET id = id + 20 WHERE id = {i}"),
    _sql("DELETE child, keyed FROM child JOIN keyed ON child.parent = keyed.id WHERE keyed.id = {i}"),
    st.sampled_from(["TRUNCATE keyless", "TRUNCATE TABLE parts", "TRUNCATE noted"]),
    # What a transaction with one of these has rolled back is in the log, with a ROLLBACK at its end.
    st.sampled_from(
        ["CREATE TEMPORARY TABLE IF NOT EXISTS side (a INT)", "DROP TEMPORARY TABLE IF EXISTS side"]
    ),
    st.sampled_from(["SAVEPOINT a", "ROLLBACK TO a", "SAVEPOINT b", "ROLLBACK TO b"]),
    st.sampled_from([f"SET SESSION binlog_row_image = '{image}'" for image in ("MINIMAL", "FULL", "NOBLOB")]),
    st.sampled_from(["SET SESSION foreign_key_checks = 0", "SET SESSION foreign_key_checks = 1"]),
)
TRANSACTIONS = st.tuples(
    st.lists(STATEMENTS, min_size=1, max_size=12), st.sampled_from(["COMMIT", "COMMIT", "ROLLBACK"])
)
WORKLOADS = st.lists(TRANSACTIONS, min_size=1, max_size=6)


def run(url: str, workload: list[tuple[list[str], str]]) -> None:
    """Run transactions one after the other; a statement that fails is as if it were not there."""
    with open_database(url) as connection, connection.cursor() as cursor:
        for statements, end in workload:
            cursor.execute("BEGIN")
            for statement in statements:
                try:
                    cursor.execute(statement)
                except (
                    pymysql.Error
                ):  # a savepoint that there is not, a key that is taken, a parent that is missing
                    continue
            cursor.execute(end)
