"""Rows copied into a database by the workers of a cluster (see ``restore.common.remote_rows``).

The database itself keeps two from doing one part: the note that a part is done is written in its transaction, and there
can be one. Who finds it there has nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exporters.api import Json
from exporters.row_digest import Advance
from migrate.cluster import protocol
from migrate.cluster.dispatch import at_work
from migrate.cluster.machines import Machines
from migrate.cluster.protocol import Reach, RowsJob
from migrate.restore.common.table_parts import PartFile, batches_of
from migrate.runtime.progress import Progress

BATCH_BYTES = 8 * 2**20
BATCH_PARTS = 64


class Lock:
    """The lock in the destination, which the lead's session has as long as that lives. See ``dispatch.Held``."""

    def check(self) -> None:
        """What the lead does next in that session fails by itself."""

    def abandon(self) -> None:
        """Whoever still writes is at a transaction that another restore waits for, and counts once."""


@dataclass(frozen=True, slots=True)
class ByCluster:
    """The machines of a cluster, for one database."""

    machines: Machines
    bundle: Reach
    destination: Reach

    def copy(
        self, source: str, parts: Sequence[PartFile], lead: int, progress: Progress, advance: Advance
    ) -> list[PartFile]:
        """See ``Copiers.copy``."""
        job = RowsJob(
            id=protocol.new_id(),
            location=self.bundle,
            lease=str(lead),
            limited=self.machines.limit is not None,
            name=source,
            destination=self.destination,
        )
        held, by_name = Lock(), {part.name: part for part in parts}
        refused: list[PartFile] = []
        with at_work(self.machines, job, held, progress.note) as dispatch:
            batches = batches_of(parts, size_bytes=BATCH_BYTES, count=BATCH_PARTS)
            pieces: Iterator[list[Json]] = ([{"id": part.name} for part in batch] for batch in batches)
            for piece, answer in dispatch.all_of(pieces, held):
                part = by_name[piece["id"]]
                if answer["written"]:
                    advance(part.rows, part.size_bytes)
                else:
                    refused.append(part)
        return refused
