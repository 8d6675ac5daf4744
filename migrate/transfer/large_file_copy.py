"""One large file on its way, in parts."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

from migrate.bundle.findings import Finding
from migrate.errors import DamageError, GoneError
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.worker_pool import TICK_SECONDS
from migrate.storage.api import MultipartStore, Upload, UploadedPart
from migrate.storage.checksums import combine, crc64nvme
from migrate.transfer.plan import FileJob, PartJob
from migrate.transfer.scheduler import CopyTask

Ended = Callable[[Finding | None], None]
Counted = Callable[[int], None]


class LargeFile:
    """Parts are moved by several workers at once; the last to finish makes the file, or reports why not.

    ``cancellation`` leaves the upload as it is, to be continued later. ``check`` raises where the lease is lost.
    ``refused``: all parts were there, and the destination made something else of them.
    """

    def __init__(
        self,
        job: FileJob,
        upload: str,
        *,
        origin: MultipartStore,
        destination: MultipartStore,
        on_sent: Counted,
        on_kept: Counted,
        check: Callable[[], None],
        cancellation: CancellationToken,
    ) -> None:
        self.job = job
        self.upload = upload
        self.refused = False
        self._origin, self._destination, self._check = origin, destination, check
        self._cancellation = cancellation
        self._on_sent, self._on_kept = on_sent, on_kept
        self._hasher = InOrderHasher(cancellation)
        self._lock = threading.Lock()
        self._done: dict[int, UploadedPart] = {}
        self._running = 0
        self._lost: Finding | None = None
        self._ended = False

    def as_upload(self) -> Upload:
        """The upload as a listing would show it."""
        return Upload(self.job.file.key, self.upload, datetime.now(UTC))

    def pieces(self, on_end: Ended) -> Iterator[CopyTask]:
        """Yield the parts' work, in order; none any more once the file is given up. ``on_end`` is called
        once.
        """
        for part in self.job.parts:
            with self._lock:
                if self._lost is not None:
                    return
                self._running += 1
            yield CopyTask(part.size_bytes, partial(self._work, part, on_end))

    def _work(self, part: PartJob, on_end: Ended) -> None:
        try:
            self._move(part)
        except BaseException:
            self._hasher.fail()
            raise
        with self._lock:
            self._running -= 1
            over = not self._ended and (
                len(self._done) == len(self.job.parts) or (self._lost is not None and self._running == 0)
            )
            self._ended = self._ended or over
        if over:
            on_end(self._lost or self._make())

    def _move(self, part: PartJob) -> None:
        key = self.job.file.key
        if self._lost is not None:
            return
        self._cancellation.check()
        try:
            data = self._origin.read(key, part.start, part.size_bytes)
        except GoneError:
            self._lose(Finding(key, "is gone at the origin"))
            return
        if len(data) != part.size_bytes:
            size = part.start + len(data)
            self._lose(
                Finding(key, "is shorter than listed", f"{self.job.file.size_bytes} bytes", f"{size} bytes")
            )
            return
        self._hasher.offer(part.number, data)
        if part.kept is not None and part.kept.crc64nvme == crc64nvme(data):
            stored_part = part.kept
            self._on_kept(part.size_bytes)
        else:
            stored_part = self._destination.put_part(key, self.upload, part.number, data)
            self._on_sent(part.size_bytes)
        del data
        if self._hasher.wait(part.number):
            with self._lock:
                self._done[part.number] = stored_part

    def _lose(self, finding: Finding) -> None:
        with self._lock:
            self._lost = self._lost or finding
        self._hasher.fail()

    def _make(self) -> Finding | None:
        file = self.job.file
        actual_digest = self._hasher.hexdigest()
        if file.sha256 is not None and actual_digest != file.sha256:
            return Finding(
                file.key,
                "differs from the manifest at the origin",
                f"SHA-256 {file.sha256}",
                f"SHA-256 {actual_digest}",
            )
        parts = [self._done[number] for number in sorted(self._done)]
        combined_crc = combine((part.crc64nvme or 0, part.size_bytes) for part in parts)
        self._check()
        try:
            self._destination.complete(file.key, self.upload, parts, crc64nvme=combined_crc)
        except DamageError as exc:
            self.refused = True
            return Finding(
                file.key, "did not arrive at the destination as it was sent", exc.expected, exc.found
            )
        return None


class InOrderHasher:
    """Takes parts 1, 2, … as they come and hashes them in order; a part that is early is held until its turn.

    Whoever offers a part should ``wait`` for it before reading another one: that bounds what is held.
    """

    def __init__(self, cancellation: CancellationToken) -> None:
        self._cancellation = cancellation
        self._hash = hashlib.sha256()
        self._early: dict[int, bytes] = {}
        self._next = 1
        self._hashing = False
        self._failed = False
        self._changed = threading.Condition()

    def offer(self, number: int, data: bytes) -> None:
        """Hash the part now and those that waited for it, if it is its turn and nobody else is at it."""
        with self._changed:
            self._early[number] = data
            if self._hashing:
                return
            self._hashing = True
        while (part := self._take()) is not None:
            self._hash.update(part)  # without the interpreter's lock
            with self._changed:
                self._next += 1
                self._changed.notify_all()

    def wait(self, number: int) -> bool:
        """Return True once the part is hashed, False if the file was given up. Raises ``Cancelled``."""
        with self._changed:
            while not self._changed.wait_for(lambda: self._next > number or self._failed, TICK_SECONDS):
                self._cancellation.check()
            return self._next > number

    def fail(self) -> None:
        """Give the file up: nobody waits any longer."""
        with self._changed:
            self._failed = True
            self._early.clear()
            self._changed.notify_all()

    def hexdigest(self) -> str:
        """Of all parts hashed so far."""
        return self._hash.hexdigest()

    def _take(self) -> bytes | None:
        with self._changed:
            part = self._early.pop(self._next, None)
            if part is None:
                self._hashing = False
            return part
