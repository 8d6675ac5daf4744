"""Files on their way from location to location, by threads: looked for at the destination, read, checked, sent; large
ones in parts.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.lease import Fence
from migrate.errors import DamageError, GoneError
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.worker_pool import TICK_SECONDS, ThreadWorkerPool
from migrate.storage.api import PART_BYTES, MultipartStore, Store, Upload, UploadedPart
from migrate.storage.checksums import combine, crc64nvme
from migrate.storage.multipart import find_upload
from migrate.transfer.counters import Counter
from migrate.transfer.plan import FileJob, PartJob, SealedFile, candidates, plan_file
from migrate.transfer.scheduler import CopyTask, TaskQueue


class CopySettings(Struct, frozen=True):
    """From where to where, and under which lease. ``cancellation`` ends what is under way, and the waits of both
    stores; ``on_stuck`` is called when threads have not ended some time after that. ``recheck``: what lies at the
    destination is hashed.
    """

    origin: MultipartStore
    destination: MultipartStore
    fence: Fence
    cancellation: CancellationToken
    on_stuck: Callable[[], None]
    workers: int
    recheck: bool


class FileCopier:
    """``look``: earlier runs may have left an upload of a file; it is looked for when it is the file's turn."""

    def __init__(self, settings: CopySettings, counters: Counter, *, look: bool) -> None:
        self._settings = settings
        self._origin, self._destination = settings.origin, settings.destination
        self._counters = counters
        self._uploads: dict[str, list[Upload]] = {}
        self._look = look
        self._tasks: TaskQueue | None = None

    def missing(self, files: Sequence[SealedFile], present: Mapping[str, int]) -> list[SealedFile]:
        """Return the files that must be moved, in order, after a look at those that have their size
        already.
        """
        missing, same_size = candidates(files, present)
        differing: list[SealedFile] = []

        def check(file: SealedFile) -> None:
            if self._is_same(file):
                self._counters.skip_file(file)
            else:
                differing.append(file)

        self._run(
            TaskQueue(
                (_task(check, file, 0) for file in same_size),
                (),
                workers=self._settings.workers,
                most=self._most,
            )
        )
        copied_keys = {file.key for file in (*missing, *differing)}
        return [file for file in files if file.key in copied_keys]

    def _is_same(self, file: SealedFile) -> bool:
        """Tell whether the file at the destination, which has the right size, is this one."""
        if file.sha256 is None:
            return hash_of(self._origin, file) == hash_of(self._destination, file)
        if self._settings.recheck or not file.key.startswith(layout.DATA):
            return hash_of(self._destination, file) == file.sha256
        if not self._destination.keeps_sha256:
            return True
        stored_digest = self._destination.stat(file.key).sha256
        return (stored_digest or hash_of(self._destination, file)) == file.sha256

    def move(self, files: Sequence[SealedFile]) -> None:
        """Move files. Raises whatever a store raises for good, ``Cancelled``."""
        jobs = [plan_file(file, self._destination.part_bytes(file.size_bytes)) for file in files]
        small = (_task(self._small, job.file, job.file.size_bytes) for job in jobs if job.is_small)
        openers = (self._opener(job) for job in jobs if not job.is_small)
        self._run(TaskQueue(small, openers, workers=self._settings.workers, most=self._most))

    def _most(self) -> int:
        """Return how many tasks may be under way: fewer than there are workers while a location struggles, else as
        many again wait for their turn.
        """
        workers = self._settings.workers
        limiters = (store.limiter for store in (self._origin, self._destination))
        most = min((limiter.of(workers) for limiter in limiters if limiter), default=workers)
        return most if most < workers else 2 * workers

    def _run(self, tasks: TaskQueue) -> None:
        self._tasks = tasks
        workers = self._settings.workers
        pool: ThreadWorkerPool[CopyTask, None] = ThreadWorkerPool(
            lambda task: task.do(),
            workers,
            name="moveout-transfer",
            ahead=workers,
            cancellation=self._settings.cancellation,
            on_stuck=self._settings.on_stuck,
        )
        tasks.run(pool)

    def _small(self, file: SealedFile) -> None:
        """Read, check, put. Wrong bytes are read once more before they are called damage."""
        data, actual_digest = b"", ""
        for _ in range(2):
            self._settings.cancellation.check()
            try:
                data = self._origin.read(file.key)
            except GoneError:
                self.gone(file)
                return
            actual_digest = hashlib.sha256(data).hexdigest()
            if actual_digest == (file.sha256 or actual_digest):
                self._settings.fence.check()
                self._destination.put(file.key, data, sha256=actual_digest)
                self._counters.move_bytes(file, len(data))
                self._counters.move_file(file)
                return
        self._counters.find(damaged(file, actual_digest))

    def gone(self, file: SealedFile) -> None:
        """Note that a file vanished at the origin; raises ``GoneError`` if all of the origin did."""
        try:
            self._origin.stat(layout.BAGIT)
        except GoneError as exc:
            raise GoneError(f"{self._origin.location} is gone, in the middle of the transfer") from exc
        self._counters.find(Finding(file.key, "was listed at the origin but is gone now"))

    def _opener(self, job: FileJob, attempt: int = 1) -> Callable[[], Iterator[CopyTask]]:
        def open_file() -> Iterator[CopyTask]:
            count = self._counters.skip_bytes if attempt == 1 else self._counters.pass_bytes
            large = LargeFile(
                self._planned(job.file),
                self._settings,
                on_sent=partial(self._counters.move_bytes, job.file),
                on_kept=partial(count, job.file),
            )
            return large.pieces(on_end=lambda finding: self._ended(large, finding, attempt))

        return open_file

    def _ended(self, large: LargeFile, finding: Finding | None, attempt: int) -> None:
        """Finish a large file: complete it, or give it up. Where bytes were wrong for the first time it is moved again,
        by another upload where the destination made something else of this one.
        """
        file = large.job.file
        if finding is None:
            self._counters.move_file(file)
        elif attempt == 1 and finding.found:
            if large.refused:
                self._destination.abort(file.key, large.upload)
            else:
                self._uploads[file.key] = [large.as_upload()]
            self._counters.again(file, finding)
            assert self._tasks is not None
            self._tasks.again(self._opener(large.job, attempt + 1))
        else:
            self._destination.abort(file.key, large.upload)
            if finding.found:
                self._counters.find(finding)
            else:
                self.gone(file)

    def _planned(self, file: SealedFile) -> FileJob:
        """Return how the file is moved: by its unfinished upload that has most bytes, with the part size of that, else
        by a new one.
        """
        part_bytes = self._destination.part_bytes(file.size_bytes)
        known = self._uploads.pop(file.key, None)
        if known or self._look:
            upload = find_upload(self._destination, file.key, part_bytes, uploads=known)
            if upload is not None:
                return plan_file(file, upload.part_bytes, upload.id, upload.parts.values())
        upload_id = self._destination.begin(file.key, sha256=file.sha256, part_bytes=part_bytes)
        return plan_file(file, part_bytes, upload_id)


class LargeFile:
    """Parts are moved by several workers at once; the last to finish makes the file, or reports why not.

    A cancellation leaves the upload as it is, to be continued later. ``on_sent`` and ``on_kept`` are called with the
    bytes of parts that were sent, and that were there. ``refused``: all parts were there, and the destination made
    something else of them.
    """

    def __init__(
        self,
        job: FileJob,
        settings: CopySettings,
        *,
        on_sent: Callable[[int], None],
        on_kept: Callable[[int], None],
    ) -> None:
        assert job.upload is not None
        self.job, self.upload = job, job.upload
        self.refused = False
        self._origin, self._destination = settings.origin, settings.destination
        self._fence, self._cancellation = settings.fence, settings.cancellation
        self._on_sent, self._on_kept = on_sent, on_kept
        self._hasher = InOrderHasher(settings.cancellation)
        self._lock = threading.Lock()
        self._done: dict[int, UploadedPart] = {}
        self._running = 0
        self._lost: Finding | None = None
        self._ended = False

    def as_upload(self) -> Upload:
        """The upload as a listing would show it."""
        return Upload(self.job.file.key, self.upload, datetime.now(UTC))

    def pieces(self, on_end: Callable[[Finding | None], None]) -> Iterator[CopyTask]:
        """Yield the parts' work, in order; none any more once the file is abandoned. ``on_end`` is called
        once.
        """
        for part in self.job.parts:
            with self._lock:
                if self._lost is not None:
                    return
                self._running += 1
            yield CopyTask(part.size_bytes, partial(self._work, part, on_end))

    def _work(self, part: PartJob, on_end: Callable[[Finding | None], None]) -> None:
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
            return damaged(file, actual_digest)
        parts = [self._done[number] for number in sorted(self._done)]
        combined_crc = combine((part.crc64nvme or 0, part.size_bytes) for part in parts)
        self._fence.check()
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
        """Return True once the part is hashed, False if the file was abandoned. Raises ``Cancelled``."""
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
        """The digest of all parts hashed so far."""
        return self._hash.hexdigest()

    def _take(self) -> bytes | None:
        with self._changed:
            part = self._early.pop(self._next, None)
            if part is None:
                self._hashing = False
            return part


def _task(do: Callable[[SealedFile], None], file: SealedFile, size_bytes: int) -> CopyTask:
    return CopyTask(size_bytes, lambda: do(file))


def hash_of(store: Store, file: SealedFile) -> str:
    """Return the SHA-256 of what lies at the location, read in blocks; "" where it is gone."""
    digest = hashlib.sha256()
    try:
        for start in range(0, file.size_bytes, PART_BYTES):
            digest.update(store.read(file.key, start, PART_BYTES))
    except GoneError:
        return ""
    return digest.hexdigest()


def damaged(file: SealedFile, actual_digest: str) -> Finding:
    """Return the finding for a file whose bytes are not what the manifest says."""
    return Finding(
        file.key,
        "differs from the manifest at the origin",
        f"SHA-256 {file.sha256}",
        f"SHA-256 {actual_digest}",
    )
