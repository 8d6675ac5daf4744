"""A source's units exported by the workers of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Json, Shareable, Shared, Source
from exporters.limits import Limits
from exporters.structs import as_dict
from migrate.bundle.commit_records import read_records
from migrate.bundle.lease import Lease
from migrate.case.model import Endpoint
from migrate.cluster import protocol
from migrate.cluster.machines import Machines
from migrate.cluster.protocol import ExportJob, Reach
from migrate.cluster.worker_pool import ClusterWorkerPool
from migrate.export.unit_runner import PlannedUnit, SettledUnit, UnitPool, UnitRunner, grow_to


class ExportCluster(Struct, frozen=True):
    """The machines of a cluster, for an export."""

    machines: Machines
    location: Endpoint
    sources: Mapping[str, Endpoint]
    limits: Limits

    def open_pool(
        self, source: Source, runner: UnitRunner, lease: Lease, executor: Executor
    ) -> UnitPool | None:
        """Return the pool that does the units of a source; None where its snapshot cannot be joined."""
        if not (isinstance(source, Shareable) and source.shareable):
            return None
        endpoint = self.sources[source.name]
        job = ExportJob(
            id=protocol.new_id(),
            location=Reach.of(self.location),
            lease=lease.id,
            limited=self.machines.limit is not None,
            name=source.name,
            source=Reach.of(endpoint),
            selection=protocol.selection_json(endpoint.selection),
            limits=protocol.limits_json(self.limits),
            ticket=cast("Shared", runner.snapshot).ticket,
            rules=runner.rules,
        )
        codec = _UnitCodec(runner, executor)
        return ClusterWorkerPool(
            self.machines,
            job,
            codec,
            lease=lease,
            note=runner.progress.note,
            cancellation=runner.cancellation,
        )


class _UnitCodec(Struct, frozen=True):
    """See ``worker_pool.ItemCodec``; each group is of one unit. What a worker calls done is read from its
    commit record.
    """

    runner: UnitRunner
    executor: Executor

    def encode(self, item: Sequence[PlannedUnit]) -> Json:
        (planned,) = item
        return as_dict(replace(planned.unit, spec=dict(planned.unit.spec)))

    def size_bytes(self, item: Sequence[PlannedUnit]) -> int:
        (planned,) = item
        return planned.bytes_to_send

    def decode(
        self, responses: Sequence[tuple[Sequence[PlannedUnit], Json]]
    ) -> Iterator[Sequence[SettledUnit]]:
        runner, units = self.runner, [planned for (planned,), _ in responses]
        ids = [planned.unit.id for planned in units]
        records = read_records(runner.store, runner.source, ids, self.executor)
        for planned, record in zip(units, records, strict=True):
            count = runner.progress.skip if planned.recorded else runner.progress.advance
            grow_to(runner.progress, planned.unit, record.outcome)
            count(items=record.outcome.items, size_bytes=record.outcome.size_bytes)
            yield [(planned.unit, record)]
