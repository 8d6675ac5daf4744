"""A worker's share of the budget: a rate that the lead sets anew again and again, and that runs out by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from migrate.quantities import Rates
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.rate_limit import RateLimiter

NOTHING = 1.0
"""Bytes a second of who has no share: nobody divides by zero."""


class Share:
    """See ``migrate.quantities.Rates``. Without a share, or once it has run out, next to nothing passes."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rate: float | None = NOTHING
        self._until = 0.0
        self._rates: Rates | None = None

    lowest: float | None = None

    def at(self, moment: datetime) -> float | None:
        """Return the rate that holds now; None: no limit."""
        with self._lock:
            if self._rates is not None:
                return self._rates.at(moment)
            return self._rate if self._clock() < self._until else NOTHING

    def grant(self, rate: float | None, seconds: float) -> None:
        """Let so many bytes a second pass for so long."""
        with self._lock:
            self._rate = rate if rate is None else max(rate, NOTHING)
            self._until = self._clock() + seconds
            self._rates = None

    def follow(self, rates: Rates) -> None:
        """Have all there is, until the next share."""
        with self._lock:
            self._rates = rates


class Allowance:
    """A rate limiter that goes by a share."""

    def __init__(self, cancellation: CancellationToken | None = None) -> None:
        self.share = Share()
        self.rate_limiter = RateLimiter(self.share, cancellation=cancellation)

    def exchange(self, rate: float | None, seconds: float) -> tuple[float, float]:
        """Take a new share; return the bytes that were taken until now, and those that are still to be paid for."""
        used = self.rate_limiter.settle()
        self.share.grant(rate, seconds)
        return used
