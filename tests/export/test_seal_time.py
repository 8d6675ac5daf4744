"""An export that is to be sealed before the deadline: what was read is sealed and named, and the next run goes on."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from migrate.bundle.reader import BundleReader
from migrate.export import ExportOptions, export
from migrate.export.seal_time import SealTime, SealTimeError
from migrate.progress.meter import Meter
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify import Level, verify
from tests.export.sources import Numbers

START = datetime(2026, 11, 25, 18, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    return open_location(str(tmp_path / "location"))


class Clock:
    """A clock that strikes when it is told to."""

    def __init__(self):
        self.time = START

    def __call__(self):
        return self.time

    def strike(self):
        self.time += timedelta(hours=1)


def go(store, sources, progress=None, **options):
    return export(sources, store, workers=1, progress=progress or Silent(), options=ExportOptions(**options))


def test_what_was_read_in_time_is_sealed_and_the_next_run_reads_the_rest(store):
    clock = Clock()

    def slow(unit):
        if unit.spec["start"] == 50:
            clock.strike()
            time.sleep(1.5)  # by then the unit is cancelled: its bytes come to nothing

    big = Numbers("big", "numbers://host/big", item_bytes=10**6, on_export=slow)
    sources = [Numbers("first", "numbers://host/first"), big, Numbers("last", "numbers://host/last")]
    moment = SealTime(START + timedelta(minutes=30), clock)
    sealed = go(store, sources, seal_time=moment)
    assert (sealed.complete, sealed.exit_code, sealed.stopped_early) == (False, 3, True)
    assert {source.name: source.items for source in sealed.sources} == {"first": 95, "big": 50, "last": 0}
    assert {name for name, _ in sealed.broken} == {"big", "last"}
    assert all("sealed now, to leave before the deadline" in str(error) for _, error in sealed.broken)
    assert "last" in {source for source, _ in BundleReader(store).gaps()}
    checked = verify(store, Level.FULL, workers=2, progress=Silent())
    assert checked.findings == []

    big.exported.clear()
    meter, fractions = Meter(), {}
    meter.open("export")
    meter.expect([source.name for source in sources])
    meter.on_event = lambda event, words: fractions.update({(event, words): meter.state().fraction})
    whole = go(store, sources, meter)
    assert fractions["end", "export first"] >= 0.3, "what an earlier run has exported counts"
    assert (whole.complete, whole.stopped_early) == (True, False)
    assert big.exported[0] == "chunk/00000050"


def test_a_source_whose_last_unit_ends_in_time_is_complete(store):
    clock = Clock()

    def last(unit):
        if unit.spec["start"] == 90:
            clock.strike()

    moment = SealTime(START + timedelta(minutes=30), clock)
    sealed = go(store, [Numbers(on_export=last)], seal_time=moment)
    assert (sealed.complete, sealed.stopped_early) == (True, False)


def test_nothing_is_sealed_where_nothing_was_read_in_time(store):
    clock = Clock()
    clock.strike()
    with pytest.raises(SealTimeError, match="app was not read to its end") as raised:
        go(store, [Numbers()], seal_time=SealTime(START, clock))
    assert raised.value.exit_code == 3
    assert go(store, [Numbers()]).complete
