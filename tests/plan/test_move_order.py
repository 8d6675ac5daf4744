"""The order in which sources leave when not everything fits before the deadline."""

import itertools
import random

import pytest

from migrate.case.model import Rank
from migrate.plan.forecast import MoveTimes
from migrate.plan.move_order import EXACT_SOURCES, Candidate, best_order, candidates, describe
from migrate.plan.stage_work import LEAVING
from tests.plan.plans import past, work

SURE = [1.0]


def names(order):
    return [source.name for source in order]


def worth(order, weights, limit):
    return describe(order, weights, limit, past(*weights).quantile).expected_value


def test_the_most_valuable_set_that_fits_goes_first_not_the_densest_source():
    sources = [Candidate("dense", [60], 7), Candidate("a", [50], 5), Candidate("b", [50], 5)]
    order = best_order(sources, SURE, 100)
    assert names(order) == ["a", "b", "dense"]
    description = describe(order, SURE, 100, past(1.0).quantile)
    assert (description.expected_value, description.total_value, description.left_at_p50) == (
        10,
        17,
        ["dense"],
    )


def test_a_smaller_number_of_priority_goes_first_whatever_it_costs():
    sources = [Candidate("cheap", [1], 100), Candidate("must", [90], 1, priority=1)]
    assert names(best_order(sources, SURE, 50)) == ["must", "cheap"]


def test_a_bucket_counts_by_the_share_that_is_out():
    sources = [Candidate("database", [100], 10), Candidate("bucket", [100], 9, divisible=True)]
    assert names(best_order(sources, SURE, 90)) == ["bucket", "database"]
    assert worth(best_order(sources, SURE, 90), SURE, 90) == pytest.approx(8.1)
    assert names(best_order(sources, SURE, 100)) == ["database", "bucket"]


def test_what_is_left_at_p50_and_at_p90_differs():
    weights = [0.1] * 10
    seconds = [10.0] * 7 + [40.0] * 3
    order = best_order([Candidate("a", seconds), Candidate("b", seconds)], weights, 30)
    description = describe(order, weights, 30, past(*weights).quantile)
    assert (description.left_at_p50, description.left_at_p90) == ([], ["a", "b"])
    assert description.probabilities == pytest.approx({"a": 0.7, "b": 0.7})


def _random_sources(rng, count, scenarios):
    return [
        Candidate(
            str(number),
            [rng.uniform(1, 20) * rng.choice((1, 1, 3)) for _ in range(scenarios)],
            rng.choice((1.0, 2.0, 5.0)),
            divisible=rng.random() < 0.3,
        )
        for number in range(count)
    ]


def test_few_sources_are_ordered_as_trying_all_orders_would():
    rng = random.Random(3)
    for _ in range(5):
        sources, weights = _random_sources(rng, 5, 4), [0.25] * 4
        best = max(worth(order, weights, 25) for order in itertools.permutations(sources))
        assert worth(best_order(sources, weights, 25), weights, 25) == pytest.approx(best)


def test_many_sources_are_nearly_as_good():
    rng = random.Random(4)
    weights = [0.25] * 4
    for _ in range(3):
        few = _random_sources(rng, EXACT_SOURCES, 4)
        nothing = [Candidate(f"none{number}", [1000.0] * 4, 0.0) for number in range(3)]
        exact, greedy = best_order(few, weights, 40), best_order([*few, *nothing], weights, 40)
        assert worth(greedy, weights, 40) >= 0.9 * worth(exact, weights, 40)


def test_candidates_have_the_time_until_they_have_left():
    works = [work("db", 10), work("db", 99, stage="compare"), work("pics", 20, kind="s3")]
    times = MoveTimes(past(1.0, 2.0), works)
    choices = candidates(times, {"db": Rank(value=3.0), "pics": Rank(priority=1)}, LEAVING)
    assert choices == [
        Candidate("db", [10.0, 20.0], 3.0),
        Candidate("pics", [20.0, 40.0], 1.0, 1, divisible=True),
    ]
