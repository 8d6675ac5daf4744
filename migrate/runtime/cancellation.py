"""Cancellation: one token that ends waiting and work.

Whoever starts a run makes a token and passes it to everything that waits or works in another thread. A signal handler
or the first error of a run cancels it. Work that meets a cancelled token raises ``Cancelled``.
"""

from __future__ import annotations

import threading
import time
from weakref import WeakSet

GRACE_SECONDS = 5.0
"""How long a request that is being sent when its run is cancelled may take to finish."""


class Cancelled(BaseException):
    """The run was cancelled. Not an ``Exception``, so that no exporter takes it for an item that failed."""


class CancellationToken:
    """Says whether a run was cancelled. Thread-safe; ``cancel`` may be called by a signal handler."""

    def __init__(self) -> None:
        # Its lock is reentrant: a signal handler may run while its own thread holds it.
        self._changed = threading.Condition()
        self._cancelled_at: float | None = None
        self._children: WeakSet[CancellationToken] = WeakSet()

    @property
    def is_cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled_at is not None

    @property
    def is_overdue(self) -> bool:
        """Whether it was cancelled more than ``GRACE_SECONDS`` ago."""
        cancelled_at = self._cancelled_at
        return cancelled_at is not None and time.monotonic() - cancelled_at > GRACE_SECONDS

    def cancel(self) -> None:
        """End all waiting, now and later, here and in all children."""
        with self._changed:
            if self._cancelled_at is None:
                self._cancelled_at = time.monotonic()
            self._changed.notify_all()
            children = list(self._children)
        for child in children:
            child.cancel()

    def check(self) -> None:
        """Raise ``Cancelled`` if the run was cancelled."""
        if self.is_cancelled:
            raise Cancelled

    def wait(self, seconds: float) -> bool:
        """Wait; return True, at once, if the run is cancelled."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_cancelled, seconds)

    def sleep(self, seconds: float) -> None:
        """Wait, unless the run is cancelled."""
        self.wait(seconds)

    def child(self) -> CancellationToken:
        """Return a token that is cancelled with this one, or alone."""
        token = CancellationToken()
        with self._changed:
            self._children.add(token)
        if self.is_cancelled:
            token.cancel()
        return token
