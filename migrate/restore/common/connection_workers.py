"""Several pieces of work at once, each by a connection that is lent for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.worker_pool import ThreadWorkerPool, run_all


class Closable(Protocol):
    """A connection to the destination."""

    def close(self) -> None:
        """End the session."""
        ...


Connection = TypeVar("Connection", bound=Closable)
Work = TypeVar("Work")


class ConnectionWorkers(Generic[Connection]):
    """Lends connections to pieces of work. ``connect`` opens a further one when all are lent. A connection whose work
    failed is closed, and not lent again. ``cancellation`` ends what is under way.
    """

    def __init__(
        self, connect: Callable[[], Connection], workers: int, cancellation: CancellationToken | None = None
    ) -> None:
        self._connect = connect
        self._workers = workers
        self._idle: list[Connection] = []
        self._run_cancellation = cancellation or CancellationToken()
        self.cancellation = self._run_cancellation
        """Is cancelled when another piece has failed, or the run was cancelled."""

    def run(self, pieces: Sequence[Work], write: Callable[[Connection, Work], None]) -> None:
        """Do every piece. After the first error the others stop soon, and the error is raised."""
        self.cancellation = self._run_cancellation.child()
        pool: ThreadWorkerPool[Work, None] = ThreadWorkerPool(
            partial(self.run_one, write=write),
            self._workers,
            name="moveout-restore",
            ahead=self._workers,
            cancellation=self.cancellation,
            grace_seconds=None,
        )
        try:
            for _ in run_all(pool, pieces):
                pass
        finally:
            self.close()
            self.cancellation = self._run_cancellation

    def close(self) -> None:
        """Close what is not lent."""
        while self._idle:
            self._idle.pop().close()

    def run_one(self, piece: Work, write: Callable[[Connection, Work], None]) -> None:
        """Do a piece in this thread. Raises ``Cancelled``."""
        self.cancellation.check()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            write(connection, piece)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
