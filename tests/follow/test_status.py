"""What ``status`` concludes of followed changes, without servers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from migrate.follow import status
from migrate.follow.status import FollowStatus, WaitingChanges, kept_things
from migrate.storage.local.store import LocalStore


def follow_status(**more: object) -> FollowStatus:
    return FollowStatus("app", "1", "2", 3, 4, **{"lag_bytes": 0, "applied": "2", "is_read": True, **more})


def waiting(age: float | None) -> WaitingChanges:
    return WaitingChanges(1, 1, 1, age)


@pytest.mark.parametrize(
    ("more", "drained"),
    [
        ({}, True),
        ({"applied": ""}, False),
        ({"lag_bytes": None}, False),
        ({"lost": True}, False),
        ({"lag_bytes": 5, "lag_seconds": 9.9}, True),
        ({"lag_bytes": 5, "lag_seconds": 10.0}, False),
        ({"lag_bytes": 5, "lag_seconds": None}, False),
        ({"lag_bytes": 0, "lag_seconds": 99.0}, True),
        ({"waiting": waiting(9.9)}, True),
        ({"waiting": waiting(10.0)}, False),
        ({"waiting": waiting(None)}, False),
        ({"waiting": waiting(1.0), "is_read": False}, False),
        ({"waiting": waiting(1.0), "is_read": None}, True),
        ({"is_read": False}, True),
    ],
)
def test_a_cutover_can_begin_where_next_to_nothing_is_left_and_somebody_applies_it(more, drained):
    assert status._is_drained(follow_status(**more)) is drained


@pytest.mark.parametrize(
    ("before", "now", "seconds", "left"),
    [
        (100, 50, 3.0, 3.0),
        (100, 90, 3.0, 27.0),
        (100, 0, 3.0, 0.0),
        (100, 100, 3.0, None),
        (100, 101, 3.0, None),
    ],
)
def test_how_long_the_rest_takes_at_the_speed_of_now(before, now, seconds, left):
    assert status._seconds_left(before, now, seconds) == left


def test_changes_of_a_few_segments_are_counted():
    assert list(status._counted(3, 5)) == [3, 4, 5]
    assert len(status._counted(1, 50)) == len(status._counted(1, 51)) == 50
    assert [WaitingChanges(1, count, 1, None).is_counted for count in (50, 51)] == [True, False]


@pytest.mark.parametrize(
    ("limit", "is_reserved", "retained", "warns"),
    [(1000, True, 1000, True), (None, True, 1000, False), (1000, False, 1000, False), (1000, True, 1, False)],
)
def test_a_server_that_keeps_nearly_as_much_as_it_may_is_warned_of(limit, is_reserved, retained, warns):
    state = SimpleNamespace(is_reserved=is_reserved, retained_bytes=retained)
    assert bool(status._near_limit(state, SimpleNamespace(retain_bytes=limit))) is warns


def test_nothing_is_kept_where_nothing_was_followed(tmp_path):
    store = LocalStore(tmp_path)
    assert kept_things(store, {}, {}) == []
    store.put("changes/app/1.json", b"{}")
    store.put("changes/app/2.json", b"{}")
    (kept,) = kept_things(store, {}, {})
    assert kept.is_at_location
    assert kept.what.startswith("2 files of changes at ")
    assert kept.remove()
    assert list(store.list("changes/")) == []
