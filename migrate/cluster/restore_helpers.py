"""Which tasks of a restore the workers of a cluster can do, by the destination's engine."""

from __future__ import annotations

from migrate.case.model import Endpoint
from migrate.cluster.machines import Machines
from migrate.cluster.object_tasks import Fillers
from migrate.cluster.protocol import Reach
from migrate.cluster.row_tasks import ByCluster
from migrate.engines import registry


def restore_helpers(
    machines: Machines, bundle: Endpoint, destination: Endpoint
) -> Fillers | ByCluster | None:
    """Return what the machines do of a restore; None where its engine is restored by one machine. Raises ``UsageError``
    where a URL holds a secret.
    """
    engine = registry.engine_for(destination.url, destination.shown)
    if engine.contents == "objects":
        return Fillers(machines, Reach.of(bundle), Reach.of(destination))
    if engine.row_writer:
        return ByCluster(machines, Reach.of(bundle), Reach.of(destination))
    return None
