"""Lock waits: which session holds the lock, for how long, and what it does.

One more connection asks every few seconds, from the first wait on (pg_blocking_pids, PostgreSQL
documentation, 9.26). Only the first words of other sessions' statements are shown: their
values are private.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import psycopg
from msgspec import Struct

from exporters.errors import SourceError
from exporters.limits import Note
from exporters.postgres.sessions.connection import PostgresAddress, connect

POLL_SECONDS = 2.0
AGAIN_SECONDS = 60
"""After this many seconds the same wait is reported again."""

_WAITS = """
SELECT p.pid, coalesce(b.usename::text, ''), coalesce(b.application_name, ''),
  coalesce(b.client_addr::text, 'local'), coalesce(b.state, ''),
  coalesce(extract(epoch FROM now() - b.xact_start), 0)::int8, extract(epoch FROM now() - w.state_change)::int8,
  left(coalesce(b.query, ''), 40), cardinality(pg_blocking_pids(p.pid)) > 0
FROM pg_stat_activity w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS p(pid)
LEFT JOIN pg_stat_activity b ON b.pid = p.pid
WHERE w.application_name = %s AND w.wait_event_type = 'Lock' AND coalesce(b.application_name, '') <> w.application_name
ORDER BY 7 DESC, 1
"""
_WORDS = re.compile(r"\s*([A-Za-z]+(?:\s+[A-Za-z]+)?)")


class Wait(Struct, frozen=True):
    """One session that is in our way. ``since_seconds`` of its transaction, ``waiting_seconds`` of ours.
    ``also_waits``: it waits itself, which during an export means: for us.
    """

    pid: int
    user: str
    application: str
    address: str
    state: str
    since_seconds: int
    waiting_seconds: int
    query: str
    also_waits: bool

    def sentence(self) -> str:
        """Return it for people."""
        if not self.pid:
            return f"waiting for {self.waiting_seconds} s: a prepared transaction holds a lock (pg_prepared_xacts)"
        session = ", ".join(word for word in (self.user, self.application, self.address) if word)
        first_words = _WORDS.match(self.query)
        does = f"{self.state or 'busy'} for {self.since_seconds} s" + (
            f": {first_words[1]} …" if first_words else ""
        )
        waits = "; it waits itself for a lock that this export holds" if self.also_waits else ""
        return f"waiting for {self.waiting_seconds} s: session {self.pid} ({session}) is in the way, {does}{waits}"

    def note(self) -> str:
        """Return it for people who are waiting, with what to do about it."""
        if not self.pid:
            return f"{self.sentence()}; commit it or roll it back"
        return f"{self.sentence()}; let it end, or: SELECT pg_terminate_backend({self.pid})"

    def step(self) -> str:
        """Return what to do after the wait has timed out."""
        if not self.pid:
            return "commit or roll back the prepared transaction, and run the same command again"
        return f"let it end, or: SELECT pg_terminate_backend({self.pid}); then run the same command again"


class WaitWatch:
    """Asks in a thread of its own while the context lasts. ``last`` is the wait that was seen last."""

    def __init__(
        self, address: PostgresAddress, application: str, note: Note, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._address = address
        self._application = application
        self._note = note
        self._poll_seconds = poll_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="moveout-waits", daemon=True)
        self._reported: dict[int, int] = {}
        self.last: Wait | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        """A watch that cannot look (no connection is left, say) is no reason to stop the export."""
        connection: psycopg.Connection[Any] | None = None
        try:
            while not self._stop.wait(self._poll_seconds):
                connection = connection or connect(self._address)
                rows = connection.execute(_WAITS, (self._application,)).fetchall()
                self._tell([Wait(*row) for row in rows])
        except (SourceError, psycopg.Error):
            return
        finally:
            if connection is not None:
                connection.close()

    def _tell(self, waits: Sequence[Wait]) -> None:
        for wait in waits:
            reported_seconds = self._reported.get(wait.pid, -AGAIN_SECONDS)
            if (
                wait.waiting_seconds - reported_seconds >= AGAIN_SECONDS
                or wait.waiting_seconds < reported_seconds
            ):
                self._reported[wait.pid] = wait.waiting_seconds
                self._note(wait.note())
        if waits:
            self.last = waits[0]
