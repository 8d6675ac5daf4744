"""ENUM and SET with an empty label, whose text is also that of the error value, of the empty set, or of another set."""

import pyarrow.parquet as pq

from migrate.bundle import layout
from tests.exporters.mysql.databases import checksums, fetch
from tests.tools.bundles import restore_whole

MANY = ",".join(f"'l{number}'" for number in range(1, 64))
SCRIPT = f"""
SET sql_mode = '';
CREATE TABLE labels (id INT PRIMARY KEY, e ENUM('a','','b,'',c'), s SET('','x','y'),
  t SET('x','','ü') CHARACTER SET latin1, m SET({MANY},''), o ENUM('a',',b'), p SET('x','y'));
INSERT INTO labels VALUES
 (1,'a','x','x','l1','a','x'), (2,0,0,0,0,0,0), (3,2,1,2,9223372036854775808,2,3),
 (4,3,7,7,18446744073709551615,1,2), (5,'no','no','no','no','no','no'), (6,'','','','','',''),
 (7,NULL,NULL,NULL,NULL,NULL,NULL), (8,'b,'',c','x,y','x,ü','l63',',b','y');
"""
NUMBERS = (
    "SELECT id, e+0, "
    + ", ".join(f"CAST({name} AS UNSIGNED)" for name in "stm")
    + ", o+0, p+0 FROM labels ORDER BY id"
)


def column(reader, name):
    (table,) = (row for row in reader.catalog() if row.name == "labels")
    part = reader.open(layout.source_file("app", table.details["parts"][0]["name"]))
    return pq.ParquetFile(part).read([name]).column(0).to_pylist()


def kinds_of_columns(reader):
    return {column["name"]: column["kind"] for column in reader.catalog()[0].details["columns"]}


def restored(reader, server):
    """Restore to a fresh database of a server, and return its URL."""
    destination = server.database()
    restore_whole(reader, "app", destination)
    return destination


def test_empty_labels_stay_apart_from_the_error_value_and_the_empty_set(my_exported, other_mariadb):
    url, reader = my_exported(SCRIPT)
    destination = restored(reader, other_mariadb)
    assert fetch(destination, NUMBERS) == fetch(url, NUMBERS)
    assert checksums(destination) == checksums(url)
    assert column(reader, "e") == [1, 0, 2, 3, 0, 2, None, 3]
    assert column(reader, "s") == [2, 0, 1, 7, 0, 0, None, 6]
    assert column(reader, "m") == [1, 0, 2**63, 2**64 - 1, 0, 0, None, 2**62]
    assert column(reader, "o") == ["a", "", ",b", "a", "", "", None, ",b"]
    assert column(reader, "p") == ["x", "", "x,y", "y", "", "", None, "y"]


UNPRINTED = """
SET sql_mode = '';
CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, c SET('😀','é','?') DEFAULT 'é', d ENUM('x','👍','👎?'),
  e ENUM(X'FF41', 'b', X'C3') CHARACTER SET binary, s SET(X'FE', 'y', X'C3A4') CHARACTER SET binary);
INSERT INTO t (c, d, e, s) VALUES (1, 2, 1, 1), (4, 3, 2, 5), (7, 0, 3, 7)
"""


def test_labels_that_the_server_prints_as_question_marks_come_back(my_exported, other_mariadb):
    url, reader = my_exported(UNPRINTED)
    destination = restored(reader, other_mariadb)
    query = f"SELECT {', '.join(f'HEX({name}), {name}+0' for name in 'cdes')} FROM t ORDER BY id"
    assert fetch(destination, query) == fetch(url, query)
    assert fetch(destination, query)[0][::2] == ("F09F9880", "F09F918D", "FF41", "FE")


def test_labels_that_are_equal_stay_apart(my_exported, other_mariadb):
    url, reader = my_exported(
        "SET sql_mode = ''; CREATE TABLE twice (id INT PRIMARY KEY, e ENUM('a','A','é'), s SET('e','é','b'),"
        " c ENUM('x','\u0080'), o ENUM('a','A') COLLATE utf8mb4_bin);"
        "INSERT INTO twice VALUES (1,1,1,1,1), (2,2,3,2,2), (3,3,7,0,0), (4,0,2,NULL,1)"
    )
    destination = restored(reader, other_mariadb)
    query = "SELECT id, e+0, CAST(s AS UNSIGNED), c+0, o+0 FROM twice ORDER BY id"
    assert fetch(destination, query) == fetch(url, query)
    assert fetch(url, query)[1] == (2, 2, 3, 2, 2)
    assert kinds_of_columns(reader) == {"id": "int", "e": "int", "s": "int", "c": "int", "o": "text"}


def test_labels_that_are_equal_but_for_what_is_printed_by_a_backslash_stay_apart(my_exported, other_mariadb):
    """Collations pass over some characters of control, and servers print these by a backslash."""
    url, reader = my_exported(
        r"SET sql_mode = ''; CREATE TABLE twice (id INT PRIMARY KEY, e ENUM('x','x\0'), s SET('x\0','x'),"
        r" n ENUM('b','\0'), o ENUM('\\','\\\\','0')) COLLATE utf8mb4_unicode_ci;"
        "INSERT INTO twice VALUES (1,1,1,1,1), (2,2,2,2,2), (3,0,3,0,3)"
    )
    destination = restored(reader, other_mariadb)
    query = "SELECT id, e+0, CAST(s AS UNSIGNED), n+0, o+0 FROM twice ORDER BY id"
    assert fetch(destination, query) == fetch(url, query)
    assert kinds_of_columns(reader) == {"id": "int", "e": "int", "s": "int", "n": "int", "o": "text"}
