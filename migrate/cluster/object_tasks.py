"""A bucket filled by the workers of a cluster (see ``migrate.restore.objects.workers.Hands``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from exporters.api import Json
from migrate.bundle.lease import Lease
from migrate.cluster import object_worker, protocol
from migrate.cluster.dispatch import at_work
from migrate.cluster.machines import Machines
from migrate.cluster.protocol import Reach, RestoreJob
from migrate.restore.objects.batches import History
from migrate.restore.objects.copy import Done
from migrate.restore.objects.lease import Folder
from migrate.restore.objects.workers import Writing
from migrate.runtime.progress import Progress


@dataclass(frozen=True, slots=True)
class Fillers:
    """The machines of a cluster, for one bucket. A batch is one piece: which of its objects are there only a look at
    the bucket tells.
    """

    machines: Machines
    bundle: Reach
    destination: Reach

    def write(
        self, writing: Writing, wanted: Iterable[History], lease: Lease, progress: Progress
    ) -> Iterator[Done]:
        """See ``Hands.write``."""
        job = RestoreJob(
            id=protocol.new_id(),
            location=Reach(Folder(writing.destination).url, self.destination.secrets),
            lease=lease.id,
            limited=self.machines.limit is not None,
            name=writing.source,
            origin=self.bundle,
            destination=self.destination,
            terms=protocol.terms_json(writing.terms),
            versions=writing.versions,
        )
        with at_work(self.machines, job, lease, progress.note) as dispatch:
            for _, answer in dispatch.all_of(_pieces(writing, wanted), lease):
                done = object_worker.answer_of(answer)
                progress.advance(items=done.items, size_bytes=done.size_bytes)
                yield done


def _pieces(writing: Writing, wanted: Iterable[History]) -> Iterator[list[Json]]:
    for number, batch in enumerate(writing.batches(wanted)):
        yield [{"id": f"{number:08d}", "objects": protocol.batch_json(batch)}]
