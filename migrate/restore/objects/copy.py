"""Objects from a bundle into a bucket, in batches by a worker pool: small ones several at once, large ones in parts; of
histories the oldest version of each key first, delete markers in their place. Nothing is written whose bytes are not
those that the index promises.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import tee

from msgspec import Struct, field
from msgspec.structs import replace

from migrate.bundle.lease import Lease
from migrate.bundle.object_index import ObjectRow
from migrate.errors import (
    AlreadyExistsError,
    ChangedError,
    DamageError,
    GoneError,
    MoveoutError,
    NoSpaceError,
    NotAllowedError,
    UnreachableError,
)
from migrate.restore.common.report import RestoredVersion
from migrate.restore.objects.destination_terms import Terms, has_own_parts, in_parts
from migrate.restore.objects.existing import begins, taken
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import WorkerPool
from migrate.storage.api import Store
from migrate.storage.s3 import tar_upload
from migrate.storage.s3.capability_probe import stops_all
from migrate.storage.s3.destination_bucket import DestinationBucket, Written
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.object_upload import PartsUpload

BATCH_OBJECTS = 1000
BATCH_BYTES = 16 * 2**20
READ_BYTES = 4 * 2**20
"""Members that lie together are read together, up to so much."""
WINDOW_BYTES = 8 * 2**20
_LARGE_AT_ONCE = threading.BoundedSemaphore(2)
HISTORY_BATCH_BYTES = 8 * 2**20
"""Bytes of a batch of histories, held in memory until its last version is written."""
Check = Callable[[], None]
"""Called again and again while something is written; raises where that must end."""


class History(Struct, frozen=True):
    """The versions of a key that are to be written, oldest first, and how many it has already."""

    key: str
    rows: Sequence[ObjectRow]
    before: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(row.size_bytes for row in self.rows)


def batches(histories: Iterable[History], most_bytes: int) -> Iterator[list[History]]:
    """Gather histories. What goes in parts, or is larger than ``most_bytes``, is a batch by itself."""
    gathered: list[History] = []
    size_bytes = count = 0
    for history in histories:
        if history.size_bytes > most_bytes or any(in_parts(row) for row in history.rows):
            yield [history]
            continue
        if gathered and (
            size_bytes + history.size_bytes > most_bytes or count + len(history.rows) > BATCH_OBJECTS
        ):
            yield gathered
            gathered, size_bytes, count = [], 0, 0
        gathered.append(history)
        size_bytes += history.size_bytes
        count += len(history.rows)
    if gathered:
        yield gathered


class ObjectWrite(Struct, frozen=True):
    """An object to write, and the whole key that it gets."""

    key: str
    row: ObjectRow


class BatchOutcome(Struct, frozen=True):
    """What a batch came to. ``refused``: sentences about what the destination does not take."""

    items: int
    size_bytes: int
    findings: tuple[str, ...]
    moved: tuple[RestoredVersion, ...] = ()
    refused: tuple[str, ...] = ()

    def __add__(self, other: BatchOutcome) -> BatchOutcome:
        return BatchOutcome(
            self.items + other.items,
            self.size_bytes + other.size_bytes,
            (*self.findings, *other.findings),
            (*self.moved, *other.moved),
            (*self.refused, *other.refused),
        )


class Writer(Struct, frozen=True):
    """Writes batches; thread-safe. Raises what stops the whole restore, reports the rest as findings."""

    store: Store
    destination: DestinationBucket
    progress: Progress
    terms: Terms
    check: Check

    def write(self, batch: Sequence[ObjectWrite]) -> BatchOutcome:
        """Write one batch."""
        if len(batch) == 1 and in_parts(batch[0].row):
            return self.upload(batch[0])
        arrived = self._write_tars(batch) if self.terms.snowball else set()
        items, size_bytes = len(arrived), sum(job.row.size_bytes for job in batch if job.key in arrived)
        self.progress.advance(items=items, size_bytes=size_bytes)
        jobs = {job.key: job for job in batch if job.key not in arrived}
        findings: list[str] = []
        refused: list[str] = []

        def intact() -> Iterator[tuple[Description, bytes]]:
            for job, body in self._members(jobs.values()):
                if body is None:
                    findings.append(damaged(job))
                else:
                    yield self.terms.describe(job.key, job.row), body

        for first in self.destination.put_all(intact(), window_bytes=WINDOW_BYTES):
            job = jobs[first.key]
            written = self._look_again(job) if isinstance(first.error, ChangedError) else first
            if written is None:
                findings.append(taken(job.key))
                continue
            if written.error is not None:
                refused.append(refusal(self.destination, job, written.error))
                continue
            if (fault := fault_of(job, written)) is not None:
                findings.append(fault)
                continue
            items += 1
            size_bytes += job.row.size_bytes
            self.progress.advance(items=1, size_bytes=job.row.size_bytes)
        return BatchOutcome(items, size_bytes, tuple(findings), refused=tuple(refused))

    def _look_again(self, job: ObjectWrite) -> Written | None:
        """Return what became of an object whose key was taken when it came: it may have been written by an attempt
        whose answer was lost. None where another object is there.
        """
        there = self._is_there(job)
        if there is None:  # some servers count a delete marker as an object
            described = replace(self.terms.describe(job.key, job.row), only_new=False)
            for _, body in self._members([job]):
                if body is not None:
                    return self.destination.put(described, body)
        return Written(job.key) if there else None

    def _is_there(self, job: ObjectWrite) -> bool | None:
        """Tell whether the object of a key is the one to write, None where the key has none."""
        current = self.destination.current(job.key)
        return None if current is None else begins(self.destination, [current], [job.row])

    def upload(self, job: ObjectWrite, before: int | None = None) -> BatchOutcome:
        """Write one object in parts; ``before``: see ``Description``. Raises what stops the whole restore."""
        row, has_own = job.row, has_own_parts(job.row)
        upload = PartsUpload(
            self.destination,
            self.terms.describe(job.key, row, before),
            row.size_bytes,
            self.progress,
            sizes=row.part_sizes if has_own else (),
            numbers=row.part_numbers if has_own else (),
            before_end=lambda _: self.check(),
        )
        try:
            with _LARGE_AT_ONCE:
                uploaded = upload.run(partial(self._pieces, job), sha256=row.sha256)
        except DamageError as exc:
            return BatchOutcome(0, 0, (f"{job.key}: {exc}; not restored",))
        except AlreadyExistsError:
            if not self._is_there(job):
                return BatchOutcome(0, 0, (taken(job.key),))
            self.progress.advance(items=1)
            return BatchOutcome(1, row.size_bytes, ())
        except MoveoutError as exc:
            return BatchOutcome(0, 0, (), refused=(refusal(self.destination, job, exc),))
        if has_own and uploaded.info.etag != row.etag and not self.terms.encrypts:
            self.progress.note(
                f"{job.key}: its parts are cut otherwise than at the source; so its ETag differs"
            )
        self.progress.advance(items=1)
        return BatchOutcome(1, row.size_bytes, ())

    def _pieces(self, job: ObjectWrite, sizes: Sequence[int]) -> Iterator[bytes]:
        row, start = job.row, 0
        for size_bytes in sizes:
            self.check()
            try:
                piece = self.store.read(row.file, row.offset + start, size_bytes)
            except GoneError as exc:
                raise DamageError(row.file, expected="a file", found="none") from exc
            yield piece
            start += size_bytes

    def _write_tars(self, batch: Sequence[ObjectWrite]) -> set[str]:
        """Write what can go many at once; return the keys of what has arrived."""
        able = [
            job for job in batch if tar_upload.fits(self.terms.describe(job.key, job.row), job.row.size_bytes)
        ]
        if len(able) < tar_upload.LEAST_MEMBERS:
            return set()
        arrived: set[str] = set()
        members: list[tar_upload.Member] = []
        held = 0
        for job, body in self._members(able):
            if body is None:
                continue
            row, described = job.row, self.terms.describe(job.key, job.row)
            md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
            members.append(
                tar_upload.Member(described, body, md5, int(row.modified.timestamp()) if row.modified else 0)
            )
            held += len(body)
            if held >= tar_upload.TAR_BYTES:
                arrived |= self._put_tar(members)
                members, held = [], 0
        return arrived | self._put_tar(members)

    def _put_tar(self, members: list[tar_upload.Member]) -> set[str]:
        """Write one tar; where the server does not take it, its members are written one by one afterwards."""
        if not members:
            return set()
        members.sort(key=lambda member: member.described.key)
        try:
            return tar_upload.put(self.destination, members)
        except (UnreachableError, NoSpaceError, NotAllowedError):
            raise
        except MoveoutError:
            return set()

    def _members(self, batch: Iterable[ObjectWrite]) -> Iterator[tuple[ObjectWrite, bytes | None]]:
        """Yield the objects with their bytes, None where these are not those of the index."""
        for job, body in self.bodies(batch):
            self.check()
            yield job, body if is_intact(job, body) else None

    def bodies(self, batch: Iterable[ObjectWrite]) -> Iterator[tuple[ObjectWrite, bytes]]:
        """Yield objects with their bytes in the bundle; none of a missing file, which the hashes will show."""
        for run in runs(sorted(batch, key=lambda job: (job.row.file, job.row.offset)), READ_BYTES):
            start, last = run[0].row.offset, run[-1].row
            length = last.offset + last.size_bytes - start
            try:
                data = self.store.read(run[0].row.file, start, length) if length else b""
            except GoneError:
                data = b""
            for job in run:
                at = job.row.offset - start
                yield job, data[at : at + job.row.size_bytes]


def is_intact(job: ObjectWrite, body: bytes) -> bool:
    """Tell whether an object's bytes are those of the index."""
    return hashlib.sha256(body).hexdigest() == job.row.sha256


def runs(jobs: Sequence[ObjectWrite], most_bytes: int) -> Iterator[list[ObjectWrite]]:
    """Split jobs, ordered by file and offset, into those that one read of so many bytes fetches."""
    run: list[ObjectWrite] = []
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


def fault_of(job: ObjectWrite, written: Written) -> str | None:
    """Return what is wrong with what was written, None where nothing is."""
    differs = bool(written.md5 and job.row.md5) and written.md5 != job.row.md5
    return (
        f"{job.key}: the destination answers with the ETag {written.md5}, not {job.row.md5}"
        if differs
        else None
    )


def refusal(destination: DestinationBucket, job: ObjectWrite, error: MoveoutError) -> str:
    """Return what to say of an object that the destination does not take. Raises what stops the whole restore."""
    if stops_all(destination, error):
        raise error
    return f"{job.key}: the destination does not take it ({error})"


def damaged(job: ObjectWrite) -> str:
    """Return the finding for bytes that are not those of the index."""
    return f"{job.key}: its bytes in {job.row.file} do not have the SHA-256 of the index; not restored"


class _HistoryWriter(Struct):
    """Writes a batch of histories, in layers: the next version of every key at once, then the one after it."""

    writer: Writer
    batch: Sequence[History]
    items: int = 0
    size_bytes: int = 0
    findings: list[str] = field(default_factory=list)
    moved: list[RestoredVersion] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _bodies: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._counts = {history.key: history.before for history in self.batch}
        if sum(history.size_bytes for history in self.batch) <= HISTORY_BATCH_BYTES:
            jobs = [
                ObjectWrite(history.key, row)
                for history in self.batch
                for row in history.rows
                if row.file and not in_parts(row)
            ]
            self._read(jobs)

    def write(self) -> BatchOutcome:
        """Write all versions."""
        for depth in range(max(len(history.rows) for history in self.batch)):
            self._write_layer(depth)
        return BatchOutcome(
            self.items, self.size_bytes, tuple(self.findings), tuple(self.moved), tuple(self.refused)
        )

    def _write_layer(self, depth: int) -> None:
        """Write the version that is ``depth``-th of those to be written, of every key that has one."""
        self.writer.check()
        layer = [
            ObjectWrite(history.key, history.rows[depth])
            for history in self.batch
            if len(history.rows) > depth
        ]
        markers = [job for job in layer if job.row.is_delete_marker]
        large = [job for job in layer if not job.row.is_delete_marker and in_parts(job.row)]
        small = [job for job in layer if not job.row.is_delete_marker and not in_parts(job.row)]
        destination = self.writer.destination
        described_markers = (Description(job.key, before=self._counts[job.key]) for job in markers)
        self._take(markers, destination.put_versions((described, None) for described in described_markers))
        intact, intact_to_write = tee(self._intact(small))
        self._take(
            (job for job, _ in intact),
            destination.put_versions((self._described(job), body) for job, body in intact_to_write),
        )
        for job in large:
            self._upload(job)

    def _intact(self, jobs: Sequence[ObjectWrite]) -> Iterator[tuple[ObjectWrite, bytes]]:
        """Yield the objects whose bytes are those of the index, with these. The others are findings."""
        for job in jobs:
            self.writer.check()
            body = self._body(job)
            if not is_intact(job, body):
                self.findings.append(damaged(job))
                continue
            yield job, body

    def _described(self, job: ObjectWrite) -> Description:
        return self.writer.terms.describe(job.key, job.row, self._counts[job.key])

    def _take(self, jobs: Iterable[ObjectWrite], answers: Iterable[Written]) -> None:
        """Note what became of jobs, which are answered in order."""
        for written, job in zip(answers, jobs, strict=True):
            if written.error is not None:
                self.refused.append(refusal(self.writer.destination, job, written.error))
                continue
            self._counts[job.key] += 1
            self.moved.append((job.key, job.row.version_id, written.version_id, job.row.is_delete_marker))
            if (fault := fault_of(job, written)) is not None:
                self.findings.append(fault)
                continue
            self.items += 1
            self.size_bytes += job.row.size_bytes
            self.writer.progress.advance(items=1, size_bytes=job.row.size_bytes)

    def _upload(self, job: ObjectWrite) -> None:
        done = self.writer.upload(job, self._counts[job.key])
        self.items += done.items
        self.size_bytes += done.size_bytes
        self.findings += done.findings
        self.refused += done.refused
        if done.items:
            self._counts[job.key] += 1
            written = self.writer.destination.newest_version(job.key)
            self.moved.append((job.key, job.row.version_id, written, False))

    def _body(self, job: ObjectWrite) -> bytes:
        location = (job.row.file, job.row.offset)
        if location not in self._bodies and job.row.size_bytes:
            self._bodies.clear()
            self._read([job])
        return self._bodies.get(location, b"")

    def _read(self, jobs: Iterable[ObjectWrite]) -> None:
        for job, body in self.writer.bodies(jobs):
            self._bodies[job.row.file, job.row.offset] = body


class ObjectCopy(Struct, frozen=True):
    """What one restore copies: from which bundle, to which bucket. ``versions``: whole histories, not current ones
    only.
    """

    source: str
    store: Store
    destination: DestinationBucket
    terms: Terms
    versions: bool

    def batches(self, histories: Iterable[History]) -> Iterator[list[History]]:
        """Gather what is to be written into batches."""
        return batches(histories, HISTORY_BATCH_BYTES if self.versions else BATCH_BYTES)

    def write(self, batch: Sequence[History], progress: Progress, check: Check) -> BatchOutcome:
        """Write one batch. Thread-safe, as long as no key is in two of them. ``check`` raises where it must end."""
        writer = Writer(self.store, self.destination, progress, self.terms, check)
        if self.versions:
            return _HistoryWriter(writer, batch).write()
        return writer.write([ObjectWrite(history.key, history.rows[-1]) for history in batch])


ObjectPool = WorkerPool[Sequence[History], BatchOutcome]
OpenObjectPool = Callable[[ObjectCopy, Lease, Progress], ObjectPool]
"""Makes the pool of other machines that writes batches, as long as the lease holds."""
