"""Rows that MariaDB takes in bulk are the same as those that come as SQL."""

import pytest

from tests.exporters.mysql.databases import fetch, run_sql
from tests.tools.bundles import restore_from, restore_whole
from tests.tools.mysql_settings import global_settings

TABLES = """
CREATE TABLE kinds (
  id INT PRIMARY KEY, tiny TINYINT, big BIGINT UNSIGNED, padded INT(8) ZEROFILL, exact DECIMAL(20,6), single FLOAT,
  `double` DOUBLE, text_ TEXT, long_ MEDIUMTEXT, latin VARCHAR(40) CHARACTER SET latin1, bytes_ VARBINARY(300),
  day DATE, clock TIME(3), moment DATETIME(6), instant TIMESTAMP(3) NULL, year_ YEAR, mood ENUM('sad', 'happy'),
  odd ENUM('', '2', '3'), words SET('a', 'b'), odd_words SET('', '2'), bits BIT(9), json_ JSON, number_ UUID,
  address INET6, computed INT AS (id + 1) STORED
);
INSERT INTO kinds (id, tiny, big, padded, exact, single, `double`, text_, long_, latin, bytes_, day, clock, moment,
  instant, year_, mood, odd, words, odd_words, bits, json_, number_, address)
SELECT seq, CAST(seq % 200 AS SIGNED) - 100, 18446744073709551615 - seq, seq, seq / -7, seq / 3, SQRT(seq),
  CONCAT(seq, REPEAT(CHAR(39, 92, 10 USING utf8mb4), seq % 90), 'ü🙂'),
  REPEAT('long', IF(seq < 4, 20000, seq)), CONCAT('é', seq), UNHEX(REPEAT(MD5(seq), 1 + seq % 17)),
  IF(seq % 9, DATE_ADD('2000-01-01', INTERVAL seq DAY), '0000-00-00'),
  SEC_TO_TIME(CAST(seq AS SIGNED) * 1000 - 3000.125),
  DATE_ADD('2001-02-03', INTERVAL seq * 7.000001 SECOND), FROM_UNIXTIME(seq * 86400 + 0.5), 1901 + seq % 200,
  1 + seq % 2, 1 + seq % 3, seq % 4, seq % 4, seq % 512, JSON_OBJECT('n', seq), UUID(), CONCAT('::', HEX(seq))
FROM seq_1_to_400;
INSERT INTO kinds (id) VALUES (0);
CREATE TABLE nothing (id INT PRIMARY KEY, a VARCHAR(9), b BLOB, c BIT(3));
INSERT INTO nothing (id) SELECT seq FROM seq_1_to_300;
CREATE TABLE shapes (id INT PRIMARY KEY, at POINT);
INSERT INTO shapes SELECT seq, POINT(seq, -seq) FROM seq_1_to_300;
CREATE TABLE few (id INT PRIMARY KEY); INSERT INTO few VALUES (1)
"""


def prepared(server) -> int:
    return int(fetch(server.url, "SHOW GLOBAL STATUS LIKE 'Com_stmt_prepare'")[0][1])


def test_rows_of_every_type_come_back(my_exported, other_mariadb):
    url, reader = my_exported(TABLES)
    destination, before = other_mariadb.database(), prepared(other_mariadb)
    restore_whole(reader, "app", destination, workers=2)
    assert prepared(other_mariadb) == before + 2
    for table in ("kinds", "nothing", "shapes"):
        query = f"SELECT * FROM {table} ORDER BY id"
        assert fetch(destination, query) == fetch(url, query)


@pytest.mark.parametrize(
    ("value", "definition", "rows"),
    [
        pytest.param("NULL", "v INT NOT NULL", 300, marks=pytest.mark.torture),
        ("seq DIV 2", "v INT UNIQUE", 151),
    ],
    ids=["no value where there must be one", "a value twice"],
)
def test_what_is_refused_in_bulk_comes_as_sql(my_exported, other_mariadb, value, definition, rows):
    table = f"INSERT INTO t SELECT seq, {value} FROM seq_1_to_300"
    _, reader = my_exported(f"CREATE TABLE t (id INT PRIMARY KEY, v INT); {table}")
    destination = other_mariadb.database()
    run_sql(destination, f"CREATE TABLE t (id INT PRIMARY KEY, {definition})")
    outcome = restore_from(reader, "app", destination, only=["data"])
    assert bool(outcome.findings) == (value == "NULL"), outcome
    assert fetch(destination, "SELECT count(*) FROM t") == [(rows,)]


def test_a_binary_log_of_statements_gets_rows_as_sql(my_exported, other_mariadb):
    _, reader = my_exported("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_300")
    destination = other_mariadb.database()
    with global_settings(other_mariadb.url, binlog_format="STATEMENT"):
        restore_whole(reader, "app", destination)
    assert fetch(destination, "SELECT count(*) FROM t") == [(300,)]
