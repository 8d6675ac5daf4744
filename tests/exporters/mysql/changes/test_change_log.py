"""The change log of MariaDB: what is committed after the base arrives once, and what can no longer arrive is named."""

import os
import secrets
import struct
import threading
import time
import zlib
from contextlib import ExitStack
from types import SimpleNamespace

import pymysql
import pytest

from exporters.changes import MessageKind
from exporters.errors import SourceGoneError, SourceNotAllowedError, SourceStateError, SourceUnreachableError
from exporters.mysql.changes.binlog_events import EventType, event_type
from exporters.mysql.changes.binlog_files import number_of, split_position
from exporters.mysql.changes.log import open_change_log
from exporters.mysql.connection import parse_url
from tests.exporters.mysql.databases import fetch, open_database, run_sql
from tests.tools.mysql_settings import global_settings
from tests.tools.waiting import eventually

SCRIPT = """
CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT); CREATE TABLE plain (id INT) ENGINE=MyISAM;
CREATE SEQUENCE numbers; CREATE TABLE places (at POINT NOT NULL, n INT, SPATIAL KEY (at));
  INSERT INTO places VALUES (POINT(1, 2), 1);
"""
SERVER_ID = 1
CHANGE, COMMIT = MessageKind.CHANGE, MessageKind.COMMIT


@pytest.fixture
def url(followed_mariadb):
    url = followed_mariadb.database()
    run_sql(url, SCRIPT)
    return url


def received(log, base, after, *, until=None):
    """What arrives from a position on until where the log ends now; and up to where."""
    end, messages = until or log.state(base.log).end, []
    with log.stream(base.log, after) as stream:
        while stream.received < end:
            messages += stream.receive(0.2)
        return messages, stream.received


def shown(messages):
    return [message.kind.name for message in messages if message.kind is not MessageKind.SHAPE]


def test_transactions_of_one_database_arrive_over_files_and_sessions(url, followed_mariadb):
    log = open_change_log(url, {}, f"case-{secrets.token_hex(4)}")
    with log.open_base() as base:
        assert base.snapshot == "global read lock"
    assert [table.name for table in base.not_followed] == ["places", "plain"]
    other = followed_mariadb.database()
    run_sql(other, "CREATE TABLE t (id INT); INSERT INTO t VALUES (1)")
    run_sql(
        url, "INSERT INTO plain VALUES (1); UPDATE places SET n = 2; SELECT NEXTVAL(numbers); ANALYZE TABLE t"
    )
    assert shown(received(log, base, base.position)[0]) == []
    with open_database(url) as session, session.cursor() as cursor:
        for statement in ("BEGIN", "INSERT INTO t VALUES (1, 'a')", "UPDATE t SET v = 'b'"):
            cursor.execute(statement)
        messages, place = received(log, base, base.position)
        assert messages == [] or shown(messages) == []  # it is not committed
        cursor.execute("COMMIT")
    run_sql(url, "FLUSH BINARY LOGS; TRUNCATE t; INSERT INTO t (v) VALUES (REPEAT('x', 100000))")
    messages, end = received(log, base, place)
    one = ["BEGIN", "CHANGE", "COMMIT"]
    assert shown(messages) == ["BEGIN", "CHANGE", "CHANGE", "COMMIT", *one, *one]
    truncates = [event_type(message.payload) for message in messages if message.kind is CHANGE][2]
    assert truncates == EventType.QUERY
    commits = [message.position for message in messages if message.kind is COMMIT]
    assert shown(received(log, base, commits[0])[0]) == [*one, *one]
    assert shown(received(log, base, commits[-1])[0]) == []
    eventually(lambda: not log.state(base.log, end).is_read)  # the server ends the session of the reader
    state = log.state(base.log, end)
    assert (state.lost, state.is_read) == ("", False)
    assert state.retained_bytes == log.distance_bytes(end, state.end)
    assert log.distance_bytes(base.position, state.end) > 100_000
    assert log.show(base.position).startswith("binlog.00000")


def begin_of_stream(position):
    """Return what a server sends first where its log is asked for from a position on: the file's name, a checksum."""
    file, offset = split_position(position)
    name = f"binlog.{file:06d}".encode()
    size = 19 + 8 + len(name) + 4
    event = struct.pack("<IBIIIHQ", 0, EventType.ROTATE, SERVER_ID, size, 0, 0x20, offset) + name
    return event + zlib.crc32(event).to_bytes(4, "little")


def test_the_checksum_behind_the_name_of_the_first_file_is_no_part_of_it(url):
    """The server says later that there are checksums. One of some thousand looks like the end of another name."""
    log = open_change_log(url, {}, f"case-{secrets.token_hex(4)}")
    with log.open_base() as base:
        pass

    def end_after(padding):
        run_sql(url, f"INSERT INTO t (v) VALUES (REPEAT('x', {padding:06d}))")
        return log.state(base.log).end

    def misleads(position):
        name = begin_of_stream(position)[27:].split(b"\0")[0].decode(errors="replace")
        return number_of(name) > split_position(position)[0]

    first, second = end_after(50_000), end_after(50_000)
    least = second + (second - first - 50_000) + 1
    misleading = next(filter(misleads, range(least, least + 900_000)))
    assert end_after(misleading - least + 1) == misleading
    end = end_after(10)
    messages, place = received(log, base, misleading, until=end)
    assert (shown(messages), place) == (["BEGIN", "CHANGE", "COMMIT"], end)


@pytest.mark.torture
def test_base_and_log_have_each_row_once_while_many_write(url):
    """What the base's sessions see and what the log sends later are all rows, and none twice."""
    stop = threading.Event()

    def write():
        with open_database(url) as session, session.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("INSERT INTO t (v) VALUES ('x')")

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    try:
        log = open_change_log(url, {}, f"case-{secrets.token_hex(4)}")
        for _ in range(5):
            with open_database(url) as session, session.cursor() as cursor:
                with log.open_base() as base:
                    cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
                cursor.execute("SELECT COUNT(*) FROM t")
                ((before,),) = cursor.fetchall()
            time.sleep(0.2)
            with log.open_base() as later, open_database(url) as session, session.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM t")
                ((after,),) = cursor.fetchall()
            messages, _ = received(log, base, base.position, until=later.position)
            commits = [m for m in messages if m.kind is COMMIT and m.position <= later.position]
            assert after - before == len(commits) > 0
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_a_reader_that_ends_leaves_the_next_one_alone(url):
    """The server may have seen its end before, and have let the next one in."""
    log = open_change_log(url, {}, f"case-{secrets.token_hex(4)}")
    with log.open_base() as base:
        pass
    with ExitStack() as stack:
        with log.stream(base.log, base.position):
            log.drop(base.log, even_if_read=True)
            following = stack.enter_context(log.stream(base.log, base.position))
        run_sql(url, "INSERT INTO t (v) VALUES ('x')")
        messages = []
        while "COMMIT" not in shown(messages):
            messages += following.receive(5)


def test_what_the_server_refuses_to_send_is_named(url):
    """As where the log is purged between the look at its files and the request: here a place within an event."""
    log = open_change_log(url, {}, f"case-{secrets.token_hex(4)}")
    with log.open_base() as base:
        pass
    run_sql(url, "INSERT INTO t (v) VALUES ('a')")
    after = base.position + 1
    words = (
        f"the changes after {log.show(after)} cannot be read: the server does not send its binary log on: "
    )
    with pytest.raises(SourceGoneError, match=words):
        received(log, base, after)


def purge(url, newest):
    """Have a server remove its older files, which it keeps as long as a session that was closed still reads them."""
    deadline = time.monotonic() + 60
    while fetch(url, "SHOW BINARY LOGS")[0][0] != newest:
        assert time.monotonic() < deadline
        run_sql(url, f"PURGE BINARY LOGS TO '{newest}'")
        time.sleep(0.1)


def test_the_history_of_a_table_needs_its_long_values_in_the_log(url):
    """Whoever repeats changes without them writes NULL into it, and moveout cannot change it afterwards."""
    with global_settings(url, binlog_row_image="NOBLOB"):
        log = open_change_log(url, {}, "history")
        with log.open_base():
            pass
        run_sql(url, "CREATE TABLE kept (id INT PRIMARY KEY, v TEXT) WITH SYSTEM VERSIONING")
        with pytest.raises(SourceNotAllowedError, match="the history of `kept`") as refused, log.open_base():
            pass
    assert "SET GLOBAL binlog_row_image = 'FULL'" in refused.value.next_step


def test_what_is_gone_or_not_allowed_is_named(url, followed_mariadb, monkeypatch):
    log = open_change_log(url, {}, f"case-{secrets.token_hex(4)}")
    with log.open_base() as base:
        pass
    monkeypatch.setattr("exporters.mysql.changes.log._LOCK_SECONDS", 1)
    second = log.stream(base.log, base.position)
    with (
        log.stream(base.log, base.position),
        pytest.raises(SourceUnreachableError, match="somebody else reads"),
        second,
    ):
        pass
    with pytest.raises(SourceGoneError, match="another server"), log.stream({**base.log, "server": "x"}, 1):
        pass
    run_sql(url, "FLUSH BINARY LOGS; FLUSH BINARY LOGS")
    newest = fetch(url, "SHOW BINARY LOGS")[-1][0]
    purge(url, newest)
    words = f"the changes after {log.show(base.position)} are gone: the server has purged .* {newest}:4"
    with pytest.raises(SourceGoneError, match=words), log.stream(base.log, base.position):
        pass
    assert newest in log.state(base.log, base.position).lost
    beyond = base.position + (1 << 50)
    with pytest.raises(SourceGoneError, match="binary log ends at"), log.stream(base.log, beyond):
        pass

    run_sql(url, "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1")
    try:
        with pytest.raises(SourceNotAllowedError, match="replica that does not log"), log.open_base():
            pass
    finally:
        run_sql(url, "RESET SLAVE ALL")

    user, name = f"u_{secrets.token_hex(4)}", parse_url(url).database
    run_sql(url, f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY '{followed_mariadb.password}'")
    poor = open_change_log(followed_mariadb.url_of(name, user), {}, "poor")
    for right, on in (("SELECT", f"{name}.*"), ("REPLICATION SLAVE", "*.*"), ("BINLOG MONITOR", "*.*")):
        run_sql(url, f"GRANT {right} ON {on} TO {user}@'127.0.0.1'")
        with pytest.raises(SourceNotAllowedError) as refused, poor.open_base():
            pass
        assert "GRANT " in refused.value.next_step
    run_sql(url, f"GRANT LOCK TABLES ON {name}.* TO {user}@'127.0.0.1'")
    with poor.open_base() as base:
        assert base.snapshot == "table locks"
    run_sql(url, "INSERT INTO t VALUES (1, 'a')")
    assert shown(received(poor, base, base.position)[0]) == ["BEGIN", "CHANGE", "COMMIT"]
    with pytest.raises(pymysql.Error):
        run_sql(followed_mariadb.url_of(name, user), "INSERT INTO t VALUES (2, 'a')")


def test_a_transaction_whose_end_the_log_has_lost_is_named(url, followed_mariadb):
    """A crash may take it, and the server goes on in another file. Rows of it must not become the next one's."""
    log = open_change_log(url, {}, f"case-{secrets.token_hex(4)}")
    with log.open_base() as base:
        pass
    run_sql(url, "BEGIN; INSERT INTO t (v) VALUES ('lost'); COMMIT")
    with open_database(url) as session, session.cursor() as cursor:
        cursor.execute("SHOW MASTER STATUS")
        name = cursor.fetchone()[0]
        cursor.execute(f"SHOW BINLOG EVENTS IN '{name}'")
        at = [row[1] for row in cursor.fetchall() if row[2] == "Xid"][-1]
    run_sql(url, "FLUSH BINARY LOGS; INSERT INTO t (v) VALUES ('kept')")
    os.truncate(followed_mariadb.directory / "data" / name, at)
    with pytest.raises(SourceGoneError, match="lost the end of a transaction"):
        received(log, base, base.position)


@pytest.mark.parametrize("origin", ["x:1", "1:-1", "1", "1:99999999999", "\u0661:1"])
def test_an_origin_that_none_has_written_is_damage(url, origin):
    log = open_change_log(url, {}, f"case-{secrets.token_hex(4)}")
    with log.open_base() as base:
        pass
    captured = SimpleNamespace(origin=lambda: origin)
    with pytest.raises(SourceStateError, match="is damaged"), log.stream(base.log, base.position, captured):
        pass
