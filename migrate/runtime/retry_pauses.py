"""Pauses between attempts: they grow, and each reason for one is noted once."""

from __future__ import annotations

import time
from collections.abc import Callable

from migrate.runtime.cancellation import CancellationToken

_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 10.0
RESTART_SECONDS, RESTART_POLL_SECONDS = 90.0, 2.0
"""After a snapshot was lost: how long to wait for its server, which may restart, and how often to try."""


class RetryPauses:
    """For what is tried until it succeeds or is cancelled. Each pause is twice as long as the one before, up to 10 s.
    ``problem`` begins the notes. Nothing is tried any more that has failed twice, and has not succeeded for
    ``limit_seconds``.
    """

    def __init__(
        self,
        problem: str,
        cancellation: CancellationToken,
        note: Callable[[str], None],
        limit_seconds: float,
    ) -> None:
        self._problem = problem
        self._cancellation = cancellation
        self._note = note
        self._limit_seconds = limit_seconds
        self.succeeded()

    def succeeded(self) -> None:
        """Begin anew: the next pause is short, and the next reason is noted."""
        self._seconds, self._noted = _FIRST_SECONDS, ""
        self._succeeded_at = time.monotonic()

    def failed(self, error: Exception) -> None:
        """Note the reason, unless it is the last one's, and wait. Raises ``error`` after ``limit_seconds``."""
        if self._noted and time.monotonic() - self._succeeded_at >= self._limit_seconds:
            raise error
        if str(error) != self._noted:
            self._noted = str(error)
            self._note(f"{self._problem}: {error}")
        self._cancellation.wait(self._seconds)
        self._seconds = min(2 * self._seconds, _LONGEST_SECONDS)
