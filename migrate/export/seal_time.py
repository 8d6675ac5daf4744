"""When an export stops reading, so that what it has is sealed before the deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from exporters.api import InterruptibleCount, Snapshot
from exporters.connections.open_connections import hang_up
from exporters.errors import SourceError
from migrate.errors import IncompleteError
from migrate.storage.silence import watch

_TIDY_UP_SECONDS, _COUNT_AGAIN_SECONDS = 15.0, 2.0
_UNDER_WAY_SHARE = 0.1
"""What is under way at once may take so much of the time that is left."""


class SealTimeError(SourceError, IncompleteError):
    """A source was not read to its end, because the bundle is to be sealed now."""

    code = "seal-time"


def _now() -> datetime:
    return datetime.now(UTC)


class SealTime(Struct, frozen=True):
    """The moment from which on an export reads no more; None: it reads to the end. ``reserve_seconds`` are left then
    until the deadline.
    """

    moment: datetime | None = None
    now: Callable[[], datetime] = _now
    reserve_seconds: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the moment has come."""
        return self.moment is not None and self.now() >= self.moment

    @property
    def is_count_over(self) -> bool:
        """Whether half of the reserve is over: nothing is counted any more."""
        half = timedelta(seconds=self.reserve_seconds / 2)
        return self.moment is not None and self.now() >= self.moment + half

    def may_begin(self, size_bytes: int, under_way_bytes: int, bytes_per_second: float | None) -> bool:
        """Tell whether a unit may begin while others are under way, with which it shares a limit on bytes a second
        (None: there is none). All together may take a tenth of the time that is left, so that they arrive one after the
        other: if all began at once, none would be whole in time. Where none is under way a unit may always begin.
        """
        if self.moment is None or bytes_per_second is None or not under_way_bytes:
            return True
        left_seconds = (self.moment - self.now()).total_seconds()
        return under_way_bytes + size_bytes <= bytes_per_second * left_seconds * _UNDER_WAY_SHARE

    def error(self, source: str) -> SealTimeError:
        """Return why a source is not read any more."""
        return SealTimeError(
            f"the bundle is sealed now, to leave before the deadline; {source} was not read to its end",
            next_step="run the same command again: it continues",
        )

    def check(self, source: str) -> None:
        """Raise ``SealTimeError`` if the moment has come."""
        if self.is_over:
            raise self.error(source)


class _Alarm:
    """Calls ``act`` as soon as ``is_due`` returns True, and again after some seconds, until it is off."""

    def __init__(self, is_due: Callable[[], bool], act: Callable[[], None], again_seconds: float) -> None:
        self._is_due, self._act, self._again_seconds = is_due, act, again_seconds
        self.is_off = False
        self._next = 0.0
        watch(self)

    def look(self) -> None:
        """See ``Watched``. ``act`` may take a moment, so a thread calls it."""
        if not self.is_off and time.monotonic() >= self._next and self._is_due():
            self._next = time.monotonic() + self._again_seconds
            threading.Thread(target=self._act, name="moveout-alarm", daemon=True).start()


@contextmanager
def _alarm(is_due: Callable[[], bool], act: Callable[[], None], again_seconds: float) -> Iterator[None]:
    alarm = _Alarm(is_due, act, again_seconds)
    try:
        yield
    finally:
        alarm.is_off = True


def woken_at_the_seal(seal_time: SealTime, url: str) -> AbstractContextManager[None]:
    """Close the connections to the database of a URL when it is time to seal. The server may be waiting itself, such as
    for transactions of others, and for longer than there is time. After some seconds for tidying up they are closed
    again.
    """
    if seal_time.moment is None:
        return nullcontext()
    return _alarm(lambda: seal_time.is_over, lambda: hang_up(lambda other: other == url), _TIDY_UP_SECONDS)


def counted_in_time(seal_time: SealTime, snapshot: Snapshot) -> AbstractContextManager[None]:
    """Make a snapshot abandon its counts when half of the time for the seal is over."""
    if seal_time.moment is None or not isinstance(snapshot, InterruptibleCount):
        return nullcontext()
    return _alarm(lambda: seal_time.is_count_over, snapshot.count_no_more, _COUNT_AGAIN_SECONDS)


def seal_time_before(deadline: datetime | None, reserve_seconds: float | None) -> SealTime:
    """Return when an export stops for the reserve before the deadline; never, where that moment has passed."""
    if deadline is None or reserve_seconds is None:
        return SealTime()
    moment = deadline - timedelta(seconds=reserve_seconds)
    return SealTime(moment if moment > _now() else None, reserve_seconds=reserve_seconds)
