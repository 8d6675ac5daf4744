"""The forecast of a running move follows its pace, and says when the deadline is in danger."""

from datetime import UTC, datetime, timedelta

import pytest

from migrate.plan.live_forecast import RENEW_SECONDS, LiveForecast
from tests.plan.plans import past, work
from tests.tools.counting import Notes


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def live(works, *ratios, left=None):
    notes, clock = Notes(), Clock()
    deadline = None if left is None else datetime.now(UTC) + timedelta(seconds=left)
    return (
        LiveForecast(
            notes,
            works,
            past(*ratios),
            deadline=deadline,
            clock=clock,
            not_counted=(),
            on_renewed=lambda _forecast: None,
        ),
        notes,
        clock,
    )


def advance(forecast, clock, seconds, size_bytes):
    """Let time pass in which something is done."""
    clock.seconds += seconds
    forecast.advance(size_bytes=size_bytes)


def test_a_slow_move_is_noted_once_and_so_is_its_recovery():
    forecast, notes, clock = live([work("a", 1000), work("b", 1000)], *[1.0] * 12, left=2200)
    assert forecast.latest.verdict == "in time"
    forecast.enter("export")
    forecast.begin("export a", items=0, size_bytes=1000)
    for _ in range(20):
        advance(forecast, clock, 2 * RENEW_SECONDS, 5)  # at half the pace
    assert forecast.latest.verdict == "late"
    assert forecast.latest.leaves.p50 > 2200
    [warning] = notes.lines
    assert "The deadline may be missed by" in warning
    for _ in range(60):
        advance(forecast, clock, RENEW_SECONDS, 15)
    assert forecast.latest.verdict == "in time"
    assert "better than before, now in time" in notes.lines[-1]
    assert len(notes.lines) <= 3


def test_the_times_of_finished_work_are_recorded_and_add_up():
    works = [work("a", 100), work("b", 300), work("a", 50, stage="compare"), work("b", 50, stage="transfer")]
    forecast, _, clock = live(works, 1.0)
    forecast.enter("export")
    clock.seconds += 5  # sources are opened
    forecast.begin("export a", items=0, size_bytes=100)
    advance(forecast, clock, 20, 50)
    advance(forecast, clock, 20, 50)
    forecast.begin("export b", items=0, size_bytes=300)
    advance(forecast, clock, 60, 300)
    forecast.begin("seal", items=0, size_bytes=0)
    clock.seconds += 3
    forecast.leave()
    forecast.enter("transfer")
    forecast.begin("transfer", items=5, size_bytes=100)
    clock.seconds += 7
    forecast.leave()
    records = {(record.work.stage, record.work.source): record for record in forecast.records()}
    assert set(records) == {("export", "a"), ("export", "b"), ("transfer", "b")}
    assert records["export", "a"].seconds + records["export", "b"].seconds == pytest.approx(108)
    assert records["export", "a"].seconds == pytest.approx(40 + 8 / 4)
    assert records["export", "a"].marks == ((20.0, 0.5), (40.0, 1.0))
    assert records["transfer", "b"].seconds == pytest.approx(7)
    assert forecast.latest.leaves.p90 == 0.0
    assert forecast.latest.ends.p90 == pytest.approx(50)


def test_what_an_earlier_run_did_is_done_but_no_example():
    forecast, _, clock = live([work("a", 100)], 1.0)
    forecast.enter("export")
    forecast.begin("export a", items=0, size_bytes=100)
    forecast.skip(size_bytes=80)
    advance(forecast, clock, 10, 10)
    assert forecast.latest.leaves.p50 < 25
    forecast.leave()
    assert forecast.records() == []


def test_a_stage_that_lacks_something_is_no_example():
    forecast, _, clock = live([work("a", 100)], 1.0)
    forecast.enter("export")
    clock.seconds += 2
    forecast.leave(whole=False)
    assert forecast.records() == []
    assert forecast.latest.leaves.p50 == 0.0


def test_indexes_belong_to_the_restore_of_their_source():
    forecast, _, clock = live([work("a", 100, stage="restore"), work("b", 100, stage="restore")], 1.0)
    forecast.enter("restore")
    forecast.begin("restore a", items=0, size_bytes=100)
    advance(forecast, clock, 50, 100)
    forecast.begin("indexes and constraints of a", items=3, size_bytes=0)
    clock.seconds += 50
    forecast.begin("restore b", items=0, size_bytes=100)
    advance(forecast, clock, 10, 100)
    forecast.leave()
    assert [record.seconds for record in forecast.records()] == pytest.approx([100, 10])
