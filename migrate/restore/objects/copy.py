"""Objects from a bundle into a bucket: small ones in batches, large ones in parts. Nothing is written whose
bytes are not those that the index promises.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from msgspec import Struct

from migrate.bundle.object_index import ObjectRow
from migrate.errors import (
    DamageError,
    GoneError,
    MoveoutError,
    NoSpaceError,
    NotAllowedError,
    UnreachableError,
)
from migrate.restore.common.report import Moved
from migrate.restore.objects.destination_terms import Terms, has_own_parts, in_parts
from migrate.runtime.progress import Progress
from migrate.storage.api import Store
from migrate.storage.multipart import part_sizes
from migrate.storage.s3 import tar_upload
from migrate.storage.s3.capability_probe import stops_all
from migrate.storage.s3.destination_bucket import DestinationBucket, Written
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.object_upload import PartsUpload

BATCH_BYTES = 16 * 2**20
READ_BYTES = 4 * 2**20
"""Members that lie together are read together, up to so much."""
WINDOW_BYTES = 8 * 2**20
_LARGE_AT_ONCE = threading.BoundedSemaphore(2)


class ObjectWrite(Struct, frozen=True):
    """An object to write, and the whole key that it gets."""

    key: str
    row: ObjectRow


class Done(Struct, frozen=True):
    """What a batch came to. ``refused``: sentences about what the destination does not take."""

    items: int
    size_bytes: int
    findings: tuple[str, ...]
    moved: tuple[Moved, ...] = ()
    refused: tuple[str, ...] = ()

    def __add__(self, other: Done) -> Done:
        return Done(
            self.items + other.items,
            self.size_bytes + other.size_bytes,
            (*self.findings, *other.findings),
            (*self.moved, *other.moved),
            (*self.refused, *other.refused),
        )


GoOn = Callable[[], None]
"""Called again and again while something is written; raises where that must end."""


class Writer(Struct, frozen=True):
    """Writes batches; thread-safe. Raises what stops the whole restore, reports the rest as findings."""

    store: Store
    destination: DestinationBucket
    progress: Progress
    terms: Terms
    go_on: GoOn

    def write(self, batch: Sequence[ObjectWrite]) -> Done:
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

        for written in self.destination.put_all(intact(), window_bytes=WINDOW_BYTES):
            job = jobs[written.key]
            if written.error is not None:
                refused.append(refusal(self.destination, job, written.error))
                continue
            if (fault := fault_of(job, written)) is not None:
                findings.append(fault)
                continue
            items += 1
            size_bytes += job.row.size_bytes
            self.progress.advance(items=1, size_bytes=job.row.size_bytes)
        return Done(items, size_bytes, tuple(findings), refused=tuple(refused))

    def upload(self, job: ObjectWrite) -> Done:
        """Write one object in parts. Raises what stops the whole restore."""
        described = self.terms.describe(job.key, job.row)
        upload = PartsUpload(
            self.destination,
            described,
            job.row.size_bytes,
            self.progress,
            numbers=job.row.part_numbers if has_own_parts(job.row) else (),
            before_end=self.go_on,
        )
        try:
            with _LARGE_AT_ONCE:
                uploaded = upload.run(partial(self._pieces, job), sha256=job.row.sha256)
        except DamageError as exc:
            return Done(0, 0, (f"{job.key}: {exc}; not restored",))
        except MoveoutError as exc:
            return Done(0, 0, (), refused=(refusal(self.destination, job, exc),))
        if has_own_parts(job.row) and uploaded.info.etag != job.row.etag and not self.terms.encrypts:
            self.progress.note(
                f"{job.key}: its parts are cut otherwise than at the source; so its ETag differs"
            )
        self.progress.advance(items=1)
        return Done(1, job.row.size_bytes, ())

    def _pieces(self, job: ObjectWrite, cut: int) -> Iterator[bytes]:
        row, start = job.row, 0
        for size_bytes in row.part_sizes if has_own_parts(row) else part_sizes(row.size_bytes, cut):
            self.go_on()
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
        for run in runs(sorted(batch, key=lambda job: (job.row.file, job.row.offset)), READ_BYTES):
            start = run[0].row.offset
            end = run[-1].row.offset + run[-1].row.size_bytes
            data = self._read(run[0].row.file, start, end - start)
            for job in run:
                self.go_on()
                at = job.row.offset - start
                body = data[at : at + job.row.size_bytes]
                is_intact = hashlib.sha256(body).hexdigest() == job.row.sha256
                yield job, body if is_intact else None

    def _read(self, file: str, start: int, length: int) -> bytes:
        """Return a range of the bundle; a missing file has no bytes, which the hashes will show."""
        try:
            return self.store.read(file, start, length) if length else b""
        except GoneError:
            return b""


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
