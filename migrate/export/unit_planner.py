"""Takes a snapshot's units into the ledger, in a thread of its own, so that totals are known early and
memory stays small.
"""

from __future__ import annotations

import threading
from collections import deque

from exporters.api import Snapshot, Unit
from exporters.errors import SourceError
from migrate.bundle import layout
from migrate.bundle.progress_database import ProgressDatabase, Totals
from migrate.errors import MoveoutError
from migrate.runtime.progress import Progress

_PAGE = 200
_LEAST_READY = 128
JOIN_SECONDS = 5.0


class Planner:
    """The units of one source in the order in which the snapshot gives them. ``next`` is for one thread."""

    def __init__(self, snapshot: Snapshot, ledger: ProgressDatabase, source: str, progress: Progress) -> None:
        self._snapshot = snapshot
        self._ledger = ledger
        self._source = source
        self._progress = progress
        self._totals = Totals(0, 0, 0)
        self._has_all = False
        self._stop = threading.Event()
        self._error: MoveoutError | None = None
        self._last = 0
        self._buffer: deque[tuple[int, Unit]] = deque()
        self._thread = threading.Thread(target=self._work, name="moveout-plan", daemon=True)

    def start(self) -> None:
        """Begin to plan."""
        self._thread.start()

    def close(self) -> None:
        """Stop planning; waits a moment for a listing that is under way."""
        self._stop.set()
        self._thread.join(JOIN_SECONDS)

    @property
    def totals(self) -> Totals:
        """What has been planned so far."""
        return self._totals

    @property
    def has_all(self) -> bool:
        """Whether every unit has been planned."""
        return self._has_all

    def peek(self) -> Unit | None:
        """Return the unit that ``next`` will return, None where there is none now."""
        return self._buffer[0][1] if self._buffer or self.ready() else None

    def next(self) -> Unit | None:
        """Return the next unit, None where there is none now."""
        if self.peek() is None:
            return None
        self._last, unit = self._buffer.popleft()
        return unit

    def ready(self) -> int:
        """Return how many units can be handed out now, up to some number."""
        if len(self._buffer) < _LEAST_READY:
            last = self._buffer[-1][0] if self._buffer else self._last
            self._buffer.extend(self._ledger.planned(self._source, last, _PAGE))
        return len(self._buffer)

    def ended(self) -> bool:
        """Tell whether no more units will come. Raises what ended the planning too early (``SourceError``
        or the location's).
        """
        if not self.drained():
            return False
        if self._error is not None:
            raise self._error
        return True

    def drained(self) -> bool:
        """Tell whether nothing is left to hand out and nothing will come."""
        return not self._thread.is_alive() and not self.ready()

    def _work(self) -> None:
        try:
            self._plan()
        except MoveoutError as exc:
            self._error = exc
        except Exception as exc:
            self._error = SourceError(f"{self._source} could not be planned: {exc!r}")
            self._error.__cause__ = exc

    def _plan(self) -> None:
        for unit in self._snapshot.units():
            if self._stop.is_set():
                return
            if not layout.is_payload_name(unit.id):
                raise SourceError(f"{self._source}: {unit.id!r} cannot be the id of a unit")
            self._ledger.plan(self._source, [unit])
            self._totals = Totals(
                self._totals.units + 1,
                self._totals.items + unit.items,
                self._totals.size_bytes + unit.size_bytes,
            )
            self._progress.grow(items=unit.items, size_bytes=unit.size_bytes)
        self._has_all = True
