"""Which task of a transfer a free worker takes next.

Small files wait for answers and large ones for bandwidth, so both are worked on side by side: small files and a few
large ones are served in turn. The bytes that tasks keep in memory are bounded. Parts of one file are given out in
order, so a part that waits for an earlier one to be hashed never waits for one that no worker has.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from migrate.runtime.worker_pool import TICK_SECONDS, ThreadWorkerPool
from migrate.storage.api import PART_BYTES


class CopyTask(Struct, frozen=True):
    """Something to do, and how many bytes it keeps in memory meanwhile."""

    size_bytes: int
    do: Callable[[], None]


Opener = Callable[[], Iterator[CopyTask]]
"""Begins a large file and returns its tasks."""


class _TaskLane(Struct):
    """Tasks in order."""

    tasks: Iterator[CopyTask]
    head: CopyTask | None = None

    def __post_init__(self) -> None:
        self.head = next(self.tasks, None)


class TaskQueue:
    """Hands out tasks to ``workers`` workers. ``most`` says how many tasks may be under way now."""

    def __init__(
        self,
        small: Iterable[CopyTask],
        openers: Iterable[Opener],
        *,
        workers: int,
        most: Callable[[], int] | None,
    ) -> None:
        self._most = most
        self._small = _TaskLane(iter(small))
        self._openers = deque(openers)
        self._open: deque[_TaskLane] = deque()
        self._opening = 0
        self._running = 0
        self._most_open = max(2, workers // 2)
        self._budget = workers * PART_BYTES
        self._held = 0
        self._turn = 0
        self._lock = threading.Lock()

    def run(self, pool: ThreadWorkerPool[CopyTask, None]) -> None:
        """Do all tasks. Raises the first error of one of them."""
        with pool:
            while not pool.idle or self.has_more:
                pool.fill(self.next)
                for task, result in pool.settle(TICK_SECONDS):
                    if isinstance(result, Exception):
                        raise result
                    self._end(task)

    @property
    def has_more(self) -> bool:
        """Whether a task is left, or may still come."""
        with self._lock:
            return bool(self._small.head or self._openers or self._open or self._opening)

    def again(self, opener: Opener) -> None:
        """Put a large file back, to be opened once more. Only from within a task's work."""
        with self._lock:
            self._openers.appendleft(opener)

    def next(self) -> CopyTask | None:
        """Return the next task, None where none may begin now."""
        with self._lock:
            if self._most is not None and self._running >= self._most():
                return None
            task = self._choose()
            if task is not None:
                self._held += task.size_bytes
                self._running += 1
            return task

    def _end(self, task: CopyTask) -> None:
        with self._lock:
            self._held -= task.size_bytes
            self._running -= 1

    def _choose(self) -> CopyTask | None:
        """Choose a lane: the small files' every other time, else the open files in turn."""
        if self._openers and len(self._open) + self._opening < self._most_open:
            opener = self._openers.popleft()
            self._opening += 1
            return CopyTask(0, lambda: self._open_lane(opener))
        self._turn += 1
        if self._turn % 2 and (task := self._from(self._small)) is not None:
            return task
        for _ in range(len(self._open)):
            lane = self._open.popleft()
            task = self._from(lane)
            if lane.head is not None:
                self._open.append(lane)
            if task is not None:
                return task
        return self._from(self._small)

    def _from(self, lane: _TaskLane) -> CopyTask | None:
        task = lane.head
        if task is None or (self._held > 0 and self._held + task.size_bytes > self._budget):
            return None
        lane.head = next(lane.tasks, None)
        return task

    def _open_lane(self, opener: Opener) -> None:
        lane = None
        try:
            lane = _TaskLane(opener())
        finally:
            with self._lock:
                self._opening -= 1
                if lane is not None and lane.head is not None:
                    self._open.append(lane)
