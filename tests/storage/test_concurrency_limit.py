"""Less at once where a server struggles, more where that brings more."""

from migrate.storage.concurrency_limit import LEAST, MOST, ConcurrencyLimiter


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answered(limiter: ConcurrencyLimiter, clock: Clock, count: int, seconds: float = 1.0) -> None:
    """Let requests be answered, evenly over a time."""
    for _ in range(count):
        clock.now += seconds / count
        limiter.succeeded()


def test_a_struggling_server_is_asked_half_as_much_once_a_second() -> None:
    clock = Clock()
    limiter = ConcurrencyLimiter(clock=clock)
    for _ in range(10):
        limiter.slow_down()
    assert (limiter.share, limiter.of(32), limiter.of(1)) == (0.5, 16, 1)
    for _ in range(20):
        clock.now += 1.1
        limiter.slow_down()
    assert limiter.share == LEAST
    assert limiter.of(32) == 1


def test_it_recovers_step_by_step() -> None:
    clock = Clock()
    limiter = ConcurrencyLimiter(clock=clock)
    limiter.slow_down()
    clock.now += 1.1
    limiter.slow_down()
    seen = [limiter.of(32)]
    for _ in range(60):
        answered(limiter, clock, 64, seconds=1.1)
        seen.append(limiter.of(32))
    assert seen == sorted(seen)
    assert seen[:2] == [8, 12]
    assert seen[-1] >= 32
    assert (
        25 < next(at for at, most in enumerate(seen) if most >= 32) < 50
    )  # near to where there was trouble it goes slowly


def test_more_is_under_way_only_as_long_as_that_brings_more() -> None:
    clock = Clock()
    limiter = ConcurrencyLimiter(clock=clock)
    for second in range(20):
        answered(limiter, clock, 320 + 320 * second, seconds=1.1)
    assert limiter.share > 1.5
    assert limiter.share <= MOST
    flat = ConcurrencyLimiter(clock=clock)
    for _ in range(20):
        answered(flat, clock, 320, seconds=1.1)
    assert flat.of(32) < 40
    flat.slow_down()
    assert flat.of(32) == 16
