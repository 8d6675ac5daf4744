"""Whoever waits for an answer of a database server is woken from outside, and others are not."""

import ctypes
import fcntl
import os
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from functools import partial

import psycopg
import pytest

from exporters.connections import open_connections
from exporters.connections.open_connections import hang_up, hang_up_lost, is_any_unheard, waking_socket
from exporters.errors import SourceError
from exporters.mysql import connection as mysql
from exporters.mysql.errors import DRIVER_ERRORS as MYSQL_ERRORS
from exporters.postgres.errors import DRIVER_ERRORS as POSTGRES_ERRORS
from exporters.postgres.rows.copy_feed import open_feed
from exporters.postgres.sessions import connection as postgres
from exporters.postgres.sessions.snapshot_session import open_snapshot
from tests.tools.waiting import SECONDS, eventually

SO_ATTACH_FILTER, BPF_RETURN = 26, 6
MYSQL_SLEEP = "SELECT SLEEP(240)"


def sleepers(stack, url):
    """Yield functions that make the server of a URL wait, each on a connection of its own."""
    if url.startswith("mysql"):
        connection = mysql.connect(mysql.parse_url(url))
        stack.callback(connection.close)
        yield lambda: connection.run(MYSQL_SLEEP)
        return
    session, _ = stack.enter_context(open_snapshot(postgres.parse_url(url)))
    yield lambda: session.holder.execute("SELECT pg_sleep(240)")
    feed = open_feed(session)
    stack.callback(feed.close)
    yield lambda: feed.execute("SELECT pg_sleep(240)")


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_those_who_wait_for_one_database_get_an_error_at_once(request, kind):
    server = request.getfixturevalue(kind)
    url, other_url = server.database(), server.database()
    engine = mysql if kind == "mariadb" else postgres
    other = engine.connect(engine.parse_url(other_url))
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        waiting = [threads.submit(sleep) for sleep in sleepers(stack, url)]
        time.sleep(0.5)
        assert not any(each.done() for each in waiting)
        begun = time.monotonic()
        hang_up(lambda open_url: open_url == engine.parse_url(url).url)
        for each in waiting:
            assert isinstance(each.exception(10), (*MYSQL_ERRORS, *POSTGRES_ERRORS, SourceError))
        assert time.monotonic() - begun < 20
    ask = other.run if kind == "mariadb" else other.execute
    assert ask("SELECT 1")
    other.close()


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_an_idle_connection_is_not_forgotten_by_whoever_forwards_its_packets(request, kind):
    """Balancers and address translation forget it after four to six minutes; the system's own signs begin after two
    hours.
    """
    url = request.getfixturevalue(kind).database()
    with ExitStack() as stack:
        if kind == "mariadb":
            connection = mysql.connect(mysql.parse_url(url))
            stack.callback(connection.close)
            numbers = [connection.raw._sock.fileno()]
        else:
            session, _ = stack.enter_context(open_snapshot(postgres.parse_url(url)))
            feed = open_feed(session)
            stack.callback(feed.close)
            numbers = [session.holder.fileno(), feed._file_number()]
            own = postgres.connect(postgres.parse_url(f"{url}?keepalives_idle=7"))
            stack.callback(own.close)
            assert kept_alive_after(own.fileno()) == 7
        assert {kept_alive_after(number) for number in numbers} == {15}
        with suppress(OSError):  # before Linux 6.15 there is no such option
            assert {sent_again_after(number) for number in numbers} == {10_000}


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_connection_that_the_network_has_dropped_is_told_from_one_that_waits(request, kind, monkeypatch):
    """The server answers others. Whoever waits for a statement that takes long is not woken."""
    monkeypatch.setattr(
        open_connections, "_KEEP_ALIVE", {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 60, "TCP_KEEPCNT": 9}
    )
    monkeypatch.setattr(open_connections, "_UNHEARD_SECONDS", 3.0)
    monkeypatch.setattr(open_connections, "_LOST_SECONDS", 2.0)
    server = request.getfixturevalue(kind)
    url, other_url = server.database(), server.database()
    is_meant = (mysql if kind == "mariadb" else postgres).parse_url(url).url.__eq__
    is_other = (mysql if kind == "mariadb" else postgres).parse_url(other_url).url.__eq__
    with ThreadPoolExecutor() as threads, ExitStack() as stack:
        (*_, sleep), (*_, other_sleep) = sleepers(stack, url), sleepers(stack, other_url)
        dropped, waiting = threads.submit(sleep), threads.submit(other_sleep)
        stack.callback(wait, (dropped, waiting))
        for each in (is_meant, is_other):
            stack.callback(hang_up, each)
        for each in (url, other_url):
            eventually(partial(is_asleep, each))
        eventually(
            lambda: not any(unanswered(number) for _, number in open_connections._meant_sockets(is_meant))
        )
        begun = time.monotonic()
        for owner, number in open_connections._meant_sockets(is_meant):
            drop_what_comes(number)
            stack.callback(str, owner)  # it lives on
        while not dropped.done():
            assert time.monotonic() < begun + SECONDS
            assert not open_connections.is_any_unheard(is_other)
            if open_connections.is_any_unheard(is_meant):
                assert time.monotonic() > begun + 1.5
                for each in (is_meant, is_other):
                    hang_up_lost(each)
            time.sleep(0.2)
        assert isinstance(dropped.exception(), (*MYSQL_ERRORS, *POSTGRES_ERRORS, SourceError))
        assert time.monotonic() > begun + 3
        assert not waiting.done()


def test_a_lock_is_free_once_its_file_is_closed_whose_number_was_that_of_a_connection(tmp_path):
    """An export waited for its own lock without end: a connection had been closed while others asked for its state."""
    url = "postgresql://closed"
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waking_socket(url, file, lambda each: each.fileno())
        for ask in (is_any_unheard, hang_up_lost, hang_up):
            ask(url.__eq__)
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sent_again_after(number):
    """After how many milliseconds at most a connection sends again what is not acknowledged."""
    with socket.socket(fileno=os.dup(number)) as other:
        return other.getsockopt(socket.IPPROTO_TCP, open_connections._RTO_MAX_MS)


def is_asleep(url):
    """Whether the server has got the statement: what it has not acknowledged the system sends again and again, later
    each time.
    """
    if url.startswith("mysql"):
        with closing(mysql.connect(mysql.parse_url(url))) as connection:
            mine = f"db = DATABASE() AND info = '{MYSQL_SLEEP}'"
            return connection.run(f"SELECT 1 FROM information_schema.processlist WHERE {mine}")
    with psycopg.connect(url) as connection:
        query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        return connection.execute(query).fetchall()


def unanswered(number):
    """How many packets of a socket the other side has not acknowledged (``tcpi_unacked``)."""
    with socket.socket(fileno=os.dup(number)) as other:
        return struct.unpack_from("@I", other.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]


def drop_what_comes(number):
    """Drop all packets that come for a socket, before the system sees them (socket(7), SO_ATTACH_FILTER)."""
    nothing = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 0))
    with socket.socket(fileno=os.dup(number)) as other:
        program = struct.pack("HL", 1, ctypes.addressof(nothing))
        other.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def kept_alive_after(number):
    """Return after how many idle seconds the system sends something on a connection; 0: never."""
    with socket.socket(fileno=os.dup(number)) as other:
        is_kept = other.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return is_kept and other.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
