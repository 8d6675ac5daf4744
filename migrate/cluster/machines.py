"""The machines of a cluster that a command can use: who is at work just now, who is not fit for it, and what share of
the bandwidth each has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime

from msgspec import Struct, field

from migrate.cluster import worker
from migrate.cluster.bandwidth_shares import Allowance, Budget, Use
from migrate.cluster.dask_client import Cluster, connect
from migrate.errors import MoveoutError
from migrate.quantities import Rates
from migrate.storage.rate_limit import RateLimiter
from migrate.storage.retry import Note

TICK_SECONDS = 1.0
HERE = "here"
"""The lead itself: it writes too."""
_CALLS_AT_ONCE = 32
_TELL_SECONDS = 60.0


class Limit(Struct, frozen=True):
    """The rate of all machines together, and the allowance by which the lead's own share is kept."""

    rates: Rates
    here: Allowance = field(default_factory=Allowance)

    def rate(self) -> float | None:
        """Return the rate that holds now, in bytes a second; None: no limit."""
        return self.rates.at(datetime.now())  # noqa: DTZ005  timetables are of local time

    def all_here(self) -> None:
        """Give all of it to the lead: nobody else is at work."""
        self.here.share.follow(self.rates)


class Machines(Struct, frozen=True):
    """A cluster, and the limit that holds for all of it together, the lead included."""

    cluster: Cluster
    limit: Limit | None

    @property
    def rate_limiter(self) -> RateLimiter | None:
        """What the lead's own bytes count against."""
        return self.limit.here.rate_limiter if self.limit else None


@contextmanager
def connected(scheduler: str, rates: Rates | None) -> Iterator[Machines]:
    """Lend the machines of a scheduler. Raises what ``connect`` raises."""
    cluster = connect(scheduler)
    try:
        limit = Limit(rates) if rates is not None else None
        if limit is not None:
            limit.all_here()
        yield Machines(cluster, limit)
    finally:
        cluster.close()


class Roster:
    """Looks every second who is there, in a thread of its own; lends out shares where there is a limit."""

    def __init__(self, cluster: Cluster, job: str, note: Note, limit: Limit | None) -> None:
        self._cluster = cluster
        self._job = job
        self._note = note
        self._limit = limit
        self._budget = Budget()
        self._lock = threading.Lock()
        self._threads: dict[str, int] = {}
        self._unfit: dict[str, Exception] = {}
        self._asked: dict[str, tuple[float, float]] = {}
        self._busy: set[str] = set()
        self._stop = threading.Event()
        self._reported_at = 0.0
        self._calls = ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="moveout-roster")
        self._thread = threading.Thread(target=self._watch, name="moveout-roster", daemon=True)

    def start(self) -> None:
        """Begin to look. Raises ``UnreachableError``."""
        self._look()
        self._lend()
        self._thread.start()

    def stop(self) -> None:
        """End; who is here alone gets the whole rate."""
        self._stop.set()
        self._calls.shutdown(wait=False, cancel_futures=True)
        if self._limit is not None:
            self._limit.all_here()

    @property
    def fit(self) -> dict[str, int]:
        """The workers that may be given something, with the number of batches each does at once."""
        with self._lock:
            return {name: count for name, count in self._threads.items() if name not in self._unfit}

    @property
    def everybody(self) -> list[str]:
        """All workers that were there when one last looked."""
        with self._lock:
            return list(self._threads)

    @property
    def has_unfit(self) -> bool:
        """Whether some worker must not be given anything."""
        return bool(self._unfit)

    def exclude(self, name: str, reason: Exception) -> None:
        """Give a worker nothing more. Raises ``reason`` if nobody is left that is fit."""
        with self._lock:
            news = name not in self._unfit
            self._unfit[name] = reason
        if news:
            self._note(f"worker {name} is given nothing more: {reason}")
        if not self.fit:
            raise reason

    def _watch(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            try:
                self._look()
                self._lend()
            except MoveoutError as exc:
                self._tell(str(exc))
            except RuntimeError:  # the calls' threads were shut down meanwhile
                return

    def _look(self) -> None:
        threads = dict(self._cluster.threads())
        with self._lock:
            self._threads = threads
        if not self.fit:
            self._tell(f"no worker is there at {self._cluster.address}; waiting for one to join")

    def _tell(self, message: str) -> None:
        if not self._reported_at or time.monotonic() - self._reported_at > _TELL_SECONDS:
            self._reported_at = time.monotonic()
            self._note(message)

    def _lend(self) -> None:
        if self._limit is None:
            return
        rate = self._limit.rate()
        names = self.everybody
        with self._lock:
            self._budget.members({HERE, *names})
            free = [name for name in names if name not in self._busy]
            self._busy.update(free)
        local_share = self._limit.here
        self._exchange(HERE, rate, local_share.exchange)
        for name in free:
            self._calls.submit(self._exchange, name, rate, self._asking(name))

    def _asking(self, name: str) -> Callable[[float | None, float], tuple[float, float] | None]:
        def ask(rate: float | None, seconds: float) -> tuple[float, float] | None:
            usage: tuple[float, float] | None = self._cluster.call(
                name, worker.exchange, self._job, rate, seconds
            )
            return usage

        return ask

    def _exchange(
        self,
        name: str,
        rate: float | None,
        ask: Callable[[float | None, float], tuple[float, float] | None],
    ) -> None:
        """Offer a member its share, and learn what it did with the one before."""
        now = time.monotonic
        with self._lock:
            offered = self._budget.offer(name, rate or 0.0, now())
        try:
            used = ask(None if rate is None else offered, self._budget.lend_seconds)
        except MoveoutError:
            with self._lock:
                self._budget.refused(name, now())
        else:
            with self._lock:
                self._budget.accepted(name, offered, self._use(name, used, now()), now())
        with self._lock:
            self._busy.discard(name)

    def _use(self, name: str, used: tuple[float, float] | None, now: float) -> Use:
        if used is None:
            return Use(0.0, waiting=False)
        taken_bytes, owed = used
        before, then = self._asked.get(name, (0.0, now - TICK_SECONDS))
        self._asked[name] = (taken_bytes, now)
        return Use(max(0.0, taken_bytes - before) / max(now - then, 0.001), waiting=owed > 0)
