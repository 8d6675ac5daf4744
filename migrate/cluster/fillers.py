"""A bucket filled by the workers of a cluster (see ``migrate.restore.objects_hands.Hands``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from exporters.base import Json
from migrate.bundle.lease import Lease
from migrate.cluster import fill, orders
from migrate.cluster.dispatch import at_work
from migrate.cluster.machines import Machines
from migrate.cluster.orders import Reach, RestoreJob
from migrate.progress import Progress
from migrate.restore.objects_batch import History
from migrate.restore.objects_hands import Writing
from migrate.restore.objects_lease import Folder
from migrate.restore.objects_write import Done


@dataclass(frozen=True, slots=True)
class Fillers:
    """The machines of a cluster, for one bucket. A batch is one piece: which of its objects are there only a look at
    the bucket tells.
    """

    machines: Machines
    bundle: Reach
    target: Reach

    def write(
        self, writing: Writing, wanted: Iterable[History], lease: Lease, progress: Progress
    ) -> Iterator[Done]:
        """See ``Hands.write``."""
        job = RestoreJob(
            id=orders.new_id(),
            place=Reach(Folder(writing.target).url, self.target.secrets),
            lease=lease.id,
            limited=self.machines.limit is not None,
            name=writing.source,
            origin=self.bundle,
            target=self.target,
            terms=orders.terms_json(writing.terms),
            versions=writing.versions,
        )
        with at_work(self.machines, job, lease, progress.note) as dispatch:
            for _, answer in dispatch.all_of(_pieces(writing, wanted), lease):
                done = fill.answer_of(answer)
                progress.advance(items=done.items, size_bytes=done.size_bytes)
                yield done


def _pieces(writing: Writing, wanted: Iterable[History]) -> Iterator[list[Json]]:
    for number, batch in enumerate(writing.batches(wanted)):
        yield [{"id": f"{number:08d}", "objects": orders.batch_json(batch)}]
