"""Waiting in tests until something holds."""

import time
from contextlib import contextmanager

from exporters.mysql import connection as mysql
from exporters.postgres.sessions import connection as postgres
from migrate.progress import server_contact
from migrate.progress.server_contact import ContactTimeouts
from migrate.storage import silence

SECONDS = 120.0


def eventually(condition, seconds=SECONDS):
    """Return what the condition returns once it holds; fail where that takes too long. One that asks a server is asked
    less often: it takes processor time from what it waits for.
    """
    deadline = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        if value := condition():
            return value
        ended = time.monotonic()
        assert ended < deadline
        time.sleep(min(max(0.05, 4 * (ended - begun)), 0.2))


@contextmanager
def stream_of(log, described, after, *captured):
    """Return a stream of a change log, once the server has seen the end of the stream before."""
    eventually(lambda: not log.state(described).is_read)
    with log.stream(described, after, *captured) as stream:
        yield stream


def be_impatient(monkeypatch):
    """Wait for seconds, not a minute, for a silent server while an application stands still."""
    monkeypatch.setattr(silence, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(server_contact, "WORKING", ContactTimeouts(0.5, 1.5, 1.5, 0.5))
    monkeypatch.setattr(server_contact, "LIMITED_SECONDS", 2.0)
    monkeypatch.setattr(postgres, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(mysql, "CONNECT_SECONDS", 2)
