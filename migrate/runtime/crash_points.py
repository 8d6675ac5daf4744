"""Named moments at which a test ends the process as a power cut would: before and after each durable step.

``MOVEOUT_CRASH_AT=NAME[:NTH]`` kills the process when it comes to the point NAME for the NTH time (the first, where
none is given). ``MOVEOUT_CRASH_LOG=FILE`` appends the name of each point that is passed. Both hold only within a test:
pytest sets ``PYTEST_CURRENT_TEST``, and without it no environment ends a move.

A name says what is made durable, then when: ``restore.sqlite.rows.before``. The names of requests to S3 and of writes
to a location come from the operation: ``s3.PutObject.after``, ``location.put.before``.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CRASH_AT, CRASH_LOG = "MOVEOUT_CRASH_AT", "MOVEOUT_CRASH_LOG"
_UNDER_TEST = "PYTEST_CURRENT_TEST"


@contextmanager
def durable(name: str) -> Iterator[None]:
    """Name a durable step, for as long as it takes. Where it fails, its end is not passed."""
    reached(f"{name}.before")
    yield
    reached(f"{name}.after")


def reached(name: str) -> None:
    """Pass a point. Under a test that names it, the process ends here."""
    points = _points()
    if points is not None:
        points.passed(name)


def are_watched() -> bool:
    """Tell whether a test wants to know of points, or to crash at one."""
    return _points() is not None


class _Points:
    """What a test wants. Thread-safe."""

    def __init__(self, fatal: str, log: str) -> None:
        name, _, nth = fatal.partition(":")
        self._fatal, self._left = name, int(nth or 1)
        self._log = Path(log) if log else None
        self._lock = threading.Lock()

    def passed(self, name: str) -> None:
        """Log a point, and end the process where it is the one."""
        with self._lock:
            if self._log is not None:
                with self._log.open("a") as file:
                    file.write(f"{name}\n")
            if name != self._fatal:
                return
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


@functools.cache
def _points() -> _Points | None:
    """Return what the environment asks for. It is read once: points are passed often."""
    fatal, log = os.environ.get(CRASH_AT, ""), os.environ.get(CRASH_LOG, "")
    return _Points(fatal, log) if (fatal or log) and _UNDER_TEST in os.environ else None
