"""The limit on bytes a second."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from migrate.errors import UsageError
from migrate.quantities import parse_limit, parse_rate, parse_size
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.storage.local.store import LocalStore
from migrate.storage.rate_limit import SMALL_BYTES, RateLimited, RateLimiter
from migrate.storage.registry import open_location


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10M", 10 * 2**20),
        ("1.5G", 3 * 2**29),
        ("500K/s", 512_000),
        ("64KiB/s", 65536),
        ("7B", 7),
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

    rate_limiter = RateLimiter(1000, clock=lambda: now, sleep=sleep)
    for size in (10, 5000, 1, 989, 4000):
        rate_limiter.take(size)
    assert now == pytest.approx(10.0)
    rate_limiter.take(0)
    assert now == pytest.approx(10.0), "nothing is owed at the end"


def test_threads_and_locations_share_it(tmp_path):
    rate_limiter = RateLimiter(2**20)
    locations = [open_location(str(tmp_path / name), rate_limiter=rate_limiter) for name in "ab"]
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: locations[number % 2].put(f"f{number}", bytes(2**18)), range(6)))
    locations[0].read("f0")
    locations[0].stat("f0")
    assert time.monotonic() - started >= 1.4
    assert rate_limiter.settle()[0] == 7 * 2**18, "each byte counts once"


@pytest.mark.parametrize(
    ("text", "at", "rate"),
    [
        ("10M", "12:00", 10 * 2**20),
        ("off", "12:00", None),
        ("08:00,10M 19:00,off", "08:00", 10 * 2**20),
        ("08:00,10M 19:00,off", "18:59", 10 * 2**20),
        ("08:00,10M 19:00,off", "19:00", None),
        ("19:00,off 08:00,10M", "03:00", None),
        ("8:00,1K 23:30,2K", "00:10", 2048),
    ],
)
def test_timetables_are_read(text, at, rate):
    assert parse_limit(text).at(datetime.fromisoformat(f"2026-11-24T{at}:30")) == rate


@pytest.mark.parametrize(
    "text", ["08:00", "08:00,", "25:00,1M", "08:00,1M 08:00,2M", "08:00,1M x", "1M 2M", ""]
)
def test_what_is_no_timetable_is_refused(text):
    with pytest.raises(UsageError):
        parse_limit(text)


@pytest.mark.parametrize("parse", [parse_rate, parse_limit, parse_size])
def test_a_number_without_a_unit_is_refused(parse):
    with pytest.raises(UsageError, match="50 what") as caught:
        parse("50")
    assert "50M is 52,428,800 bytes" in caught.value.next_step


def test_sizes_are_read():
    assert [parse_size(text) for text in ("0", "10K", "1.5MiB")] == [0, 10240, 3 * 2**19]
    for text in ("10M/s", "", "-1"):
        with pytest.raises(UsageError, match="is not a size"):
            parse_size(text)


def test_the_rate_is_that_of_the_time_of_day_also_for_who_waits():
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def local_time() -> datetime:
        return datetime.fromisoformat(
            f"2026-11-24T18:59:{50 + int(now)}" if now < 10 else "2026-11-24T19:00:01"
        )

    rate_limiter = RateLimiter(
        parse_limit("08:00,1K 19:00,off"), clock=lambda: now, sleep=sleep, local_time=local_time
    )
    rate_limiter.take(100 * 1024)
    assert 10 <= now <= 11.1
    rate_limiter.take(2**40)
    assert now <= 11.1
    assert rate_limiter.bytes_per_second == 1024


def test_a_file_that_only_holds_room_waits_for_no_limit(tmp_path):
    waits: list[float] = []
    store = RateLimited(
        LocalStore(tmp_path), RateLimiter(1024, sleep=waits.append), at_once_bytes=0, cancellation=None
    )
    store.keep_room("room", 2**20)
    assert (waits, store.stat("room").size_bytes) == ([], 2**20)


def test_a_lease_and_a_record_do_not_wait_and_count(tmp_path):
    waits: list[float] = []
    limiter = RateLimiter(1024, sleep=waits.append)
    store = RateLimited(LocalStore(tmp_path), limiter, at_once_bytes=100, cancellation=None)
    limiter.count(2**20)
    lease = store.create("lease", b"1")
    store.replace("lease", b"22", etag=lease.etag)
    store.put("record", b"333")
    assert waits == []
    assert limiter.settle()[0] == 2**20 + 6


def test_what_waits_when_it_is_cancelled_is_not_written(tmp_path):
    cancellation, limiter = CancellationToken(), RateLimiter(1024)
    store = RateLimited(LocalStore(tmp_path), limiter, cancellation=cancellation, at_once_bytes=0)
    limiter.count(2**30)
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(store.put, "large", bytes(SMALL_BYTES + 1))
        small = pool.submit(store.put, "small", b"a record")
        cancellation.cancel()
        with pytest.raises(Cancelled):
            large.result(60)
        small.result(60)
    assert [info.key for info in store.list()] == ["small"]


def test_nobody_waits_once_the_limit_is_lifted():
    limiter = RateLimiter(1)
    limiter.count(3600)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(limiter.take, 1)
        limiter.lift()
        waiting.result(60)
    limiter.take(2**40)


def test_an_interruption_cuts_waiting_short():
    cancellation = CancellationToken()
    rate_limiter = RateLimiter(1, cancellation=cancellation)
    rate_limiter.count(3600)
    waiting = threading.Thread(target=rate_limiter.take, args=(1,))
    started = time.monotonic()
    waiting.start()
    cancellation.cancel()
    waiting.join(60)
    assert not waiting.is_alive()
    assert time.monotonic() - started < 60
