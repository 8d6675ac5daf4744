"""A follower captures and applies by itself, whatever is away for a while; what stops one source leaves the others."""

import contextlib
import math
import threading

import psycopg

from exporters.postgres.live_digests import live_tables
from migrate.errors import IncompleteError
from migrate.follow.follower import Follower
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from tests.exporters.postgres.databases import fetch, run_sql
from tests.follow.conftest import restored
from tests.tools.waiting import eventually

SCRIPT = """
CREATE TABLE accounts (id int PRIMARY KEY, money int); INSERT INTO accounts SELECT i, 100 FROM generate_series(1, 20) i;
CREATE TABLE entries (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int, amount int);
"""


@contextlib.contextmanager
def following(store, *sources):
    """Followers of some sources, and the notes that they make."""
    token, notes = CancellationToken(), []
    followers = [
        Follower(source, store, cancellation=token, note=notes.append, limit_seconds=math.inf)
        for source in sources
    ]
    for source, follower in zip(sources, followers, strict=True):
        source.folder(store).begin()
        follower.start()
    try:
        yield followers, notes
    finally:
        token.cancel()
        for follower in followers:
            follower.join(60)


def transfer_money(url, stop):
    """Move money between accounts, and write each move down, until told to stop."""
    with psycopg.connect(url, autocommit=True) as connection:
        number = 0
        while not stop.wait(0.01):
            number += 1
            one, other = number % 20 + 1, number * 7 % 20 + 1
            with connection.transaction():
                for account in sorted((one, other)):  # two writers do not wait for each other
                    amount = (account == other) - (account == one)
                    statement = "UPDATE accounts SET money = money + %s WHERE id = %s"
                    connection.execute(statement, (amount, account))
                connection.execute("INSERT INTO entries (account, amount) VALUES (%s, 1)", (other,))


@contextlib.contextmanager
def transferring(url, count=1):
    """Writers that move money meanwhile."""
    stop = threading.Event()
    writers = [threading.Thread(target=transfer_money, args=(url, stop)) for _ in range(count)]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def end_writer(url, ended):
    """End the session that applies changes here, where it is not one of `ended`: its process id, or nothing."""
    return fetch(
        url,
        "SELECT pid, pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        f" AND pid <> ALL (ARRAY{[pid for pid, _ in ended]}::int[])",
    )


def test_writers_are_followed_and_each_source_by_itself(make_followed, tmp_path):
    """One source's destination is restored late; another one's has a conflict."""
    busy = make_followed(SCRIPT, "busy", is_restored=False)
    broken = make_followed(SCRIPT, "broken")
    run_sql(broken.destination.url, "DELETE FROM accounts WHERE id = 3")
    with following(open_location(str(tmp_path)), busy, broken) as (followers, notes):
        with transferring(busy.source.url, 2):
            run_sql(broken.source.url, "UPDATE accounts SET money = 5 WHERE id = 2")
            run_sql(broken.source.url, "UPDATE accounts SET money = 7 WHERE id = 3")
            eventually(lambda: followers[1].state().stopped)
            assert followers[0].state().is_waiting
            restored(busy)
            eventually(lambda: followers[0].state().changes > 50)
            ended: list = []
            for _ in range(2):
                ended += eventually(lambda ended=ended: end_writer(busy.destination.url, ended))
                before = followers[0].state().changes
                eventually(lambda before=before: followers[0].state().changes > before + 50)
        eventually(lambda: live_tables(busy.destination.url) == live_tables(busy.source.url))
        eventually(lambda: followers[0].state().lag_bytes == 0)
        state = followers[0].state()
        assert (state.stopped, state.is_caught_up, state.lag_seconds) == ((), True, 0.0)
    assert any(note.startswith("busy: changes are not applied for now: ") for note in notes), notes
    (error,) = followers[1].state().stopped
    assert isinstance(error, IncompleteError)
    assert "key (id = '3')" in str(error)
    assert fetch(broken.destination.url, "SELECT money FROM accounts WHERE id = 2") == [(5,)]
    assert fetch(busy.destination.url, "SELECT sum(money) FROM accounts") == [(2000,)]


def test_what_is_waited_for_is_what_the_server_sends(make_followed, tmp_path):
    """It sends nothing that is not flushed; what nobody commits it flushes after 15 seconds, so we commit."""
    quiet = make_followed(SCRIPT, "quiet")
    next_transaction = "SELECT txid_snapshot_xmax(txid_current_snapshot())"
    fetch(quiet.source.url, "SELECT pg_logical_emit_message(false, 'a', 'b')::text")
    before = fetch(quiet.source.url, next_transaction)
    with following(open_location(str(tmp_path)), quiet) as (followers, _):
        eventually(lambda: followers[0].state().lag_bytes is not None)
        assert fetch(quiet.source.url, next_transaction) > before
        eventually(lambda: followers[0].is_done)


def test_a_destination_says_how_far_it_is_while_changes_are_applied(make_followed):
    followed = make_followed("CREATE TABLE t (id int PRIMARY KEY)")
    with contextlib.closing(followed.open_writer()):
        assert followed.applied_mark().base == followed.base
    fresh = make_followed("CREATE TABLE t (id int PRIMARY KEY)", is_restored=False)
    assert fresh.applied_mark() is None
