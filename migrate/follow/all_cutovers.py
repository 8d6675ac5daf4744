"""The cutovers of all sources of a case. Each step is done for all sources at once, before the next step begins."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from migrate.follow.cutover import COUNTED_AFTER_SECONDS, Cutover, retried
from migrate.follow.delta import DeltaCutover, DeltaSource
from migrate.follow.handover import take_over
from migrate.follow.held_sources import SwitchedSource
from migrate.follow.table_digests import together
from migrate.number_text import duration_words
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.storage.api import Store

_QUIET_SECONDS = 10.0
"""Without a hold: a source counts as stopped once nothing has arrived for so long."""
_POLL_SECONDS = 1.0
_CATCH_UPS, _SHORT_SECONDS, _SHORTER = 8, 1.0, 0.9
"""Before the hold: the most rounds of catching up; a round that takes no longer is the last; so is one that takes more
than this share of the shortest round before.
"""
Result = TypeVar("Result")
SourceCutover = Cutover | DeltaCutover


class AllCutovers:
    """The cutovers of sources whose changes lie in ``store``; ``close`` stops reading their logs."""

    def __init__(
        self,
        sources: Sequence[SwitchedSource],
        store: Store,
        workers: int,
        progress: Progress,
        cancellation: CancellationToken,
    ) -> None:
        self.sources, self.store = sources, store
        self._progress, self._cancellation = progress, cancellation
        self._steps = cancellation.child()

        def cutover_of(source: SwitchedSource) -> SourceCutover:
            def report(stage: str) -> None:
                progress.note(f"{source.name}: {stage}")

            if isinstance(source, DeltaSource):
                return DeltaCutover(source, self._steps, workers, report)
            return Cutover(source, store, self._steps, workers, report, progress)

        self._cutovers: Mapping[str, SourceCutover] = {source.name: cutover_of(source) for source in sources}

    def each(self, step: Callable[[SourceCutover], Result]) -> list[Result]:
        """Do a step for all sources at once. The first error cancels the step for the others, and is raised."""
        return together([partial(step, cutover) for cutover in self._cutovers.values()], self._steps)

    def each_retried(self, step: Callable[[SourceCutover], Result]) -> list[Result]:
        """Do a step before the hold for all sources at once. Retry it where the network is away for some seconds:
        nothing is changed yet.
        """
        return self.each(lambda cutover: retried(partial(step, cutover), self._steps))

    def cancel(self) -> None:
        """Cancel the steps that are under way."""
        self._steps.cancel()

    def close(self) -> None:
        """Stop reading the logs."""
        for cutover in self._cutovers.values():
            cutover.close()

    def take_over(self, *, is_held: bool = False) -> None:
        """Wait until no follow is at work, and catch up. Unless an earlier cutover has held the sources, note what runs
        there by itself.
        """

        def step(cutover: SourceCutover) -> None:
            take_over(cutover.followed, self._steps, cutover.report)
            if not is_held:
                cutover.followed.note_running()
            cutover.catch_up()

        self.each_retried(step)

    def catch_up_unless_followed(self) -> list[bool]:
        """Catch up, except for sources that a follow is at work on. Return for each source whether one is."""

        def step(cutover: SourceCutover) -> bool:
            is_at_work = cutover.followed.is_at_work()
            if not is_at_work:
                cutover.catch_up()
            return is_at_work

        return self.each_retried(step)

    def compare_early(self) -> None:
        """Compare both sides while the old one is in use. Tables that are not written to until the hold need not be
        read under it.
        """
        self._progress.begin("compare before the hold", items=0, size_bytes=0)
        self.each_retried(lambda cutover: cutover.compare_early())
        self._progress.end()

    def catch_up(self) -> None:
        """Catch up again and again, until a round is short or no shorter than those before. What is written during the
        last round arrives under the hold. Go on for a while where others have just written to a destination.
        """
        shortest, counted_by = math.inf, time.monotonic() + COUNTED_AFTER_SECONDS
        for number in itertools.count(1):
            begun = time.monotonic()
            self._catch_up_once()
            seconds = time.monotonic() - begun
            self._progress.note(f"caught up in {duration_words(seconds)}, round {number} before the hold")
            is_short = seconds <= _SHORT_SECONDS or seconds > shortest * _SHORTER or number >= _CATCH_UPS
            shortest = min(shortest, seconds)
            if is_short:
                if time.monotonic() >= counted_by or not any(
                    self.each_retried(lambda cutover: cutover.recent_sessions())
                ):
                    return
                self._pause()

    def wait_until_quiet(self) -> None:
        """Wait until nothing has arrived for a while: what wrote to the old side has stopped."""
        self._progress.note(f"waiting until nothing is written for {_QUIET_SECONDS:.0f} s")
        before, since = self._catch_up_once(), time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS:
            self._pause()
            if (now := self._catch_up_once()) != before:
                before, since = now, time.monotonic()

    def _catch_up_once(self) -> list[object]:
        """Catch up; return something that is equal as long as nothing is written."""
        return self.each_retried(lambda cutover: cutover.catch_up())

    def _pause(self) -> None:
        self._cancellation.wait(_POLL_SECONDS)
        self._cancellation.check()
