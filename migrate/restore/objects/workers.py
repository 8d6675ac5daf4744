"""Who writes the objects of a restore: threads of this process, or whoever keeps the same promises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from migrate.bundle.lease import Lease
from migrate.restore.objects import copy
from migrate.restore.objects import versions as objects_history
from migrate.restore.objects.batches import History, batches
from migrate.restore.objects.capabilities import Terms
from migrate.restore.objects.copy import Done, GoOn, Job, Writer
from migrate.restore.objects.versions import HistoryWriter
from migrate.runtime import malloc
from migrate.runtime.cancellation import PROCESS
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import ThreadWorkerPool, run_all
from migrate.storage.api import Store
from migrate.storage.s3.destination_bucket import DestinationBucket

_GIVE_BACK_EVERY = 32
"""After so many batches what their bodies took is given back: it lies scattered among what is still needed."""


@dataclass(frozen=True, slots=True)
class Writing:
    """From which bundle, to which bucket, on what terms. ``versions``: the bucket is to have whole histories."""

    source: str
    store: Store
    destination: DestinationBucket
    terms: Terms
    versions: bool

    def batches(self, wanted: Iterable[History]) -> Iterator[list[History]]:
        """Gather what is to be written into batches."""
        most = objects_history.BATCH_BYTES if self.versions else copy.BATCH_BYTES
        return batches(wanted, most)

    def write(self, batch: Sequence[History], progress: Progress, go_on: GoOn) -> Done:
        """Write one batch. Thread-safe, as long as no key is in two of them. ``go_on`` raises where it must end."""
        if self.versions:
            return HistoryWriter(self.store, self.destination, progress, self.terms, go_on).write(batch)
        jobs = [Job(one.key, one.rows[-1]) for one in batch]
        return Writer(self.store, self.destination, progress, self.terms, go_on).write(jobs)


class Hands(Protocol):
    """Others than the threads of this process; they write as long as the lease holds."""

    def write(
        self, writing: Writing, wanted: Iterable[History], lease: Lease, progress: Progress
    ) -> Iterator[Done]:
        """Write all of it, yield what batches came to. Raises what stops the whole restore."""
        ...


def by_threads(
    writing: Writing, wanted: Iterable[History], workers: int, progress: Progress
) -> Iterator[Done]:
    """Write all of it by threads; yield what batches came to. Raises what stops the restore."""
    cancellation = PROCESS.child()

    def write(batch: Sequence[History]) -> Done:
        return writing.write(batch, progress, cancellation.check)

    def batches() -> Iterator[Sequence[History]]:
        for number, batch in enumerate(writing.batches(wanted)):
            if number % _GIVE_BACK_EVERY == 0:
                malloc.give_back()
            yield batch

    pool = ThreadWorkerPool(write, workers, name="moveout-restore", ahead=1, cancellation=cancellation)
    for _, done in run_all(pool, batches()):
        yield done
