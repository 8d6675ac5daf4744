"""Parts of doing a unit: what is committed together, how far it is, and whether a second reading is better."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from exporters.api import Gap, Outcome, Unit
from exporters.errors import SourceItemError, SourceUnreachableError
from migrate.bundle import layout
from migrate.bundle.commit_records import CommitRecord, FileRecord, read_record, write_record
from migrate.bundle.unit_sink import StoreSink
from migrate.errors import BusyError, NoSpaceError
from migrate.export import unit_runner
from migrate.export.unit_runner import (
    PlannedUnit,
    UnitRules,
    UnitRunner,
    _EarlierUnit,
    _HeldGroup,
    _is_better,
    _ReadUnit,
    _UnitProgress,
    is_of_location,
    same_position,
)
from migrate.runtime.progress import Silent
from migrate.storage.local.store import LocalStore
from tests.faults import Fault, FaultPlan, Faulty, fail


def unit(size_bytes: int = 100, items: int = 10) -> Unit:
    return Unit("one", items, size_bytes, {})


def outcome(*gaps: Gap) -> Outcome:
    return Outcome(10, 100, gaps=gaps)


A, B, C = (Gap(name, "failed", "locked") for name in "abc")
LEFT_OUT = Gap("a", "excluded", "a filter")


@pytest.mark.parametrize(
    ("new", "old", "better"),
    [
        ([], [A], True),
        ([A], [A, B], True),
        ([A], [A], False),
        ([B], [A], False),
        ([A, B], [A], False),
        ([C], [A, B], False),
        ([LEFT_OUT], [A], True),
        ([LEFT_OUT], [B], False),
        ([A, A], [A], False),
        ([], [], False),
    ],
)
def test_a_second_reading_is_better_where_it_lacks_less_and_nothing_else(new, old, better):
    assert _is_better(outcome(*new), outcome(*old)) is better


def test_positions_are_of_one_snapshot_whatever_the_order_of_their_names():
    assert same_position({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same_position({"a": 1}, {"a": 2})


def test_only_the_location_ends_an_export():
    assert is_of_location(NoSpaceError("full"))
    assert not is_of_location(SourceUnreachableError("away"))
    assert not is_of_location(SourceItemError("locked"))
    assert not is_of_location(ValueError("x"))


@pytest.mark.parametrize(
    ("size_bytes", "recorded", "is_small", "to_send"),
    [
        (100, False, True, 100),
        (unit_runner.SMALL_BYTES, False, True, unit_runner.SMALL_BYTES),
        (unit_runner.SMALL_BYTES + 1, False, False, unit_runner.SMALL_BYTES + 1),
        (1, True, False, 0),
    ],
)
def test_small_units_that_are_new_are_committed_together(size_bytes, recorded, is_small, to_send):
    planned = PlannedUnit(unit(size_bytes), recorded)
    assert (planned.is_small, planned.bytes_to_send) == (is_small, to_send)


class Held:
    """A unit that was read, of files of these sizes."""

    def __init__(self, *sizes: int) -> None:
        self.dropped = 0
        files = [SimpleNamespace(size_bytes=size) for size in sizes]
        self.unit = _ReadUnit(None, None, SimpleNamespace(files=files, drop=self.drop))

    def drop(self) -> None:
        self.dropped += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(unit_runner, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(unit_runner, "_TOGETHER_BYTES", 10)
    return clock


def test_a_group_is_full_by_its_bytes_or_its_time(clock):
    group, held = _HeldGroup(), [Held(3, 3), Held(3), Held(1)]
    for each, is_full in zip(held, (False, False, True), strict=True):
        group.add(each.unit)
        assert group.is_full is is_full
    assert group.take() == [each.unit for each in held]
    assert (group.is_full, group.take()) == (False, [])
    group.add(Held(11).unit)
    assert group.is_full
    group.take()
    group.add(held[0].unit)
    clock.now += unit_runner._TOGETHER_SECONDS - 0.01
    assert not group.is_full
    clock.now += 0.01
    assert group.is_full
    group.take()
    clock.now += 60
    assert not group.is_full, "nothing is held"


def test_what_is_held_is_given_up_where_nobody_takes_it(clock):
    group, taken, left = _HeldGroup(), Held(1), Held(1)
    group.add(taken.unit)
    group.take()
    group.add(left.unit)
    group.close()
    assert (taken.dropped, left.dropped, group.take()) == (0, 1, [])


class Sums(Silent):
    """Sums up what is reported, and keeps the most."""

    def __init__(self) -> None:
        self.items = self.size_bytes = self.total_items = self.total_bytes = 0
        self.calls: list[tuple[int, int]] = []

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self.calls.append((items, size_bytes))
        self.items += items
        self.size_bytes += size_bytes

    def grow(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self.total_items += items
        self.total_bytes += size_bytes


def test_a_unit_counts_half_as_it_is_read_and_half_as_it_arrives_and_at_the_end_as_it_is():
    sums = Sums()
    progress = _UnitProgress(sums, unit())
    progress.read(4, 40)
    assert (sums.items, sums.size_bytes) == (2, 20)
    progress.write(30)
    progress.land(15)
    assert (sums.items, sums.size_bytes) == (3, 30)
    progress.land(15)
    assert (sums.items, sums.size_bytes) == (4, 40)
    progress.read(100, 1000)
    assert (sums.items, sums.size_bytes) == (10, 100), "no more than was planned"
    progress.end(Outcome(12, 90))
    assert (sums.items, sums.size_bytes) == (12, 90)
    assert (sums.total_items, sums.total_bytes) == (2, -10)
    assert (0, 0) not in sums.calls


def test_a_unit_that_begins_again_reports_nothing_twice_and_one_that_failed_takes_it_back():
    sums = Sums()
    progress = _UnitProgress(sums, unit())
    progress.read(8, 80)
    progress.write(10)
    progress.begin()
    progress.read(6, 60)
    assert (sums.items, sums.size_bytes) == (4, 40)
    assert all(items >= 0 and size_bytes >= 0 for items, size_bytes in sums.calls)
    progress.land(5)
    assert (sums.items, sums.size_bytes) == (6, 60)
    progress.fail()
    assert (sums.items, sums.size_bytes) == (0, 0)


def work(**changes: Any) -> UnitRunner:
    values: dict[str, Any] = dict.fromkeys(
        ("store", "lease", "cancellation", "progress", "source", "url", "snapshot")
    )
    return UnitRunner(**{**values, "rules": UnitRules(attempts=1, sealed_before="2026-01-02"), **changes})


@pytest.mark.parametrize(
    ("finished", "gaps", "mends", "again"),
    [
        ("2026-01-01", [A], False, True),
        ("2026-01-02", [A], False, True),
        ("2026-01-03", [A], False, False),
        ("2026-01-03", [A], True, True),
        ("2026-01-01", [LEFT_OUT], True, False),
        ("2026-01-01", [], False, False),
    ],
)
def test_what_failed_before_the_seal_is_tried_again_and_at_once_where_it_can_be_read_alone(
    finished, gaps, mends, again
):
    snapshot = SimpleNamespace(mend=lambda *_: None) if mends else None
    record = SimpleNamespace(finished=finished, outcome=outcome(*gaps))
    assert work(snapshot=snapshot)._is_to_be_tried_again(record) is again


class Waits:
    """A cancellation that notes how long it is waited for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def check(self) -> None:
        """Nothing was cancelled."""

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.mark.parametrize(("failures", "succeeds"), [(0, True), (4, True), (5, False)])
def test_a_unit_is_tried_again_while_its_source_cannot_be_reached(failures, succeeds):
    waits, sums, tries, notes = Waits(), Sums(), [], []
    sums.note = notes.append
    progress = _UnitProgress(sums, unit())
    runner = work(cancellation=waits, progress=sums, source="app", rules=UnitRules(attempts=5))

    def export() -> str:
        tries.append(1)
        progress.read(10, 100)
        if len(tries) <= failures:
            raise SourceUnreachableError("away")
        return "done"

    if succeeds:
        assert runner._with_retries(progress, export) == "done"
        assert sums.items == 5
    else:
        with pytest.raises(SourceUnreachableError):
            runner._with_retries(progress, export)
        assert (sums.items, sums.size_bytes) == (0, 0)
    assert len(tries) == min(failures + 1, 5)
    assert waits.waits == [1.0, 5.0, 15.0, 15.0][: len(tries) - 1]
    assert notes == ["app: away; trying unit one again"] * len(waits.waits)


def test_an_item_that_cannot_be_read_is_not_tried_again():
    sums, tries = Sums(), []
    progress = _UnitProgress(sums, unit())

    def export() -> None:
        tries.append(1)
        progress.read(10, 100)
        raise SourceItemError("locked")

    with pytest.raises(SourceItemError):
        work(cancellation=Waits(), progress=sums, rules=UnitRules(attempts=5))._with_retries(progress, export)
    assert (len(tries), sums.items) == (1, 0)


@pytest.mark.parametrize(
    ("reads_back", "changes", "checks"), [(True, True, 1), (True, False, 0), (False, True, 0)]
)
def test_after_rows_were_read_back_the_lease_is_looked_at(monkeypatch, reads_back, changes, checks):
    """That takes long, and another run may have taken the location over."""
    record, other, checked = object(), object(), []
    monkeypatch.setattr(unit_runner, "prove", lambda *_: other if changes else record)
    rules = UnitRules(attempts=1, prove=reads_back)
    runner = work(rules=rules, lease=SimpleNamespace(check=lambda: checked.append(1)))
    assert runner._proved(record) is (other if reads_back and changes else record)
    assert len(checked) == checks


@pytest.mark.parametrize(("checks", "there"), [(0, []), (1, ["data/app/a"])])
def test_neither_files_nor_records_of_a_group_are_written_once_the_lease_is_lost(tmp_path, checks, there):
    left = [None] * checks

    def check() -> None:
        if not left:
            raise BusyError("lost")
        left.pop()

    store = LocalStore(tmp_path)
    sink = StoreSink(store, "app", held=True)
    with sink.create("a") as file:
        file.write(b"a")
    read = _ReadUnit(_UnitProgress(Sums(), unit()), outcome(), sink)
    with pytest.raises(BusyError):
        work(store=store, lease=SimpleNamespace(check=check))._commit_group([read])
    assert [info.key for info in store.list()] == there


def test_the_record_of_a_unit_that_is_mended_stays_until_there_is_a_new_one(tmp_path):
    """Without it what was read before would be lost where the source is shut by then."""
    store, key = LocalStore(tmp_path), layout.commit_record("app", "one")
    record = CommitRecord(
        "app", unit(), outcome(A), [FileRecord("data/app/one/x", 1, "0" * 64, 7)], {}, "now"
    )
    write_record(store, record)
    full = FaultPlan(Fault("put", fail(NoSpaceError("full")), prefix=key))
    runner = work(
        store=Faulty(store, full),
        source="app",
        lease=SimpleNamespace(check=lambda: None),
        cancellation=Waits(),
        snapshot=SimpleNamespace(mend=lambda done, sink: outcome(), position={}),
    )
    with pytest.raises(NoSpaceError):
        runner._export(_UnitProgress(Sums(), unit()), _EarlierUnit(record, holds=True))
    full.assert_all_fired()
    assert read_record(store, "app", "one").finished == record.finished


@pytest.mark.parametrize("own_error", [None, SourceItemError("a file could not be written")])
def test_nothing_is_held_any_more_where_a_source_swallows_an_error_of_the_location(monkeypatch, own_error):
    dropped = []
    sink = SimpleNamespace(error=NoSpaceError("full"), drop=lambda: dropped.append(True))
    monkeypatch.setattr(unit_runner, "StoreSink", lambda *_, **__: sink)

    def export(*_: object) -> Outcome:
        if own_error is not None:
            raise own_error
        return outcome()

    runner = work(
        lease=SimpleNamespace(check=None), cancellation=Waits(), snapshot=SimpleNamespace(export=export)
    )
    with pytest.raises(NoSpaceError):
        runner._read(_UnitProgress(Sums(), unit()), held=True)
    assert dropped == [True]


def test_a_unit_that_was_done_before_counts_as_it_is(tmp_path):
    """It was planned as ten items of 100 bytes."""
    store, sums = LocalStore(tmp_path), Sums()
    write_record(store, CommitRecord("app", unit(), Outcome(12, 90), [], {}, "2026-01-03"))
    runner = work(
        store=store,
        source="app",
        cancellation=Waits(),
        progress=sums,
        snapshot=SimpleNamespace(still_holds=lambda _: True),
    )
    assert runner.do(PlannedUnit(unit(), recorded=True)).outcome.items == 12
    assert (sums.total_items, sums.total_bytes) == (2, -10)


def test_of_a_record_that_is_of_no_use_nothing_is_left_before_the_unit_is_read_again(tmp_path):
    """A record never describes files that are being replaced."""
    store, checked, notes = LocalStore(tmp_path), [], []
    key = layout.commit_record("app", "one")
    store.put(key, b"{")
    runner = work(
        store=store,
        source="app",
        lease=SimpleNamespace(check=lambda: checked.append(store.list(key) and key)),
        progress=SimpleNamespace(note=notes.append),
    )
    assert runner._earlier(unit()) is None
    assert list(store.list(key)) == []
    assert len(checked) == 1
    assert notes[0].endswith("; the unit is exported again")
