"""Who is at a batch that must not be done by two at once.

The cluster gives a batch to another worker when it takes one for dead. That one may live, cut off from the scheduler
only; and of what it has done nobody was told. To write a version twice makes two of it. So a worker lays a claim at the
location before it writes; who finds one there takes it over, waits until the other must have noticed, and looks at what
there is before it goes on.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field

from migrate.bundle.unit_sink import Stopped
from migrate.cluster.lease_guard import LOOK_SECONDS, SILENCE_SECONDS
from migrate.errors import AlreadyExistsError, ChangedError, GoneError
from migrate.runtime.process_identity import uptime
from migrate.storage.api import Store

FOLDER = "claims/"
_OVER = b"over"
"""What stands where a worker has ended, whole or not: nobody need wait for it."""


@dataclass(slots=True)
class Claim:
    """One worker's hold on one batch. ``contested``: another one had it before."""

    store: Store
    key: str
    stop: threading.Event
    contested: bool = False
    look_seconds: float = LOOK_SECONDS
    _token: bytes = field(default_factory=lambda: secrets.token_hex(8).encode())
    _looked: float = 0.0

    def lay(self, wait_seconds: float) -> None:
        """Take the batch. Raises ``Stopped``."""
        try:
            self.store.create(self.key, self._token)
        except AlreadyExistsError:
            self.contested = True
            if not self._take_over() and self.stop.wait(wait_seconds):
                raise Stopped from None
            self._looked = uptime() - self.look_seconds
            self.check()
        else:
            self._looked = uptime()

    def _take_over(self) -> bool:
        """Replace the claim that lies there; tell whether whose it was has ended. Of two that come at once the second
        finds the first one's.
        """
        while True:
            etag = self.store.stat(self.key).etag
            is_over = self.store.read(self.key) == _OVER
            try:
                self.store.replace(self.key, self._token, etag=etag)
            except ChangedError:
                continue
            return is_over

    def check(self) -> None:
        """Raise ``Stopped`` where the work must end: the job's does, or another worker has taken the batch over, for
        which the location is asked every few seconds.
        """
        if self.stop.is_set():
            raise Stopped
        if uptime() - self._looked >= self.look_seconds:
            if not self._is_ours():
                raise Stopped
            self._looked = uptime()

    def leave(self) -> None:
        """Say that nothing more will come of it."""
        if self._is_ours():
            self.store.put(self.key, _OVER)

    def _is_ours(self) -> bool:
        try:
            return self.store.read(self.key) == self._token
        except GoneError:
            return False


@dataclass(frozen=True, slots=True)
class Claims:
    """Of one job."""

    store: Store
    job: str
    stop: threading.Event
    wait_seconds: float = SILENCE_SECONDS
    look_seconds: float = LOOK_SECONDS

    def on(self, batch: str) -> Claim:
        """Take a batch. Raises ``Stopped``."""
        claim = Claim(self.store, f"{FOLDER}{self.job}/{batch}", self.stop, look_seconds=self.look_seconds)
        claim.lay(self.wait_seconds)
        return claim
