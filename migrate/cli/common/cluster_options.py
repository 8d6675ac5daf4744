"""Options of commands whose work other machines can share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from migrate.case.model import Case
from migrate.cli.common.session import Session
from migrate.storage.rate_limit import RateLimiter

if TYPE_CHECKING:
    from migrate.cluster.machines import Machines


class ClusterOptions(Struct, frozen=True):
    """The options of a command whose work a cluster can do."""

    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="Let the workers of a Dask cluster do the work: tcp://host:8786, or a scheduler file.",
        ),
    ] = None


@contextmanager
def machines(session: Session, scheduler: str | None, case: Case | None) -> Iterator[Machines | None]:
    """Lend the machines of a scheduler, with the bandwidth limit for all of them; None without one."""
    if scheduler is None:
        yield None
        return
    from migrate.cluster.machines import connected  # noqa: PLC0415  who asks for no cluster need not wait for it

    with connected(scheduler, session.rates(case)) as cluster_machines:
        yield cluster_machines


def rate_limiter_of(
    session: Session, cluster_machines: Machines | None, case: Case | None
) -> RateLimiter | None:
    """Return what keeps to the bandwidth limit: this machine's share of it in a cluster, else all of it."""
    if cluster_machines is not None:
        return cluster_machines.rate_limiter
    return session.rate_limiter(case)
