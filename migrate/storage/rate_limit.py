"""A limit on bytes per second, shared by all threads of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from migrate.errors import UsageError
from migrate.quantities import Rates, Timetable
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import FileInfo, MultipartStore, NewFile, StoreWrapper, UploadedPart

_STEP_SECONDS = 1.0
"""The longest single wait: afterwards the timetable may give another rate."""
_NEXT_TO_NOTHING = 0.5
SMALL_BYTES = 64 * 2**10
"""A record or a list of a bundle is no larger, usually. So much still passes when its waiting was cancelled."""


class RateLimiter:
    """A queue at a counter: whoever takes waits until all that was taken before has been paid for, and then until its
    own bytes are.

    So bytes are paid for before they go, nothing is owed at the end, and the average over any long time is the rate. A
    part larger than a second's worth goes out in one piece. With a timetable the rate is that of the local time of day,
    also for those who wait already. A cancelled run waits no more. Once the limit is lifted, nobody waits.
    """

    def __init__(
        self,
        limit: float | Rates,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        local_time: Callable[[], datetime] = datetime.now,
        cancellation: CancellationToken | None = None,
    ) -> None:
        if isinstance(limit, float | int):
            if limit <= 0:
                raise UsageError(f"{limit} is not a rate")
            limit = Timetable(((0, float(limit)),))
        self._table: Rates = limit
        self._cancellation = cancellation or CancellationToken()
        self._clock, self._sleep, self._local_time = clock, sleep or self._cancellation.wait, local_time
        self._lock = threading.Lock()
        self._is_lifted = False
        self._taken = self._paid = 0.0
        self._paid_at = clock()

    @property
    def bytes_per_second(self) -> float | None:
        """The rate; of a timetable the lowest; None where there is no limit."""
        return self._table.lowest

    @property
    def present_rate(self) -> float | None:
        """The bytes a second that may pass now; None where there is no limit."""
        return None if self._is_lifted else self._table.at(self._local_time())

    def take(self, size_bytes: int, cancellation: CancellationToken | None = None) -> None:
        """Wait until ``size_bytes`` may pass. Raises ``Cancelled`` where ``cancellation`` ends the waiting for more
        than ``SMALL_BYTES``: they are not to pass.
        """
        with self._lock:
            self._pay()
            self._taken += size_bytes
            due = self._taken
        while not self._cancellation.is_cancelled:
            if cancellation is not None and cancellation.is_cancelled:
                break
            with self._lock:
                rate = self._pay()
                left = due - self._paid
            if rate is None or left < _NEXT_TO_NOTHING:
                return
            (cancellation.sleep if cancellation is not None else self._sleep)(min(left / rate, _STEP_SECONDS))
        if cancellation is not None and size_bytes > SMALL_BYTES:
            cancellation.check()

    def count(self, size_bytes: int) -> None:
        """Count bytes that pass at once: who comes next waits for them."""
        with self._lock:
            self._pay()
            self._taken += size_bytes

    def lift(self) -> None:
        """Let everything pass from now on."""
        with self._lock:
            self._is_lifted = True
            self._pay()

    def settle(self) -> tuple[float, float]:
        """Pay for the time until now, at the rate that holds; return the bytes that were taken in all, and those of
        them that are still to be paid for.
        """
        with self._lock:
            self._pay()
            return self._taken, self._taken - self._paid

    def _pay(self) -> float | None:
        """Pay for the time that has passed, at the rate that holds now; return the rate."""
        now, rate = self._clock(), self.present_rate
        paid = self._taken if rate is None else self._paid + rate * (now - self._paid_at)
        self._paid, self._paid_at = min(paid, self._taken), now
        return rate


class RateLimited(StoreWrapper):
    """A store whose bodies, read and written, count against a rate limiter. Files, and parts of files, of up to
    ``at_once_bytes``, and conditional ones such as a lease, do not wait for it.

    ``cancellation`` ends the waiting: what waits is not written, but for a small record of what has arrived.
    """

    def __init__(
        self,
        store: MultipartStore,
        rate_limiter: RateLimiter,
        *,
        cancellation: CancellationToken | None,
        at_once_bytes: int,
    ) -> None:
        super().__init__(store)
        self._rate_limiter = rate_limiter
        self._cancellation = cancellation
        self._at_once_bytes = at_once_bytes

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""
        self._take(len(data), at_once_bytes=self._at_once_bytes)
        return super().put(key, data, sha256=sha256)

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``."""
        self._take(sum(len(file.data) for file in files))
        super().put_all(files)

    def create(self, key: str, data: bytes) -> FileInfo:
        """See ``Store.create``."""
        self._rate_limiter.count(len(data))
        return super().create(key, data)

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """See ``Store.replace``."""
        self._rate_limiter.count(len(data))
        return super().replace(key, data, etag=etag)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``Store.read``. What was read is paid for before it is returned."""
        data = super().read(key, start, length)
        self._take(len(data), at_once_bytes=self._at_once_bytes)
        return data

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        """See ``MultipartStore.put_part``."""
        self._take(len(data), at_once_bytes=self._at_once_bytes)  # the rest of a file may be small
        return super().put_part(key, upload, number, data)

    def _take(self, size_bytes: int, *, at_once_bytes: int = -1) -> None:
        if size_bytes <= at_once_bytes:
            self._rate_limiter.count(size_bytes)
        else:
            self._rate_limiter.take(size_bytes, self._cancellation)
