"""A snapshot is told that the last units are under way: once, in time, and not before."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field

from exporters.errors import SourceGoneError
from migrate.export import source_units
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.export.sources import Numbers, NumbersSnapshot

MIB = 2**20


@dataclass
class PreparingNumbers(Numbers):
    """Ten units, each too large to be one of a group. ``prepared_at``: how many units had begun by then."""

    item_bytes: int = MIB
    early: bool = True
    prepared_at: list[int] = field(default_factory=list)

    @contextmanager
    def snapshot(self, workspace, *, workers):
        with super().snapshot(workspace, workers=workers):
            yield PreparingSnapshot(self)


class PreparingSnapshot(NumbersSnapshot):
    source: PreparingNumbers

    @property
    def prepares_early(self):
        return self.source.early

    def prepare_finish(self):
        self.source.prepared_at.append(len(self.source.exported))


def go(tmp_path, source):
    return export(
        [source], open_location(str(tmp_path)), workers=1, progress=Silent(), options=ExportOptions()
    )


def test_it_is_told_once_when_little_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(source_units, "LAST_BYTES", 25 * MIB)
    source = PreparingNumbers()
    assert go(tmp_path, source).complete
    (begun,) = source.prepared_at
    assert begun >= 7


def test_it_is_not_told_before_all_is_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(source_units, "LAST_BYTES", 25 * MIB)
    source = PreparingNumbers()

    def wait_for_the_first(number):
        while number == 5 and len(source.exported) < number:
            time.sleep(0.01)
        time.sleep(0.3 if number == 5 else 0)

    source.on_plan = wait_for_the_first
    assert go(tmp_path, source).complete
    (begun,) = source.prepared_at
    assert begun >= 7


def test_one_that_may_not_begin_early_is_told_when_all_units_are_handed_out(tmp_path):
    source = PreparingNumbers(early=False)
    assert go(tmp_path, source).complete
    (begun,) = source.prepared_at
    assert begun >= 7


def test_one_whose_source_breaks_off_is_not_told(tmp_path, monkeypatch):
    monkeypatch.setattr(source_units, "LAST_BYTES", 25 * MIB)
    monkeypatch.setattr(source_units, "GIVE_UP_AFTER", 2)

    def gone(unit):
        if unit.spec["start"] >= 50:
            raise SourceGoneError("gone")

    source = PreparingNumbers(on_export=gone)
    assert not go(tmp_path, source).complete
    assert source.prepared_at == []
