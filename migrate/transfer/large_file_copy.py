"""One large file on its way, in parts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

from migrate.bundle.findings import Finding
from migrate.errors import DamageError, GoneError
from migrate.storage.api import MultipartStore, Part, Upload
from migrate.storage.checksums import combine, crc64nvme
from migrate.transfer.ordered_hash import InOrderHasher
from migrate.transfer.plan import FileJob, PartJob
from migrate.transfer.scheduler import Piece

Ended = Callable[[Finding | None], None]
Counted = Callable[[int], None]


class LargeFile:
    """Parts are moved by several workers at once; the last to finish makes the file, or tells why not.

    An interruption leaves the upload as it is, to go on with; ``go_on`` raises for one, ``check`` where the lease is
    lost. ``refused``: all parts were there, and the destination made something else of them.
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
        go_on: Callable[[], None],
    ) -> None:
        self.job = job
        self.upload = upload
        self.refused = False
        self._origin, self._destination, self._check, self._go_on = origin, destination, check, go_on
        self._on_sent, self._on_kept = on_sent, on_kept
        self._hasher = InOrderHasher()
        self._lock = threading.Lock()
        self._done: dict[int, Part] = {}
        self._running = 0
        self._lost: Finding | None = None
        self._ended = False

    def as_upload(self) -> Upload:
        """The upload as a listing would show it."""
        return Upload(self.job.file.key, self.upload, datetime.now(UTC))

    def pieces(self, on_end: Ended) -> Iterator[Piece]:
        """Yield the parts' work, in order; none any more once the file is given up. ``on_end`` is called
        once.
        """
        for part in self.job.parts:
            with self._lock:
                if self._lost is not None:
                    return
                self._running += 1
            yield Piece(part.size_bytes, partial(self._work, part, on_end))

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
        self._go_on()
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
            moved = part.kept
            self._on_kept(part.size_bytes)
        else:
            moved = self._destination.put_part(key, self.upload, part.number, data)
            self._on_sent(part.size_bytes)
        del data
        if self._hasher.wait(part.number):
            with self._lock:
                self._done[part.number] = moved

    def _lose(self, finding: Finding) -> None:
        with self._lock:
            self._lost = self._lost or finding
        self._hasher.fail()

    def _make(self) -> Finding | None:
        file = self.job.file
        found = self._hasher.hexdigest()
        if file.sha256 is not None and found != file.sha256:
            return Finding(
                file.key,
                "differs from the manifest at the origin",
                f"SHA-256 {file.sha256}",
                f"SHA-256 {found}",
            )
        parts = [self._done[number] for number in sorted(self._done)]
        whole = combine((part.crc64nvme or 0, part.size_bytes) for part in parts)
        self._check()
        try:
            self._destination.complete(file.key, self.upload, parts, crc64nvme=whole)
        except DamageError as exc:
            self.refused = True
            return Finding(
                file.key, "did not arrive at the destination as it was sent", exc.expected, exc.found
            )
        return None
