"""One rate for all machines: shares add up to it at most, whoever dies, joins or does not answer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrate.cluster.bandwidth_shares import NOTHING, Allowance, Budget, Share, Use, divide
from migrate.quantities import parse_limit

RATE = 1000.0
WAITING = Use(0.0, waiting=True)
NAMES = st.sampled_from(["a", "b", "c", "d"])


def test_all_wait_then_all_have_the_same():
    assert divide(RATE, {"a": WAITING, "b": None, "c": WAITING, "d": None}) == dict.fromkeys("abcd", 250.0)


def test_what_one_does_not_need_goes_to_who_waits():
    parts = divide(RATE, {"idle": Use(0.0, waiting=False), "slow": Use(100.0, waiting=False), "a": WAITING})
    assert parts["idle"] == pytest.approx(RATE / 3 / 10)
    assert parts["slow"] == pytest.approx(150)
    assert sum(parts.values()) == pytest.approx(RATE)


class Simulated:
    """Machines that hold what has reached them until it lapses, whatever the budget thinks."""

    def __init__(self):
        self.now = 0.0
        self.budget = Budget(lend_seconds=10.0)
        self.held = {}

    def arrives(self, name, offered):
        self.held[name] = (offered, self.now + self.budget.lend_seconds)

    def total(self):
        return sum(rate for rate, until in self.held.values() if until > self.now)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("members"), st.sets(NAMES)),
            st.tuples(st.just("time"), st.floats(0.1, 6)),
            st.tuples(st.just("told"), NAMES, st.booleans(), st.floats(0, RATE)),
            st.tuples(st.just("answer lost"), NAMES),
            st.tuples(st.just("never arrived"), NAMES),
        ),
        max_size=60,
    )
)
def test_the_sum_of_what_is_held_never_exceeds_the_rate(events):
    """Also where an offer has arrived and nobody knows, or has not and nobody knows."""
    world = Simulated()
    world.budget.members({"a", "b"})
    for kind, *rest in events:
        if kind == "members":
            world.budget.members(rest[0])
        elif kind == "time":
            world.now += rest[0]
        else:
            name = rest[0]
            offered = world.budget.offer(name, RATE, world.now)
            if kind != "never arrived":
                world.arrives(name, offered)
            if kind == "told":
                world.budget.accepted(name, offered, Use(rest[2], waiting=rest[1]), world.now)
            else:
                world.budget.refused(name, world.now)
        assert world.total() <= RATE * 1.000001


def test_when_one_dies_the_others_have_its_part_once_it_has_lapsed():
    world = Simulated()
    world.budget.members({"a", "b"})
    for name in ("a", "b", "a"):
        world.budget.accepted(name, world.budget.offer(name, RATE, world.now), WAITING, world.now)
    assert world.budget.offer("a", RATE, world.now) == RATE / 2
    world.budget.accepted("a", RATE / 2, WAITING, world.now)
    world.budget.members({"a"})
    world.now += 9.9
    assert world.budget.offer("a", RATE, world.now) == RATE / 2
    world.budget.accepted("a", RATE / 2, WAITING, world.now)
    world.now += 0.2
    assert world.budget.offer("a", RATE, world.now) == RATE


def test_a_share_runs_out_by_itself():
    now = 0.0
    share = Share(clock=lambda: now)
    moment = None
    assert share.at(moment) == NOTHING, "nobody has given it anything yet"
    share.grant(500.0, 10)
    now = 9.9
    assert share.at(moment) == 500.0
    now = 10.0
    assert share.at(moment) == NOTHING
    share.grant(None, 10)
    assert share.at(moment) is None
    share.follow(parse_limit("2K"))
    now = 1e9
    assert share.at(datetime(2026, 11, 25, tzinfo=UTC)) == 2048


def test_an_allowance_tells_what_passed_and_what_waits():
    allowance = Allowance()
    allowance.share.grant(1e12, 60)
    allowance.rate_limiter.take(5000)
    taken, owed = allowance.exchange(1.0, 60)
    assert (taken, owed) == (5000, 0)
