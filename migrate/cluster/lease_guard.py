"""The lead's lease, as a worker sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from migrate.bundle import layout, lease
from migrate.errors import BusyError, DamageError, GoneError, MoveoutError, UnreachableError
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.process_identity import uptime
from migrate.storage.api import Store

LOOK_SECONDS = 5.0
SILENCE_SECONDS = lease.STALE_SECONDS * 0.7
"""A lease that has not moved for so long, by this machine's own clock, may be taken over soon."""


class LockFence:
    """The lock of a database, held by the session of the lead, as a worker sees it. What is done there is done once by
    the database's own promise; so this only ends work that is in vain.
    """

    def __init__(
        self,
        holds: Callable[[], bool],
        cancellation: CancellationToken,
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._holds = holds
        self._cancellation = cancellation
        self._look_seconds = look_seconds
        self._thread = threading.Thread(target=self._watch, name="moveout-fence", daemon=True)

    def start(self) -> None:
        """Look once, raise what ``check`` raises, then keep looking until ``cancellation`` is set."""
        self.check()
        self._thread.start()

    def check(self) -> None:
        """Raise ``BusyError`` unless the lead's session holds the lock, ``SourceError`` where one cannot tell."""
        if not self._holds():
            self._cancellation.cancel()
            raise BusyError("the lead's session does not hold the lock of the destination any more")

    def _watch(self) -> None:
        while not self._cancellation.wait(self._look_seconds):
            with suppress(MoveoutError):
                self.check()


class LeaseFence:
    """Lets a worker commit while the lease is the lead's and moves; see ``migrate.bundle.lease.Fence``.

    The location is asked before every commit, and every few seconds between. ``cancellation`` is cancelled as soon as
    the worker must not go on, so that what is being written ends at its next block. ``store`` does not retry for long.
    """

    def __init__(
        self,
        store: Store,
        id_: str,
        cancellation: CancellationToken,
        *,
        look_seconds: float = LOOK_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._store = store
        self._id = id_
        self._cancellation = cancellation
        self._look_seconds = look_seconds
        self._silence_seconds = silence_seconds
        self._beats = -1
        self._moved = uptime()
        self._thread = threading.Thread(target=self._watch, name="moveout-fence", daemon=True)

    def start(self) -> None:
        """Look once, raise what ``check`` raises, then keep looking until ``cancellation`` is set."""
        self.check()
        self._thread.start()

    def check(self) -> None:
        """Raise ``BusyError`` unless the lease at the location is the lead's and was seen to move of late."""
        asked_at, record = self._look()
        if record is None or record.id != self._id:
            self._cancellation.cancel()
            raise BusyError(
                f"{self._store.location}: "
                + (f"in use: {record}" if record else "there is no lease of this run"),
                next_step="a location must be the same one for all machines: a bucket, or a shared directory",
            )
        if record.beats != self._beats:
            self._beats, self._moved = record.beats, asked_at
        if self._silent():
            self._cancellation.cancel()
            raise BusyError(
                f"{self._store.location}: no sign of life from the lead for {self._silence_seconds:.0f} s"
            )

    def _silent(self) -> bool:
        return uptime() - self._moved > self._silence_seconds

    def _look(self) -> tuple[float, lease.LeaseState | None]:
        """Return the lease, and when it was asked for. Raises ``UnreachableError`` if nobody has answered for so long
        that it makes no difference any more.
        """
        while True:
            asked_at = uptime()
            try:
                return asked_at, lease.decode(self._store.read(layout.LEASE))
            except (GoneError, DamageError):
                return asked_at, None
            except UnreachableError:
                if self._silent():
                    self._cancellation.cancel()
                    raise

    def _watch(self) -> None:
        while not self._cancellation.wait(self._look_seconds):
            with suppress(MoveoutError):
                self.check()
