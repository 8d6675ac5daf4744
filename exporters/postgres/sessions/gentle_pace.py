"""How a gentle export spares its server: each statement reads few pages, and between two of them there is a pause that
follows the server's load. The snapshot is held all that time, so VACUUM keeps for longer what it could remove.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from exporters.errors import SourceError
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.chunk_plan import Range
from exporters.postgres.identifiers import quote_literal

STATEMENT_SECONDS = 1.0
"""About so long a statement may take."""
LONGEST_PAUSE_SECONDS = 4.0
"""Less than a run that is cancelled waits for its threads. What is still too busy then is met by the next pause."""
LAG_SECONDS = 10.0
"""Replicas that are so far behind are waited for."""
_FIRST_BYTES, _LEAST_BYTES, _MOST_BYTES = 8 * 2**20, 2**18, 2**30
_GROWTH = 2.0
"""A statement reads at most so many times what the one before read."""

_FRESH_VIEW = "SELECT pg_catalog.pg_stat_clear_snapshot()"
"""Within a transaction the server shows its sessions as they were when they were first looked at."""


class ServerLoad(Struct, frozen=True):
    """How many sessions of others are running a statement, and how far the slowest replica is behind. What this role
    may not see is 0.
    """

    active_sessions: int = 0
    lag_seconds: float = 0.0


def read_load(
    application: str, run: Callable[[str], object], numbers: Callable[[str], Sequence[int]]
) -> ServerLoad:
    """Ask how busy the server is with other sessions than those of ``application``. A server that does
    not say is taken for idle. ``run`` runs a statement, ``numbers`` returns the one row of a query,
    both in the same session.
    """
    try:
        run(_FRESH_VIEW)
        active_sessions, lag_ms = numbers(_load_query(application))
    except SourceError:
        return ServerLoad()
    return ServerLoad(active_sessions, lag_ms / 1000)


def _load_query(application: str) -> str:
    """Return the query for the load of a server: sessions, and the lag in milliseconds."""
    return (
        "SELECT (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE state = 'active'"
        f" AND backend_type = 'client backend' AND application_name <> {quote_literal(application)}),"
        " (SELECT coalesce(max(extract(epoch FROM replay_lag) * 1000), 0)::pg_catalog.int8"
        " FROM pg_catalog.pg_stat_replication)"
    )


class Pace:
    """Says how much the next statement reads, and how long the pause before it is. One for each kind of statement;
    threads may share it.
    """

    def __init__(self) -> None:
        self.next_bytes = _FIRST_BYTES
        self._best_rate = 0.0

    def pause_after(self, size_bytes: int, seconds: float, load: ServerLoad) -> float:
        """Take in what a statement over so many stored bytes took; return the seconds until the next one.

        It is as long as the statement, so that half of the time nothing is asked. It is longer where others are at
        work, where the same work takes longer than it did, and where replicas are behind.
        """
        seconds = max(seconds, 1e-3)
        rate = size_bytes / seconds
        self._best_rate = max(self._best_rate, rate)
        next_bytes = min(rate * STATEMENT_SECONDS, size_bytes * _GROWTH)
        self.next_bytes = round(min(max(next_bytes, _LEAST_BYTES), _MOST_BYTES))
        slowdown = self._best_rate / rate if rate else 1.0
        pause = seconds * (max(1.0, slowdown - 1.0) + load.active_sessions / 4)
        if load.lag_seconds > LAG_SECONDS:
            pause = max(pause, load.lag_seconds)
        return min(pause, LONGEST_PAUSE_SECONDS)


class GentleReads:
    """Cuts ranges of pages into short statements, with pauses between them. ``load`` asks the server how busy it is.
    The time until the caller asks for the next range counts as the statement's.
    """

    def __init__(self, load: Callable[[], ServerLoad]) -> None:
        self._load = load
        self._pace = Pace()

    def ranges(self, table: PostgresTable, pages: Range) -> Iterator[Range]:
        """Yield the parts of a range, one a statement; all of it where it cannot be cut."""
        first, last = pages
        stored_pages = table.heap_bytes // table.page_bytes if table.heap and not table.condition else 0
        end = stored_pages if last is None else last
        page_bytes = max(1, table.size_bytes // max(1, stored_pages))
        while first < end:
            count = min(end - first, max(1, self._pace.next_bytes // page_bytes))
            is_last = first + count >= end
            with self._timed(count * page_bytes):
                yield first, last if is_last else first + count
            first += count
            if is_last:
                return
        with self._timed(page_bytes):
            yield first, last

    @contextmanager
    def _timed(self, size_bytes: int) -> Iterator[None]:
        began = time.monotonic()
        yield
        time.sleep(self._pace.pause_after(size_bytes, time.monotonic() - began, self._load()))
