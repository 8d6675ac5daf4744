"""When what was written at a source is at a destination: seen from outside, so that every tool is measured alike.

A table of one row, ``beat``, gets the time again and again. What is there at the destination says how far it is. The
time is text: pgcopydb 0.10 keeps six digits of a number.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from scripts.bench.replication.tools import FollowTool, Pair, cursor_of

BEAT = (
    "CREATE TABLE beat (id int PRIMARY KEY, at varchar(20) NOT NULL)",
    "INSERT INTO beat VALUES (1, '0')",
)
"""What makes the table, in the SQL of all engines."""
_BEAT_SECONDS = 0.25
_LOOK_SECONDS = 0.1
_WRITE = "UPDATE beat SET at = %s WHERE id = 1"
_READ = "SELECT at FROM beat WHERE id = 1"


class NotArrivedError(Exception):
    """A tool has not brought what was written for too long."""


@dataclass(slots=True)
class Lags:
    """How old what had arrived was, in seconds, at each look; infinite where nothing had arrived."""

    seconds: list[float] = field(default_factory=list)

    @property
    def most(self) -> float:
        """The largest."""
        return max(self.seconds, default=float("inf"))

    def share(self, share: float) -> float:
        """Return what so many of all looks were below."""
        ordered = sorted(self.seconds) or [float("inf")]
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def arrival_seconds(pair: Pair[Any], tool: FollowTool, most_seconds: float) -> float:
    """Write one row now, and return after how many seconds it is at the destination. Raises ``NotArrivedError``."""
    begun, now = time.monotonic(), time.time()
    with cursor_of(pair.source()) as cursor:
        cursor.execute(_WRITE, (str(now),))
    with _destination(pair) as read:
        while read() < now:
            tool.look()
            if time.monotonic() - begun > most_seconds:
                raise NotArrivedError(f"not all has arrived within {most_seconds:.0f} s")
            time.sleep(_LOOK_SECONDS)
    return time.monotonic() - begun


@contextmanager
def beating(pair: Pair[Any]) -> Iterator[None]:
    """Write the time meanwhile."""
    stop = threading.Event()

    def beat() -> None:
        with cursor_of(pair.source()) as cursor:
            while not stop.wait(_BEAT_SECONDS):
                cursor.execute(_WRITE, (str(time.time()),))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def watch_lags(pair: Pair[Any], tool: FollowTool, seconds: float) -> Lags:
    """Look at the destination for so long."""
    lags, end = Lags(), time.monotonic() + seconds
    with _destination(pair) as read:
        while time.monotonic() < end:
            tool.look()
            at = read()
            lags.seconds.append(time.time() - at if at else float("inf"))
            time.sleep(_LOOK_SECONDS)
    return lags


@contextmanager
def _destination(pair: Pair[Any]) -> Iterator[Callable[[], float]]:
    """Yield what reads the time there, 0 where none has arrived."""
    with closing(pair.destination()) as connection, connection.cursor() as cursor:

        def read() -> float:
            cursor.execute(_READ)
            row: Any = cursor.fetchone()
            return float(row[0]) if row else 0.0

        yield read
