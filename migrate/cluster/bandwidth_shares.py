"""How one rate is divided among machines that come and go: what the lead lends, and the share that a machine goes by.

A share is lent for some seconds and lapses by itself, so a machine that is cut off stops by itself. Nobody gets more
than what is lent to nobody else at that moment: the sum never exceeds the rate, whatever gets lost on the way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from msgspec import Struct

from migrate.quantities import Rates
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.rate_limit import RateLimiter

NOTHING = 1.0
"""Bytes a second of who has no share: nobody divides by zero."""
LEND_SECONDS = 10.0
LEAST_PART = 0.1
"""Which part of an even share is kept ready for a machine that needs nothing now."""
ROOM_TO_GROW = 1.5


class Use(Struct, frozen=True):
    """What a machine did with its share: bytes a second that passed, and whether more were waiting."""

    rate: float
    waiting: bool


class _Loan(Struct, frozen=True):
    rate: float
    until: float


def divide(rate: float, uses: Mapping[str, Use | None]) -> dict[str, float]:
    """Return each one's part of ``rate``: evenly, but what one does not need goes to those that wait for more. Who is
    not known yet (None) counts as waiting.
    """
    if not uses:
        return {}
    least = rate / len(uses) * LEAST_PART
    wishes = {
        name: rate if use is None or use.waiting else max(use.rate * ROOM_TO_GROW, least)
        for name, use in uses.items()
    }
    parts: dict[str, float] = {}
    left = rate
    for served, (name, wished_rate) in enumerate(sorted(wishes.items(), key=lambda item: item[1])):
        parts[name] = min(wished_rate, left / (len(wishes) - served))
        left -= parts[name]
    return parts


class Budget:
    """What is lent to whom. Not thread-safe. Times are of one monotonic clock, in seconds."""

    def __init__(self, *, lend_seconds: float = LEND_SECONDS) -> None:
        self.lend_seconds = lend_seconds
        self._uses: dict[str, Use | None] = {}
        self._loans: dict[str, _Loan] = {}

    def members(self, names: set[str]) -> None:
        """Say who is there; what was lent to others is theirs until it lapses."""
        self._uses = {name: self._uses.get(name) for name in names}

    def offer(self, name: str, rate: float, now: float) -> float:
        """Return what is offered to a member now. Until ``accepted`` or ``refused`` is called, the larger of this and
        what it had counts as lent, without end.
        """
        self._loans = {member: loan for member, loan in self._loans.items() if loan.until > now}
        lent_to_others = sum(loan.rate for member, loan in self._loans.items() if member != name)
        offered = max(0.0, min(divide(rate, self._uses).get(name, 0.0), rate - lent_to_others))
        before = self._loans.get(name)
        held_rate = max(offered, before.rate if before else 0.0)
        self._loans[name] = _Loan(held_rate, float("inf"))
        return offered

    def accepted(self, name: str, offered: float, use: Use | None, now: float) -> None:
        """Say that the offer has arrived, at the latest now."""
        self._loans[name] = _Loan(offered, now + self.lend_seconds)
        if name in self._uses:
            self._uses[name] = use

    def refused(self, name: str, now: float) -> None:
        """Note that it is unknown whether it has arrived."""
        self._loans[name] = _Loan(self._loans[name].rate, now + self.lend_seconds)


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
