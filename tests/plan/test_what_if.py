"""What a move would take with more workers or another link."""

import pytest

from migrate.errors import UsageError
from migrate.plan.move_works import MoveRoute
from migrate.plan.survey import LocationRates
from migrate.plan.what_if import MOST_WORKERS, WhatIf, leaving_time, needed, speedup
from tests.plan.plans import past, sampled_only, source

SLOW_LINK = MoveRoute(LocationRates(1000, 1000), LocationRates(10, 10), transfers=True)


def test_two_workers_are_as_fast_as_measured_and_many_are_not_that_many_times_as_fast():
    assert speedup(1) == 1.0
    assert speedup(2) == pytest.approx(1.95)
    assert 6.5 < speedup(8) < 7
    assert speedup(10**6) < 40


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("workers=8,link=10Gbit", WhatIf(8, 1.25e9)),
        ("link=200 Mbit/s", WhatIf(1, 25e6)),
        ("link=1M", WhatIf(1, 2**20)),
        ("workers=2", WhatIf(2, None)),
    ],
)
def test_means_in_words(text, means):
    assert WhatIf.parse(text) == means


@pytest.mark.parametrize(
    "text", ["", "workers", "workers=0", "workers=x", "workers=1,workers=2", "disks=3", "link=fast"]
)
def test_words_without_a_meaning_are_refused(text):
    with pytest.raises(UsageError):
        WhatIf.parse(text)


def test_workers_share_the_reading_and_all_of_them_share_the_link():
    sources = [source(size_bytes=2000, seconds=100)]  # 1000 bytes of bundle
    reference = past(1.0, model=sampled_only())
    now = leaving_time(WhatIf().works(sources, SLOW_LINK), reference)
    assert now.p50 == pytest.approx(100 + 100)
    eight = leaving_time(WhatIf(8).works(sources, SLOW_LINK), reference)
    assert eight.p50 == pytest.approx(2 * 100 / speedup(8))  # each has a link of its own
    shared = leaving_time(WhatIf(8, 20.0).works(sources, SLOW_LINK), reference)
    assert shared.p50 == pytest.approx(50 + 50)  # export and transfer at the bandwidth of the link
    faster = leaving_time(WhatIf(1, 100.0).works(sources, SLOW_LINK), reference)
    assert faster.p50 == pytest.approx(100 + 10)


def test_what_is_needed_is_the_least_that_is_enough():
    sources = [source(size_bytes=2000, seconds=100)]
    reference = past(1.0, model=sampled_only())
    least = needed(sources, SLOW_LINK, WhatIf(), reference, 60.0)
    assert least.workers is not None
    assert leaving_time(WhatIf(least.workers).works(sources, SLOW_LINK), reference).p90 <= 60
    assert leaving_time(WhatIf(least.workers - 1).works(sources, SLOW_LINK), reference).p90 > 60
    assert least.link_rate == pytest.approx(1000 / 60)
    assert needed(sources, SLOW_LINK, WhatIf(MOST_WORKERS, 1.0), reference, 60.0).workers is None
