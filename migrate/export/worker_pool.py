"""Who does a source's units: threads of this process, or whoever keeps the same promises."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Protocol

from exporters.api import Source, Unit
from migrate.bundle.lease import Lease
from migrate.export.unit_runner import Settled, UnitWork, is_small

HUNGRY_SECONDS = 0.02

Pull = Callable[[], tuple[Unit, bool] | None]
"""Gives the next unit, and whether an earlier run has left a commit record of it; None where there is none now."""
Ready = Callable[[], int]
"""Returns how many units there are now for ``Pull``, at least."""


class Crew(Protocol):
    """Does units, many at once, in any order; what is done has a commit record at the location. For one thread's
    use.
    """

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        ...

    @property
    def hungry(self) -> bool:
        """Whether more could be done at once than is under way."""
        ...

    def fill(self, pull: Pull, ready: Ready) -> None:
        """Begin as many units as there is room for."""
        ...

    def settle(self, seconds: float) -> Iterator[Settled]:
        """Yield what has ended; wait so long for the first of it. Raises the location's errors where nobody can go
        on.
        """
        ...

    def cancel(self) -> None:
        """Let go of what is under way: none of it may be committed once this returns, save by threads that a run
        waits for.
        """
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class Hiring(Protocol):
    """Finds others than the threads of this process."""

    def takes(self, source: Source) -> bool:
        """Tell whether they can do this source's units."""
        ...

    def hire(self, source: Source, work: UnitWork, lease: Lease, executor: Executor) -> Crew:
        """Return who does the units of ``work``. ``executor`` is for what has to be read meanwhile."""
        ...


class Threads:
    """A crew of the threads of an executor."""

    def __init__(self, work: UnitWork, executor: Executor, workers: int) -> None:
        self._work = work
        self._executor = executor
        self._workers = workers
        self._pending: dict[Future[Sequence[Settled]], Sequence[Unit]] = {}

    @property
    def idle(self) -> bool:
        """See ``Crew.idle``."""
        return not self._pending

    @property
    def hungry(self) -> bool:
        """See ``Crew.hungry``."""
        return len(self._pending) < self._workers

    def fill(self, pull: Pull, ready: Ready) -> None:
        """See ``Crew.fill``: groups of units, a few more of them than there are workers."""
        while len(self._pending) < self._workers * 2 and (group := self._group(pull, ready())):
            units = [unit for unit, _ in group]
            self._pending[self._executor.submit(self._work.do_all, group)] = units

    def _group(self, pull: Pull, ready: int) -> Sequence[tuple[Unit, bool]]:
        """Return units for one worker: small ones are done together, as long as there is enough for all workers."""
        most = max(1, min(self._work.store.together, ready // (self._workers * 2)))
        group: list[tuple[Unit, bool]] = []
        while len(group) < most and (found := pull()) is not None:
            group.append(found)
            unit, recorded = found
            if not is_small(unit, recorded=recorded):
                break
        return group

    def settle(self, seconds: float) -> Iterator[Settled]:
        """See ``Crew.settle``."""
        if not self._pending:
            time.sleep(HUNGRY_SECONDS)
            return
        finished, _ = wait(self._pending, timeout=seconds, return_when=FIRST_COMPLETED)
        for future in finished:
            units = self._pending.pop(future)
            try:
                settled = future.result()
            except Exception as exc:
                settled = [(unit, exc) for unit in units]
            yield from settled

    def cancel(self) -> None:
        """See ``Crew.cancel``."""
        for future in self._pending:
            future.cancel()

    def close(self) -> None:
        """See ``Crew.close``."""
