"""Options of commands whose work other machines can share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from migrate.case.model import Case
from migrate.cli.common.session import Session
from migrate.errors import UsageError
from migrate.storage.rate_limit import RateLimiter

if TYPE_CHECKING:
    from migrate.cluster.machines import Machines

THREADS, DASK = "threads", "dask"


class ClusterOptions(Struct, frozen=True):
    """The options of a command whose work a cluster can do."""

    executor: Annotated[
        str,
        typer.Option(
            "--executor", metavar="KIND", help="Who does the work: threads, or the workers of dask."
        ),
    ] = THREADS
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="ADDRESS", help="The Dask scheduler: tcp://host:8786, or a scheduler file."
        ),
    ] = None

    def chosen(self) -> str | None:
        """Return the scheduler to use, None for threads. Raises ``UsageError``."""
        if self.executor not in {THREADS, DASK}:
            raise UsageError(
                f"there is no executor {self.executor!r}", next_step=f"there are {THREADS} and {DASK}"
            )
        if self.executor == THREADS and self.scheduler is not None:
            raise UsageError("--scheduler needs the executor dask", next_step="add --executor dask")
        if self.executor == DASK and self.scheduler is None:
            raise UsageError(
                "the executor dask needs a scheduler",
                next_step="add --scheduler tcp://HOST:8786; docs/guides/many-machines.md",
            )
        return self.scheduler


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
