"""A transfer's payload moved by the workers of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from exporters.api import Json
from migrate.case.model import Endpoint
from migrate.cluster import protocol, transfer_worker
from migrate.cluster.machines import Machines
from migrate.cluster.protocol import Reach, TransferJob
from migrate.cluster.worker_pool import Batching, ClusterWorkerPool
from migrate.runtime.worker_pool import WorkerPool
from migrate.storage.api import PART_BYTES
from migrate.transfer.counters import TransferCounters
from migrate.transfer.plan import SealedFile
from migrate.transfer.run import FileMoves

BATCHING = Batching(PART_BYTES)
PARTS_AT_ONCE = 4
"""How many parts travel at once in each batch by default; a worker has as many batches under way as threads."""


class TransferCluster(Struct, frozen=True):
    """The machines of a cluster, for a transfer. A large file travels alone: one machine hashes its parts in order."""

    machines: Machines
    origin: Endpoint
    destination: Endpoint
    workers: int

    def open_pool(self, moves: FileMoves) -> WorkerPool[SealedFile, None]:
        """Return the pool that moves files."""
        job = TransferJob(
            id=protocol.new_id(),
            location=Reach.of(self.destination),
            lease=moves.lease.id,
            limited=self.machines.limit is not None,
            origin=Reach.of(self.origin),
            workers=self.workers,
            recheck=moves.recheck,
        )
        codec = _FileCodec(moves.counters)
        note = moves.progress.note
        return ClusterWorkerPool(self.machines, job, codec, lease=moves.lease, note=note, batching=BATCHING)


class _FileCodec(Struct, frozen=True):
    """See ``worker_pool.ItemCodec``."""

    counters: TransferCounters

    def encode(self, item: SealedFile) -> Json:
        return transfer_worker.piece(item)

    def size_bytes(self, item: SealedFile) -> int:
        return item.size_bytes

    def decode(self, responses: Sequence[tuple[SealedFile, Json]]) -> Iterator[None]:
        for file, response in responses:
            transfer_worker.take(self.counters, file, response)
            yield None
