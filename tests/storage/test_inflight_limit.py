"""As much under way as the link carries in some seconds, whatever callers would like to send at once."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.storage import inflight_limit as flows
from migrate.storage.inflight_limit import SECONDS_UNDER_WAY, Body, InflightLimiter, leaving
from tests.tools.waiting import eventually

GO_ON = CancellationToken()

PART = 16 * 2**20
SLOW, FAST = 125_000, 100_000_000


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def known(rate: int) -> InflightLimiter:
    """A flow over a link of which the rate has been seen, with its clock standing still."""
    clock = Clock()
    flow = InflightLimiter(clock=clock)
    body = flow.begin_patiently(rate, GO_ON)
    clock.now += 1
    flow.end(body, arrived=True)
    assert flow.rate == pytest.approx(rate)
    return flow


@contextmanager
def senders(flow: InflightLimiter, count: int, end: threading.Event) -> Iterator[list[Body]]:
    """So many threads that each want to send a part; those that may are in the list, until ``end``."""
    sending: list[Body] = []

    def send() -> None:
        with flow.sending(PART, GO_ON):
            body = leaving()
            assert body is not None
            sending.append(body)
            end.wait()

    threads = [threading.Thread(target=send) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield sending
    finally:
        end.set()
        for thread in threads:
            thread.join()


def until_taken(flow: InflightLimiter, sending: list[Body]) -> None:
    """Wait until all have begun for whom there is room."""

    def have_begun() -> bool:
        with flow._changed:
            return len(sending) == len(flow._bodies) and (len(sending) == 8 or not flow._admits(PART))

    eventually(have_begun)


@pytest.mark.parametrize(
    ("rate", "at_once"),
    [(SLOW, 1), (8_000_000, 3), (FAST, 8)],
    ids=["1 Mbit/s", "64 Mbit/s", "fast"],
)
def test_so_many_parts_are_under_way_as_the_link_carries_in_some_seconds(rate, at_once):
    flow, end = known(rate), threading.Event()
    with senders(flow, 8, end) as sending:
        eventually(lambda: len(sending) >= at_once)
        assert len(sending) == at_once == min(8, max(1, int(rate * SECONDS_UNDER_WAY / PART)))
        end.set()
        eventually(lambda: len(sending) == 8)


def test_the_next_part_begins_when_the_rest_of_one_leaves():
    """So the link is never idle, and parts are there one after the other, not all of them late."""
    flow, end = known(SLOW), threading.Event()
    with senders(flow, 3, end) as sending:
        eventually(lambda: len(sending) == 1)
        sending[0].left(PART - 2**20)
        time.sleep(0.6)
        assert len(sending) == 1
        sending[0].left(PART - 100_000)
        eventually(lambda: len(sending) == 2)
        time.sleep(0.6)
        assert len(sending) == 2


def test_small_bodies_have_room_for_some_seconds_as_well():
    flow = known(SLOW)
    assert [flow.begin(200_000, GO_ON) is not None for _ in range(6)] == [True] * 5 + [
        False
    ]  # a MiB at least
    fast = known(FAST)
    assert all(fast.begin(200_000, GO_ON) for _ in range(1000))


def test_where_each_connection_has_a_rate_of_its_own_more_are_tried_and_kept(monkeypatch):
    """Far away, with losses: one part does not fill the link, and eight bring eight times as much."""
    monkeypatch.setattr(flows, "_LOOK_SECONDS", 0.01)
    clock = Clock()
    flow, end = InflightLimiter(clock=clock), threading.Event()
    with senders(flow, 8, end) as sending:
        eventually(lambda: len(sending) == 1)
        for _ in range(90):
            for body in list(sending):
                body.left(body.gone_bytes + SLOW)
            clock.now += 1
            until_taken(flow, sending)
        eventually(lambda: len(sending) == 8)


def test_where_more_parts_bring_nothing_they_are_given_up_again(monkeypatch):
    monkeypatch.setattr(flows, "_LOOK_SECONDS", 0.01)
    clock = Clock()
    flow, end = InflightLimiter(clock=clock), threading.Event()
    with senders(flow, 8, end) as sending:
        eventually(lambda: len(sending) == 1)
        for _ in range(25):  # seconds, less than until the next trial
            for body in list(sending):
                body.left(body.gone_bytes + SLOW // len(sending))
            clock.now += 1
            until_taken(flow, sending)
        assert len(sending) == 2  # this one had been begun
        assert flow._more == 0


def test_what_is_sent_anew_counts_anew():
    flow = InflightLimiter()
    with flow.sending(PART, GO_ON):
        body = leaving()
        assert body is not None
        for _ in range(2):
            body.begin()
            assert flow.gone_bytes() == 0
            body.left(300_000)
            body.left(500_000)
            assert flow.gone_bytes() == 500_000
    assert (flow.gone_bytes(), leaving()) == (0, None)


def test_cancelling_ends_waiting():
    cancellation, errors = CancellationToken(), []

    def send(flow: InflightLimiter) -> None:
        try:
            with flow.sending(PART, cancellation):
                pass
        except Cancelled as exc:
            errors.append(exc)

    flow, end = known(SLOW), threading.Event()
    with senders(flow, 1, end):
        eventually(lambda: len(flow._bodies) == 1)
        waiting = threading.Thread(target=send, args=(flow,))
        waiting.start()
        eventually(lambda: len(flow._waiting) == 1)
        cancellation.cancel()
        waiting.join()
    assert len(errors) == 1
    assert not flow._waiting


def test_a_body_that_leaves_has_some_seconds(monkeypatch):
    cancellation = CancellationToken()
    with known(SLOW).sending(PART, cancellation):
        body = leaving()
        cancellation.cancel()
        body.left(1000)
        monkeypatch.setattr("migrate.runtime.cancellation.GRACE_SECONDS", 0.0)
        with pytest.raises(Cancelled):
            body.left(2000)


@pytest.mark.parametrize(
    ("rate", "piece_bytes"), [(SLOW, 256 * 2**10), (20_000_000, 1_000_000), (FAST, 4 * 2**20)]
)
def test_a_body_leaves_in_pieces_of_a_moment_each(rate: int, piece_bytes: int) -> None:
    """One that takes long could not be told to stop; many short ones cost the interpreter."""
    body = known(rate).begin_patiently(PART, GO_ON)
    assert body.piece_bytes == piece_bytes
