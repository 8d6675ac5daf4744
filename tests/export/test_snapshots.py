"""A bundle says over which snapshots it was taken, and with ``--strict-snapshot`` it is one."""

from __future__ import annotations

import pytest

from migrate.bundle.reader import BundleReader
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.export.sources import Numbers, NumbersSnapshot

FIRST, SECOND = {"time": "first"}, {"time": "second"}


class Moving(Numbers):
    """Numbers whose snapshots have a position of their own each; ``broken`` lets the run die in its sixth unit."""

    def at(self, position, *, broken=False):
        self.position = position
        self.exported = []
        self.on_export = self.die if broken else lambda unit: None
        return self

    def die(self, unit):
        if len(self.exported) > 5:
            raise KeyboardInterrupt

    def snapshot(self, workspace, *, workers):
        from contextlib import nullcontext

        return nullcontext(NumbersSnapshot(self, self.position))


def run(source, location, *, strict=False):
    options = ExportOptions(strict_snapshot=strict)
    return export([source], open_location(str(location)), workers=1, progress=Silent(), options=options)


@pytest.fixture
def broken(tmp_path):
    source = Moving().at(FIRST, broken=True)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path)
    return source, tmp_path


def positions(location):
    return BundleReader(open_location(str(location))).reconciliation()[0].summary.positions


def test_what_still_holds_is_kept_and_both_points_are_told(broken):
    source, location = broken
    assert run(source.at(SECOND), location).complete
    assert len(source.exported) == 5
    assert positions(location) == [
        {"time": "first", "units": 5, "items": 50},
        {"time": "second", "units": 5, "items": 45},
    ]


def test_strict_reads_everything_under_one_snapshot(broken):
    source, location = broken
    assert run(source.at(SECOND), location, strict=True).complete
    assert len(source.exported) == 10
    assert positions(location) == [{"time": "second", "units": 10, "items": 95}]


def test_strict_keeps_what_was_read_under_the_same_snapshot(broken):
    source, location = broken
    assert run(source.at(FIRST), location, strict=True).complete
    assert len(source.exported) == 5
    assert positions(location) == [{"time": "first", "units": 10, "items": 95}]
