"""Whole histories into a bucket: of each key the oldest version first, delete markers in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from typing import Protocol

from msgspec import Struct, field

from migrate.errors import GoneError, MoveoutError, UnreachableError
from migrate.restore.common.report import Moved
from migrate.restore.objects.batches import History
from migrate.restore.objects.copy import (
    READ_BYTES,
    Done,
    GoOn,
    ObjectWrite,
    Writer,
    damaged,
    fault_of,
    refusal,
    runs,
)
from migrate.restore.objects.destination_terms import Terms, in_parts
from migrate.restore.objects.existing import of_others
from migrate.runtime.progress import Progress
from migrate.storage.api import Store
from migrate.storage.s3.capability_probe import FIRST_MARKER, REPEATED_MARKER
from migrate.storage.s3.destination_bucket import DestinationBucket, Written
from migrate.storage.s3.metadata.object_metadata import Description

BATCH_BYTES = 8 * 2**20
"""Bytes of a batch, held in memory until its last version is written."""


REFUSED = "the destination makes no delete marker"


class Kind(Protocol):
    """A version or a delete marker, wherever it is known from."""

    @property
    def is_delete_marker(self) -> bool:
        """Whether it is a delete marker."""
        ...


class Markers(Struct, frozen=True):
    """The delete markers that a destination does not make (see ``capability_probe``)."""

    refused: frozenset[str] = frozenset()

    def refuse(self, version: Kind, before: Kind | None) -> str:
        """Return why the destination does not make it on top of what is before; nothing where it does."""
        if version.is_delete_marker and before is None and FIRST_MARKER in self.refused:
            return f"{REFUSED} {FIRST_MARKER}"
        if (
            version.is_delete_marker
            and before
            and before.is_delete_marker
            and REPEATED_MARKER in self.refused
        ):
            return f"{REFUSED} {REPEATED_MARKER}"
        return ""


def why_flat(destination: DestinationBucket) -> str:
    """Return why the destination cannot have older versions; nothing where it can, then it keeps them from now on.
    Switches nothing on that was not asked for: a bucket that holds objects without versions is left as it is.
    """
    if destination.versioning() == "Enabled":
        return ""
    if next(of_others(destination, destination.list(prefix="")), None) is not None:
        return "the bucket holds objects and keeps no versions"
    try:
        destination.configure("versioning", {"Status": "Enabled"})
    except UnreachableError:
        raise
    except MoveoutError as exc:
        return f"the destination keeps no versions ({exc})"
    return "" if destination.versioning() == "Enabled" else "the destination keeps no versions"


class HistoryWriter(Struct, frozen=True):
    """Writes batches; thread-safe, as long as no key is in two of them."""

    store: Store
    destination: DestinationBucket
    progress: Progress
    terms: Terms
    go_on: GoOn

    def write(self, batch: Sequence[History]) -> Done:
        """Write a batch in layers: the next version of every key at once, then the one after it."""
        layers = _Layers(self, batch)
        for depth in range(max(len(history.rows) for history in batch)):
            layers.write(depth)
        return Done(
            layers.items,
            layers.size_bytes,
            tuple(layers.findings),
            tuple(layers.moved),
            tuple(layers.refused),
        )


class _Layers(Struct):
    """One batch on its way."""

    writer: HistoryWriter
    batch: Sequence[History]
    items: int = 0
    size_bytes: int = 0
    findings: list[str] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _bodies: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._counts = {history.key: history.before for history in self.batch}
        if sum(history.size_bytes for history in self.batch) <= BATCH_BYTES:
            jobs = [
                ObjectWrite(history.key, row)
                for history in self.batch
                for row in history.rows
                if row.file and not in_parts(row)
            ]
            self._read(jobs)

    def write(self, depth: int) -> None:
        """Write the version that is ``depth``-th of those to be written, of every key that has one."""
        self.writer.go_on()
        layer = [
            ObjectWrite(history.key, history.rows[depth])
            for history in self.batch
            if len(history.rows) > depth
        ]
        markers = [job for job in layer if job.row.is_delete_marker]
        large = [job for job in layer if not job.row.is_delete_marker and in_parts(job.row)]
        small = [job for job in layer if not job.row.is_delete_marker and not in_parts(job.row)]
        destination = self.writer.destination
        self._take(
            markers,
            destination.put_versions(
                (Description(job.key, before=self._before(job)), None) for job in markers
            ),
        )
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
            self.writer.go_on()
            body = self._body(job)
            if hashlib.sha256(body).hexdigest() != job.row.sha256:
                self.findings.append(damaged(job))
                continue
            yield job, body

    def _described(self, job: ObjectWrite) -> Description:
        return self.writer.terms.describe(job.key, job.row, self._before(job))

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
        writer = self.writer
        single = Writer(writer.store, writer.destination, writer.progress, writer.terms, writer.go_on)
        done = single.upload(job)
        self.items += done.items
        self.size_bytes += done.size_bytes
        self.findings += done.findings
        self.refused += done.refused
        if done.items:
            self._counts[job.key] += 1
            self.moved.append(
                (job.key, job.row.version_id, writer.destination.newest_version(job.key), False)
            )

    def _before(self, job: ObjectWrite) -> int:
        return self._counts[job.key]

    def _body(self, job: ObjectWrite) -> bytes:
        location = (job.row.file, job.row.offset)
        if location not in self._bodies and job.row.size_bytes:
            self._bodies.clear()
            self._read([job])
        return self._bodies.get(location, b"")

    def _read(self, jobs: Iterable[ObjectWrite]) -> None:
        for run in runs(sorted(jobs, key=lambda job: (job.row.file, job.row.offset)), READ_BYTES):
            start, last = run[0].row.offset, run[-1].row
            length = last.offset + last.size_bytes - start
            try:
                data = self.writer.store.read(run[0].row.file, start, length) if length else b""
            except GoneError:
                data = b""  # the hashes will show it
            for job in run:
                at = job.row.offset - start
                self._bodies[job.row.file, job.row.offset] = data[at : at + job.row.size_bytes]
