"""A transfer's payload carried by the workers of a cluster (see ``migrate.transfer.run.Carriers``)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from exporters.api import Json
from migrate.case.model import Endpoint
from migrate.cluster import protocol
from migrate.cluster import transfer_worker as carry
from migrate.cluster.dispatch import at_work
from migrate.cluster.machines import Machines
from migrate.cluster.protocol import Reach, TransferJob
from migrate.storage.api import PART_BYTES
from migrate.transfer.plan import WantedFile
from migrate.transfer.run import Load

BATCH_BYTES = PART_BYTES
BATCH_FILES = 64
PARTS_AT_ONCE = 4
"""So many parts travel at once in each batch unless told; a worker has as many batches under way as threads."""


@dataclass(frozen=True, slots=True)
class ByCluster:
    """Files travel in batches; a large one alone, all of its parts by one machine, which hashes it in order."""

    machines: Machines
    origin: Endpoint
    destination: Endpoint
    workers: int

    def carry(self, load: Load) -> None:
        """See ``Carriers.carry``."""
        job = TransferJob(
            id=protocol.new_id(),
            location=Reach.of(self.destination),
            lease=load.lease.id,
            limited=self.machines.limit is not None,
            origin=Reach.of(self.origin),
            workers=self.workers,
            recheck=load.recheck,
        )
        files = {file.key: file for file in load.files}
        with at_work(self.machines, job, load.lease, load.progress.note) as dispatch:
            for piece, answer in dispatch.all_of(_batches(load.files), load.lease):
                carry.take(load.tally, files[piece["id"]], answer)


def _batches(files: Iterable[WantedFile]) -> Iterator[list[Json]]:
    """Yield the largest first, so that no large one is what all wait for at the end."""
    left = deque(sorted(files, key=lambda file: -file.size_bytes))
    while left:
        yield _batch(left)


def _batch(left: deque[WantedFile]) -> list[Json]:
    pieces: list[Json] = []
    size_bytes = 0
    while (
        left and len(pieces) < BATCH_FILES and (not pieces or size_bytes + left[0].size_bytes <= BATCH_BYTES)
    ):
        file = left.popleft()
        size_bytes += file.size_bytes
        pieces.append(carry.piece(file))
    return pieces
