"""The bytes of bodies under way to one server. There is as much as its link carries in some seconds, and at least one
body. The next one begins as soon as only the rest of it has to leave.

More would only wait in queues: each body would take longer, a kill would cost more, and a late answer would look like
a lost one. The rate of the link is measured while bodies leave. Where one body cannot fill it (far away, with losses,
each connection has a rate of its own), more are tried, and kept as long as the rate grows with them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from migrate.runtime.cancellation import CancellationToken, Cancelled

SECONDS_UNDER_WAY = 8.0
"""How long the bodies under way may take to leave, where there is more than one."""
_REST_SECONDS, _REST_BYTES = 1.0, 256 * 2**10
"""The rest of a body: what the link carries in this time, or this many bytes. Then the next one may begin."""
LEAST_BYTES = 2**20
FIRST_BYTES = 4 * 2**20
"""The limit of small bodies before the link was measured."""
SMALL_BYTES = 256 * 2**10
"""A body up to this size goes at once."""
_PIECE_SECONDS, _LARGEST_PIECE_BYTES = 0.05, 4 * 2**20
"""A body leaves in pieces, each what the link carries in this time; sending can be stopped after each."""
_FIRST_WINDOW_SECONDS, _WINDOW_SECONDS = 0.05, 0.25
_STEP_SECONDS, _LONGEST_STEP_SECONDS = 2.0, 6.0
_STEP_BYTES = 2 * 2**20
"""A step is measured over this many bytes, unless they take too long."""
_MORE = 1.5
_WORTH = 0.4
"""More bodies are kept where the rate grows by this part of their own growth."""
_TRY_AGAIN_SECONDS, _LONGEST_TRY_AGAIN_SECONDS = 30.0, 600.0
"""Time between two tries with more bodies: longer each time that the rate did not grow."""
_FORGET = 0.1
_LOOK_SECONDS = 0.25

_here = threading.local()


class Body:
    """One body on its way. ``gone_bytes`` have left, as far as this machine reports it before the answer comes."""

    __slots__ = ("_cancellation", "_limiter", "among_bytes", "begun", "gone_bytes", "size_bytes")

    def __init__(self, limiter: InflightLimiter, size_bytes: int, cancellation: CancellationToken) -> None:
        self._limiter = limiter
        self._cancellation = cancellation
        self.size_bytes = size_bytes
        self.gone_bytes = 0
        self.begun = 0.0
        self.among_bytes = 0
        """The bytes under way when this one was begun, its own included."""

    @property
    def piece_bytes(self) -> int:
        """How much to send before ``left`` is called."""
        return max(SMALL_BYTES, min(int(self._limiter.rate * _PIECE_SECONDS), _LARGEST_PIECE_BYTES))

    def begin(self) -> None:
        """Note that it is sent from its beginning, perhaps again."""
        self.gone_bytes = 0

    def left(self, size_bytes: int) -> None:
        """Note how many bytes of it have left by now. Raises ``Cancelled`` where a cancelled run has had time for
        the rest.
        """
        if self._cancellation.is_overdue:
            raise Cancelled
        remaining = size_bytes - self.gone_bytes
        if remaining > 0:
            self.gone_bytes = size_bytes
            self._limiter.count(remaining)


def leaving() -> Body | None:
    """Return the body that this thread is sending, None where it is small, or no body."""
    body: Body | None = getattr(_here, "body", None)
    return body


@contextmanager
def carrying(body: Body) -> Iterator[None]:
    """Have this thread send a body while the context lasts."""
    before, _here.body = leaving(), body
    try:
        yield
    finally:
        _here.body = before


class InflightLimiter:
    """Shared by all that send to one server. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._bodies: set[Body] = set()
        self._bytes = 0
        self._waiting: deque[object] = deque()
        self._rate = 0.0
        self._count = self._step_count = 0
        self._since = self._step_since = clock()
        self._more = 0
        """The number of bodies tried, or kept, beyond what the rate allows."""
        self._before: tuple[int, float] | None = None
        """That number, and the rate, before more were tried."""
        self._settling = False
        self._next_try = 0.0
        self._in_vain = _TRY_AGAIN_SECONDS

    @property
    def rate(self) -> float:
        """Bytes a second that the link was seen to carry; 0 before the first measurement."""
        return self._rate

    def gone_bytes(self) -> int:
        """Return what has left of bodies that are not answered yet."""
        with self._changed:
            return sum(body.gone_bytes for body in self._bodies)

    @contextmanager
    def sending(self, size_bytes: int, cancellation: CancellationToken) -> Iterator[None]:
        """Wait for room, in turn, and have it while the context lasts, for one body, sent by this thread. Raises
        ``Cancelled``: at once while it waits, some seconds later while it leaves.
        """
        if size_bytes <= SMALL_BYTES:
            yield
            return
        body = self.begin_patiently(size_bytes, cancellation)
        arrived = False
        try:
            with carrying(body):
                yield
            arrived = True
        finally:
            self.end(body, arrived=arrived)

    def begin(self, size_bytes: int, cancellation: CancellationToken) -> Body | None:
        """Take room for a body if there is some, without waiting. ``end`` gives it back."""
        with self._changed:
            return self._begun(size_bytes, cancellation) if self._fits(size_bytes) else None

    def begin_patiently(self, size_bytes: int, cancellation: CancellationToken) -> Body:
        """Take room for a body, wait for it in turn. See ``sending``."""
        with self._changed:
            turn = object()
            self._waiting.append(turn)
            try:
                while self._waiting[0] is not turn or not self._admits(size_bytes):
                    cancellation.check()
                    self._changed.wait(_LOOK_SECONDS)
                    self._look()
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
            return self._begun(size_bytes, cancellation)

    def end(self, body: Body, *, arrived: bool) -> None:
        """Note that a body was answered or abandoned; further calls do nothing."""
        with self._changed:
            if body not in self._bodies:
                return
            self._bodies.remove(body)
            self._bytes -= body.size_bytes
            if arrived:
                # While it was under way the link has carried about what it was among.
                self._learn(body.among_bytes / max(self._clock() - body.begun, 1e-6))
            self._look()
            self._changed.notify_all()

    def count(self, size_bytes: int) -> None:
        """Count bytes that have left."""
        with self._changed:
            self._count += size_bytes
            self._step_count += size_bytes
            self._look()

    def _begun(self, size_bytes: int, cancellation: CancellationToken) -> Body:
        body = Body(self, size_bytes, cancellation)
        self._bodies.add(body)
        self._bytes += size_bytes
        body.begun, body.among_bytes = self._clock(), self._bytes
        return body

    def _admits(self, size_bytes: int) -> bool:
        return self._leaving() < 1 + self._more or self._fits(size_bytes)

    def _leaving(self) -> int:
        """Return how many bodies have more to go than a rest."""
        rest = max(_REST_BYTES, self._rate * _REST_SECONDS)
        return sum(body.size_bytes - body.gone_bytes > rest for body in self._bodies)

    def _fits(self, size_bytes: int) -> bool:
        room = max(LEAST_BYTES, self._rate * SECONDS_UNDER_WAY) if self._rate else FIRST_BYTES
        return self._bytes + size_bytes <= room

    def _learn(self, rate: float) -> None:
        self._rate = max(rate, self._rate + (rate - self._rate) * _FORGET)

    def _look(self) -> None:
        now = self._clock()
        if (seconds := now - self._since) >= (_WINDOW_SECONDS if self._rate else _FIRST_WINDOW_SECONDS):
            if self._waiting or self._count / seconds > self._rate:  # else nobody had more to send
                self._learn(self._count / seconds)
            self._since, self._count = now, 0
            self._changed.notify_all()
        if (seconds := now - self._step_since) >= _STEP_SECONDS and (
            self._settling or self._step_count >= _STEP_BYTES or seconds >= _LONGEST_STEP_SECONDS
        ):
            self._step(now, self._step_count / seconds)
            self._step_since, self._step_count = now, 0

    def _step(self, now: float, rate: float) -> None:
        """See whether more bodies at once bring more."""
        if not self._waiting:
            self._before = None
        elif self._settling:
            self._settling = False
        elif self._before is None:
            if now >= self._next_try:
                self._try(rate)
        else:
            less, rate_before = self._before
            if rate >= rate_before * (1 + _WORTH * ((1 + self._more) / (1 + less) - 1)):
                self._in_vain = _TRY_AGAIN_SECONDS
                self._try(rate)
            else:
                self._more, self._before = less, None
                self._next_try = now + self._in_vain
                self._in_vain = min(2 * self._in_vain, _LONGEST_TRY_AGAIN_SECONDS)

    def _try(self, rate: float) -> None:
        concurrency = max(self._leaving(), 1)
        self._before = (concurrency - 1, rate)
        self._more = max(concurrency + 1, int(concurrency * _MORE)) - 1
        self._settling = True
        self._changed.notify_all()


def inflight_limiter_of(server: str) -> InflightLimiter:
    """Return the limiter of a server, which all of this process share, by the URL of its endpoint."""
    return _limiters.setdefault(server, InflightLimiter())


_limiters: dict[str, InflightLimiter] = {}


def gone_bytes() -> int:
    """Return what has left, to all servers, of bodies that are not answered yet."""
    return sum(limiter.gone_bytes() for limiter in list(_limiters.values()))
