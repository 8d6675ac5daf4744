"""Changes of MariaDB are applied by its statement BINLOG: all types, keys, cascades, TRUNCATE; conflicts are named."""

import secrets
from pathlib import Path

import pytest

from exporters.mysql.connection import parse_url
from migrate.changes.apply import ChangeConflictError
from migrate.changes.segments import SegmentFolder
from migrate.errors import BusyError, NotAllowedError
from migrate.restore.mysql.changes import change_writer
from migrate.restore.mysql.changes.change_writer import open_change_writer
from migrate.restore.mysql.changes.follow_marks import run_events, start_events, stop_events
from migrate.storage.registry import open_location
from tests.exporters.mysql.databases import fetch, open_database, run_sql, session
from tests.restore.mysql.changes.conftest import mark_base
from tests.tools.mysql_settings import global_settings

TYPES = Path("tests/exporters/mysql/torture.sql")
SCRIPT = """
CREATE TABLE parent (id INT PRIMARY KEY, name VARCHAR(20) CHARACTER SET latin1, big BIGINT UNSIGNED, d DECIMAL(20,5),
  at DATETIME(3), e ENUM('a', 'b'), s SET('x', 'y'), j JSON, twice BIGINT AS (id * 2) VIRTUAL,
  hid INT INVISIBLE DEFAULT 3);
CREATE TABLE child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES parent (id)
  ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE orphan (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE SET NULL);
CREATE TABLE keyless (n INT, t TEXT);
CREATE TABLE audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(40));
CREATE TABLE versioned (id INT PRIMARY KEY, v TEXT) WITH SYSTEM VERSIONING;
CREATE TABLE zipped (id INT PRIMARY KEY, t TEXT COMPRESSED);
CREATE TABLE plain (id INT) ENGINE=MyISAM;
CREATE TRIGGER noted AFTER INSERT ON parent FOR EACH ROW INSERT INTO audit (what) VALUES (NEW.name);
CREATE TRIGGER gone BEFORE DELETE ON keyless FOR EACH ROW INSERT INTO audit (what) VALUES ('gone');
CREATE EVENT often ON SCHEDULE EVERY 1 HOUR DO INSERT INTO audit (what) VALUES ('event');
"""
ALL = """
INSERT INTO parent (id, name, big, d, at, e, s, j) VALUES
  (1, 'é', 18446744073709551615, -0.00001, '0000-00-00', 'b', 'x,y', '{"a": 1}'), (2, NULL, 0, 1, NULL, 'a', '', NULL),
  (3, 'c', 3, 3, '2001-02-03 04:05:06.789', NULL, NULL, '[]');
INSERT INTO child VALUES (1, 1), (2, 2), (3, 3); INSERT INTO orphan VALUES (1, NULL), (2, 3);
UPDATE parent SET id = id + 10 WHERE id = 1; DELETE FROM parent WHERE id = 2; DELETE FROM parent WHERE id = 3;
INSERT INTO keyless VALUES (1, 'a'), (1, 'a'), (1, 'a'), (NULL, NULL), (2, REPEAT('long', 10000));
DELETE FROM keyless WHERE n = 1 LIMIT 1; UPDATE keyless SET t = 'b' WHERE n = 1 LIMIT 1;
DELETE FROM keyless WHERE n IS NULL;
INSERT INTO versioned VALUES (1, 'a'); UPDATE versioned SET v = 'b'; INSERT INTO zipped VALUES (1, REPEAT('z', 1000));
BEGIN; INSERT INTO audit (what) VALUES ('kept'); SAVEPOINT a; INSERT INTO audit (what) VALUES ('undone');
ROLLBACK TO a; INSERT INTO audit (what) VALUES ('kept, too'); COMMIT;
REPLACE INTO child VALUES (1, 11); INSERT INTO child VALUES (1, 11) ON DUPLICATE KEY UPDATE parent = 11;
UPDATE parent, child SET parent.d = 5, child.id = 9 WHERE child.parent = parent.id;
INSERT INTO keyless SELECT seq, 'many' FROM seq_1_to_5000; UPDATE keyless SET n = n + 1 WHERE t = 'many' AND n < 100;
SET SESSION binlog_row_image = 'MINIMAL'; UPDATE parent SET d = 6; DELETE FROM child;
SET SESSION binlog_row_image = 'FULL'
"""


def test_events_that_are_stopped_and_run_again_keep_the_charset_of_their_text(mariadb):
    """The server notes that of whoever alters an event, and reads what it has kept of the text by it. The database's
    name need not be of that charset.
    """
    url = mariadb.database(f"данные_{secrets.token_hex(4)}")
    with open_database(url) as connection, connection.cursor() as cursor:
        cursor.execute("SET NAMES latin1 COLLATE latin1_german2_ci")
        cursor.execute("CREATE EVENT é ON SCHEDULE AT '2037-01-01' DO SELECT 'é'".encode("latin1"))
    query = (
        "SELECT STATUS, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, EVENT_DEFINITION FROM information_schema.EVENTS"
        " WHERE EVENT_SCHEMA = DATABASE()"
    )
    others = ("latin1", "latin1_german2_ci", "SELECT 'é'")
    connection = session(url)
    for change, status in ((stop_events, "DISABLED"), (run_events, "ENABLED")):
        change(connection, ["é"])
        assert fetch(url, query) == [(status, *others)]
    assert connection.value("SELECT @@SESSION.collation_connection") == "utf8mb4_general_ci"
    connection.close()


TAKEN_BACK = """
INSERT INTO keyless VALUES (1, 'kept'); INSERT INTO audit (what) VALUES ('kept');
BEGIN; INSERT INTO keyless VALUES (2, REPEAT('no', 900)); SAVEPOINT a; DELETE FROM audit;
CREATE TEMPORARY TABLE some AS SELECT 1; UPDATE keyless SET n = 3; ROLLBACK;
INSERT INTO keyless VALUES (4, 'kept, too')
"""


@pytest.mark.parametrize("statement_bytes", [2**20, 1000])
def test_what_was_logged_and_rolled_back_is_undone(make_pair, monkeypatch, statement_bytes):
    """Such a transaction is in the log where it has done what no server takes back: a temporary table, say. Some of it
    may be written before its end comes.
    """
    monkeypatch.setattr(change_writer, "_STATEMENT_BYTES", statement_bytes)
    pair = make_pair(SCRIPT)
    pair.follow(TAKEN_BACK)
    assert fetch(pair.destination, "SELECT n FROM keyless ORDER BY n") == [(1,), (4,)]


def test_what_a_source_does_arrives(make_pair):
    pair = make_pair(SCRIPT, ("often",))
    pair.follow(ALL)
    assert fetch(pair.destination, "SELECT parent FROM orphan ORDER BY id") == [(None,), (None,)]
    status = "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()"
    assert fetch(pair.destination, status) == [("DISABLED",)]
    start_events(pair.destination, {}, "app")
    assert fetch(pair.destination, status) == [("ENABLED",)]
    before = fetch(pair.destination, "SELECT COUNT(*) FROM audit")
    pair.follow("TRUNCATE keyless; INSERT INTO keyless VALUES (7, 'after'); TRUNCATE TABLE `keyless`")
    assert fetch(pair.destination, "SELECT COUNT(*) FROM audit") == before  # no trigger acted
    with global_settings(pair.source, log_bin_compress=1, log_bin_compress_min_len=10):
        pair.follow(
            "INSERT INTO keyless VALUES (1, REPEAT('x', 500)); TRUNCATE /* a comment */ TABLE keyless"
        )
    assert pair.single_changes == 0
    run_sql(pair.source, "FLUSH BINARY LOGS")
    pair.follow("INSERT INTO keyless VALUES (1, 'in another file')")


def test_every_type_arrives_as_it_was(make_pair, followed_mariadb):
    pair = make_pair(TYPES.read_text())
    copy = parse_url(followed_mariadb.database()).database
    names = [
        row[0]
        for row in fetch(pair.source, "SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")
        if not row[0].startswith("moveout")
    ]
    script = [
        "SET foreign_key_checks = 0, sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00'"
    ]
    for name in names:
        label = "`" + name.replace("`", "``") + "`"
        columns = ", ".join(
            "`" + row[0].replace("`", "``") + "`"
            for row in fetch(pair.source, f"SHOW COLUMNS FROM {label}")
            if "GENERATED" not in row[5].upper()
        )
        script += [
            f"CREATE TABLE `{copy}`.{label} AS SELECT {columns} FROM {label}",
            f"DELETE FROM {label}",
            f"INSERT INTO {label} ({columns}) SELECT {columns} FROM `{copy}`.{label}",
        ]
    pair.capture("; ".join(script))
    for url in (pair.source, pair.destination):
        run_sql(url, "DROP TABLE old_engine")  # its changes do not follow
    pair.capture()
    pair.apply()
    pair.assert_equal()
    assert pair.single_changes == 0


def test_what_does_not_fit_is_named(make_pair, other_mariadb):
    pair = make_pair(SCRIPT + "INSERT INTO parent (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    run_sql(pair.destination, "DELETE FROM parent WHERE id = 2")
    pair.capture("UPDATE parent SET name = 'x' WHERE id = 1; UPDATE parent SET name = 'y' WHERE id >= 2")
    with pytest.raises(ChangeConflictError) as refused:
        pair.apply()
    for words in (
        "UPDATE of `parent` at binlog.",
        "key (id = 2)",
        "name = 'y'",
        "the destination has no such row",
    ):
        assert words in str(refused.value)
    assert fetch(pair.destination, "SELECT name FROM parent ORDER BY id") == [("x",), ("c",)]
    run_sql(pair.destination, "INSERT INTO parent (id, name) VALUES (2, 'b'); DELETE FROM audit WHERE id > 3")
    pair.follow()

    run_sql(pair.destination, "INSERT INTO child VALUES (5, 1)")
    pair.capture("INSERT INTO child VALUES (5, 2)")
    with pytest.raises(
        ChangeConflictError,
        match=r"INSERT of `child`.*\(id = 5\).*the destination's row \(id = 5, parent = 1",
    ):
        pair.apply()
    run_sql(pair.destination, "DELETE FROM child")
    pair.follow()

    change = "ALTER TABLE parent ADD COLUMN more INT AFTER id"
    pair.capture(f"{change}; UPDATE parent SET big = COALESCE(big, 0) + 1")
    with pytest.raises(ChangeConflictError) as stopped:
        pair.apply()
    assert stopped.value.next_step.count("ADD COLUMN more INT") == 1
    run_sql(pair.destination, change)
    pair.follow()

    pair.capture("SET SESSION binlog_format = 'STATEMENT'; INSERT INTO child VALUES (77, 1)")
    with pytest.raises(ChangeConflictError, match="was logged as a statement"):
        pair.apply()
    again = make_pair(SCRIPT)
    again.capture(
        "XA START 'x'; INSERT INTO keyless VALUES (1, 'x'); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'"
    )
    with pytest.raises(ChangeConflictError, match="XA PREPARE"):
        again.apply()
    assert fetch(again.destination, "SELECT COUNT(*) FROM keyless") == [(0,)]


def test_rights_and_a_second_writer_are_named(make_pair, other_mariadb, monkeypatch):
    pair = make_pair("CREATE TABLE t (id INT PRIMARY KEY)")
    monkeypatch.setattr("migrate.restore.mysql.changes.change_writer._LOCK_SECONDS", 1)
    monkeypatch.setattr("migrate.restore.mysql.changes.change_writer.command_name", lambda: "moveout follow")
    writer = open_change_writer(pair.destination, {}, "app")
    with pytest.raises(BusyError, match=r"^moveout follow applies the changes of app to .* already$") as busy:
        open_change_writer(pair.destination, {}, "app")
    assert busy.value.next_step == f"end it, or its session: KILL {writer._connection.raw.thread_id()}"
    writer.forget()
    assert fetch(pair.destination, "SHOW TABLES") == [("t",)]
    writer.close()
    mark_base(pair.destination, "app", pair.base)
    user, name = f"u_{secrets.token_hex(4)}", parse_url(pair.destination).database
    account = f"{user}@'127.0.0.1'"
    run_sql(pair.destination, f"CREATE USER {account} IDENTIFIED BY '{other_mariadb.password}'")
    run_sql(pair.destination, f"GRANT ALL ON {name}.* TO {account}")
    url = other_mariadb.url_of(name, user)
    with pytest.raises(NotAllowedError) as refused:
        open_change_writer(url, {}, "app")
    run_sql(pair.destination, refused.value.next_step)
    pair.capture("INSERT INTO t VALUES (1), (2)")
    pair.apply(url)
    pair.assert_equal()


@pytest.mark.parametrize("is_permitted", [True, False])
def test_what_another_database_commits_after_a_new_start_stops_nothing(
    make_pair, followed_mariadb, monkeypatch, is_permitted
):
    """Its rows had come by, and were not ours."""
    pair, other = make_pair("CREATE TABLE t (id INT PRIMARY KEY)"), followed_mariadb.database()
    run_sql(other, "CREATE TABLE t (id INT PRIMARY KEY)")
    if not is_permitted:
        pair.base.log["prepared"] = None
    with open_database(other) as connection, connection.cursor() as cursor:
        for statement in ("START", "END", "PREPARE"):
            cursor.execute(f"XA {statement} 'r', '', 1")
            if statement == "START":
                cursor.execute("INSERT INTO t VALUES (1)")
        pair.capture("INSERT INTO t VALUES (1)")
        cursor.execute("XA COMMIT 'r', '', 1")
    pair.capture("INSERT INTO t VALUES (2)")
    if is_permitted:
        pair.apply()
        pair.assert_equal()
    else:
        with pytest.raises(ChangeConflictError, match="XA PREPARE before the log was read"):
            pair.apply()


@pytest.mark.parametrize("maker", ["make_pair", pytest.param("make_mysql_pair", marks=pytest.mark.torture)])
def test_what_was_prepared_before_the_base_stops_where_it_is_committed(maker, request, tmp_path):
    """Its rows lie before the base in the log, and no snapshot shows them."""
    pair = request.getfixturevalue(maker)("CREATE TABLE t (id INT PRIMARY KEY)")
    with open_database(pair.source) as connection, connection.cursor() as cursor:
        for statement in ("START", "END", "PREPARE"):
            cursor.execute(f"XA {statement} 'p', 'q', 7")
            if statement == "START":
                cursor.execute("INSERT INTO t VALUES (1)")
        with pair.log.open_base() as base:
            mark_base(pair.destination, "app", base)
        pair.base, pair.folder = (
            base,
            SegmentFolder(open_location(str(tmp_path)), "app", base.position),
        )
        pair.folder.begin()
        cursor.execute("XA COMMIT 'p', 'q', 7")
    pair.capture("INSERT INTO t VALUES (2)")
    with pytest.raises(ChangeConflictError, match="XA PREPARE before the log was read"):
        pair.apply()
