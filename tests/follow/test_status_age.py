"""``status`` names no age of changes that a clock ahead of ours has dated."""

from datetime import UTC, datetime, timedelta

import pytest

from migrate.follow.status import age_seconds


def written(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()


@pytest.mark.parametrize("ahead", [10, 3600, 86_400 * 400])
def test_nobody_knows_the_age_of_what_is_dated_in_the_future(ahead):
    assert age_seconds(written(-ahead)) is None


def test_clocks_that_differ_a_little_make_no_negative_age():
    assert age_seconds(written(-4.75)) == 0


def test_an_age_is_counted_from_what_was_written():
    assert age_seconds(written(100)) == pytest.approx(100, abs=10)
    assert age_seconds("") is None
