"""The cutovers of several sources, step by step, with a clock of the tests."""

import threading
from types import SimpleNamespace

import pytest

from migrate.case.model import Endpoint
from migrate.errors import BusyError
from migrate.follow import all_cutovers
from migrate.follow.all_cutovers import AllCutovers
from migrate.follow.cutover import Cutover
from migrate.follow.delta import DeltaCutover, DeltaSource
from migrate.follow.followed import FollowedSource
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Silent

OLD, NEW = Endpoint("postgresql://nowhere/a"), Endpoint("postgresql://nowhere/b")
APP = FollowedSource("app", OLD, NEW, 0, {}, "case")
SHOP = FollowedSource("shop", OLD, NEW, 0, {}, "case")


class Clock:
    """Time passes where somebody waits, and where a step takes it."""

    def __init__(self):
        self.now, self.checks = 100.0, 0

    def wait(self, seconds):
        self.now += seconds

    def check(self):
        self.checks += 1

    def child(self):
        return self


class Heard(Silent):
    """Keeps notes, and what was begun and ended."""

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)

    def begin(self, stage, *, items, size_bytes):
        self.notes.append(f"begin {stage}: {items} items, {size_bytes} bytes")

    def end(self):
        self.notes.append("end")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(all_cutovers, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def progress():
    return Heard()


@pytest.fixture
def make(clock, progress):
    return lambda *sources: AllCutovers(sources, None, 2, progress, clock)


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    [
        ([0.5, 0.5], 1),
        ([1.0, 0.5], 1),
        ([10, 5, 2, 0.5, 0.1], 4),
        ([10, 9.5, 0.1], 2),
        ([10, 9.0, 0.1], 3),
        ([20, 10, 9.5, 0.1], 3),
        ([1000, 500, 250, 120, 60, 30, 15, 7, 3], 8),
    ],
)
def test_changes_are_caught_up_until_that_takes_no_shorter(
    make, clock, progress, monkeypatch, seconds, rounds
):
    left = list(seconds)
    monkeypatch.setattr(Cutover, "catch_up", lambda _: clock.wait(left.pop(0)))
    monkeypatch.setattr(Cutover, "recent_sessions", lambda _: [])
    make(APP).catch_up()
    assert left == seconds[rounds:]
    assert len(progress.notes) == rounds
    assert progress.notes[-1].startswith("caught up in ")
    assert progress.notes[-1].endswith(f", round {rounds} before the hold")


@pytest.mark.parametrize(("leaves", "rounds"), [(3, 3), (99, 12)])
def test_who_was_just_at_work_at_a_destination_is_waited_for_a_while(
    make, clock, monkeypatch, leaves, rounds
):
    """Each round takes half a second, and a pause of one follows: after 17 seconds nobody is waited for."""
    done = []

    def catch_up(cutover):
        if cutover.followed is SHOP:
            clock.wait(0.5)
            done.append(1)

    monkeypatch.setattr(Cutover, "catch_up", catch_up)
    monkeypatch.setattr(
        Cutover,
        "recent_sessions",
        lambda each: ["mover"] if each.followed is SHOP and len(done) < leaves else [],
    )
    make(APP, SHOP).catch_up()
    assert (len(done), clock.checks) == (rounds, rounds - 1)


def test_an_error_of_one_source_ends_what_is_done_for_the_others(progress, monkeypatch):
    """An application stands still: nobody waits for hours for tables that are compared in vain."""
    cancellation = CancellationToken()

    def prove(cutover):
        if cutover.followed is SHOP:
            raise BusyError("shop was written to")
        assert cutover.cancellation.wait(60)
        cutover.cancellation.check()

    monkeypatch.setattr(Cutover, "prove", prove)
    with pytest.raises(BusyError, match="shop was written to"):
        AllCutovers([APP, SHOP], None, 2, progress, cancellation).each(lambda cutover: cutover.prove())
    assert not cancellation.is_cancelled


def test_without_a_hold_nothing_may_arrive_for_ten_seconds(make, clock, progress, monkeypatch):
    positions = ["a", "b", "b", "c", *"d" * 20]
    monkeypatch.setattr(Cutover, "catch_up", lambda _: positions.pop(0))
    make(APP).wait_until_quiet()
    assert (clock.now, positions) == (100 + 4 + 10, ["d"] * 9)
    assert progress.notes == ["waiting until nothing is written for 10 s"]


def test_each_is_taken_over_and_then_caught_up(make, progress, clock, monkeypatch):
    steps = []

    def take_over(source, cancellation, report):
        assert cancellation is clock
        steps.append(("take over", source.name))
        report("waiting")

    monkeypatch.setattr(all_cutovers, "take_over", take_over)
    monkeypatch.setattr(Cutover, "catch_up", lambda each: steps.append(("catch up", each.followed.name)))
    make(APP).take_over()
    assert steps == [("take over", "app"), ("catch up", "app")]
    assert progress.notes == ["app: waiting"]


def test_a_source_that_a_follow_is_at_work_on_is_left_to_it(make, monkeypatch):
    caught_up = []
    monkeypatch.setattr(FollowedSource, "is_at_work", lambda source: source is APP)
    monkeypatch.setattr(Cutover, "catch_up", lambda each: caught_up.append(each.followed.name))
    assert make(APP, SHOP).catch_up_unless_followed() == [True, False]
    assert caught_up == ["shop"]


def test_all_are_compared_at_once_and_closed(make, progress, monkeypatch):
    both, compared, closed = threading.Barrier(2), [], []
    monkeypatch.setattr(Cutover, "compare_early", lambda _: compared.append(both.wait(60)))
    monkeypatch.setattr(Cutover, "close", lambda each: closed.append(each.followed.name))
    cutovers = make(APP, SHOP)
    cutovers.compare_early()
    cutovers.close()
    assert progress.notes == ["begin compare before the hold: 0 items, 0 bytes", "end"]
    assert (sorted(compared), closed) == ([0, 1], ["app", "shop"])


def test_a_source_without_a_log_is_switched_by_delta_passes(make):
    delta = DeltaSource("file", Endpoint("sqlite:///a.db"), Endpoint("sqlite:///b.db"), None)
    assert make(delta, APP).each(type) == [DeltaCutover, Cutover]


def test_what_is_done_for_the_sources_is_cancelled_without_the_run(progress):
    cancellation = CancellationToken()
    cutovers = AllCutovers([APP, SHOP], None, 2, progress, cancellation)
    assert cutovers.each(lambda cutover: cutover.cancellation.is_cancelled) == [False, False]
    cutovers.cancel()
    assert cutovers.each(lambda cutover: cutover.cancellation.is_cancelled) == [True, True]
    assert not cancellation.is_cancelled


@pytest.mark.parametrize(
    ("options", "noted"), [({}, ["app"]), ({"is_held": False}, ["app"]), ({"is_held": True}, [])]
)
def test_what_runs_at_a_source_is_noted_unless_it_is_held_already(make, monkeypatch, options, noted):
    names = []
    monkeypatch.setattr(all_cutovers, "take_over", lambda *_: None)
    monkeypatch.setattr(Cutover, "catch_up", lambda _: None)
    monkeypatch.setattr(FollowedSource, "note_running", lambda source: names.append(source.name))
    make(APP).take_over(**options)
    assert names == noted
