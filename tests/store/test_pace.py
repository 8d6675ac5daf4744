"""Less at once where a server struggles, more where that brings more."""

from migrate.storage.concurrency_limit import LEAST, MOST, Pace


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answered(pace: Pace, clock: Clock, count: int, seconds: float = 1.0) -> None:
    """Let requests be answered, evenly over a time."""
    for _ in range(count):
        clock.now += seconds / count
        pace.done()


def test_a_struggling_server_is_asked_half_as_much_once_a_second() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    for _ in range(10):
        pace.slower()
    assert (pace.share, pace.of(32), pace.of(1)) == (0.5, 16, 1)
    for _ in range(20):
        clock.now += 1.1
        pace.slower()
    assert pace.share == LEAST
    assert pace.of(32) == 1


def test_it_recovers_step_by_step() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    pace.slower()
    clock.now += 1.1
    pace.slower()
    seen = [pace.of(32)]
    for _ in range(60):
        answered(pace, clock, 64, seconds=1.1)
        seen.append(pace.of(32))
    assert seen == sorted(seen)
    assert seen[:2] == [8, 12]
    assert seen[-1] >= 32
    assert (
        25 < next(at for at, most in enumerate(seen) if most >= 32) < 50
    )  # near to where there was trouble it goes slowly


def test_more_is_under_way_only_as_long_as_that_brings_more() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    for second in range(20):
        answered(pace, clock, 320 + 320 * second, seconds=1.1)
    assert pace.share > 1.5
    assert pace.share <= MOST
    flat = Pace(clock=clock)
    for _ in range(20):
        answered(flat, clock, 320, seconds=1.1)
    assert flat.of(32) < 40
    flat.slower()
    assert flat.of(32) == 16
