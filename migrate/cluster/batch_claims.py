"""Claims on batches that must not be done by two workers at once.

The cluster gives a batch to another worker when it takes one for dead. That one may live, cut off from the scheduler
only; and what it has done is unknown. A version that is written twice becomes two versions. So a worker writes a claim
to the location before it writes anything else. A worker that meets a claim there takes it over, waits until the other
one must have noticed, and looks at what there is before it goes on.
"""

from __future__ import annotations

import secrets

from msgspec import Struct, field

from migrate.cluster.lease_guard import LOOK_SECONDS, SILENCE_SECONDS
from migrate.errors import AlreadyExistsError, ChangedError, GoneError
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.process_identity import uptime
from migrate.storage.api import Store

FOLDER = "claims/"
_OVER = b"over"
"""What stands where a worker has ended, whole or not: nobody need wait for it."""


class Claim(Struct):
    """One worker's hold on one batch. ``contested``: another one had it before."""

    store: Store
    key: str
    cancellation: CancellationToken
    contested: bool = False
    look_seconds: float = LOOK_SECONDS
    _token: bytes = field(default_factory=lambda: secrets.token_hex(8).encode())
    _looked: float = 0.0

    def claim_batch(self, wait_seconds: float) -> None:
        """Take the batch. Raises ``Cancelled``."""
        try:
            self.store.create(self.key, self._token)
        except AlreadyExistsError:
            self.contested = True
            if not self._take_over() and self.cancellation.wait(wait_seconds):
                raise Cancelled from None
            self._looked = uptime() - self.look_seconds
            self.check()
        else:
            self._looked = uptime()

    def _take_over(self) -> bool:
        """Replace the claim that lies there; tell whether its worker has ended. Where two come at once, the second
        finds the claim of the first.
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
        """Raise ``Cancelled`` where the work must end: the job's does, or another worker has taken the batch over, for
        which the location is asked every few seconds.
        """
        self.cancellation.check()
        if uptime() - self._looked >= self.look_seconds:
            if not self._is_ours():
                raise Cancelled
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


class Claims(Struct, frozen=True):
    """The claims on the batches of one job."""

    store: Store
    job: str
    cancellation: CancellationToken
    wait_seconds: float = SILENCE_SECONDS
    look_seconds: float = LOOK_SECONDS

    def on(self, batch: str) -> Claim:
        """Take a batch. Raises ``Cancelled``."""
        claim = Claim(
            self.store, f"{FOLDER}{self.job}/{batch}", self.cancellation, look_seconds=self.look_seconds
        )
        claim.claim_batch(self.wait_seconds)
        return claim
