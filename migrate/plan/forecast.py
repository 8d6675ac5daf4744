"""How long a move takes, as an interval, from what earlier moves took in relation to their models.

The method is reference class forecasting (Kahneman and Tversky 1979): how wrong the model was in past moves says how
wrong it may be in this one. Each past move is a scenario. It has one ratio, real time to modelled time, for each stage
and kind of source. The scenario's ratios are applied to this move together, so errors that come together stay together.
The sorted totals give P50 and P90, with the rank of split conformal prediction (Vovk, Gammerman, Shafer 2005). Moves of
this machine weigh more than those that moveout comes with (weighted conformal prediction; Tibshirani and others 2019).

While a move runs, its own ratios take the place of the scenario's, by as much as is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from migrate.plan.cost_model import Reference
from migrate.plan.stage_work import LEAVING, STAGES, RunRecord, Stage, StageWork

Verdict = Literal["in time", "tight", "unknown", "late", "no deadline"]
WorkKey = tuple[Stage, str]
"""A stage and the name of a source."""

HISTORY_WEIGHT = 5.0
"""A move of this machine counts as much as so many of those that moveout comes with."""
_OWN_SHARE, _OTHER_SHARE = 0.1, 1.0
"""When this share of some work is done, its own ratio counts as much as the scenario's; and of others of its kind."""
_MOST_TRUST = 0.85
"""How much the own ratio counts at most: the end of a stage is not like its beginning."""


class Interval(Struct, frozen=True):
    """``p50``: as likely more as less. ``p90``: in nine of ten cases it is not more."""

    p50: float
    p90: float


class StageForecast(Struct, frozen=True):
    """The time that a stage takes for a source, for all of them where ``source`` is empty; ``why`` says what the figure
    comes from.
    """

    stage: Stage
    source: str
    seconds: Interval
    why: str


class WorkProgress(Struct, frozen=True):
    """How far work has come. ``share`` of its items or bytes is done. This run did ``measured_share`` in
    ``elapsed_seconds``; an earlier run did the rest. ``has_ended``: what follows the last item is done, too.
    """

    share: float
    measured_share: float
    elapsed_seconds: float
    has_ended: bool = False

    def time_share(self, overhead: float) -> float:
        """Return the share of the time that has passed, if ``overhead`` of it goes with no item: half of that before
        the first item, half after the last one.
        """
        if self.has_ended:
            return 1.0
        return overhead / 2 + self.share * (1 - overhead) if self.share else 0.0

    def measured_time_share(self, overhead: float) -> float:
        """Return the share of the time that ``elapsed_seconds`` are of."""
        if not self.measured_share:
            return 0.0
        return self.measured_share * (1 - overhead) + (overhead if self.has_ended else overhead / 2)


class Forecast(Struct, frozen=True):
    """What is left of a move from ``now`` on, in seconds. ``leaves``: until all has left the old host; ``ends``: until
    all is restored and compared. ``probability``: that all has left by the deadline. ``not_counted``:
    sources that could not be read, or hold more than was counted. Their times come on top.
    """

    stages: Sequence[StageForecast]
    whole_stages: Sequence[StageForecast]
    """Each stage for all sources together."""
    leaves: Interval
    ends: Interval
    now: datetime
    deadline: datetime | None
    probability: float | None
    not_counted: Sequence[str] = ()

    @property
    def seconds_left(self) -> float | None:
        """The time until the deadline, negative after it."""
        return None if self.deadline is None else (self.deadline - self.now).total_seconds()

    @property
    def verdict(self) -> Verdict:
        """``late``: P50 is after the deadline, of what was counted alone. ``unknown``: not everything was counted.
        ``tight``: P90 is after the deadline.
        """
        left = self.seconds_left
        if left is None:
            return "no deadline"
        if self.leaves.p50 > left:
            return "late"
        if self.not_counted:
            return "unknown"
        return "tight" if self.leaves.p90 > left else "in time"

    def moment(self, seconds: float) -> datetime:
        """Return the moment so many seconds after ``now``."""
        return self.now + timedelta(seconds=min(seconds, _MOST_SECONDS))


_MOST_SECONDS = 10.0 * 365 * 86_400
"""Moments later than in ten years are not told apart; a date cannot hold all of them."""


class Scenario(Struct, frozen=True):
    """A past move: real time divided by modelled time, by stage and kind, by stage, and of the whole."""

    weight: float
    by_kind: Mapping[tuple[Stage, str], float]
    by_stage: Mapping[Stage, float]
    overall: float

    def ratio(self, work: StageWork) -> float:
        """Return the ratio for some work. A stage that the move did not have is like the rest of the move."""
        by_kind = self.by_kind.get((work.stage, work.kind))
        return by_kind or self.by_stage.get(work.stage) or self.overall


def scenario(run: RunRecord, model: Reference, weight: float = 1.0) -> Scenario | None:
    """Return what a past move says; None where it has no stage that was finished."""
    real: dict[tuple[Stage, str], float] = {}
    modelled: dict[tuple[Stage, str], float] = {}
    for record in run:
        key = record.work.stage, record.work.kind
        real[key] = real.get(key, 0.0) + record.seconds
        modelled[key] = modelled.get(key, 0.0) + model.model_seconds(record.work)
    if not sum(real.values()):
        return None
    by_kind = {key: real[key] / modelled[key] for key in real if real[key]}
    stages = {stage for stage, _ in by_kind}
    by_stage = {stage: _sum_of(real, stage) / _sum_of(modelled, stage) for stage in stages}
    return Scenario(weight, by_kind, by_stage, sum(real.values()) / sum(modelled.values()))


def _sum_of(values: Mapping[tuple[Stage, str], float], stage: Stage) -> float:
    return sum(value for key, value in values.items() if key[0] == stage)


class ReferenceClass(Struct, frozen=True):
    """The past moves that a forecast rests on."""

    model: Reference
    scenarios: Sequence[Scenario]

    @classmethod
    def of(cls, model: Reference, history: Sequence[RunRecord] = ()) -> ReferenceClass:
        """Return the class of the moves that moveout comes with and those of this machine."""
        weighted = [*((run, 1.0) for run in model.runs), *((run, HISTORY_WEIGHT) for run in history)]
        scenarios = [scenario(run, model, weight) for run, weight in weighted]
        return cls(model, [past for past in scenarios if past is not None] or [Scenario(1.0, {}, {}, 1.0)])

    def quantile(self, values: Sequence[float], level: float) -> float:
        """Return the value that a new move does not exceed with probability ``level``.

        ``values`` has one for each scenario. The new move has a weight of its own, as an infinite value. Where there
        are too few scenarios, the largest value is returned.
        """
        ordered = sorted(zip(values, self.scenarios, strict=True), key=lambda pair: pair[0])
        rank = level * (1.0 + sum(past.weight for past in self.scenarios))
        passed = 0.0
        for value, past in ordered:
            passed += past.weight
            if passed >= rank - 1e-9:
                return value
        return ordered[-1][0]

    def interval(self, values: Sequence[float]) -> Interval:
        """Return P50 and P90 of values, one for each scenario."""
        return Interval(self.quantile(values, 0.5), self.quantile(values, 0.9))

    def probability(self, values: Sequence[float], limit: float) -> float:
        """Return how likely a new value is at most ``limit``: never 1, because there was no infinity of past moves."""
        within = sum(
            past.weight for value, past in zip(values, self.scenarios, strict=True) if value <= limit
        )
        return within / (1.0 + sum(past.weight for past in self.scenarios))


class _Pace(Struct):
    """The mean of log ratios of real to modelled time, with their weights."""

    log_sum: float = 0.0
    weight: float = 0.0

    def add(self, log_ratio: float, weight: float) -> None:
        """Take one more ratio."""
        self.log_sum += weight * log_ratio
        self.weight += weight


class MoveTimes:
    """The seconds that are left of each work, in each scenario of the reference class."""

    def __init__(
        self,
        reference: ReferenceClass,
        works: Sequence[StageWork],
        progress: Mapping[WorkKey, WorkProgress] | None = None,
    ) -> None:
        self.reference = reference
        self.works = works
        self._progress = progress or {}
        self._paces: dict[tuple[Stage, str], _Pace] = {}
        """What this move shows so far of each stage and kind."""
        for work in works:
            if (seen := self._log_ratio(work)) is not None:
                pace = self._paces.setdefault((work.stage, work.kind), _Pace())
                pace.add(seen[0], seen[1] / _OTHER_SHARE)

    def seconds(self, work: StageWork) -> list[float]:
        """Return the seconds that are left of some work, one figure for each scenario."""
        model, progress = self.reference.model, self._progress.get((work.stage, work.source))
        left = 1.0 - (progress.time_share(model.overhead_share(work)) if progress else 0.0)
        if left <= 0:
            return [0.0] * len(self.reference.scenarios)
        modelled = model.model_seconds(work)
        own_ratio, trust = self._own_ratio(work)
        return [
            left * modelled * past.ratio(work) ** (1 - trust) * own_ratio**trust
            for past in self.reference.scenarios
        ]

    def totals(self, works: Sequence[StageWork]) -> list[float]:
        """Return the sums over some works, one for each scenario."""
        return self.sums([self.seconds(work) for work in works])

    def sums(self, seconds: Sequence[Sequence[float]]) -> list[float]:
        """Return the sums of what ``seconds`` returned for some works."""
        return [sum(values) for values in zip(*seconds, strict=True)] or [0.0] * len(self.reference.scenarios)

    def _own_ratio(self, work: StageWork) -> tuple[float, float]:
        """Return the ratio that this move shows for work like this, and how much it counts, from 0 to 1."""
        others = self._paces.get((work.stage, work.kind))
        if others is None:
            return 1.0, 0.0
        pace = _Pace(others.log_sum, others.weight)
        if (seen := self._log_ratio(work)) is not None:  # of itself it says more than of others
            pace.add(seen[0], seen[1] / _OWN_SHARE - seen[1] / _OTHER_SHARE)
        return math.exp(pace.log_sum / pace.weight), min(_MOST_TRUST, pace.weight / (pace.weight + 1))

    def _log_ratio(self, work: StageWork) -> tuple[float, float] | None:
        """Return the logarithm of real time to modelled time of what is done, and its share; None where nothing is."""
        progress = self._progress.get((work.stage, work.source))
        if progress is None or progress.elapsed_seconds <= 0:
            return None
        done = progress.measured_time_share(self.reference.model.overhead_share(work))
        if done <= 0:
            return None
        return math.log(progress.elapsed_seconds / (done * self.reference.model.model_seconds(work))), done


def forecast(
    works: Sequence[StageWork],
    reference: ReferenceClass,
    *,
    now: datetime,
    deadline: datetime | None,
    not_counted: Sequence[str] = (),
    progress: Mapping[WorkKey, WorkProgress] | None = None,
) -> Forecast:
    """Forecast what is left of a move. ``works`` are all of it, in order; ``progress`` says how far they are."""
    times = MoveTimes(reference, works, progress)
    seconds = [times.seconds(work) for work in works]
    pairs = list(zip(works, seconds, strict=True))
    leaving = times.sums([values for work, values in pairs if work.stage in LEAVING])
    left = None if deadline is None else (deadline - now).total_seconds()
    return Forecast(
        stages=[
            StageForecast(work.stage, work.source, reference.interval(values), _why(work))
            for work, values in pairs
        ],
        whole_stages=_whole_stages(times, pairs),
        leaves=reference.interval(leaving),
        ends=reference.interval(times.sums(seconds)),
        now=now,
        deadline=deadline,
        probability=None if left is None else reference.probability(leaving, left),
        not_counted=tuple(not_counted),
    )


def _whole_stages(
    times: MoveTimes, pairs: Sequence[tuple[StageWork, Sequence[float]]]
) -> list[StageForecast]:
    """Return each stage for all sources. Its P90 is below the sum of theirs: not all of them are slow at once."""
    stages = []
    for stage in STAGES:
        seconds = [values for work, values in pairs if work.stage == stage]
        if seconds:
            reasons = " or ".join(sorted({_why(work) for work, _ in pairs if work.stage == stage}))
            stages.append(StageForecast(stage, "", times.reference.interval(times.sums(seconds)), reasons))
    return stages


def _why(work: StageWork) -> str:
    return "past moves" if work.sampled_seconds is None else "sample, past moves"
