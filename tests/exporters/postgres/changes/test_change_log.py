"""The change log of PostgreSQL: base and stream together have every transaction exactly once; what has no log is named;
a gap in the log is an error.
"""

import re
import struct
import time
from contextlib import contextmanager

import psycopg
import pytest

from exporters.changes import MessageKind
from exporters.connections.open_connections import shut_socket
from exporters.doctor import ExamineRequest
from exporters.errors import (
    SourceGoneError,
    SourceNotAllowedError,
    SourceUnreachableError,
    SourceUsageError,
)
from exporters.postgres.changes import log as change_log
from exporters.postgres.changes import pgoutput, replication
from exporters.postgres.changes.log import open_change_log
from exporters.postgres.changes.slot import own_name
from exporters.postgres.doctor import examine
from tests.changes.writers import writing
from tests.exporters.postgres.databases import as_role, fetch, login, run_sql
from tests.tools.waiting import eventually, stream_of


@contextmanager
def log_of(url, name="case-app"):
    """A change log, and its base; both end with the context."""
    log = open_change_log(url, {}, name)
    with log.open_base() as base:
        pass
    try:
        yield log, base
    finally:
        log.drop(base.log)


def drain(log, base, stream):
    """Return all messages up to the end of the log."""
    end, messages = log.state(base.log).end, []
    while stream.received < end:
        messages += stream.receive(0.2)
    return messages


def is_read(postgres, log):
    """Whether the server sends the changes to somebody: after a stream has ended it does for a moment."""
    slots = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
    with psycopg.connect(postgres.url) as connection:
        return connection.execute(slots, [log["slot"]]).fetchone()[0]


def first_value(message):
    """Return the first value of an inserted row."""
    (length,) = struct.unpack_from(">I", message.payload, 9)
    return message.payload[13 : 13 + length].decode()


def inserted(messages):
    return [first_value(message) for message in messages if message.payload.startswith(b"I")]


def test_a_network_that_is_cut_while_the_stream_begins_is_an_error_of_the_source(postgres, monkeypatch):
    """It passes, and is tried again."""
    url = postgres.database()
    start = replication.ReplicationStream._start

    def cut(stream, *names):
        shut_socket(stream._connection.socket)
        start(stream, *names)

    with log_of(url) as (log, base):
        with monkeypatch.context() as patched:
            patched.setattr(replication.ReplicationStream, "_start", cut)
            with pytest.raises(SourceUnreachableError), log.stream(base.log, base.position):
                pass
        eventually(lambda: not is_read(postgres, base.log))


def test_base_and_stream_have_each_transaction_once(postgres):
    """Writers commit all the time, while the base is made and read."""
    url = postgres.database()
    run_sql(url, "CREATE TABLE t (id text PRIMARY KEY, n int)")

    def write(connection, writer, number):
        connection.execute("INSERT INTO t VALUES (%s, %s)", (f"{writer}-{number}", number))
        return [f"{writer}-{number}"]

    log = open_change_log(url, {}, "each-once")
    with writing(url, write) as written:
        eventually(lambda: len(written) >= 100)
        with log.open_base() as base, psycopg.connect(url) as reader:
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            reader.execute(f"SET TRANSACTION SNAPSHOT '{base.snapshot}'")
            count = len(written)
            eventually(lambda: len(written) >= count + 200)
            in_base = {row[0] for row in reader.execute("SELECT id FROM t")}
    with log.stream(base.log, base.position) as stream:
        half = []
        while MessageKind.COMMIT not in {message.kind for message in half}:
            half += stream.receive(5)  # what has arrived, which may be a BEGIN alone
        while half[-1].kind is not MessageKind.COMMIT:  # it may end within a transaction
            half.pop()
        place = half[-1].position
    with stream_of(log, base.log, place) as stream:  # what comes after the last commit, and nothing before
        rest = drain(log, base, stream)
        stream.acknowledge(stream.received)
    followed = inserted(half) + inserted(rest)
    assert len(followed) == len(set(followed)) >= 200
    assert in_base.isdisjoint(followed)
    assert in_base | set(followed) == set(written)
    kinds = [message.kind for message in rest if message.kind is not MessageKind.SHAPE]
    assert kinds == [MessageKind.BEGIN, MessageKind.CHANGE, MessageKind.COMMIT] * (len(kinds) // 3)
    log.drop(base.log)
    log.drop(base.log)
    assert log.state(base.log).lost
    assert fetch(url, "SELECT pubname FROM pg_publication") == []


TABLES = """
CREATE TABLE keyed (id int PRIMARY KEY, v text);
CREATE TABLE "by index" (id int NOT NULL, v text); CREATE UNIQUE INDEX identity ON "by index" (id);
ALTER TABLE "by index" REPLICA IDENTITY USING INDEX identity;
CREATE TABLE "full" (a int, g int GENERATED ALWAYS AS (a + 1) STORED); ALTER TABLE "full" REPLICA IDENTITY FULL;
CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE keyless (a int);
CREATE TABLE late (id int PRIMARY KEY DEFERRABLE);
CREATE TABLE computed (a int, id int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY);
CREATE TABLE partial (id int NOT NULL, v int); ALTER TABLE partial REPLICA IDENTITY NOTHING;
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
CREATE MATERIALIZED VIEW seen AS SELECT * FROM keyed;
"""
FOLLOWED = {"keyed", "by index", "full", "parent", "child", "part"}
NOT_FOLLOWED = {"keyless", "late", "computed", "partial", "unlogged"}


def test_what_is_not_followed_is_named_and_the_application_goes_on(postgres):
    """No table refuses UPDATE or DELETE because it is followed; all remedies together bring all tables in."""
    url = postgres.database()
    run_sql(url, TABLES)
    with log_of(url) as (log, base):
        assert {row[0] for row in fetch(url, "SELECT tablename FROM pg_publication_tables")} == FOLLOWED
        assert {one.name for one in base.not_followed} == {f'"public"."{name}"' for name in NOT_FOLLOWED}
        for name in FOLLOWED | NOT_FOLLOWED | {"parts"}:
            column = "a" if name in {"full", "keyless", "computed"} else "id"
            run_sql(url, f'INSERT INTO "{name}" ({column}) VALUES (1)')
            run_sql(url, f'UPDATE "{name}" SET {column} = 2 WHERE {column} = 1')
            run_sql(url, f'DELETE FROM "{name}" WHERE {column} = 2')
        run_sql(url, "TRUNCATE keyed, parts; SELECT pg_logical_emit_message(true, 'other', 'x')")
        with log.stream(base.log, base.position) as stream:
            messages = drain(log, base, stream)
        shapes = {message.tables[0] for message in messages if message.kind is MessageKind.SHAPE}
        names = fetch(url, f"SELECT relname FROM pg_class WHERE oid = ANY ('{shapes}')")
        assert {row[0] for row in names} == FOLLOWED
        truncated = [message.tables for message in messages if message.payload.startswith(b"T")]
        assert [len(tables) for tables in truncated] == [2]
        remedies = [one.remedy for one in base.not_followed]
    findings = [finding for finding in examine(ExamineRequest(url)).findings if finding.check == "changes"]
    assert set("\n".join(finding.fix.text for finding in findings).split("\n")) == set(remedies)
    for remedy in remedies:
        run_sql(url, remedy)
    with log_of(url) as (_, base):
        assert base.not_followed == []
    assert not [finding for finding in examine(ExamineRequest(url)).findings if finding.check == "changes"]


def test_tables_that_are_not_followed_any_more_are_named(postgres):
    url = postgres.database()
    run_sql(
        url,
        "".join(
            f"CREATE TABLE {name} (id int PRIMARY KEY);" for name in ("anew", "left_out", "other", "same")
        ),
    )
    with log_of(url) as (log, base):
        assert log.troubled_tables(base.log) == []
        run_sql(
            url,
            "DROP TABLE anew; CREATE TABLE anew (id int PRIMARY KEY); ALTER TABLE other RENAME TO renamed",
        )
        run_sql(url, f"ALTER PUBLICATION {base.log['publication']} DROP TABLE left_out")
        named = log.troubled_tables(base.log)
    assert [table.name for table in named] == ['"public"."anew"', '"public"."left_out"']
    assert "so its changes are not followed → moveout resync reads it again" in named[0].sentence


LATER = """
ALTER TABLE by_generated REPLICA IDENTITY USING INDEX by_generated_g_key;
ALTER TABLE by_nothing REPLICA IDENTITY NOTHING;
ALTER TABLE by_all REPLICA IDENTITY FULL;
ALTER PUBLICATION {name} SET (publish = 'insert, delete', publish_via_partition_root);
"""
TROUBLES = {
    "by_generated": "a generated column is part of its key, and the log has no values of generated columns",
    "by_nothing": "it has no primary key and no replica identity: once published, it refuses UPDATE and DELETE",
}


def test_a_publication_or_a_replica_identity_that_was_altered_since_the_base_is_named_with_what_mends_it(
    postgres,
):
    url = postgres.database()
    if int(fetch(url, "SHOW server_version_num")[0][0]) >= 180000:
        pytest.skip("it refuses UPDATE and DELETE of such a table, and has words of its own")
    columns = "id int PRIMARY KEY, g int GENERATED ALWAYS AS (id) STORED UNIQUE NOT NULL"
    run_sql(url, "".join(f"CREATE TABLE {name} ({columns});" for name in (*TROUBLES, "by_all", "same")))
    with log_of(url) as (log, base):
        name = f'"{base.log["publication"]}"'
        every = {("public", table) for table in (*TROUBLES, "by_all", "same")}
        assert (log.troubled_tables(base.log), log.logged_tables(base.log)) == ([], every)
        run_sql(url, LATER.format(name=name))
        publication, *tables = log.troubled_tables(base.log)
        assert {table.name: table.reason for table in tables} == {
            f'"public"."{table}"': reason for table, reason in TROUBLES.items()
        }
        assert (publication.name, log.logged_tables(base.log)) == (f"publication {name}", frozenset())
        assert "moveout resync of each table" in publication.remedy
        for trouble in (publication, *tables):
            run_sql(url, trouble.remedy.removeprefix("at the source: ").partition(";")[0])
        assert (log.troubled_tables(base.log), log.logged_tables(base.log)) == ([], every)
        if fetch(url, "SELECT current_setting('server_version_num')::int >= 150000")[0][0]:
            run_sql(
                url, f"ALTER PUBLICATION {name} DROP TABLE same; ALTER PUBLICATION {name} ADD TABLE same (id)"
            )
            (part,) = log.troubled_tables(base.log)
            assert "only some of its rows or columns" in part.sentence
            assert log.logged_tables(base.log) == every - {("public", "same")}


def test_a_gap_in_the_log_is_an_error(postgres):
    """The server would go on behind the gap without a word."""
    url = postgres.database()
    run_sql(url, "CREATE TABLE t (id int PRIMARY KEY)")
    with log_of(url) as (log, base):
        run_sql(url, "INSERT INTO t VALUES (1)")
        with log.stream(base.log, base.position) as stream:
            drain(log, base, stream)
            with (
                pytest.raises(SourceUnreachableError, match="somebody else reads"),
                log.stream(base.log, base.position),
            ):
                pass
            assert log.state(base.log).is_read
            stream.acknowledge(stream.received)
            while log.state(base.log).acknowledged < stream.received:
                time.sleep(0.05)
        with pytest.raises(SourceGoneError, match="are gone"), stream_of(log, base.log, base.position):
            pass
        state = log.state(base.log)
        with (
            pytest.raises(SourceGoneError, match="earlier state"),
            stream_of(log, base.log, state.end + 2**30),
        ):
            pass
        other = {**base.log, "system": "1"}
        with pytest.raises(SourceGoneError, match="another server"), stream_of(log, other, state.end):
            pass
        with stream_of(log, base.log, state.end):
            pass
        log.drop(base.log)
        with pytest.raises(SourceGoneError, match="does not exist"), log.stream(base.log, state.end):
            pass


def test_a_slow_location_does_not_end_the_stream(postgres, monkeypatch):
    url = postgres.database()
    run_sql(url, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    run_sql(postgres.url, f"ALTER DATABASE {url.rpartition('/')[2]} SET wal_sender_timeout = '3s'")
    monkeypatch.setattr(replication, "_FEEDBACK_SECONDS", 0.4)
    with log_of(url) as (log, base):
        # more than fits into the buffers between: the server waits within a transaction
        run_sql(url, "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g")
        with log.stream(base.log, base.position) as stream:
            time.sleep(5)
            assert len(inserted(drain(log, base, stream))) == 20_000


def test_bytes_that_are_no_utf8_do_not_end_the_stream(postgres):
    postgres.execute("CREATE DATABASE raw_bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    url = postgres.url_of("raw_bytes")
    run_sql(url, "CREATE TABLE t (v text PRIMARY KEY)")
    with log_of(url) as (log, base), psycopg.connect(url, client_encoding="SQL_ASCII") as connection:
        connection.execute(b"INSERT INTO t VALUES ('gr\xfc\xdfe')")
        connection.commit()
        with log.stream(base.log, base.position) as stream:
            [change] = [m for m in drain(log, base, stream) if m.kind is MessageKind.CHANGE]
    assert pgoutput.decode(change.payload).new == (b"gr\xfc\xdfe",)


def test_an_open_transaction_is_waited_for_and_named(postgres, monkeypatch):
    url = postgres.database()
    run_sql(url, "CREATE TABLE t (id int PRIMARY KEY)")
    notes, log = [], open_change_log(url, {}, "waits")
    with psycopg.connect(url, application_name="nightly-report") as other:
        other.execute("INSERT INTO t VALUES (1)")

        def note(text):
            notes.append(text)
            other.commit()

        with log.open_base(note) as base:
            assert log.state(base.log).acknowledged == base.position
        other.execute("INSERT INTO t VALUES (2)")
        with log.reread(base.log, "public", "t", note):
            pass
        session = other.info.backend_pid
    assert len(notes) == 2
    for named in notes:
        assert re.search(r"^waiting for [0-9]+ s: session .*nightly-report", named), notes
        assert named.endswith(f"; let it end, or: SELECT pg_terminate_backend({session})")
    with pytest.raises(ZeroDivisionError), log.open_base() as base:
        1 / 0  # noqa: B018
    assert log.state(base.log).lost


def test_a_table_is_not_read_again_where_a_transaction_stays_open_and_who_holds_it_is_named(
    postgres, monkeypatch
):
    monkeypatch.setattr(change_log, "_WAIT_SECONDS", 4.0)
    url, notes = postgres.database(), []
    run_sql(url, "CREATE TABLE t (id int PRIMARY KEY)")
    with log_of(url) as (log, base):
        with psycopg.connect(url, application_name="nightly-report") as other:
            other.execute("INSERT INTO t VALUES (1)")
            session = other.info.backend_pid
            with (
                pytest.raises(SourceUnreachableError, match=r"t. cannot be read again: .*nightly") as refused,
                log.reread(base.log, "public", "t", notes.append),
            ):
                pass
            assert f"pg_terminate_backend({session})" in refused.value.next_step
            assert len(notes) == 1
        with log.reread(base.log, "public", "t", notes.append):
            pass
        slots = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        assert fetch(url, slots) == [(base.log["slot"],)]


def test_the_least_privileges_are_enough(postgres):
    """REPLICATION, owner of the tables, CREATE on the database; what lacks is an error with the statement."""
    url = login(postgres, "change_reader")
    database = url.rpartition("/")[2]
    run_sql(
        url,
        "CREATE TABLE own (id int PRIMARY KEY); ALTER TABLE own OWNER TO change_reader;"
        "CREATE TABLE others (id int PRIMARY KEY); GRANT SELECT ON others TO change_reader",
    )
    log = open_change_log(as_role(url, "change_reader"), {"password": postgres.password}, "least")
    for statement in (
        'ALTER ROLE "change_reader" REPLICATION;',
        f'GRANT CREATE ON DATABASE "{database}" TO "change_reader";',
    ):
        with pytest.raises(SourceNotAllowedError) as error, log.open_base():
            pass
        assert error.value.next_step == statement
        run_sql(url, statement)
    with log.open_base() as base:
        assert [(one.name, one.remedy) for one in base.not_followed] == [
            ('"public"."others"', 'GRANT "postgres" TO "change_reader";')
        ]
        with log.stream(base.log, base.position) as stream:
            run_sql(url, "INSERT INTO own VALUES (7)")
            assert inserted(drain(log, base, stream)) == ["7"]
    log.drop(base.log)


def test_names_differ_where_what_a_server_takes_of_them_is_the_same():
    names = ["app", "App", "a-pp", "x" * 80, "x" * 81, "é"]
    own = [own_name(name) for name in names]
    assert len(set(own)) == len(own)
    assert all(len(name) <= 63 and name.isascii() and name == name.lower() for name in own)
    assert own[0] == "moveout_app"


def test_a_server_without_a_free_slot_says_how_to_free_one(servers):
    server = servers.postgres("one-slot", settings=["wal_level=logical", "max_replication_slots=1"])
    try:
        run_sql(server.url, "CREATE TABLE t (id int PRIMARY KEY)")
        run_sql(server.url, "SELECT pg_create_logical_replication_slot('taken', 'pgoutput')")
        log = open_change_log(server.url, {}, "second")
        with pytest.raises(SourceUnreachableError, match="all replication slots are in use") as error:
            log.open_base().__enter__()
        assert "moveout clean --changes" in error.value.next_step
        assert fetch(server.url, "SELECT count(*) FROM pg_publication") == [(0,)]
    finally:
        servers.end(server)


def test_a_server_without_logical_decoding_says_what_it_needs(other_postgres):
    log = open_change_log(other_postgres.url, {}, "none")
    with pytest.raises(SourceUsageError, match="wal_level is replica") as error, log.open_base():
        pass
    assert "ALTER SYSTEM SET wal_level = logical" in error.value.next_step
    fixes = [
        finding.fix.text for finding in examine(ExamineRequest(other_postgres.url)).findings if finding.fix
    ]
    assert any("ALTER SYSTEM SET wal_level = logical;" in text for text in fixes)
