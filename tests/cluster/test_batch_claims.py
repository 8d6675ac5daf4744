"""A batch that must not be done by two at once has one worker, also where another one is wrongly taken for dead."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from migrate.cluster.batch_claims import Claims
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.storage.registry import open_location


@pytest.fixture
def claims(tmp_path):
    """Of one job; who takes a batch over waits a moment, and who has one looks every time."""
    store = open_location(str(tmp_path))
    return Claims(store, "job", CancellationToken(), wait_seconds=0.5, look_seconds=0.0)


def test_who_is_first_need_not_look(claims):
    mine = claims.on("1")
    assert not mine.contested
    mine.check()
    assert not claims.on("2").contested


def test_who_comes_second_waits_and_the_first_must_end(claims):
    first = claims.on("1")
    began = time.monotonic()
    second = claims.on("1")
    assert second.contested
    assert time.monotonic() - began >= 0.5
    second.check()
    with pytest.raises(Cancelled):
        first.check()


def test_nobody_waits_for_who_has_ended(tmp_path):
    """Nor is what it did taken for nothing."""
    claims = Claims(open_location(str(tmp_path)), "job", CancellationToken(), wait_seconds=60)
    claims.on("1").leave()
    began = time.monotonic()
    assert claims.on("1").contested
    assert time.monotonic() - began < 30


def test_of_two_that_come_at_once_when_one_has_ended_only_one_goes_on(claims):
    """The other finds the claim changed between its look and its writing, and then waits for whoever changed it."""
    claims.on("1").leave()
    rivals = []

    class Slow:
        def __getattr__(self, name):
            return getattr(claims.store, name)

        def replace(self, key, data, *, etag):
            if not rivals:
                rivals.append(claims.on("1"))
            return claims.store.replace(key, data, etag=etag)

    second = replace(claims, store=Slow()).on("1")
    with pytest.raises(Cancelled):
        rivals[0].check()
    second.check()


def test_who_has_lost_a_batch_does_not_end_it_for_the_other(claims):
    first = claims.on("1")
    second = claims.on("1")
    first.leave()
    second.check()


def test_a_job_at_its_end_stops_who_waits(claims):
    claims.on("1")
    claims.cancellation.cancel()
    with pytest.raises(Cancelled):
        claims.on("1")
