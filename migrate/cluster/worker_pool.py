"""A crew (see ``migrate.export.worker_pool``) of the workers of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import cast

from exporters.api import Json, Shared, Source, Unit
from exporters.limits import Limits
from exporters.selection import Selection
from migrate.bundle.commit_records import read_records
from migrate.bundle.lease import Lease
from migrate.case.model import Endpoint
from migrate.cluster import protocol
from migrate.cluster.dispatch import Dispatch, begin
from migrate.cluster.machines import Machines
from migrate.cluster.members import Roster
from migrate.cluster.protocol import ExportJob, Reach
from migrate.export.unit_runner import Settled, UnitWork, grow_to
from migrate.export.worker_pool import Crew, Pull, Ready

BATCH_BYTES = 8 * 2**20
BATCH_UNITS = 64
"""A batch takes a worker tens of milliseconds at least, so that the one that it costs the scheduler is nothing; and no
more than need be, so that all workers come to their end together.
"""


@dataclass(frozen=True, slots=True)
class Others:
    """The machines of a cluster, for an export (see ``Hiring``)."""

    machines: Machines
    location: Endpoint
    sources: Mapping[str, Endpoint]
    selections: Mapping[str, Selection]
    limits: Limits
    prove: bool

    def takes(self, source: Source) -> bool:
        """See ``Hiring.takes``: those whose snapshots can be joined."""
        return bool(getattr(source, "shareable", False))

    def hire(self, source: Source, work: UnitWork, lease: Lease, executor: Executor) -> Crew:
        """See ``Hiring.hire``."""
        job = ExportJob(
            id=protocol.new_id(),
            location=Reach.of(self.location),
            lease=lease.id,
            limited=self.machines.limit is not None,
            name=source.name,
            source=Reach.of(self.sources[source.name]),
            selection=protocol.selection_json(self.selections[source.name]),
            limits=protocol.limits_json(self.limits),
            ticket=cast("Shared", work.snapshot).ticket,
            attempts=work.attempts,
            prove=self.prove,
            strict=work.strict,
            sealed_before=work.sealed_before,
        )
        roster, dispatch = begin(self.machines, job, work.progress.note)
        return Workers(work, lease, executor, roster, dispatch)


class Workers:
    """See ``migrate.export.worker_pool.Crew``."""

    def __init__(
        self, work: UnitWork, lease: Lease, executor: Executor, roster: Roster, dispatch: Dispatch
    ) -> None:
        self._work = work
        self._lease = lease
        self._executor = executor
        self._roster = roster
        self._dispatch = dispatch
        self._under_way: dict[str, tuple[Unit, bool]] = {}

    @property
    def idle(self) -> bool:
        """See ``Crew.idle``."""
        return self._dispatch.idle

    @property
    def hungry(self) -> bool:
        """See ``Crew.hungry``."""
        return self._dispatch.hungry

    def fill(self, pull: Pull, ready: Ready) -> None:  # noqa: ARG002
        """See ``Crew.fill``."""
        while self._dispatch.has_room and (units := self._batch(pull)):
            self._dispatch.send([_piece(unit) for unit in units])

    def settle(self, seconds: float) -> Iterator[Settled]:
        """See ``Crew.settle``. What a worker calls done is read from its commit record."""
        done: list[tuple[Unit, bool]] = []
        for piece, answer in self._dispatch.settle(seconds):
            unit, recorded = self._under_way.pop(piece["id"])
            if isinstance(answer, Exception):
                yield unit, answer
            else:
                done.append((unit, recorded))
        ids = [unit.id for unit, _ in done]
        records = read_records(self._work.store, self._work.source, ids, self._executor)
        for (unit, recorded), record in zip(done, records, strict=True):
            tell = self._work.progress.skip if recorded else self._work.progress.advance
            grow_to(self._work.progress, unit, record.outcome)
            tell(items=record.outcome.items, size_bytes=record.outcome.size_bytes)
            yield unit, record

    def cancel(self) -> None:
        """See ``Crew.cancel``. Where a worker does not stop in time, the lease is left to grow stale."""
        if not self._dispatch.cancel():
            self._lease.abandon()

    def close(self) -> None:
        """See ``Crew.close``."""
        self._roster.stop()
        self._dispatch.cancel()

    def _batch(self, pull: Pull) -> Sequence[Unit]:
        units: list[Unit] = []
        size_bytes = 0
        while len(units) < BATCH_UNITS and size_bytes < BATCH_BYTES and (found := pull()) is not None:
            unit, recorded = found
            self._under_way[unit.id] = found
            units.append(unit)
            size_bytes += 0 if recorded else unit.size_bytes
        return units


def _piece(unit: Unit) -> Json:
    return asdict(replace(unit, spec=dict(unit.spec)))
