"""The arithmetic of a deadline."""

from datetime import UTC, datetime, timedelta

from exporters.api import Estimate, Survey, SurveyItem
from migrate.plan import SourcePlan, forecast

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def source(name="app", *, size_bytes=1_000, goes_on=False):
    item = SurveyItem("t", "table", 5, size_bytes, exact=not goes_on)
    survey = Survey((item,), "server", goes_on=goes_on)
    return SourcePlan(name, "url", survey, Estimate(10.0, 1.0, 1.0))


def make(sources, deadline=None, location_rate=None, destination_rate=None, limit_rate=None):
    return forecast(
        sources,
        location_rate=location_rate,
        destination_rate=destination_rate,
        limit_rate=limit_rate,
        now=NOW,
        deadline=deadline,
    )


def test_the_slower_of_reading_and_writing_counts():
    assert make([source()], location_rate=50).seconds == 20.0
    assert make([source()], location_rate=500).seconds == 10.0


def test_transfer_goes_at_the_slowest_of_both_locations_and_the_limit():
    stages = {
        stage.name: stage.seconds
        for stage in make([source()], location_rate=500, destination_rate=200, limit_rate=100).stages
    }
    assert stages == {"export app": 10.0, "transfer": 10.0}


def test_late_tight_and_in_time():
    verdicts = [make([source()], deadline=NOW + timedelta(seconds=left)).verdict for left in (9, 13, 60)]
    assert verdicts == ["late", "tight", "in time"]


def test_the_margin_is_negative_when_late():
    found = make([source()], deadline=NOW + timedelta(seconds=4))
    assert found.margin_seconds == -6.0
    assert found.ready == NOW + timedelta(seconds=10)


def test_without_a_deadline_there_is_no_verdict():
    assert make([source()]).verdict == "no deadline"


def test_what_was_not_counted_to_its_end_is_not_promised_in_time():
    found = make([source(goes_on=True), source("other")], deadline=NOW + timedelta(days=30))
    assert (found.verdict, found.at_least) == ("tight", True)
    assert make([source(goes_on=True)], deadline=NOW + timedelta(seconds=1)).verdict == "late"
    assert make([source()], deadline=NOW + timedelta(days=30)).verdict == "in time"
