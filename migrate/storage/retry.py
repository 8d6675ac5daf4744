"""The one location where things are tried again.

What may be tried again says so by its type (``retryable``). Most calls can simply be repeated: they come to
the same end. Three cannot, because an attempt that seemed to fail may have worked: a conditional ``create``
or ``replace`` then meets its own file, and ``complete`` an upload that is gone. These look at what lies there
before they call it an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import tenacity

from migrate.errors import (
    AlreadyExistsError,
    ChangedError,
    DamagedOnTheWayError,
    GoneError,
    MoveoutError,
    SlowDownError,
)
from migrate.runtime.cancellation import PROCESS, CancellationToken
from migrate.storage.api import PART_BYTES, FileInfo, MultipartStore, NewFile, Part, Parts, Upload
from migrate.storage.checksums import crc64nvme as crc64
from migrate.storage.concurrency_limit import Pace

T = TypeVar("T")
Note = Callable[[str], None]

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
TOTAL_SECONDS = 300.0
FIRST_CONTACT_SECONDS = 10.0
"""A location that has never answered is more likely misspelt than down."""
NOTE_AFTER_SECONDS = 10.0
DAMAGED_ATTEMPTS = 5
"""So often bytes are sent that arrive damaged."""


class Retrying:
    """A store that tries again after passing faults: full jitter up to ``longest_wait``, or as long as the
    other side asks, until ``total_seconds`` have passed since the first attempt. ``note`` is told when a
    retry takes long.

    A cancelled run waits no more: what fails from then on fails for good.

    ``retries`` counts all second attempts; ``pace`` says how much may be under way at once at a struggling server.
    """

    def __init__(
        self,
        store: MultipartStore,
        *,
        total_seconds: float = TOTAL_SECONDS,
        first_contact_seconds: float = FIRST_CONTACT_SECONDS,
        first_wait: float = FIRST_WAIT_SECONDS,
        longest_wait: float = LONGEST_WAIT_SECONDS,
        note: Note | None = None,
        cancellation: CancellationToken = PROCESS,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.inner = store
        self.location = store.location
        self.keeps_sha256 = store.keeps_sha256
        self.together = store.together
        self.note: Note = note or _ignore
        self.retries = 0
        self.pace = Pace()
        self._count = threading.Lock()
        self._cancellation = cancellation
        self._total_seconds = total_seconds
        self._first_contact_seconds = min(first_contact_seconds, total_seconds)
        self._answered = False
        self._jitter = tenacity.wait_random_exponential(multiplier=first_wait, max=longest_wait)
        self._sleep = cancellation.sleep if sleep is None else sleep

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""
        return self._try(lambda: self.inner.put(key, data, sha256=sha256))

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``."""
        self._try(lambda: self.inner.put_all(files))

    def create(self, key: str, data: bytes) -> FileInfo:
        """See ``Store.create``."""
        return self._try_conditional(lambda: self.inner.create(key, data), key, data)

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """See ``Store.replace``."""
        return self._try_conditional(lambda: self.inner.replace(key, data, etag=etag), key, data)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``Store.read``."""
        return self._try(lambda: self.inner.read(key, start, length))

    def stat(self, key: str) -> FileInfo:
        """See ``Store.stat``."""
        return self._try(lambda: self.inner.stat(key))

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        """See ``Store.list``. After a fault it goes on behind the last file that was seen."""
        last = start_after
        rows = iter(self.inner.list(prefix, start_after=last))

        def again() -> FileInfo | None:
            nonlocal rows
            try:
                return next(rows, None)
            except MoveoutError:
                rows = iter(self.inner.list(prefix, start_after=last))  # a generator that raised is finished
                raise

        while (info := self._try(again)) is not None:
            last = info.key
            yield info

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        self._try(lambda: self.inner.delete(key))

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``."""
        self._try(lambda: self.inner.delete_all(keys))

    def part_bytes(self, size_bytes: int) -> int:
        """See ``MultipartStore.part_bytes``."""
        return self.inner.part_bytes(size_bytes)

    def begin(self, key: str, *, sha256: str | None = None, part_bytes: int = PART_BYTES) -> str:
        """See ``MultipartStore.begin``. A lost answer leaves an empty upload behind, which the transfer's end
        removes.
        """
        return self._try(lambda: self.inner.begin(key, sha256=sha256, part_bytes=part_bytes))

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """See ``MultipartStore.uploads``."""
        return iter(self._try(lambda: list(self.inner.uploads(prefix))))

    def parts(self, key: str, upload: str) -> Parts:
        """See ``MultipartStore.parts``."""
        return self._try(lambda: self.inner.parts(key, upload))

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part:
        """See ``MultipartStore.put_part``."""
        return self._try(lambda: self.inner.put_part(key, upload, number, data))

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``."""
        attempts = 0

        def attempt() -> FileInfo:
            nonlocal attempts
            attempts += 1
            try:
                return self.inner.complete(key, upload, parts, crc64nvme=crc64nvme)
            except GoneError:
                found = self._finished(key, parts, crc64nvme) if attempts > 1 else None
                if found is None:
                    raise
                return found

        return self._try(attempt)

    def abort(self, key: str, upload: str) -> None:
        """See ``MultipartStore.abort``."""
        self._try(lambda: self.inner.abort(key, upload))

    def _finished(self, key: str, parts: Parts, crc64nvme: int) -> FileInfo | None:
        """Return the file if it is what these parts make: an earlier attempt has worked, its answer was
        lost.
        """
        try:
            info = self.inner.stat(key)
        except GoneError:
            return None
        if info.size_bytes != sum(part.size_bytes for part in parts):
            return None
        crc = 0
        for start in range(0, info.size_bytes, PART_BYTES):
            crc = crc64(self.inner.read(key, start, PART_BYTES), crc)
        return info if crc == crc64nvme else None

    def _try_conditional(self, call: Callable[[], FileInfo], key: str, data: bytes) -> FileInfo:
        """Try; where a second attempt finds the condition broken, see whether our own first attempt broke
        it.
        """
        attempts = 0

        def attempt() -> FileInfo:
            nonlocal attempts
            attempts += 1
            try:
                return call()
            except (AlreadyExistsError, ChangedError):
                if attempts == 1:
                    raise
                info = self.inner.stat(key)
                if info.size_bytes != len(data) or self.inner.read(key) != data:
                    raise
                return info

        return self._try(attempt)

    def _try(self, call: Callable[[], T]) -> T:
        value = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=self._wait,
            stop=self._stop,
            sleep=self._sleep,
            before_sleep=self._tell,
            reraise=True,
        )(call)
        self._answered = True
        self.pace.done()
        return value

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Full jitter; or what the other side asks for, and a little jitter, so that not all come back at
        once.
        """
        error = state.outcome.exception() if state.outcome else None
        jitter = self._jitter(state)
        if isinstance(error, SlowDownError) and error.wait_seconds is not None:
            return error.wait_seconds + min(jitter, 1.0)
        return jitter

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        passed = (state.seconds_since_start or 0.0) + state.upcoming_sleep
        limit = self._total_seconds if self._answered else self._first_contact_seconds
        return self._cancellation.is_cancelled or passed > limit or _is_hopeless(state)

    def _tell(self, state: tenacity.RetryCallState) -> None:
        with self._count:
            self.retries += 1
        self.pace.slower()
        if (state.seconds_since_start or 0.0) + state.upcoming_sleep >= NOTE_AFTER_SECONDS and state.outcome:
            self.note(f"{state.outcome.exception()}; trying again (attempt {state.attempt_number + 1})")


def _passes(error: BaseException) -> bool:
    return isinstance(error, MoveoutError) and error.retryable


def _is_hopeless(state: tenacity.RetryCallState) -> bool:
    """Tell whether bytes have been damaged so often that it is no accident."""
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, DamagedOnTheWayError) and state.attempt_number >= DAMAGED_ATTEMPTS


def _ignore(_: str) -> None:
    """Tell nobody."""


def patiently(
    call: Callable[[], T],
    *,
    total_seconds: float = TOTAL_SECONDS,
    note: Note | None = None,
    cancellation: CancellationToken = PROCESS,
) -> T:
    """Call, and again after passing faults, with the waits of ``Retrying``: for requests that go to no
    store. ``note`` is told when that takes long.
    """
    jitter = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait_seconds if isinstance(error, SlowDownError) else None
        return jitter(state) if asked is None else asked + min(jitter(state), 1.0)

    def stop(state: tenacity.RetryCallState) -> bool:
        passed = (state.seconds_since_start or 0.0) + state.upcoming_sleep
        return cancellation.is_cancelled or passed > total_seconds or _is_hopeless(state)

    def tell(state: tenacity.RetryCallState) -> None:
        passed = (state.seconds_since_start or 0.0) + state.upcoming_sleep
        if note is not None and passed >= NOTE_AFTER_SECONDS and state.outcome:
            note(f"{state.outcome.exception()}; trying again (attempt {state.attempt_number + 1})")

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_passes),
        wait=wait,
        stop=stop,
        sleep=cancellation.sleep,
        before_sleep=tell,
        reraise=True,
    )(call)


class Contact:
    """Requests to one server that go to no store: ``patiently``, but not for long before it has answered once, for one
    that never did is more likely misspelt than down.
    """

    def __init__(self, note: Note | None = None) -> None:
        self._note = note
        self._answered = False

    def ask(self, call: Callable[[], T]) -> T:
        """Return what the call returns."""
        seconds = TOTAL_SECONDS if self._answered else FIRST_CONTACT_SECONDS
        found = patiently(call, total_seconds=seconds, note=self._note)
        self._answered = True
        return found
