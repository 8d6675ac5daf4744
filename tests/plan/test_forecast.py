"""The arithmetic of a forecast: the model, the interval, the probability, the verdict."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from exporters.rate_sampling import fit
from migrate.plan.cost_model import Reference, fit_costs, reference
from migrate.plan.forecast import Interval, ReferenceClass, WorkProgress, forecast
from migrate.plan.move_works import MoveRoute, move_works
from migrate.plan.stage_work import STAGES, StageRecord, StageWork
from migrate.plan.survey import LocationRates
from tests.plan.plans import MODEL, past, source, work

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make(works, reference_class, left=None, **options):
    deadline = None if left is None else NOW + timedelta(seconds=left)
    return forecast(works, reference_class, now=NOW, deadline=deadline, **options)


def test_a_fit_finds_the_costs_that_made_the_times_and_none_below_zero():
    rows = [(1, tables, items) for tables in (1, 5, 20) for items in (10, 1000, 50_000)]
    seconds = [0.5 + 0.1 * tables + 0.002 * items for _, tables, items in rows]
    assert fit(rows, seconds) == pytest.approx([0.5, 0.1, 0.002], rel=0.02)
    assert min(fit([(1, 1), (1, 2)], [2.0, 1.0])) == 0.0
    assert fit([], []) == []
    assert fit([(1.0,), (1.0,)], [12.0, 112.0], [10.0, 100.0]) == pytest.approx([2.1], rel=0.1)


def test_each_kind_has_its_own_costs_and_strangers_those_of_all():
    runs = [
        (StageRecord(StageWork("compare", "", kind, 1, items, 0), items * cost),)
        for kind, cost in (("mysql", 0.001), ("s3", 0.01))
        for items in (1000, 5000, 20_000, 60_000)
    ]
    model = Reference(fit_costs(runs), runs)
    assert model.model_seconds(StageWork("compare", "", "mysql", 1, 10_000, 0)) == pytest.approx(10, rel=0.05)
    assert model.model_seconds(StageWork("compare", "", "s3", 1, 10_000, 0)) == pytest.approx(100, rel=0.05)
    assert 10 < model.model_seconds(StageWork("compare", "", "mongodb", 1, 10_000, 0)) < 100


def test_the_slowest_of_source_location_and_limit_is_what_a_stage_is_sampled_at():
    rates = {"bundle": LocationRates(50, 100), "destination": LocationRates(25, 200)}
    route = MoveRoute(**rates, transfers=True, verifies=True, restored=("app",), compared=("app", "other"))
    works = move_works([source(), source("other")], route)
    assert [one.stage for one in works if one.source == "app"] == list(STAGES)
    assert [one.stage for one in works if one.source == "other"] == ["export", "transfer", "verify"]
    sampled = {one.stage: one.sampled_seconds for one in works if one.source == "app"}
    assert sampled == {"export": 10.0, "transfer": 20.0, "verify": 2.5, "restore": 2.5, "compare": None}
    slow = move_works([source()], MoveRoute(**rates, limit_rate=5, transfers=True))
    assert [one.sampled_seconds for one in slow] == [100.0, 100.0]


def test_an_interval_has_the_ranks_of_split_conformal_prediction():
    nine = past(*range(1, 10))
    assert nine.interval(range(1, 10)) == Interval(5, 9)  # ranks 0.5 · 10 and 0.9 · 10
    assert past(1, 2).quantile([10, 20], 0.9) == 20  # too few: the largest
    assert nine.probability(range(1, 10), 4) == pytest.approx(0.4)
    assert nine.probability(range(1, 10), 1000) == pytest.approx(0.9)  # never 1


def test_errors_of_one_move_stay_together():
    runs = [
        tuple(StageRecord(work(seconds=10, stage=stage), 10 * ratio) for stage in ("export", "compare"))
        for ratio in (1.0, 3.0)
    ]
    both = ReferenceClass.of(Reference(MODEL.costs, runs))
    forecast = make([work(), work(stage="compare")], both)
    assert forecast.ends == Interval(600.0, 600.0)  # not 400: a slow move is slow in all stages
    assert forecast.leaves == Interval(300.0, 300.0)


def test_moves_of_this_machine_weigh_more():
    def run(ratio):
        return (StageRecord(work(seconds=10), 10 * ratio),)

    model = Reference(MODEL.costs, [run(1.0)] * 9)
    assert make([work()], ReferenceClass.of(model)).leaves.p50 == 100.0
    assert make([work()], ReferenceClass.of(model, [run(4.0)] * 3)).leaves.p50 == 400.0


@pytest.mark.parametrize("spread", [0.2, 0.8])
def test_p90_holds_in_nine_of_ten_new_moves(spread):
    rng = random.Random(7)
    covered = {"p50": 0, "p90": 0}
    rounds = 200
    for _ in range(rounds):
        runs = [
            tuple(
                StageRecord(work(seconds=10, stage=stage), 10 * rng.lognormvariate(0.4, spread))
                for stage in STAGES
            )
            for _ in range(25)
        ]
        interval = make(
            [work(stage=stage) for stage in STAGES], ReferenceClass.of(Reference(_COSTS, runs))
        ).ends
        real = sum(100 * rng.lognormvariate(0.4, spread) for _ in STAGES)
        covered["p50"] += real <= interval.p50
        covered["p90"] += real <= interval.p90
    assert 0.4 < covered["p50"] / rounds < 0.6
    assert 0.85 <= covered["p90"] / rounds < 0.97


_COSTS = {stage: {"*": [0.0, 0.0, 0.0, 1.0]} for stage in STAGES}


def test_late_tight_and_in_time():
    doubtful = past(*([1.0] * 7), 2.0, 2.0, 2.0)
    found = {left: make([work()], doubtful, left) for left in (99, 150, 250)}
    assert {left: one.verdict for left, one in found.items()} == {99: "late", 150: "tight", 250: "in time"}
    assert [round(one.probability, 2) for one in found.values()] == [0.0, 0.64, 0.91]
    assert make([work()], doubtful).verdict == "no deadline"


def test_what_was_not_counted_to_its_end_is_not_promised_in_time():
    assert make([work()], past(1.0), 10**6, not_counted=["media"]).verdict == "unknown"
    assert make([work()], past(1.0), 10, not_counted=["media"]).verdict == "late"


def test_a_move_without_end_has_moments_too():
    assert make([work(seconds=10**12)], past(1.0), 10).moment(10**12).year > 2030


def test_what_is_done_counts_no_more_and_its_pace_replaces_that_of_others():
    works = [work("a"), work("b"), work("b", stage="compare")]
    scenarios = past(0.5, 1.0, 1.0, 1.0, 4.0)
    begun = make(works, scenarios)
    progress = {
        ("export", "a"): WorkProgress(1.0, 1.0, 200.0, has_ended=True),
        ("export", "b"): WorkProgress(0.5, 0.5, 100.0),
    }
    now = make(works, scenarios, progress=progress)
    assert 70 < now.leaves.p50 <= 100 < begun.leaves.p50  # half of b is left, at twice the modelled time
    assert now.leaves.p90 - now.leaves.p50 < (begun.leaves.p90 - begun.leaves.p50) / 4
    assert now.stages[2].seconds == begun.stages[2].seconds  # another stage says nothing of this one
    done = {
        key: WorkProgress(1.0, 1.0, 5.0, has_ended=True)
        for key in (("export", "a"), ("export", "b"), ("compare", "b"))
    }
    assert make(works, scenarios, progress=done).ends == Interval(0.0, 0.0)


def test_moveout_comes_with_moves_of_every_stage_and_kind():
    model = reference()
    assert len(model.runs) >= 40
    for stage in STAGES:
        for kind in ("postgresql", "mysql", "sqlite", "s3"):
            assert model.model_seconds(StageWork(stage, "", kind, 30, 10**6, 10**9, None)) > 0.5, (
                stage,
                kind,
            )
