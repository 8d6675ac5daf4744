"""A restore's rows and objects written by the workers of a cluster.

The database itself keeps two from copying one part: the note that a part is done is written in its transaction, and
there can be one. A worker that finds it has nothing to do. Objects are looked for in the bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from msgspec import Struct

from exporters.api import Json
from migrate.bundle.lease import Lease
from migrate.case.model import Endpoint
from migrate.cluster import object_worker, protocol
from migrate.cluster.machines import Machines
from migrate.cluster.protocol import Reach, RestoreJob, RowsJob
from migrate.cluster.worker_pool import Batching, ClusterWorkerPool
from migrate.restore.common.api import OpenRowPool
from migrate.restore.common.table_parts import PartFile
from migrate.restore.objects.copy import BatchOutcome, History, ObjectCopy, OpenObjectPool
from migrate.restore.objects.lease import RestoreFolder
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import WorkerPool


def open_pool_of(
    machines: Machines, bundle: Endpoint, destination: Endpoint
) -> OpenObjectPool | OpenRowPool | None:
    """Return what makes a pool of the machines for a restore; None where its engine is restored by one machine. Raises
    ``UsageError`` where a URL holds a secret.
    """
    engine = destination.engine
    cluster = RestoreCluster(machines, Reach.of(bundle), Reach.of(destination))
    if engine.contents == "objects":
        return cluster.open_object_pool
    return cluster.open_row_pool if engine.row_writer else None


class RestoreCluster(Struct, frozen=True):
    """The machines of a cluster, for one destination."""

    machines: Machines
    bundle: Reach
    destination: Reach

    def open_object_pool(
        self, copy: ObjectCopy, lease: Lease, progress: Progress
    ) -> WorkerPool[Sequence[History], BatchOutcome]:
        """Return the pool that writes batches of objects."""
        job = RestoreJob(
            id=protocol.new_id(),
            location=Reach(RestoreFolder(copy.destination).url, self.destination.secrets),
            lease=lease.id,
            limited=self.machines.limit is not None,
            name=copy.source,
            origin=self.bundle,
            destination=self.destination,
            terms=protocol.terms_json(copy.terms),
            versions=copy.versions,
        )
        codec = _ObjectCodec(progress, count())
        one_each = Batching(items=1)
        return ClusterWorkerPool(
            self.machines, job, codec, lease=lease, note=progress.note, batching=one_each
        )

    def open_row_pool(self, source: str, lead: int, progress: Progress) -> WorkerPool[PartFile, bool]:
        """Return the pool that copies parts of tables, as long as the server's process ``lead`` holds the lock."""
        job = RowsJob(
            id=protocol.new_id(),
            location=self.bundle,
            lease=str(lead),
            limited=self.machines.limit is not None,
            name=source,
            destination=self.destination,
        )
        return ClusterWorkerPool(self.machines, job, _PartCodec(), lease=_DatabaseLock(), note=progress.note)


class _DatabaseLock:
    """The lock in the destination, which the lead's session has as long as that lives. See ``worker_pool.HeldLock``."""

    def check(self) -> None:
        """What the lead does next in that session fails by itself."""

    def abandon(self) -> None:
        """Whoever still writes is at a transaction that another restore waits for, and counts once."""


class _ObjectCodec(Struct, frozen=True):
    """See ``worker_pool.ItemCodec``. Which objects of a batch are there only a look at the bucket tells."""

    progress: Progress
    numbers: Iterator[int]

    def encode(self, item: Sequence[History]) -> Json:
        return {"id": f"{next(self.numbers):08d}", "objects": protocol.batch_json(item)}

    def size_bytes(self, item: Sequence[History]) -> int:
        return sum(row.size_bytes for history in item for row in history.rows)

    def decode(self, responses: Sequence[tuple[Sequence[History], Json]]) -> Iterator[BatchOutcome]:
        for _, response in responses:
            restored = object_worker.answer_of(response)
            self.progress.advance(items=restored.items, size_bytes=restored.size_bytes)
            yield restored


class _PartCodec:
    """See ``worker_pool.ItemCodec``. A part is known by its name; the answer says whether it is in."""

    def encode(self, item: PartFile) -> Json:
        return {"id": item.name}

    def size_bytes(self, item: PartFile) -> int:
        return item.size_bytes

    def decode(self, responses: Sequence[tuple[PartFile, Json]]) -> Iterator[bool]:
        for _, response in responses:
            yield bool(response["written"])
