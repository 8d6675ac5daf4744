"""The forecast of a running move: renewed from its own progress, and said when the deadline is in danger."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from msgspec import Struct, field

from migrate.errors import MoveoutError
from migrate.number_text import duration_words, moment_words
from migrate.plan.forecast import Forecast, ReferenceClass, Verdict, WorkKey, WorkProgress, forecast
from migrate.plan.stage_work import Stage, StageRecord, StageWork
from migrate.runtime.progress import OF_NO_SOURCE, Progress, SourceTask

RENEW_SECONDS = 5.0
"""How often the forecast is renewed."""
_COST_SHARE = 0.02
"""It takes no more than this share of the time: with a thousand sources it is renewed less often."""
_MARK_SHARE = 0.1
_PER_SOURCE: tuple[Stage, ...] = ("export", "restore", "compare")
"""Stages that take one source after the other. The others work on the whole bundle."""
_BADNESS: tuple[Verdict, ...] = ("no deadline", "in time", "tight", "unknown", "late")


class _Counter(Struct):
    """Counts the items and bytes of what is under way, since ``begun``."""

    begun: float
    total_items: int = 0
    total_bytes: int = 0
    items: int = 0
    size_bytes: int = 0
    skipped_items: int = 0
    skipped_bytes: int = 0
    marks: list[tuple[float, float]] = field(default_factory=list)

    @property
    def measured_share(self) -> float:
        """The share that this run has done."""
        return self._share(self.items, self.size_bytes)

    @property
    def skipped_share(self) -> float:
        """The share that an earlier run had done."""
        return self._share(self.skipped_items, self.skipped_bytes)

    def _share(self, items: int, size_bytes: int) -> float:
        if self.total_bytes:
            return min(1.0, size_bytes / self.total_bytes)
        return min(1.0, items / self.total_items) if self.total_items else 0.0

    def mark(self, now: float) -> None:
        """Note the moment if another tenth is done."""
        share = self.measured_share
        if share >= (self.marks[-1][1] if self.marks else 0.0) + _MARK_SHARE:
            self.marks.append((now - self.begun, share))


class LiveForecast:
    """A ``Progress`` that passes everything on to another one, and forecasts the rest of the move from it.

    ``enter`` and ``leave`` say which stage is under way. ``latest`` is the newest forecast. When its verdict changes,
    a note says so.
    """

    def __init__(
        self,
        inner: Progress,
        works: Sequence[StageWork],
        reference: ReferenceClass,
        *,
        deadline: datetime | None,
        not_counted: Sequence[str],
        on_renewed: Callable[[Forecast], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._works = works
        self._reference = reference
        self._deadline = deadline
        self._not_counted = not_counted
        self._on_renewed = on_renewed
        self._clock = clock
        self._lock = threading.RLock()
        self._stage: Stage | None = None
        self._stage_begun = 0.0
        self._source = ""
        self._counter: _Counter | None = None
        self._done: dict[WorkKey, WorkProgress] = {}
        self._marks: dict[WorkKey, list[tuple[float, float]]] = {}
        self.latest = self._forecast()
        self._noted: Verdict = self.latest.verdict
        self._renewed = clock()
        self._pause_seconds = RENEW_SECONDS

    def enter(self, stage: Stage) -> None:
        """Begin a stage."""
        with self._lock:
            self._stage, self._stage_begun = stage, self._clock()
            self._source, self._counter = "", None

    def leave(self, *, whole: bool = True) -> None:
        """End the stage that is under way, if there is one. ``whole``: all of its work was done; else its times are no
        example for others.
        """
        with self._lock:
            if self._stage is None:
                return
            self._close()
            elapsed = self._clock() - self._stage_begun
            works = [work for work in self._works if work.stage == self._stage]
            seconds = {
                work.source: done.elapsed_seconds
                for work in works
                if (done := self._done.get((work.stage, work.source)))
            }
            rest = max(0.0, elapsed - sum(seconds.values()))
            for work, share in zip(works, self._modelled_shares(works), strict=True):
                key = work.stage, work.source
                before = self._done.get(key)
                measured = (before.measured_share if before else 1.0) if whole else 0.0
                elapsed_of_work = seconds.get(work.source, 0.0) + rest * share
                self._done[key] = WorkProgress(1.0, measured, elapsed_of_work, has_ended=True)
            self._stage = None
            self.renew()

    def records(self) -> list[StageRecord]:
        """Return the work that this run did from its beginning to its end, with its times."""
        with self._lock:
            return [
                StageRecord(work, done.elapsed_seconds, tuple(self._marks.get(key, ())))
                for work in self._works
                if (done := self._done.get(key := (work.stage, work.source))) and done.measured_share >= 1.0
            ]

    def renew(self) -> None:
        """Forecast anew, and say if the verdict changed."""
        with self._lock:
            begun = self._clock()
            self.latest = self._forecast()
            self._renewed = self._clock()
            self._pause_seconds = max(RENEW_SECONDS, (self._renewed - begun) / _COST_SHARE)
            self._on_renewed(self.latest)
            verdict, before = self.latest.verdict, self._noted
            self._noted = verdict
        if verdict != before:
            self._inner.note(_sentence(self.latest, better=_BADNESS.index(verdict) < _BADNESS.index(before)))

    def begin(self, what: str, *, items: int, size_bytes: int, of: SourceTask = OF_NO_SOURCE) -> None:
        """See ``Progress.begin``."""
        with self._lock:
            if of.share:
                self._begin(of.source or what.rpartition(" ")[2], items, size_bytes)
        self._inner.begin(what, items=items, size_bytes=size_bytes, of=of)

    def grow(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """See ``Progress.grow``."""
        with self._lock:
            if self._counter:
                self._counter.total_items += items
                self._counter.total_bytes += size_bytes
        self._inner.grow(items=items, size_bytes=size_bytes)

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """See ``Progress.advance``."""
        with self._lock:
            now = self._clock()
            if self._counter:
                self._counter.items += items
                self._counter.size_bytes += size_bytes
                self._counter.mark(now)
            due = now - self._renewed >= self._pause_seconds
        self._inner.advance(items=items, size_bytes=size_bytes)
        if due:
            self.renew()

    def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """See ``Progress.skip``."""
        with self._lock:
            if self._counter:
                self._counter.skipped_items += items
                self._counter.skipped_bytes += size_bytes
        self._inner.skip(items=items, size_bytes=size_bytes)

    def count_gaps(self, count: int) -> None:
        """See ``Progress.count_gaps``."""
        self._inner.count_gaps(count)

    def note(self, message: str) -> None:
        """See ``Progress.note``."""
        self._inner.note(message)

    def note_error(self, what: str, error: MoveoutError) -> None:
        """See ``Progress.note_error``."""
        self._inner.note_error(what, error)

    def end(self, *, stopped: bool = False) -> None:
        """See ``Progress.end``."""
        self._inner.end(stopped=stopped)

    def _begin(self, source: str, items: int, size_bytes: int) -> None:
        if self._stage in _PER_SOURCE:
            if source == self._source:  # a part that belongs to the same work, such as its indexes
                return
            self._close()
            self._source = source
            if not any((work.stage, work.source) == (self._stage, source) for work in self._works):
                return
        self._counter = _Counter(self._clock(), items, size_bytes)

    def _close(self) -> None:
        """Take the work that is under way as done."""
        counter, self._counter = self._counter, None
        if counter is None or self._stage is None or self._stage not in _PER_SOURCE:
            return
        key = self._stage, self._source
        measured = 1.0 - counter.skipped_share
        self._done[key] = WorkProgress(1.0, measured, self._clock() - counter.begun, has_ended=True)
        self._marks[key] = counter.marks

    def _progress(self) -> dict[WorkKey, WorkProgress]:
        progress = dict(self._done)
        if self._stage is None or self._counter is None:
            return progress
        works = [work for work in self._works if work.stage == self._stage]
        if self._stage in _PER_SOURCE:
            works = [work for work in works if work.source == self._source]
        elapsed = self._clock() - self._counter.begun
        measured = self._counter.measured_share
        share = min(1.0, measured + self._counter.skipped_share)
        for work, part in zip(works, self._modelled_shares(works), strict=True):
            progress[work.stage, work.source] = WorkProgress(share, measured, elapsed * part)
        return progress

    def _modelled_shares(self, works: Sequence[StageWork]) -> list[float]:
        modelled = [self._reference.model.model_seconds(work) for work in works]
        return [seconds / sum(modelled) for seconds in modelled]

    def _forecast(self) -> Forecast:
        return forecast(
            self._works,
            self._reference,
            now=datetime.now(UTC),
            deadline=self._deadline,
            not_counted=self._not_counted,
            progress=self._progress(),
        )


def _sentence(latest: Forecast, *, better: bool) -> str:
    p50, p90 = latest.moment(latest.leaves.p50), latest.moment(latest.leaves.p90)
    interval = f"{moment_words(p50)} (P50), {moment_words(p90)} (P90)"
    if better and latest.not_counted:
        return f"Forecast: better than before; all that was counted has left by {interval}"
    if better:
        return f"Forecast: better than before, now {latest.verdict}; all has left by {interval}"
    late = latest.leaves.p90 - (latest.seconds_left or 0.0)
    return (
        f"Forecast: all has left by {interval}. The deadline may be missed by {duration_words(max(0.0, late))}."
        " → `moveout plan --what-if workers=2` says what it would take"
    )
