"""The machines that a command can use, apart from this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from migrate.cluster.dask_client import Cluster, connect
from migrate.cluster.members import Limit
from migrate.quantities import Rates
from migrate.storage.rate_limit import RateLimiter


class Machines(Struct, frozen=True):
    """A cluster, and the limit that holds for all of it together, the lead included."""

    cluster: Cluster
    limit: Limit | None

    @property
    def rate_limiter(self) -> RateLimiter | None:
        """What the lead's own bytes count against."""
        return self.limit.here.rate_limiter if self.limit else None


@contextmanager
def connected(scheduler: str, rates: Rates | None) -> Iterator[Machines]:
    """Lend the machines of a scheduler. Raises what ``connect`` raises."""
    cluster = connect(scheduler)
    try:
        limit = Limit(rates) if rates is not None else None
        if limit is not None:
            limit.all_here()
        yield Machines(cluster, limit)
    finally:
        cluster.close()
