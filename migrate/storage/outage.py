"""How long a location has failed at all that was asked of it: known to all that use it in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from exporters.connections.silent_servers import FIRST_ANSWER_SECONDS

NOTE_SECONDS = 60.0
"""An outage is reported no more often than that."""
_FORGOTTEN_SECONDS = 150.0
"""A failure so long after the one before belongs to another outage: a silent server takes a minute to fail."""
SILENT_SECONDS = 15.0
"""A server that gives no answer for so long is reported, and waited for."""
ANSWER_SECONDS = 60.0
"""How long a request waits for a server that sends nothing, or takes nothing, before it fails."""
_looking: list[None] = []
"""An entry for each ``looking`` that lasts. It is of the process: boto3 waits in connections and threads of its own, so
no parameter reaches all that has to wait for a shorter time.
"""


@contextmanager
def looking() -> Iterator[None]:
    """As long as the context lasts, this process only looks: it goes on without a server that is silent, and another
    one than the calls themselves says so (``migrate.progress.server_contact``).
    """
    _looking.append(None)
    try:
        yield
    finally:
        _looking.pop()


def is_looking() -> bool:
    """Tell whether this process only looks."""
    return bool(_looking)


def answer_seconds() -> float:
    """Return how long a request waits for a silent server: less where this process only looks."""
    return min(ANSWER_SECONDS, FIRST_ANSWER_SECONDS) if is_looking() else ANSWER_SECONDS


class Outage:
    """The time since which every call to one location has failed. Thread-safe; ``end`` is cheap."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: float | None = None
        self._begun_at = datetime.now(UTC)
        self._failed_at = 0.0
        self._noted_at: float | None = None
        self._under_way: dict[object, float] = {}
        self._answered = 0.0
        self.has_answered = False
        """Whether the location has ever answered: then its address is right."""
        self._silent_at: datetime | None = None

    @property
    def seconds(self) -> float:
        """How long it has lasted; 0 where there is none."""
        begun = self._begun
        return 0.0 if begun is None else self._clock() - begun

    def failed(self) -> None:
        """Note that a call has failed."""
        with self._lock:
            now = self._clock()
            if self._begun is None or now - self._failed_at > _FORGOTTEN_SECONDS:
                self._begun, self._begun_at = now, datetime.now(UTC)
                if self._silent_at is None:
                    self._noted_at = None
            self._failed_at = now

    def asked(self) -> object:
        """Note that a call is under way; return what stands for it in ``over``."""
        call = object()
        self._under_way[call] = self._clock()
        return call

    def over(self, call: object) -> None:
        """Note that a call is under way no more, answered or not."""
        self._under_way.pop(call, None)

    def silent_seconds(self) -> float:
        """Return how long the calls under way have had no answer."""
        begun = min(list(self._under_way.values()), default=None)
        return 0.0 if begun is None else self._clock() - max(begun, self._answered)

    def silent(self, seconds: float) -> None:
        """Note that the location has been silent for so long."""
        with self._lock:
            if self._begun is None and self._silent_at is None:
                self._silent_at = datetime.now(UTC) - timedelta(seconds=seconds)
                self._noted_at = None

    def end(self) -> float:
        """Note that the location has answered. Return how long an outage was that was reported, else 0."""
        self._answered = self._clock()
        self.has_answered = True
        if self._begun is None and self._silent_at is None:
            return 0.0
        with self._lock:
            seconds, was_noted = (datetime.now(UTC) - self._since).total_seconds(), self._noted_at is not None
            self._begun = self._noted_at = self._silent_at = None
        return seconds if was_noted else 0.0

    def is_note_due(self) -> bool:
        """Return whether a note is due now; the next one is a minute later."""
        with self._lock:
            now = self._clock()
            if self._noted_at is not None and now - self._noted_at < NOTE_SECONDS:
                return False
            self._noted_at = now
            return True

    @property
    def _since(self) -> datetime:
        return self._silent_at or self._begun_at

    @property
    def since(self) -> str:
        """Return when it began, for people: with the silence, where there was one before the first failure."""
        return f"{self._since:%H:%M:%S} UTC"

    def moment(self, seconds: float = 0.0) -> str:
        """Return the moment so many seconds after the first failure, for people; before it: after the silence began."""
        begun = self._begun_at if self._begun is not None else self._since
        return f"{begun + timedelta(seconds=seconds):%H:%M:%S} UTC"


_outages: dict[str, Outage] = {}


def outage_of(location: str) -> Outage:
    """Return the outage of a location, which all of this process share."""
    return _outages.setdefault(location, Outage())
