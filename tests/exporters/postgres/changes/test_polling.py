"""The change log behind a pooler that refuses the replication protocol: by SQL it has every transaction once."""

import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg
import pytest

from exporters.changes import MessageKind
from exporters.doctor import ExamineRequest
from exporters.errors import SourceError, SourceGoneError, SourceUnreachableError, SourceUsageError
from exporters.postgres.changes import log as change_log
from exporters.postgres.changes import polling
from exporters.postgres.changes.base_snapshot import BaseSnapshot
from exporters.postgres.changes.log import open_change_log
from exporters.postgres.changes.polling import PollingStream
from exporters.postgres.changes.replication import ReplicationStream
from exporters.postgres.doctor import examine
from exporters.postgres.sessions.connection import connect, parse_url
from tests.changes.writers import writing
from tests.exporters.postgres.changes.test_change_log import drain, inserted, log_of
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.pooler import Pooler
from tests.tools.waiting import eventually, stream_of

PREPARES = 4
TABLE = "CREATE TABLE t (id text PRIMARY KEY, n int)"


@pytest.fixture
def pooler(postgres):
    with Pooler(postgres.port) as pooler:
        yield pooler


@contextmanager
def opened(postgres, pooler, url, name="polled-log"):
    """A change log behind the pooler, and its base; both end with the context."""
    log = open_change_log(pooler.url(url), {"password": postgres.password}, name)
    with log.open_base() as base:
        pass
    try:
        yield log, base
    finally:
        log.drop(base.log, even_if_read=True)


def rows_of(url, snapshot):
    with psycopg.connect(url) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        reader.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        return {row[0] for row in reader.execute("SELECT id FROM t")}


def writers(url):
    """Writers that commit all the time, one of them prepared transactions; yields what is committed."""

    def write(connection, writer, number):
        name = f"{writer}-{number}"
        insert = f"INSERT INTO t VALUES ('{name}', 1)"
        if writer == PREPARES:
            connection.execute(f"BEGIN; {insert}; PREPARE TRANSACTION '{name}'".encode())
            time.sleep(0.02)
            connection.execute(f"COMMIT PREPARED '{name}'".encode())
        else:
            connection.execute(f"BEGIN; {insert}; SELECT pg_sleep(0.01 * {writer % 2}); COMMIT".encode())
        return [name]

    return writing(url, write, PREPARES + 1)


def test_base_and_polls_have_each_transaction_once(postgres, pooler, monkeypatch):
    """The slot is made first, so some transactions are in the snapshot and in the log: these come once."""
    monkeypatch.setattr(polling, "_REST_SECONDS", 0.02)
    url = postgres.database()
    run_sql(url, TABLE)
    log, notes = open_change_log(pooler.url(url), {"password": postgres.password}, "polled"), []
    with writers(url) as written:
        eventually(lambda: len(written) > 50)
        with log.open_base(notes.append) as base:
            count = len(written)
            eventually(lambda: len(written) > count + 100)
            in_base = rows_of(url, base.snapshot)
    assert "unsupported startup parameter: replication" in notes[0]
    assert pooler.refused >= 2
    with log.stream(base.log, base.position) as stream:
        half = []
        while MessageKind.COMMIT not in {message.kind for message in half}:
            half += stream.receive(5)
        while half[-1].kind is not MessageKind.COMMIT:
            half.pop()
        place = half[-1].position
    with stream_of(log, base.log, place) as stream:
        rest = drain(log, base, stream)
        stream.acknowledge(stream.received)
        place = stream.received
    assert log.state(base.log).acknowledged == place
    followed = inserted(half) + inserted(rest)
    assert len(followed) == len(set(followed)) >= 100
    assert in_base.isdisjoint(followed)
    assert in_base | set(followed) == set(written)
    kinds = [message.kind for message in rest if message.kind is not MessageKind.SHAPE]
    assert kinds == [MessageKind.BEGIN, MessageKind.CHANGE, MessageKind.COMMIT] * (len(kinds) // 3)
    direct = open_change_log(url, {}, "polled")
    assert (log.detour() != "", direct.detour()) == (True, "")
    run_sql(url, "INSERT INTO t VALUES ('last', 1)")
    with stream_of(direct, base.log, place) as stream:  # the same slot, by the replication protocol
        assert inserted(drain(direct, base, stream)) == ["last"]
    log.drop(base.log)
    assert log.state(base.log).lost


@pytest.mark.parametrize(
    "refusal", ["error", pytest.param("silence", marks=pytest.mark.torture), "passed over"]
)
def test_each_refusal_leads_to_polling_and_is_named(postgres, refusal):
    url = postgres.database()
    run_sql(url, TABLE)
    with Pooler(postgres.port, refusal) as pooler, opened(postgres, pooler, url) as (log, base):
        assert "the replication protocol is refused: " in log.detour()
        run_sql(url, "INSERT INTO t VALUES ('a', 1)")
        with log.stream(base.log, base.position) as stream:
            assert inserted(drain(log, base, stream)) == ["a"]
        request = ExamineRequest(pooler.url(url), {"password": postgres.password})
        examination = examine(request)
        [finding] = [finding for finding in examination.findings if finding.check == "changes"]
        assert "is refused" in finding.problem
        assert examination.facts["changes"] == "by polling"


def test_a_commit_that_others_do_not_see_yet_is_waited_for(servers):
    """It waits for a standby when the slot becomes consistent: the slot does not send it, so the base has to have it.
    The slot waits for two transactions, one after the other; the commit comes while it waits for the second.
    """
    server = servers.postgres("waits-for-standby", settings=["wal_level=logical", "synchronous_commit=local"])
    url, notes = server.url, []
    run_sql(url, TABLE)
    _wait_for_standby(url, "nobody")
    try:
        with (
            Pooler(server.port) as pooler,
            ThreadPoolExecutor(2) as pool,
            psycopg.connect(url) as first,
            psycopg.connect(url) as second,
        ):
            log = open_change_log(pooler.url(url), {"password": server.password}, "unseen")

            def base_rows():
                with log.open_base(notes.append) as base:
                    return base, rows_of(url, base.snapshot)

            try:
                first.execute("INSERT INTO t VALUES ('first', 1)")
                taken = pool.submit(base_rows)
                eventually(lambda: _waits(url, "transactionid"))
                second.execute("INSERT INTO t VALUES ('second', 1)")
                first.commit()
                eventually(lambda: _waits(url, "transactionid", blocked_by=second.info.backend_pid))
                unseen = pool.submit(
                    run_sql, url, "SET synchronous_commit = on; INSERT INTO t VALUES ('unseen', 1)"
                )
                eventually(lambda: _waits(url, "SyncRep"))
                second.commit()
                eventually(lambda: [note for note in notes if "until these have ended: session" in note])
                run_sql(url, "INSERT INTO t VALUES ('later', 1)")
                assert not taken.done()
            finally:
                _wait_for_standby(url, "")
            unseen.result()
            base, rows = taken.result()
            assert rows == {"first", "second", "unseen", "later"}
            with log.stream(base.log, base.position) as stream:
                assert inserted(drain(log, base, stream)) == []
            log.drop(base.log)
    finally:
        servers.end(server)


def _wait_for_standby(url, name):
    """Have commits wait for a standby, where their sessions want that; "": for none."""
    run_sql(url, f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    run_sql(url, "SELECT pg_reload_conf()")


def _waits(url, event, blocked_by=None):
    """Tell whether a session waits for something."""
    condition = "" if blocked_by is None else f" AND {blocked_by} = ANY (pg_blocking_pids(pid))"
    return fetch(url, f"SELECT 1 FROM pg_stat_activity WHERE wait_event = '{event}'{condition}")


@pytest.mark.parametrize(
    ("transaction", "committed_at", "shown"),
    [
        pytest.param(99, 10, True, id="ended before"),
        pytest.param(100, 10, False, id="open then"),
        pytest.param(101, 10, True, id="ended between open ones"),
        pytest.param(105, 10, False, id="not begun then"),
        pytest.param(99, 50, False, id="committed after it, with a number that came round again"),
        pytest.param(2**32 - 1, 10, True, id="before the numbers came round"),
        pytest.param(2**31 + 50, 10, False, id="half the numbers later"),
    ],
)
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_snapshot_says_which_transactions_it_shows(transaction, committed_at, shown, epoch):
    numbers = [epoch * 2**32 + number for number in (100, 105, 100, 103)]
    snapshot = BaseSnapshot.of("{}:{}:{},{}".format(*numbers), 50)
    assert snapshot.shows(committed_at, transaction) is shown
    assert BaseSnapshot.recorded(snapshot.described) == snapshot


def test_two_readers_are_kept_apart_and_gaps_are_errors(postgres, pooler):
    url = postgres.database()
    run_sql(url, TABLE)
    with opened(postgres, pooler, url) as (log, base):
        run_sql(url, "INSERT INTO t VALUES ('a', 1)")
        assert not log.state(base.log).is_read
        with log.stream(base.log, base.position) as stream:
            assert log.state(base.log).is_read
            with (
                pytest.raises(SourceUnreachableError, match="somebody else reads"),
                log.stream(base.log, base.position),
            ):
                pass
            drain(log, base, stream)
            assert log.state(base.log).acknowledged == base.position
            stream.acknowledge(stream.received)
        with pytest.raises(SourceGoneError, match="are gone"), stream_of(log, base.log, base.position):
            pass
        end = log.state(base.log).end
        with (
            pytest.raises(SourceGoneError, match="another server"),
            stream_of(log, {**base.log, "system": "1"}, end),
        ):
            pass
        with stream_of(log, base.log, end) as stream:
            log.drop(base.log, even_if_read=True)
            with pytest.raises(SourceUnreachableError):
                stream.receive(5)
        with pytest.raises(SourceGoneError, match="does not exist"), log.stream(base.log, end):
            pass


@pytest.mark.parametrize("way", [ReplicationStream, PollingStream])
def test_a_name_that_a_bundle_brings_along_is_never_sql(postgres, pooler, way):
    """Who can write to a location may have written it."""
    url = postgres.database()
    run_sql(url, TABLE)
    name = "x'))) TO STDOUT; DROP TABLE t; --"
    with opened(postgres, pooler, url) as (_, base):
        run_sql(url, "INSERT INTO t VALUES ('a', 1)")
        is_polled = way is PollingStream
        own = {} if is_polled else {"replication": "database"}
        with (
            closing(connect(parse_url(url, {"password": postgres.password}), **own)) as connection,
            pytest.raises(SourceError, match=r"publication .* does not exist"),
            way(connection, url, base.log["slot"], name, base.position, None) as stream,
        ):
            any(stream.receive(1) for _ in range(20))
    assert fetch(url, "SELECT id FROM t") == [("a",)]


@pytest.fixture
def many_open_files():
    """More than select() can take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for file in files:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("way", ["streamed", "polled"])
def test_a_command_may_have_more_than_a_thousand_files_open(postgres, pooler, many_open_files, way):
    url = postgres.database()
    run_sql(url, TABLE)
    with opened(postgres, pooler, url) if way == "polled" else log_of(url) as (log, base):
        run_sql(url, "INSERT INTO t VALUES ('a', 1)")
        with log.stream(base.log, base.position) as stream:
            assert inserted(drain(log, base, stream)) == ["a"]


def test_a_pooler_that_changes_sessions_is_refused(postgres, pooler, monkeypatch):
    """Of settings that pin the text of values another session knows nothing."""
    url = postgres.database()
    run_sql(url, TABLE)
    monkeypatch.setattr(
        polling, "_PROBE", polling._PROBE.replace("pg_catalog.pg_backend_pid()", "txid_current()")
    )
    with (
        opened(postgres, pooler, url) as (log, base),
        log.stream(base.log, base.position) as stream,
        pytest.raises(SourceUsageError, match="a session of its own"),
    ):
        stream.receive(5)


def test_a_large_transaction_takes_no_memory_and_is_given_up_at_once(postgres, pooler):
    """It comes in pieces. Who stops within it waits for nothing, and what was acknowledged holds."""
    url = postgres.database()
    run_sql(url, TABLE)
    with opened(postgres, pooler, url) as (log, base):
        run_sql(url, "INSERT INTO t VALUES ('small', 1)")
        run_sql(url, "INSERT INTO t SELECT repeat(md5(g::text), 40) || g, g FROM generate_series(1, 8000) g")
        with log.stream(base.log, base.position) as stream:
            pieces = [stream.receive(5)]
            stream.acknowledge(stream.received)
            small = stream.received
        assert log.state(base.log).acknowledged == small
        end = log.state(base.log).end
        with stream_of(log, base.log, small) as stream:
            while stream.received < end:
                pieces.append(stream.receive(5))
    assert len(inserted(pieces[0])) < 5000
    assert max(sum(len(message.payload) for message in piece) for piece in pieces) < 5 * 2**20
    assert len(inserted([message for piece in pieces[1:] for message in piece])) == 8000


@pytest.mark.torture
def test_the_rest_after_a_turn_is_as_long_as_the_server_has_decoded(postgres, pooler):
    """While it waits for a slow reader it decodes nothing, so a backlog is not read at half the speed."""
    url = postgres.database()
    run_sql(url, TABLE)
    with opened(postgres, pooler, url) as (log, base):
        run_sql(url, "INSERT INTO t SELECT repeat(md5(g::text), 40) || g, g FROM generate_series(1, 15000) g")
        end = log.state(base.log).end
        with log.stream(base.log, base.position) as stream:
            began = time.monotonic()
            assert stream.receive(60)
            time.sleep(3)
            while stream.received < end:
                stream.receive(5)
            seconds = time.monotonic() - began
            assert stream._next_at - time.monotonic() < seconds - 2


def test_a_table_is_read_again_at_an_exact_position_while_it_is_written_to(postgres, pooler):
    """What was committed before the position is in the rows, and nothing else is; the lock is held for a moment."""
    url, rows, notes = postgres.database(), [], []
    run_sql(url, TABLE)
    with opened(postgres, pooler, url) as (log, base), writers(url) as written:
        eventually(lambda: len(written) > 50)
        with log.reread(base.log, "public", "t", notes.append) as taken:
            count = len(written)
            eventually(lambda: len(written) > count + 50)
            taken.rows.each("public", "t", rows.extend)
        with log.stream(base.log, base.position) as stream:
            messages = drain(log, base, stream)
    assert [note for note in notes if "locked against writing for a moment" in note]
    assert {row.split(b",")[0].decode().strip('"') for row in rows} == set(
        inserted(before(messages, taken.position))
    )
    assert len(rows) >= 50


def test_a_table_that_stays_locked_is_not_read_again_and_is_named_with_who_holds_it(
    postgres, pooler, monkeypatch
):
    """The wait has an end. Nothing is lost: when that session has ended, the same is done."""
    monkeypatch.setattr(change_log, "_WAIT_SECONDS", 0.0)
    url, rows, notes = postgres.database(), [], []
    run_sql(url, TABLE + "; INSERT INTO t VALUES ('a', 1)")
    with opened(postgres, pooler, url) as (log, base):
        with psycopg.connect(url, application_name="nightly") as application:
            application.execute("UPDATE t SET n = 2")
            session = application.info.backend_pid
            with (
                pytest.raises(
                    SourceUnreachableError,
                    match=rf"t. cannot be read again: .*session {session} \(.*nightly.*"
                    r"idle in transaction for \d+ s: UPDATE t",
                ) as refused,
                log.reread(base.log, "public", "t", notes.append),
            ):
                pass
            assert f"pg_terminate_backend({session})" in refused.value.next_step
            run_sql(url, "SET lock_timeout = '1s'; INSERT INTO t VALUES ('b', 1)")  # nothing of ours locks it
        with log.reread(base.log, "public", "t", notes.append) as taken:
            taken.rows.each("public", "t", rows.extend)
        with log.stream(base.log, base.position) as stream:
            assert len(inserted(drain(log, base, stream))) == 1
    assert len(rows) == 2


def before(messages, position):
    """Return the changes of the transactions that were committed before a position."""
    changes, transaction = [], []
    for message in messages:
        transaction.append(message)
        if message.kind is MessageKind.COMMIT:
            changes += transaction if message.position <= position else []
            transaction = []
    return changes
