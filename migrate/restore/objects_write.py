"""Objects from a bundle into a bucket: small ones in batches, large ones in parts. Nothing is written whose
bytes are not those that the index promises.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from migrate.bundle.objects import ObjectRow
from migrate.errors import (
    DamageError,
    GoneError,
    MoveoutError,
    NoSpaceError,
    NotAllowedError,
    UnreachableError,
)
from migrate.progress import Progress
from migrate.restore.account import Moved
from migrate.restore.objects_terms import Terms, has_own_parts, in_parts
from migrate.store.base import Part, Store
from migrate.store.checksums import crc64nvme
from migrate.store.patience import is_halted
from migrate.store.retry import Retrying
from migrate.store.s3_bucket_write import Description, TargetBucket, is_md5
from migrate.store.sizes import part_bytes_for, part_sizes

BATCH_BYTES = 16 * 2**20
BATCH_OBJECTS = 1000
READ_BYTES = 4 * 2**20
"""Members that lie together are read together, up to so much."""
WINDOW_BYTES = 8 * 2**20
_PARTS_AHEAD = 3
_LARGE_AT_ONCE = threading.BoundedSemaphore(2)


@dataclass(frozen=True, slots=True)
class Job:
    """An object to write, and the whole key that it gets."""

    key: str
    row: ObjectRow


@dataclass(frozen=True, slots=True)
class Done:
    """What a batch came to."""

    items: int
    size_bytes: int
    findings: tuple[str, ...]
    moved: tuple[Moved, ...] = ()


def batches(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Gather jobs into batches; an object that goes in parts is one by itself."""
    gathered: list[Job] = []
    size_bytes = 0
    for job in jobs:
        if in_parts(job.row):
            yield [job]
            continue
        if gathered and (size_bytes + job.row.size_bytes > BATCH_BYTES or len(gathered) == BATCH_OBJECTS):
            yield gathered
            gathered, size_bytes = [], 0
        gathered.append(job)
        size_bytes += job.row.size_bytes
    if gathered:
        yield gathered


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes batches; thread-safe. Raises what stops the whole restore, tells the rest as findings."""

    store: Store
    target: TargetBucket
    progress: Progress
    terms: Terms

    def write(self, batch: Sequence[Job]) -> Done:
        """Write one batch."""
        if len(batch) == 1 and in_parts(batch[0].row):
            described = self.terms.describe(batch[0].key, batch[0].row)
            return upload(self.store, self.target, batch[0], described, self.progress)
        findings: list[str] = []
        sent: deque[Job] = deque()
        items = size_bytes = 0
        for written in self.target.put_all(self._bodies(batch, sent, findings), window_bytes=WINDOW_BYTES):
            job = sent.popleft()
            fault = fault_of(job, written.etag, written.error)
            if fault:
                findings.append(fault)
                continue
            items += 1
            size_bytes += job.row.size_bytes
            self.progress.advance(items=1, size_bytes=job.row.size_bytes)
        return Done(items, size_bytes, tuple(findings))

    def _bodies(
        self, batch: Sequence[Job], sent: deque[Job], findings: list[str]
    ) -> Iterator[tuple[Description, bytes]]:
        for run in runs(sorted(batch, key=lambda job: (job.row.file, job.row.offset)), READ_BYTES):
            start = run[0].row.offset
            end = run[-1].row.offset + run[-1].row.size_bytes
            data = self._read(run[0].row.file, start, end - start)
            for job in run:
                at = job.row.offset - start
                body = data[at : at + job.row.size_bytes]
                if hashlib.sha256(body).hexdigest() != job.row.sha256:
                    findings.append(damaged(job))
                    continue
                sent.append(job)
                yield self.terms.describe(job.key, job.row), body

    def _read(self, file: str, start: int, length: int) -> bytes:
        """Return a range of the bundle; a file that is not there has no bytes, which the hashes will tell."""
        try:
            return self.store.read(file, start, length) if length else b""
        except GoneError:
            return b""


def upload(store: Store, target: TargetBucket, job: Job, described: Description, progress: Progress) -> Done:
    """Write one object in parts. Raises what stops the whole restore."""
    try:
        with _LARGE_AT_ONCE:
            _Upload(store, target, job, described, progress).run()
    except DamageError as exc:
        return Done(0, 0, (f"{job.key}: {exc}; not restored",))
    except (UnreachableError, NoSpaceError, NotAllowedError):
        raise
    except MoveoutError as exc:
        return Done(0, 0, (f"{job.key}: the target does not take it ({exc})",))
    progress.advance(items=1)
    return Done(1, job.row.size_bytes, ())


@dataclass(slots=True)
class _Upload:
    """One large object on its way, in parts; what an earlier run has sent is compared, not sent again."""

    store: Store
    target: TargetBucket
    job: Job
    described: Description
    progress: Progress

    def run(self) -> None:
        parts = self.target.parts()
        patient = Retrying(parts)
        upload, there = self._find(patient)
        if upload is None:
            upload = parts.begin_described(self.described)
        sha256, crc = hashlib.sha256(), 0
        sent: list[Part] = []
        with ThreadPoolExecutor(_PARTS_AHEAD) as executor:
            under_way: deque[Future[Part]] = deque()
            for number, body in enumerate(self._pieces(), 1):
                sha256.update(body)
                crc = crc64nvme(body, crc)
                if _is_part(there.get(number), body):
                    sent.append(there[number])
                    self.progress.skip(size_bytes=len(body))
                    continue
                under_way.append(executor.submit(patient.put_part, self.job.key, upload, number, body))
                while len(under_way) >= _PARTS_AHEAD:
                    sent.append(self._arrived(under_way.popleft()))
            while under_way:
                sent.append(self._arrived(under_way.popleft()))
        if sha256.hexdigest() != self.job.row.sha256:
            patient.abort(self.job.key, upload)
            raise DamageError(
                self.job.row.file, expected=f"SHA-256 {self.job.row.sha256}", found=sha256.hexdigest()
            )
        patient.complete(self.job.key, upload, sorted(sent, key=lambda it: it.number), crc64nvme=crc)

    def _find(self, patient: Retrying) -> tuple[str | None, dict[int, Part]]:
        """Return the newest unfinished upload of this key, and its parts."""
        found = [it for it in patient.uploads(self.job.key) if it.key == self.job.key]
        if not found:
            return None, {}
        newest = max(found, key=lambda it: it.started)
        return newest.id, {it.number: it for it in patient.parts(newest.key, newest.id)}

    def _pieces(self) -> Iterator[bytes]:
        row, start = self.job.row, 0
        own = has_own_parts(row)
        for size_bytes in (
            row.part_sizes if own else part_sizes(row.size_bytes, part_bytes_for(row.size_bytes))
        ):
            if is_halted():
                raise UnreachableError(f"{self.job.key}: the run is being stopped")
            yield self.store.read(row.file, row.offset + start, size_bytes)
            start += size_bytes

    def _arrived(self, future: Future[Part]) -> Part:
        part = future.result()
        self.progress.advance(size_bytes=part.size_bytes)
        return part


def runs(jobs: Sequence[Job], most_bytes: int) -> Iterator[list[Job]]:
    """Split jobs, ordered by file and offset, into those that one read of so many bytes fetches."""
    run: list[Job] = []
    for job in jobs:
        row = job.row
        together = run and run[0].row.file == row.file
        if together and row.offset + row.size_bytes - run[0].row.offset <= most_bytes:
            run.append(job)
            continue
        if run:
            yield run
        run = [job]
    if run:
        yield run


def _is_part(part: Part | None, body: bytes) -> bool:
    if part is None or part.size_bytes != len(body):
        return False
    if part.crc64nvme is not None:
        return part.crc64nvme == crc64nvme(body)
    return part.etag == hashlib.md5(body, usedforsecurity=False).hexdigest()


def fault_of(job: Job, etag: str, error: MoveoutError | None) -> str | None:
    """Return what is wrong with what was written, None where nothing is. Raises what stops the whole restore."""
    if error is None:
        differs = is_md5(etag) and bool(job.row.md5) and etag != job.row.md5
        return f"{job.key}: the target answers with the ETag {etag}, not {job.row.md5}" if differs else None
    if isinstance(error, UnreachableError | NoSpaceError | NotAllowedError):
        raise error
    return f"{job.key}: the target does not take it ({error})"


def damaged(job: Job) -> str:
    """Return what is to be said of bytes that are not those of the index."""
    return f"{job.key}: its bytes in {job.row.file} do not have the SHA-256 of the index; not restored"
