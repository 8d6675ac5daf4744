"""The number of requests under way to one server: fewer while it struggles, more as long as that raises the rate.

The limit is a share of the usual number. It is halved when the server asks for fewer requests or does not answer, at
most once a second: all requests under way then report the same trouble. Afterwards it grows by half each second until
it is near the share that caused trouble, and slowly from there; above the usual only as long as the rate grows with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from migrate.runtime.cancellation import CancellationToken

LEAST, MOST = 1 / 64, 2.0
SETTLE_SECONDS = 1.0
_RECOVER = 1.5
_NEAR = 0.75
_LITTLE = 0.02
_QUIET_SECONDS = 0.25
_LONGEST_QUIET_SECONDS = 30.0
_STEP = 1.15
_GROWS = 1.1
_COUNTED_AT_ONCE = 32


class ConcurrencyLimiter:
    """Shared by all that talk to one server. Thread-safe; ``succeeded`` is cheap."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.share = 1.0
        """The share of the usual number of requests that may be under way."""
        self.slowed = 0
        """How often it was halved."""
        self.answered = 0
        """How many requests were answered."""
        self._since = clock()
        self._count = 0
        self._best_rate = 0.0
        self._trouble_at = MOST
        self._slowed_at = self._quiet_until = 0.0

    def of(self, usual: int) -> int:
        """Return how many may be under way where ``usual`` are otherwise; at least one."""
        return max(1, int(usual * self.share))

    def slow_down(self, wait_seconds: float | None = None) -> None:
        """Note that the server struggles; ``wait_seconds`` is its Retry-After."""
        with self._lock:
            now = self._clock()
            if self.slowed and now - self._slowed_at < SETTLE_SECONDS:
                return
            self._slowed_at = now
            self._quiet_until = now + min(wait_seconds or _QUIET_SECONDS, _LONGEST_QUIET_SECONDS)
            self._trouble_at = self.share
            self.share = max(LEAST, min(self.share, 1.0) / 2)
            self.slowed += 1
            self._restart(now)
            self._best_rate = 0.0

    def rest(self, cancellation: CancellationToken) -> None:
        """Wait as long as the server has asked for; not at all where it has not."""
        seconds = self._quiet_until - self._clock()
        if seconds > 0:
            cancellation.wait(seconds)

    def succeeded(self) -> None:
        """Note that a request was answered."""
        self.answered += 1
        self._count += 1
        if self._count % _COUNTED_AT_ONCE == 0 or self.share < 1.0:
            self._reconsider()

    def _reconsider(self) -> None:
        with self._lock:
            now = self._clock()
            if now - self._since < SETTLE_SECONDS:
                return
            rate = self._count / (now - self._since)
            if self.share < 1.0:
                raised_share = self.share * _RECOVER
                self.share = min(
                    1.0, raised_share if raised_share <= _NEAR * self._trouble_at else self.share + _LITTLE
                )
            elif rate > self._best_rate * _GROWS:
                self._best_rate = rate
                self.share = min(MOST, self.share * _STEP)
            self._restart(now)

    def _restart(self, now: float) -> None:
        self._since = now
        self._count = 0
