"""Files on their way from location to location, by threads: looked for at the destination, read, checked, sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.lease import Fence
from migrate.errors import GoneError
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.worker_pool import ThreadWorkerPool
from migrate.storage.api import PART_BYTES, MultipartStore, Store, Upload
from migrate.storage.multipart import find_upload
from migrate.transfer.counters import Counter
from migrate.transfer.large_file_copy import LargeFile
from migrate.transfer.plan import FileJob, WantedFile, candidates, plan_file
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
    """``uploads`` were begun by earlier runs, by key; ``look``: others may be found for a file when it is its turn."""

    def __init__(
        self, settings: CopySettings, counters: Counter, uploads: dict[str, list[Upload]], *, look: bool
    ) -> None:
        self._settings = settings
        self._origin, self._destination = settings.origin, settings.destination
        self._counters = counters
        self._uploads = uploads
        self._look = look
        self._tasks: TaskQueue | None = None

    def missing(self, files: Sequence[WantedFile], present: Mapping[str, int]) -> list[WantedFile]:
        """Return the files that must be moved, in order, after a look at those that have their size
        already.
        """
        missing, same_size = candidates(files, present)
        differing: list[WantedFile] = []

        def check(file: WantedFile) -> None:
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

    def _is_same(self, file: WantedFile) -> bool:
        """Tell whether the file at the destination, which has the right size, is this one."""
        if file.sha256 is None:
            return hash_of(self._origin, file) == hash_of(self._destination, file)
        if self._settings.recheck or not file.key.startswith(layout.DATA):
            return hash_of(self._destination, file) == file.sha256
        if not self._destination.keeps_sha256:
            return True
        stored_digest = self._destination.stat(file.key).sha256
        return (stored_digest or hash_of(self._destination, file)) == file.sha256

    def move(self, files: Sequence[WantedFile]) -> None:
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

    def _small(self, file: WantedFile) -> None:
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

    def gone(self, file: WantedFile) -> None:
        """Note that a file vanished at the origin; raises ``GoneError`` if all of the origin did."""
        try:
            self._origin.stat(layout.BAGIT)
        except GoneError as exc:
            raise GoneError(f"{self._origin.location} is gone, in the middle of the transfer") from exc
        self._counters.find(Finding(file.key, "was listed at the origin but is gone now"))

    def _opener(self, job: FileJob, attempt: int = 1) -> Callable[[], Iterator[CopyTask]]:
        def open_file() -> Iterator[CopyTask]:
            planned = self._planned(job.file)
            assert planned.upload is not None
            count = self._counters.skip_bytes if attempt == 1 else self._counters.pass_bytes
            large = LargeFile(
                planned,
                planned.upload,
                origin=self._origin,
                destination=self._destination,
                on_sent=partial(self._counters.move_bytes, job.file),
                on_kept=partial(count, job.file),
                check=self._settings.fence.check,
                cancellation=self._settings.cancellation,
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

    def _planned(self, file: WantedFile) -> FileJob:
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


def _task(do: Callable[[WantedFile], None], file: WantedFile, size_bytes: int) -> CopyTask:
    return CopyTask(size_bytes, lambda: do(file))


def hash_of(store: Store, file: WantedFile) -> str:
    """Return the SHA-256 of what lies at the location, read in blocks; "" where it is gone."""
    digest = hashlib.sha256()
    try:
        for start in range(0, file.size_bytes, PART_BYTES):
            digest.update(store.read(file.key, start, PART_BYTES))
    except GoneError:
        return ""
    return digest.hexdigest()


def damaged(file: WantedFile, actual_digest: str) -> Finding:
    """Return the finding for a file whose bytes are not what the manifest says."""
    return Finding(
        file.key,
        "differs from the manifest at the origin",
        f"SHA-256 {file.sha256}",
        f"SHA-256 {actual_digest}",
    )
