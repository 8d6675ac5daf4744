"""The writing of a restore's objects, in batches, by a worker pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from migrate.bundle.lease import Lease
from migrate.restore.objects import copy, versions
from migrate.restore.objects.batches import History, batches
from migrate.restore.objects.copy import Done, GoOn, ObjectWrite, Writer
from migrate.restore.objects.destination_terms import Terms
from migrate.restore.objects.versions import HistoryWriter
from migrate.runtime import malloc
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import ThreadWorkerPool, WorkerPool, run_all
from migrate.storage.api import Store
from migrate.storage.s3.destination_bucket import DestinationBucket

_GIVE_BACK_EVERY = 32
"""After so many batches free memory is given back to the system: it is scattered among memory in use."""


class Writing(Struct, frozen=True):
    """From which bundle, to which bucket, on what terms. ``versions``: the bucket is to have whole histories."""

    source: str
    store: Store
    destination: DestinationBucket
    terms: Terms
    versions: bool

    def batches(self, histories: Iterable[History]) -> Iterator[list[History]]:
        """Gather what is to be written into batches."""
        most = versions.BATCH_BYTES if self.versions else copy.BATCH_BYTES
        return batches(histories, most)

    def write(self, batch: Sequence[History], progress: Progress, go_on: GoOn) -> Done:
        """Write one batch. Thread-safe, as long as no key is in two of them. ``go_on`` raises where it must end."""
        if self.versions:
            return HistoryWriter(self.store, self.destination, progress, self.terms, go_on).write(batch)
        jobs = [ObjectWrite(history.key, history.rows[-1]) for history in batch]
        return Writer(self.store, self.destination, progress, self.terms, go_on).write(jobs)


ObjectPool = WorkerPool[Sequence[History], Done]
OpenObjectPool = Callable[[Writing, Lease, Progress], ObjectPool]
"""Makes the pool of other machines that writes batches, as long as the lease holds."""


def write_all(
    writing: Writing, histories: Iterable[History], pool: ObjectPool, lease: Lease | None
) -> Iterator[Done]:
    """Write all of it; yield what batches came to. Raises what stops the whole restore."""

    def batches() -> Iterator[Sequence[History]]:
        for number, batch in enumerate(writing.batches(histories)):
            if number % _GIVE_BACK_EVERY == 0:
                malloc.give_back()
            yield batch

    for _, done in run_all(pool, batches(), check=lease.check if lease is not None else None):
        yield done


def thread_pool(
    writing: Writing, workers: int, progress: Progress, cancellation: CancellationToken
) -> ObjectPool:
    """Return a pool of threads of this process."""

    def write(batch: Sequence[History]) -> Done:
        return writing.write(batch, progress, cancellation.check)

    return ThreadWorkerPool(write, workers, name="moveout-restore", ahead=1, cancellation=cancellation)
