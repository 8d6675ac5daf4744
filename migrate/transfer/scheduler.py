"""Which piece of work a free worker takes next.

Small files wait for answers, large ones for bandwidth, so both are worked on side by side: one lane of small
files and a few lanes of large ones are served in turn. What is in memory at once is bounded in bytes, and
parts of one file are given out in order, so that a part that waits for an earlier one to be hashed never
waits for one that nobody has.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from migrate.storage.api import PART_BYTES

Work = Callable[[], None]
LOOK_AGAIN_SECONDS = 0.5
"""How often a worker that has nothing to do looks whether more may be under way by now."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Something to do, and how many bytes it keeps in memory meanwhile."""

    size_bytes: int
    do: Work


@dataclass(slots=True)
class Lane:
    """Pieces of one large file, in order."""

    pieces: Iterator[Piece]
    head: Piece | None = field(init=False)

    def __post_init__(self) -> None:
        self.head = next(self.pieces, None)


class Lanes:
    """Hands out pieces to ``workers`` threads. ``openers`` begin a large file and return its pieces. ``most`` says how
    many may be under way now.
    """

    def __init__(
        self,
        small: Iterable[Piece],
        openers: Iterable[Callable[[], Iterator[Piece]]],
        *,
        workers: int,
        most: Callable[[], int] | None = None,
    ) -> None:
        self._most = most or (lambda: workers)
        self._small = Lane(iter(small))
        self._openers = deque(openers)
        self._open: deque[Lane] = deque()
        self._opening = 0
        self._running = 0
        self._most_open = max(2, workers // 2)
        self._workers = workers
        self._budget = workers * PART_BYTES
        self._held = 0
        self._turn = 0
        self._stopped = False
        self._changed = threading.Condition()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def again(self, opener: Callable[[], Iterator[Piece]]) -> None:
        """Put a large file back, to be opened once more. Only from within a piece's work."""
        with self._changed:
            self._openers.appendleft(opener)
            self._changed.notify_all()

    def work(self) -> None:
        """Do pieces until there are none left; what every worker runs. A piece's exception ends the
        worker.
        """
        while (piece := self._claim()) is not None:
            try:
                piece.do()
            finally:
                with self._changed:
                    self._held -= piece.size_bytes
                    self._running -= 1
                    self._changed.notify_all()

    def _claim(self) -> Piece | None:
        with self._changed:
            while not self._stopped:
                piece = self._next() if self._running < self._most() else None
                if piece is not None:
                    self._held += piece.size_bytes
                    self._running += 1
                    return piece
                if self._running == 0 and not self._left():
                    self._changed.notify_all()
                    return None
                # Nobody tells when a server has recovered.
                self._changed.wait(None if self._running >= self._workers else LOOK_AGAIN_SECONDS)
            return None

    def _left(self) -> bool:
        return bool(self._small.head or self._openers or self._open or self._opening)

    def _next(self) -> Piece | None:
        """Choose a lane: the small files' every other time, else the open files in turn."""
        if self._openers and len(self._open) + self._opening < self._most_open:
            opener = self._openers.popleft()
            self._opening += 1
            return Piece(0, lambda: self._open_lane(opener))
        self._turn += 1
        if self._turn % 2 and (piece := self._from(self._small)) is not None:
            return piece
        for _ in range(len(self._open)):
            lane = self._open.popleft()
            piece = self._from(lane)
            if lane.head is not None:
                self._open.append(lane)
            if piece is not None:
                return piece
        return self._from(self._small)

    def _from(self, lane: Lane) -> Piece | None:
        piece = lane.head
        if piece is None or (self._held > 0 and self._held + piece.size_bytes > self._budget):
            return None
        lane.head = next(lane.pieces, None)
        return piece

    def _open_lane(self, opener: Callable[[], Iterator[Piece]]) -> None:
        lane = None
        try:
            lane = Lane(opener())
        finally:
            with self._changed:
                self._opening -= 1
                if lane is not None and lane.head is not None:
                    self._open.append(lane)
                self._changed.notify_all()
