"""The limit on bytes a second."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from migrate.errors import UsageError
from migrate.rates import parse_rate
from migrate.store import open_place
from migrate.store.throttle import Throttle


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10M", 10 * 2**20),
        ("1.5G", 3 * 2**29),
        ("500K/s", 512_000),
        ("64KiB/s", 65536),
        ("7", 7),
        (" 2mb ", 2**21),
    ],
)
def test_rates_are_read(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-1M", "0", "10X", "1e9", "M", "10M/h"])
def test_what_is_no_rate_is_refused_by_name(text):
    with pytest.raises(UsageError, match="is not a rate"):
        parse_rate(text)


def test_the_average_is_kept_whatever_the_pieces():
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    throttle = Throttle(1000, clock=lambda: now, sleep=sleep)
    for size in (10, 5000, 1, 989, 4000):
        throttle.take(size)
    assert now == pytest.approx(6.0)  # the last piece is paid for by whoever comes next
    throttle.take(0)
    assert now == pytest.approx(10.0)


def test_threads_and_places_share_it(tmp_path):
    throttle = Throttle(2**20)
    places = [open_place(str(tmp_path / name), bwlimit=throttle) for name in "ab"]
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: places[number % 2].put(f"f{number}", bytes(2**18)), range(6)))
    places[0].read("f0")
    places[0].stat("f0")
    assert 1.4 <= time.monotonic() - started < 5
