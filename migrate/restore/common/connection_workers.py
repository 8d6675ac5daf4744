"""Several pieces of work at once, each by a connection that is lent for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Generic, Protocol, TypeVar


class Connection(Protocol):
    """What is lent."""

    def close(self) -> None:
        """End the session."""
        ...


Lent = TypeVar("Lent", bound=Connection)
Work = TypeVar("Work")


class Workers(Generic[Lent]):
    """``connect`` opens a further connection when all are lent; one whose work failed is closed, and not lent again.
    ``stop``: whoever sets it ends what is at work.
    """

    def __init__(
        self, connect: Callable[[], Lent], workers: int, stop: threading.Event | None = None
    ) -> None:
        self._connect = connect
        self._workers = max(1, workers)
        self._idle: list[Lent] = []
        self._stop = stop or threading.Event()

    def stopped(self) -> bool:
        """Tell whether another piece failed: what is still at work should end soon, by ``InterruptedError``."""
        return self._stop.is_set()

    def run(self, pieces: Sequence[Work], write: Callable[[Lent, Work], None]) -> None:
        """Do every piece; after the first error the others stop soon, and the error is raised."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="moveout-restore") as pool:
            futures = [pool.submit(self.one, piece, write) for piece in pieces]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                errors = [error for future in done if (error := future.exception())]
                if errors:
                    raise next((one for one in errors if not isinstance(one, InterruptedError)), errors[0])
            finally:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                self.close()
                self._stop.clear()

    def close(self) -> None:
        """Close what is not lent."""
        while self._idle:
            self._idle.pop().close()

    def one(self, piece: Work, write: Callable[[Lent, Work], None]) -> None:
        """Do a piece in this thread. Raises ``InterruptedError`` once it must end."""
        if self._stop.is_set():
            raise InterruptedError
        try:
            lent = self._idle.pop()
        except IndexError:
            lent = self._connect()
        try:
            write(lent, piece)
        except BaseException:
            lent.close()
            raise
        self._idle.append(lent)
