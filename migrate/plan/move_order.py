"""In which order sources leave, so that the most value is out by the deadline.

This is a knapsack whose capacity is uncertain: nobody knows how much fits before the deadline. Each scenario of the
reference class has its own times, so a set of sources fits in some scenarios and not in others. A database counts when
all of it is out. A bucket counts by the share that is out. For few sources the order with the largest expected value is
computed exactly, by dynamic programming over sets (Held and Karp 1962). The end of a source depends on the set that
came before it, not on its order. For many sources it is greedy by value per second, with swaps of neighbours, as in the
stochastic knapsack of Dean, Goemans and Vondrák (2008).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, field

from migrate.case.model import Rank
from migrate.engines import registry
from migrate.plan.forecast import Forecast, MoveTimes, ReferenceClass
from migrate.plan.stage_work import LEAVING

EXACT_SOURCES = 10
"""For up to this many sources of one priority the best order is computed exactly."""
DEFAULT_VALUE = 1.0
DEFAULT_PRIORITY = 100


class Candidate(Struct, frozen=True):
    """A source that is to leave. ``seconds``: one figure for each scenario. ``divisible``: a part of it has a value."""

    name: str
    seconds: Sequence[float]
    value: float = DEFAULT_VALUE
    priority: int = DEFAULT_PRIORITY
    divisible: bool = False


class MoveOrder(Struct, frozen=True):
    """The order in which sources leave. ``left_at_p50``, ``left_at_p90``: sources that would not be out by the deadline
    if the move takes that long. ``expected_value`` of all that is out by then, of ``total_value``.
    """

    names: Sequence[str]
    expected_value: float
    total_value: float
    left_at_p50: Sequence[str] = ()
    left_at_p90: Sequence[str] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """How likely each source is out by the deadline, whole."""


Weights = Sequence[float]
"""How much each scenario counts; together 1."""


def order_of_move(
    shown: Forecast, times: MoveTimes, ranks: Mapping[str, Rank], reserve_seconds: float | None
) -> MoveOrder | None:
    """Return the order in which sources should leave; None without a deadline, or where all fit and none is ranked.
    With a reserve, the export must end before it; else export and transfer before the deadline.
    """
    if shown.seconds_left is None:
        return None
    chosen = candidates(times, ranks, LEAVING if reserve_seconds is None else ("export",))
    order = propose(chosen, times.reference, shown.seconds_left - (reserve_seconds or 0.0))
    is_ranked = any(rank != Rank() for rank in ranks.values())
    return order if is_ranked or order.left_at_p90 else None


def candidates(times: MoveTimes, ranks: Mapping[str, Rank], stages: Sequence[str]) -> list[Candidate]:
    """Return the sources of a move, each with the time of the stages that must end before the deadline."""
    works = [work for work in times.works if work.stage in stages]
    kinds = {work.source: work.kind for work in works}
    chosen = []
    for name, kind in kinds.items():
        rank = ranks.get(name, Rank())
        chosen.append(
            Candidate(
                name,
                times.totals([work for work in works if work.source == name]),
                DEFAULT_VALUE if rank.value is None else rank.value,
                DEFAULT_PRIORITY if rank.priority is None else rank.priority,
                divisible=registry.holds_objects(kind),
            )
        )
    return chosen


def propose(sources: Sequence[Candidate], reference: ReferenceClass, limit_seconds: float) -> MoveOrder:
    """Return the best order within the limit, and what would be left behind."""
    weights = [past.weight for past in reference.scenarios]
    shares = [weight / sum(weights) for weight in weights]
    return describe(best_order(sources, shares, limit_seconds), shares, limit_seconds, reference.quantile)


def best_order(sources: Sequence[Candidate], weights: Weights, limit_seconds: float) -> list[Candidate]:
    """Return the sources in the order of the largest expected value within the limit, by priority first: all sources of
    a smaller number leave before those of a larger one.
    """
    ordered: list[Candidate] = []
    passed = [0.0] * len(weights)
    for priority in sorted({source.priority for source in sources}):
        group = [source for source in sources if source.priority == priority]
        group.sort(key=lambda source: -_density(source, weights))
        room = [limit_seconds - seconds for seconds in passed]
        ordered += (
            _exact(group, weights, room) if len(group) <= EXACT_SOURCES else _greedy(group, weights, room)
        )
        passed = _add(passed, *(source.seconds for source in group))
    return ordered


def describe(
    order: Sequence[Candidate],
    weights: Weights,
    limit_seconds: float,
    quantile: Callable[[Sequence[float], float], float],
) -> MoveOrder:
    """Return an order with what would be left behind. ``quantile`` is that of the reference class."""
    room = [limit_seconds] * len(weights)
    passed = [0.0] * len(weights)
    expected = 0.0
    left: dict[float, list[str]] = {0.5: [], 0.9: []}
    probabilities: dict[str, float] = {}
    for source in order:
        expected += _expected(source, weights, room, passed)
        passed = _add(passed, source.seconds)
        probabilities[source.name] = sum(
            weight for weight, seconds in zip(weights, passed, strict=True) if seconds <= limit_seconds
        )
        for level, names in left.items():
            if quantile(passed, level) > limit_seconds:
                names.append(source.name)
    return MoveOrder(
        [source.name for source in order],
        expected,
        sum(source.value for source in order),
        left[0.5],
        left[0.9],
        probabilities,
    )


def _exact(group: Sequence[Candidate], weights: Weights, room: Sequence[float]) -> list[Candidate]:
    """Return the best order of a group. ``room``: the seconds that are left in each scenario."""
    count = len(group)
    passed: list[Sequence[float]] = [[0.0] * len(weights)]
    best: list[tuple[float, int]] = [(0.0, -1)]
    for members in range(1, 1 << count):
        last = members.bit_length() - 1
        passed.append(_add(passed[members ^ (1 << last)], group[last].seconds))
        options = [
            (best[before][0] + _expected(group[number], weights, room, passed[before]), number)
            for number in range(count)
            if members >> number & 1
            for before in [members ^ (1 << number)]
        ]
        # Where orders are worth the same, the source with the smallest value per second goes last.
        best.append(max(options, key=lambda option: (round(option[0], 9), option[1])))
    order: list[Candidate] = []
    members = (1 << count) - 1
    while members:
        number = best[members][1]
        order.append(group[number])
        members ^= 1 << number
    return order[::-1]


def _greedy(group: Sequence[Candidate], weights: Weights, room: Sequence[float]) -> list[Candidate]:
    """Return the group by value per second, with neighbours swapped as long as that is better."""
    order = list(group)
    for _ in range(len(order)):
        swapped = False
        passed: Sequence[float] = [0.0] * len(weights)
        for position in range(len(order) - 1):
            left, right = order[position], order[position + 1]
            if (
                _worth((right, left), weights, room, passed)
                > _worth((left, right), weights, room, passed) + 1e-9
            ):
                order[position : position + 2] = right, left
                swapped = True
            passed = _add(passed, order[position].seconds)
        if not swapped:
            break
    return order


def _worth(
    pair: tuple[Candidate, Candidate], weights: Weights, room: Sequence[float], passed: Sequence[float]
) -> float:
    first, second = pair
    later = _add(passed, first.seconds)
    return _expected(first, weights, room, passed) + _expected(second, weights, room, later)


def _expected(source: Candidate, weights: Weights, room: Sequence[float], passed: Sequence[float]) -> float:
    """Return the value of a source that begins when ``passed`` seconds are over, weighted over all scenarios."""
    share = 0.0
    for weight, most, begun, seconds in zip(weights, room, passed, source.seconds, strict=True):
        if begun + seconds <= most:
            share += weight
        elif source.divisible and begun < most:
            share += weight * (most - begun) / seconds
    return source.value * share


def _density(source: Candidate, weights: Weights) -> float:
    seconds = sum(weight * value for weight, value in zip(weights, source.seconds, strict=True))
    return source.value / max(seconds, 1e-6)


def _add(left: Sequence[float], *others: Sequence[float]) -> list[float]:
    return [sum(values) for values in zip(left, *others, strict=True)]
