"""Threads that execute items: their results, their errors, and how they end."""

import itertools
import threading
import time

import pytest

from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.worker_pool import ThreadWorkerPool, run_all


def alive(name):
    # An interruption within Thread.start() can leave a thread listed that has ended.
    return [one for one in threading.enumerate() if one.name.startswith(name) and one.is_alive()]


def test_every_item_has_its_result_and_no_more_are_under_way_than_asked_for():
    under_way, most, lock = 0, 0, threading.Lock()
    pulled = itertools.count()

    def work(number):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.001)
        with lock:
            under_way -= 1
        return number * 2

    def items():
        for number in range(200):
            next(pulled)
            yield number

    pool = ThreadWorkerPool(work, 4, name="pool-a", ahead=2)
    results = {}
    for item, result in run_all(pool, items()):
        results[item] = result
        assert next(pulled) - len(results) * 2 <= 10
    assert results == {number: number * 2 for number in range(200)}
    assert 1 < most <= 4
    assert alive("pool-a") == []


def test_the_first_error_cancels_the_rest_and_is_raised():
    cancellation, done = CancellationToken(), []

    def work(number):
        if number == 3:
            raise ValueError(number)
        cancellation.wait(30)
        done.append(number)

    with pytest.raises(ValueError, match="3"):
        for _ in run_all(
            ThreadWorkerPool(work, 4, name="pool-b", ahead=50, cancellation=cancellation), range(100)
        ):
            pass
    assert set(done) <= {0, 1, 2, 4}, "who has met the error may take one more before it is heard of"
    assert alive("pool-b") == []


def test_a_cancelled_run_raises_cancelled():
    cancellation = CancellationToken()
    pool = ThreadWorkerPool(lambda _: cancellation.check(), 2, name="pool-c", cancellation=cancellation)
    cancellation.cancel()
    with pytest.raises(Cancelled):
        list(run_all(pool, range(10)))
    assert alive("pool-c") == []


def test_threads_that_do_not_end_are_told_of():
    end, stuck = threading.Event(), []
    pool = ThreadWorkerPool(
        lambda _: end.wait(), 1, name="pool-d", on_stuck=lambda: stuck.append(1), grace_seconds=0.05
    )
    with pytest.raises(KeyError), pool:  # noqa: PT012
        pool.fill(iter([1, None]).__next__)
        raise KeyError
    end.set()
    assert stuck == [1]


def test_interrupted_while_the_threads_are_started_they_end(monkeypatch):
    def start(thread, real=threading.Thread.start):
        if thread.name == "pool-e-2":
            raise KeyboardInterrupt
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    stuck = []
    pool = ThreadWorkerPool(
        lambda _: time.sleep(0.01), 4, name="pool-e", on_stuck=lambda: stuck.append(1), ahead=10
    )
    with pytest.raises(KeyboardInterrupt):
        list(run_all(pool, itertools.count()))
    assert alive("pool-e") == []
    assert stuck == []


def test_what_is_checked_meanwhile_ends_it():
    def check():
        raise PermissionError("the lease is lost")

    with pytest.raises(PermissionError, match="lease"):
        list(run_all(ThreadWorkerPool(time.sleep, 2, name="pool-f"), [0.0] * 9, check=check))
    assert alive("pool-f") == []
