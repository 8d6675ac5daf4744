"""Looks every second at the calls that are under way, so that a silent server is reported before they fail."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Protocol, runtime_checkable

_LOOK_SECONDS = 1.0


@runtime_checkable
class Moving(Protocol):
    """A store that can say whether bytes come or go: a slow server is not a silent one."""

    def stuck_seconds(self) -> float | None:
        """Return for how long no byte came or went for the request that waits longest; None where none is known."""
        ...


class Watched(Protocol):
    """Something whose calls may remain without an answer."""

    def look(self) -> None:
        """Tell of calls that have had no answer for long."""
        ...


_lock = threading.Lock()
_watched: weakref.WeakSet[Watched] = weakref.WeakSet()
_threads: list[threading.Thread] = []


def watch(watched: Watched) -> None:
    """Look at this one, too, as long as somebody holds it."""
    with _lock:
        _watched.add(watched)
        if not _threads:
            _threads.append(threading.Thread(target=_look_on, name="moveout-silence", daemon=True))
            _threads[0].start()


def _look_on() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        with _lock:
            current = list(_watched)
        for watched in current:
            watched.look()
        del current[:]
