"""Definitions are not repeated. Those that change rows, or what the bytes of rows mean, stop the source until the
destination has them.
"""

import contextlib
import secrets

import pymysql
import pytest

from exporters.errors import SourceGoneError
from exporters.mysql.connection import parse_url
from migrate.changes.apply import ChangeConflictError
from migrate.errors import NotAllowedError
from migrate.restore.mysql.changes.change_writer import open_change_writer
from tests.exporters.mysql.databases import fetch, open_database, run_sql
from tests.tools.mysql_settings import global_settings

PARTS = "PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (10), PARTITION b VALUES LESS THAN (20))"
SCRIPT = f"""
CREATE TABLE goods (id INT PRIMARY KEY, n INT NOT NULL, v VARCHAR(80) CHARACTER SET latin1);
CREATE TABLE parent (id INT PRIMARY KEY);
CREATE TABLE child (id INT PRIMARY KEY, parent INT, KEY (parent));
CREATE TABLE parts (id INT PRIMARY KEY) {PARTS};
CREATE TABLE plain (id INT) ENGINE=MyISAM;
INSERT INTO goods VALUES (1, 1, 'a'), (2, 2, 'b'); INSERT INTO parent VALUES (1), (2), (3);
INSERT INTO child VALUES (1, 1), (2, 2), (3, 3); INSERT INTO parts VALUES (1), (11);
"""
WRITES = """
CREATE FUNCTION writes (x INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA
BEGIN INSERT INTO parent VALUES (x); RETURN x; END;
"""
CASCADE = "ADD CONSTRAINT acts FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE"
SHAPES = [
    ("ALTER TABLE goods MODIFY n INT UNSIGNED NOT NULL", "INSERT INTO goods VALUES (3, 4000000000, 'c')"),
    ("ALTER TABLE goods MODIFY n INT UNSIGNED NULL", "UPDATE goods SET n = NULL WHERE id = 1"),
    ("ALTER TABLE goods MODIFY v VARCHAR(20) CHARACTER SET utf8mb4", "UPDATE goods SET v = 'é'"),
    ("ALTER TABLE goods MODIFY v VARBINARY(80)", "UPDATE goods SET v = X'FF00'"),
]
EFFECTS = [
    ("ALTER TABLE goods RENAME TO others", "INSERT INTO others VALUES (9, 9, 'i')"),
    ("CREATE OR REPLACE TABLE others (id INT PRIMARY KEY)", "INSERT INTO others VALUES (1)"),
    (f"ALTER TABLE child {CASCADE}", "DELETE FROM parent WHERE id = 1"),
    ("ALTER TABLE child DROP FOREIGN KEY acts", "DELETE FROM parent WHERE id = 2"),
    ("ALTER TABLE parts TRUNCATE PARTITION a", "INSERT INTO parts VALUES (2)"),
    ("ALTER TABLE parts DROP PARTITION a", "INSERT INTO parts VALUES (12)"),
    ("ALTER TABLE parts ADD PARTITION (PARTITION c VALUES LESS THAN (30))", "INSERT INTO parts VALUES (22)"),
    ("DROP TABLE plain, others", "UPDATE child SET id = id + 10"),
]
FEW = [SHAPES[0], EFFECTS[0], EFFECTS[2], EFFECTS[4]]
"""One of each sort: other values, other names, rows that a key changes, rows that a partition takes along."""


MARIADB_ONLY = ("CREATE OR REPLACE", "DROP TABLE plain")


@pytest.fixture(params=["make_pair", pytest.param("make_mysql_pair", marks=pytest.mark.torture)])
def make(request):
    return request.getfixturevalue(request.param)


def stop(pair, *words):
    """Return what is to be done where changes are not applied."""
    with pytest.raises(ChangeConflictError) as stopped:
        pair.apply()
    for word in words:
        assert word in str(stopped.value)
    return stopped.value.next_step


@pytest.mark.parametrize(
    "changes", [FEW, pytest.param(SHAPES + EFFECTS, marks=pytest.mark.torture)], ids=["few", "each"]
)
def test_nothing_is_applied_before_the_destination_has_the_definition(make, request, changes):
    pair = make(SCRIPT)
    is_mariadb = "make_pair" in request.node.name
    for change, write in changes:
        if change.startswith(MARIADB_ONLY) and not is_mariadb:
            continue
        pair.capture(f"{change}; {write}")
        step = stop(pair, " at binlog.")
        assert step.startswith("run at the destination"), step
        assert change.removesuffix("plain, others") in step
        run_sql(pair.destination, change)
        pair.apply()
        pair.assert_equal()


def test_only_what_the_destination_lacks_is_printed(make):
    made = "CREATE TABLE child (id INT PRIMARY KEY, d DATE)"
    pair = make(SCRIPT)
    gone, anew = "ALTER TABLE goods DROP COLUMN v", "ALTER TABLE goods ADD v VARCHAR(9) DEFAULT 'new'"
    pair.capture(f"DROP TABLE child; {made}; INSERT INTO child VALUES (1, '2020-01-01'); DROP TABLE parts")
    pair.capture(f"{gone}; {anew}; UPDATE goods SET n = 7 WHERE id = 1")
    for statement in ("DROP TABLE `child`", made, "DROP TABLE `parts`", gone, anew):
        assert stop(pair).startswith(f"run at the destination: {statement}; then run the same command again")
        run_sql(pair.destination, statement)
    pair.follow()


def test_what_changes_no_rows_or_is_repeated_stops_nothing(make, request):
    """Also where it names a table whose rows come before and behind it in one segment."""
    pair = make(SCRIPT)
    pair.follow(
        "INSERT INTO goods VALUES (3, 3, 'c'); CREATE TABLE IF NOT EXISTS goods (id INT);"
        " INSERT INTO goods VALUES (4, 4, 'd'); SET SESSION sql_mode = 'ANSI_QUOTES'; TRUNCATE TABLE \"parts\";"
        " INSERT INTO parts VALUES (3)"
    )
    other = f"other_{secrets.token_hex(4)}"
    pair.follow(
        f"CREATE DATABASE {other}; USE {other}; CREATE TABLE t (id INT PRIMARY KEY); XA START 'x';"
        " INSERT INTO t VALUES (1); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'"
    )
    if "make_pair" in request.node.name:
        pair.follow(
            "SET STATEMENT lock_wait_timeout = 50 FOR TRUNCATE TABLE goods; INSERT INTO goods VALUES (1, 5, '')"
        )
        names = make(
            "CREATE TABLE `é` (id INT PRIMARY KEY); CREATE TABLE long_key (id INT PRIMARY KEY, v TEXT UNIQUE)"
        )
        names.follow(
            "INSERT INTO `é` VALUES (1); INSERT INTO long_key VALUES (1, 'a'); UPDATE long_key SET v = 'b'"
        )
        with open_database(names.source, charset="latin1") as session, session.cursor() as cursor:
            cursor.execute("TRUNCATE TABLE `é`")
        names.follow()


def test_tables_that_have_other_rows_since_must_be_read_again(make_pair):
    swap = "RENAME TABLE goods TO aside, swapped TO goods, aside TO swapped"
    pair = make_pair(SCRIPT + "CREATE TABLE swapped LIKE goods; CREATE TABLE part (id INT PRIMARY KEY);")
    for change, names in (
        (swap, ["goods", "swapped"]),
        ("ALTER TABLE parts EXCHANGE PARTITION a WITH TABLE part", ["parts", "part"]),
    ):
        pair.capture(change)
        assert "moveout resync " + " ".join(f"app:{name}" for name in names) in stop(pair)
        run_sql(pair.destination, change)
        assert "moveout resync" in stop(pair)
        with contextlib.closing(open_change_writer(pair.destination, {}, "app")) as writer:
            writer.begin_again(names)
            writer.end_again(names, pair.log.state(pair.base.log).end)
        pair.follow()


def test_an_alter_table_in_two_phases_counts_once_it_is_made(make_pair):
    pair = make_pair(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT, c INT); INSERT INTO t VALUES (1, 1, 1), (2, 1, 1)"
    )
    two_phases = "SET SESSION binlog_alter_two_phase = ON"
    with pytest.raises(pymysql.err.IntegrityError):
        run_sql(pair.source, f"{two_phases}; ALTER TABLE t DROP COLUMN c, ADD UNIQUE (v)")
    pair.follow("INSERT INTO t VALUES (3, 3, 3)")
    pair.capture(f"{two_phases}; ALTER TABLE t DROP COLUMN c")
    assert "ALTER TABLE t DROP COLUMN c" in stop(pair)
    run_sql(pair.destination, "ALTER TABLE t DROP COLUMN c")
    pair.follow("INSERT INTO t VALUES (4, 4)")


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ("SELECT 9 INTO OUTFILE 'x.txt'; LOAD DATA INFILE 'x.txt' INTO TABLE parent", "LOAD DATA"),
        ("DO writes(7)", "`writes`(7)"),
        ("DROP DATABASE {database}; CREATE DATABASE {database}", "was dropped"),
    ],
)
def test_what_the_log_does_not_say_stops(make_pair, statements, words):
    pair = make_pair(SCRIPT + WRITES)
    database = parse_url(pair.source).database
    pair.capture("SET SESSION binlog_format = 'STATEMENT';" + statements.format(database=database))
    assert "take the base again" in stop(pair, words)


def test_without_names_of_columns_nothing_is_applied(make_pair):
    pair = make_pair(SCRIPT)
    with global_settings(pair.source, binlog_row_metadata="MINIMAL"):
        pair.capture(
            "ALTER TABLE child RENAME COLUMN id TO parent, RENAME COLUMN parent TO id; UPDATE child SET id = 9"
        )
    assert "moveout resync app:child" in stop(pair, "`child`", "binlog_row_metadata")


def test_a_change_that_is_larger_than_a_statement_arrives_or_is_named(make_pair):
    pair = make_pair("CREATE TABLE t (id INT PRIMARY KEY, v LONGTEXT)")
    with global_settings(pair.destination, max_allowed_packet=2**20):
        pair.follow("INSERT INTO t VALUES (1, REPEAT('x', 1000000))")
        pair.capture("UPDATE t SET v = REPEAT('y', 1500000)")
        assert "SET GLOBAL max_allowed_packet = 3145728" in stop(pair, "max_allowed_packet is 1048576")


@pytest.mark.parametrize(
    ("name", "value"),
    [("slave_exec_mode", "IDEMPOTENT"), ("slave_type_conversions", "ALL_LOSSY,ALL_NON_LOSSY")],
)
def test_a_destination_that_would_hide_what_does_not_fit_is_refused(make_pair, name, value):
    pair = make_pair(SCRIPT)
    with global_settings(pair.destination, **{name: value}):
        with pytest.raises(NotAllowedError, match=name) as refused:
            open_change_writer(pair.destination, {}, "app")
        run_sql(pair.destination, refused.value.next_step)
        open_change_writer(pair.destination, {}, "app").close()


def test_a_log_that_leaves_the_database_out_by_now_is_named(make_pair, monkeypatch):
    pair = make_pair(SCRIPT)
    monkeypatch.setattr("exporters.mysql.changes.log.is_left_out", lambda _: True)
    with pytest.raises(SourceGoneError, match="leave this database out"):
        pair.capture("INSERT INTO parent VALUES (8)")


def test_an_event_of_an_unknown_type_is_named(make_pair, monkeypatch):
    pair = make_pair(SCRIPT)
    monkeypatch.setattr("exporters.mysql.changes.binlog_stream.ROWS", frozenset())
    with pytest.raises(SourceGoneError, match="an event of the unknown type"):
        pair.capture("INSERT INTO parent VALUES (8)")


def test_rows_of_other_tables_are_not_written_a_second_time(make_pair):
    """Here those of a table that only joins others. A base from before may have it among those that are followed."""
    pair = make_pair(
        "CREATE TABLE part (id INT) ENGINE=MyISAM;"
        "CREATE TABLE joined (id INT) ENGINE=MERGE UNION=(part) INSERT_METHOD=LAST"
    )
    assert pair.base.log["apart"] == ["joined", "part"]
    assert [table.name for table in pair.base.not_followed] == ["part"]
    pair.base.log["apart"].clear()
    run_sql(pair.destination, "INSERT INTO part VALUES (5)")
    pair.capture("INSERT INTO joined VALUES (1); TRUNCATE joined")
    pair.apply()
    assert fetch(pair.destination, "SELECT * FROM part") == [(5,)]


def test_a_table_without_transactions_at_the_destination_is_named(make_pair):
    """What a killed follow has written to it would be written once more."""
    pair = make_pair("CREATE TABLE t (id INT)")
    run_sql(pair.destination, "ALTER TABLE t ENGINE=MyISAM")
    pair.capture("INSERT INTO t VALUES (1)")
    assert "ALTER TABLE `t` ENGINE = InnoDB" in stop(pair, "the engine MyISAM")
    run_sql(pair.destination, "ALTER TABLE t ENGINE=InnoDB")
    pair.follow()


def test_labels_are_those_of_the_log_however_the_server_prints_them(make_pair):
    """It prints some characters by a backslash, and others as question marks. Each kind of label is another change."""
    pair = make_pair(
        r"CREATE TABLE moods (id INT PRIMARY KEY, e ENUM('a\nb', 'c\\d', '\0', 'it''s', '😀😀x', 'so?') NOT NULL,"
        r" s SET('\r', '😀'), l ENUM('é', '\\') CHARACTER SET latin1)"
    )
    pair.follow(
        r"INSERT INTO moods VALUES (1, '😀😀x', '\r,😀', '\\'), (2, 'a\nb', '', 'é'), (3, '\0', NULL, NULL)"
    )
    pair.capture(r"ALTER TABLE moods MODIFY e ENUM('a\nb', 'c\\d', '\0', 'its', '😀😀x', 'so?') NOT NULL")
    pair.capture("INSERT INTO moods VALUES (4, 'so?', NULL, NULL)")
    with pytest.raises(ChangeConflictError, match="has the labels"):
        pair.apply()


def test_a_question_mark_is_the_label_of_no_printable_one(make_pair):
    pair = make_pair("CREATE TABLE moods (id INT PRIMARY KEY, e ENUM('yes', '?'))")
    pair.capture("ALTER TABLE moods MODIFY e ENUM('yes', 'unknown')")
    pair.capture("INSERT INTO moods VALUES (1, 'unknown')")
    with pytest.raises(ChangeConflictError, match="has the labels 'yes', 'unknown'"):
        pair.apply()


def test_a_definition_with_bytes_that_are_no_characters_keeps_no_change_away(make_pair):
    pair = make_pair(
        "CREATE TABLE kept (id INT PRIMARY KEY, b BINARY(2) DEFAULT X'F1FF') WITH SYSTEM VERSIONING"
    )
    pair.follow("INSERT INTO kept (id) VALUES (1); UPDATE kept SET id = 2")
