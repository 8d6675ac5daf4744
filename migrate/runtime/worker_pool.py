"""Worker pools: who executes units of work. Threads here; ``migrate.cluster.worker_pool`` has the same on a cluster."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from migrate.runtime.cancellation import CancellationToken

Item = TypeVar("Item")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

GRACE_SECONDS = 10.0
"""How long a cancelled pool waits for the work that is under way."""
TICK_SECONDS = 0.5
IDLE_SECONDS = 0.02
"""How long a pool with nothing under way waits before it asks for items again."""


class WorkerPool(Protocol[Item, Result_co]):
    """Executes items, many at once, in any order. For one thread's use, as a context.

    A context that ends with an error cancels what is under way. One that ends without waits for it.
    """

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        ...

    def fill(self, pull: Callable[[], Item | None]) -> None:
        """Begin as many items as there is room for. ``pull`` returns None when there is none now."""
        ...

    def settle(self, seconds: float) -> Iterator[tuple[Item, Result_co | Exception]]:
        """Yield items that have ended, each with its result or its error. Wait so long for the first one.

        Raises ``Cancelled``, and what makes all work impossible.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def run_all(
    pool: WorkerPool[Item, Result], items: Iterable[Item], *, check: Callable[[], None] | None = None
) -> Iterator[tuple[Item, Result]]:
    """Execute all items; yield each with its result, in any order. Raises the first error of an item, and what
    ``check`` raises, which is called every now and then.
    """
    left = iter(items)
    exhausted = False

    def pull() -> Item | None:
        nonlocal exhausted
        item = next(left, None)
        exhausted = item is None
        return item

    with pool:
        while not exhausted or not pool.idle:
            if not exhausted:
                pool.fill(pull)
            for item, result in pool.settle(TICK_SECONDS):
                if isinstance(result, Exception):
                    raise result
                yield item, result
            if check is not None:
                check()


class ThreadWorkerPool(Generic[Item, Result]):
    """A ``WorkerPool`` of threads of this process. ``ahead`` more items than there are workers wait for their turn.

    ``cancellation`` is cancelled when the context ends with an error. ``on_stuck`` is called when threads have not
    ended ``grace_seconds`` later; None waits for all of them.
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        workers: int,
        *,
        name: str,
        ahead: int = 0,
        cancellation: CancellationToken | None = None,
        on_stuck: Callable[[], None] | None = None,
        grace_seconds: float | None = GRACE_SECONDS,
    ) -> None:
        self._work = work
        self._workers = max(1, workers)
        self._name = name
        self._most = self._workers + ahead
        self._cancellation = cancellation or CancellationToken()
        self._on_stuck = on_stuck
        self._grace_seconds = grace_seconds
        self._todo: queue.SimpleQueue[tuple[Item] | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[tuple[Item, Result | BaseException]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way = 0

    @property
    def idle(self) -> bool:
        """See ``WorkerPool.idle``."""
        return not self._under_way

    def fill(self, pull: Callable[[], Item | None]) -> None:
        """See ``WorkerPool.fill``."""
        while self._under_way < self._most and (item := pull()) is not None:
            self._under_way += 1
            self._todo.put((item,))
            if len(self._threads) < min(self._under_way, self._workers):
                self._start()

    def settle(self, seconds: float) -> Iterator[tuple[Item, Result | Exception]]:
        """See ``WorkerPool.settle``."""
        if self.idle:
            self._cancellation.wait(min(seconds, IDLE_SECONDS))
            return
        try:
            ended_item = self._ended.get(timeout=seconds)
        except queue.Empty:
            self._cancellation.check()
            return
        while True:
            item, result = ended_item
            self._under_way -= 1
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
            yield item, result
            try:
                ended_item = self._ended.get_nowait()
            except queue.Empty:
                return

    def __enter__(self) -> Self:
        """Return the pool itself; its threads start when they are needed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the threads; after an error cancel their work first."""
        try:
            if error is not None:
                self._cancellation.cancel()
            self._join(self._grace_seconds if error is not None else None)
        except BaseException:
            self._cancellation.cancel()
            self._join(self._grace_seconds)
            raise

    def _start(self) -> None:
        # A daemon: a thread that hangs in a dead connection must not keep the process alive.
        thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (todo := self._todo.get()) is not None:
            (item,) = todo
            result: Result | BaseException
            try:
                self._cancellation.check()
                result = self._work(item)
            except BaseException as exc:
                result = exc
            self._ended.put((item, result))

    def _join(self, seconds: float | None) -> None:
        for _ in self._threads:
            self._todo.put(None)
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:  # an interruption may come before the last one is started
                thread.join(None if end is None else max(0.0, end - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads) and self._on_stuck is not None:
            self._on_stuck()
