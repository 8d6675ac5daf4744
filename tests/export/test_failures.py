"""What an export does when something cannot be had: finish what is possible, name the rest, lose nothing."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from exporters.api import Gap, Unit
from exporters.errors import SourceError, SourceGoneError, SourceNotAllowedError, SourceUnreachableError
from migrate.bundle import layout, lease
from migrate.bundle.export_ledger import Totals
from migrate.bundle.export_state import SourceName, new_state, read_state, write_state
from migrate.bundle.reader import BundleReader
from migrate.errors import BusyError, DamageError, NoSpaceError, NotEmptyError, UsageError
from migrate.export import preflight
from migrate.export import run as export_run
from migrate.export import source_units as units_module
from migrate.export import unit_runner as work_module
from migrate.export.open_sources import UnreadableSource
from migrate.export.outcome import ExportOptions
from migrate.export.plan_totals import read_plan_totals
from migrate.export.run import already_sealed, export, seal_unasked
from migrate.export.status import export_status
from migrate.export.unit_runner import SMALL_BYTES
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.process_identity import uptime
from migrate.runtime.progress import Silent
from migrate.runtime.worker_pool import ThreadWorkerPool
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.export.sources import Numbers, NumbersSnapshot
from tests.export.victims import run, stay_in_unit
from tests.faults import Fault, FaultPlan, Faulty, fail
from tests.tools.waiting import eventually

ROOT = Path(__file__).parents[2]


class Counting(Silent):
    """Keeps what it hears of gaps, and notes."""

    def __init__(self):
        self.gaps, self.notes = 0, []

    def count_gaps(self, count):
        self.gaps += count

    def note(self, message):
        self.notes.append(message)


def go(store, *sources, workers=2, progress=None, **options):
    progress = progress or Silent()
    return export(sources, store, workers=workers, progress=progress, options=ExportOptions(**options))


def raising(error: BaseException, *starts: int):
    """Let the units that begin with these numbers (all without any) raise."""

    def on_export(unit: Unit) -> None:
        if not starts or unit.spec["start"] in starts:
            raise error

    return on_export


def test_a_failed_item_makes_the_bundle_incomplete_and_the_next_run_whole(store, tmp_path):
    """Sealed, checkable, exit code 3; the same command then does only that unit again, and the bundle gets a new id."""
    first = go(store, Numbers(gaps={13: Gap("13", "failed", "it changed")}))
    assert (first.complete, first.exit_code) == (False, 3)
    reader = BundleReader(store)
    assert list(reader.gaps()) == [("app", Gap("13", "failed", "it changed"))]
    assert reader.bag_info["Moveout-Status"] == "incomplete"
    assert reader.reconciliation()[0].dispositions == {"exported": 94, "failed": 1, "excluded": 0}
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []
    assert export_status(store).state == "incomplete"
    source = Numbers()
    second = go(store, source)
    assert second.complete
    assert source.exported == ["chunk/00000010"]
    assert BundleReader(store).info.continues == [first.bundle_id]
    assert list(BundleReader(store).gaps()) == []
    assert not (tmp_path / "location/_work").exists()


def test_what_was_excluded_on_purpose_is_named_and_does_no_harm(store):
    outcome = go(store, Numbers(gaps={13: Gap("13", "excluded", "as asked")}))
    assert outcome.complete
    assert outcome.sources[0].dispositions == {"exported": 94, "excluded": 1, "failed": 0}


def test_counts_that_differ_make_the_bundle_incomplete(store):
    outcome = go(store, Numbers(counted=96))
    assert outcome.exit_code == 3
    assert (
        "the counts of objects differ: counted before: 96, exported and missing: 95"
        in outcome.sources[0].reasons
    )


@pytest.mark.parametrize("size", ["held", "not held"])
def test_a_run_that_hung_replaces_no_file_once_another_has_sealed_the_bundle(store, monkeypatch, size):
    """It reads on, and its rows are of another moment. It has one worker: none reads on while it hangs."""
    began = uptime()

    def hang(unit: Unit) -> None:
        if unit.spec["start"] == 20 and store.location not in woken:
            woken.append(store.location)
            monkeypatch.setattr(lease, "uptime", lambda: began)
            store.delete(layout.LEASE)
            assert go(store, Numbers(padding=b"of the second ")).complete
            monkeypatch.setattr(lease, "uptime", lambda: began + 60)

    woken: list[str] = []
    item_bytes = 4 if size == "held" else SMALL_BYTES
    with pytest.raises(BusyError):
        go(store, Numbers(padding=b"of the first ", on_export=hang, item_bytes=item_bytes), workers=1)
    assert woken
    assert verify(store, Level.FULL, workers=2, progress=Silent()).is_whole


def test_one_failing_unit_does_not_stop_the_others(store):
    """A defect in the exporter is told with its unit; the rest is there, and the next run gets it."""
    progress = Counting()
    gaps = {13: Gap("13", "failed", "it changed")}
    broken = go(store, Numbers(gaps=gaps, on_export=raising(ValueError("a defect"), 20)), progress=progress)
    assert broken.exit_code == 3
    assert "unit chunk/00000020 (10 items) failed: ValueError('a defect')" in broken.sources[0].reasons
    assert "app: unit chunk/00000020 failed: ValueError('a defect')" in progress.notes
    assert (broken.sources[0].items, progress.gaps) == (84, 11)
    source = Numbers()
    assert go(store, source).complete
    assert sorted(source.exported) == ["chunk/00000010", "chunk/00000020"]


def test_units_that_are_denied_now_and_then_do_not_stop_the_others(store, monkeypatch):
    monkeypatch.setattr(units_module, "GIVE_UP_AFTER", 3)
    denied = raising(SourceNotAllowedError("denied"), 0, 10, 30, 40)
    outcome = go(store, Numbers(on_export=denied), workers=1)
    assert (outcome.exit_code, outcome.sources[0].items, outcome.broken) == (3, 55, [])


def test_what_a_run_has_done_is_known_though_it_ended_at_the_last_moment(store):
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(store, Numbers(on_finish=interrupt))
    assert export_status(store).sources[0].done == Totals(10, 95, 380)
    assert read_plan_totals(store, "app").done == Totals(10, 95, 380)


def test_a_source_that_is_left_is_planned_no_further(store, monkeypatch):
    monkeypatch.setattr(units_module, "GIVE_UP_AFTER", 1)
    planned = []

    def on_plan(number):
        planned.append(number)
        time.sleep(0.01)

    gone = raising(SourceGoneError("gone"), 20)
    outcome = go(store, Numbers(count=10**6, on_export=gone, on_plan=on_plan), workers=1)
    assert (outcome.exit_code, len(outcome.broken)) == (3, 1)
    assert len(planned) < 10_000  # on a busy machine the plan gets ahead of the unit


def test_the_room_for_the_seal_grows_with_the_units(store, monkeypatch):
    monkeypatch.setattr(preflight, "RESERVE_BYTES", 1000)
    sizes = []
    monkeypatch.setattr(type(store), "keep_room", lambda _store, _key, size_bytes: sizes.append(size_bytes))
    assert go(store, Numbers()).complete
    assert sizes[0] == 1000
    assert all(later >= 2 * earlier for earlier, later in itertools.pairwise(sizes))
    assert 2 * sizes[-1] > 1000 + 10 * 1024, "a reserve is made larger only where twice as much is needed"


def test_a_location_without_room_for_the_plan_is_full(store):
    tokens = []
    plan = FaultPlan(Fault("put", fail(NoSpaceError("no room")), prefix=layout.plan_totals("app")))
    faulty = Faulty(store, plan)
    options = {"open_unit_store": lambda token: tokens.append(token) or faulty}
    with pytest.raises(NoSpaceError, match="the location is full, so it was not read to its end: no room"):
        go(faulty, Numbers(on_export=lambda _: tokens[0].wait(60)), **options)
    assert go(store, Numbers()).complete


@pytest.mark.parametrize("is_single", [False, True])
def test_a_pool_elsewhere_does_one_unit_at_a_time_where_a_source_allows_that(store, is_single):
    sizes, progress = [], Counting()

    def open_pool(source, work, lease, executor):
        def do_all(units):
            sizes.append(len(units))
            return work.do_all(units)

        return None if is_single else ThreadWorkerPool(do_all, 1, name="elsewhere")

    assert go(store, Numbers(), workers=1, progress=progress, open_pool=open_pool).complete
    assert (sizes, "one machine" in str(progress.notes)) == (([], True) if is_single else ([1] * 10, False))


@pytest.mark.parametrize("error", [SourceNotAllowedError("denied"), SourceGoneError("gone")])
def test_an_eviction_in_the_middle_seals_what_there_is(store, monkeypatch, error):
    """What was not tried is not lost: the next run goes on."""
    monkeypatch.setattr(units_module, "GIVE_UP_AFTER", 3)
    outcome = go(store, Numbers(on_export=raising(error, *range(20, 100, 10))), workers=1)
    assert (outcome.exit_code, outcome.sources[0].items) == (3, 20)
    assert [source.name for source in outcome.broken] == ["app"]
    assert verify(store, Level.COMPLETE, workers=1, progress=Silent()).findings == []
    assert go(store, Numbers()).complete


@pytest.mark.parametrize(
    ("ended", "message"),
    [
        (ValueError("a defect"), r"app could not be planned: ValueError\('a defect'\)"),
        (SourceGoneError("gone"), "gone"),
        (Unit("../other", 1, 4, {}), "app: '../other' cannot be the id of a unit"),
    ],
)
def test_what_was_planned_before_the_plan_broke_off_is_sealed(store, ended, message):
    outcome = go(store, Numbers(on_plan=ending(ended)))
    assert (outcome.exit_code, outcome.sources[0].items) == (3, 20)
    [source] = outcome.broken
    assert (source.name, bool(re.fullmatch(message, str(source.error)))) == ("app", True), source.error
    assert go(store, Numbers()).complete


def test_an_error_that_is_none_of_the_source_ends_the_export(store):
    with pytest.raises(DamageError):
        go(store, Numbers(on_plan=ending(DamageError("a", expected="b", found="c"))))
    assert export_status(store).state == "stopped"


def ending(ended):
    """Let a plan end after two units: by an error, or by a last unit."""

    def on_plan(number: int) -> Unit | None:
        if number == 2 and isinstance(ended, Exception):
            raise ended
        return ended if number == 2 else None

    return on_plan


def test_a_source_that_denies_everything_leaves_nothing_sealed(store):
    with pytest.raises(SourceNotAllowedError, match="denied"):
        go(store, Numbers(on_export=raising(SourceNotAllowedError("denied"))))
    status = export_status(store)
    assert (status.state, status.sources[0].planned) == ("stopped", Totals(10, 95, 380))


def test_where_no_source_can_be_read_the_worst_error_names_all(store, tmp_path):
    """Nothing is written then, and a sealed bundle stays as it is."""
    errors = [SourceNotAllowedError("denied"), SourceGoneError("gone"), SourceUnreachableError("no answer")]
    lost = [
        UnreadableSource(f"s{number}", f"numbers://host/{number}", error)
        for number, error in enumerate(errors)
    ]
    with pytest.raises(SourceGoneError, match=r"(?s)s0: denied.*s1: gone.*s2: no answer"):
        go(store, *lost)
    with pytest.raises(SourceNotAllowedError, match=r"^denied$"):
        go(store, lost[0])
    assert not (tmp_path / "location").exists()
    sealed = go(store, *lost[:2], Numbers())
    assert [source.items for source in sealed.sources] == [0, 0, 95]
    app = UnreadableSource("app", "numbers://host/app", errors[2])
    again = go(store, *lost[:2], app)
    assert (again.already_sealed, again.bundle_id, again.exit_code) == (True, sealed.bundle_id, 3)


def test_the_other_sources_are_exported_all_the_same(store):
    gone = Numbers("gone", "numbers://host/gone", on_export=raising(SourceGoneError("gone")))
    outcome = go(store, gone, Numbers())
    assert (outcome.exit_code, [source.items for source in outcome.sources]) == (3, [0, 95])
    app = Numbers()
    assert go(store, Numbers("gone", "numbers://host/gone"), app).complete
    assert app.exported == []
    assert app.finished == 0, "a finished source is not even read again"


def test_an_unreachable_source_is_tried_again_then_what_there_is_is_sealed(store, monkeypatch):
    monkeypatch.setattr(work_module, "RETRY_WAITS", (0.01,))
    tries = []

    def flaky(unit: Unit) -> None:
        tries.append(unit.id)
        raise SourceUnreachableError("no answer", next_step="look at the network")

    source = Numbers(on_export=lambda unit: flaky(unit) if unit.spec["start"] >= 50 else None)
    outcome = go(store, source, workers=1, attempts=3)
    assert tries[:3] == ["chunk/00000050"] * 3
    assert (outcome.exit_code, outcome.sources[0].items) == (3, 50)
    assert BundleReader(store).info.complete is False
    again = Numbers()
    assert go(store, again).complete
    assert len(again.exported) == 5


def test_a_unit_that_cannot_be_compared_for_a_moment_is_compared_again(store, monkeypatch):
    monkeypatch.setattr(work_module, "RETRY_WAITS", (0.0,))
    errors = [SourceUnreachableError("the session has ended")]

    def break_off(unit):
        if unit.spec["start"] == 50:
            raise SourceUnreachableError("gone")

    def still_holds(_snapshot, _done):
        while errors:
            raise errors.pop()
        return True

    assert go(store, Numbers(on_export=break_off), workers=1).exit_code == 3
    monkeypatch.setattr(NumbersSnapshot, "still_holds", still_holds)
    source = Numbers()
    assert go(store, source, workers=1).complete
    assert not errors
    assert "chunk/00000000" not in source.exported


def test_a_source_that_cannot_finish_is_sealed_without_its_end(store):
    def fails() -> None:
        raise SourceError("no definitions")

    outcome = go(store, Numbers(on_finish=fails))
    assert (outcome.exit_code, outcome.sources[0].items) == (3, 95)
    assert [gap.item for _, gap in BundleReader(store).gaps()] == ["the rest of app"]
    assert go(store, Numbers()).complete


def test_a_full_location_stops_the_run_and_keeps_what_is_done(tmp_path):
    inner = open_location(str(tmp_path))
    plan = FaultPlan(Fault("put", fail(NoSpaceError("no room")), nth=4, prefix="data/", times=99))
    with pytest.raises(NoSpaceError):
        go(Faulty(inner, plan), Numbers(item_bytes=SMALL_BYTES), workers=1)
    assert export_status(inner).sources[0].done.units == 3
    again = Numbers(item_bytes=SMALL_BYTES)
    assert go(inner, again).complete
    assert len(again.exported) == 7


def test_who_has_lost_the_location_begins_nothing_more_and_ends_what_is_under_way(store):
    token, leases, ended = CancellationToken(), [], []

    def lose(unit: Unit) -> None:
        leases[0].abandon()
        ended.append(token.wait(60))

    options = ExportOptions(open_pool=lambda _source, _work, lease, _executor: leases.append(lease))
    source = Numbers(item_bytes=10**6, on_export=lose)
    with pytest.raises(BusyError, match="abandoned"):
        export([source], store, workers=1, progress=Silent(), options=options, cancellation=token)
    assert ended == [True]


def test_a_sealed_bundle_is_not_made_again(store):
    first = go(store, Numbers())
    source = Numbers()
    second = go(store, source)
    assert (second.already_sealed, second.bundle_id, second.files) == (True, first.bundle_id, first.files)
    assert second.sources[0].items == 95
    assert source.exported == []


def test_whether_the_bundle_is_whole_is_known_without_its_sources(store):
    names, others = ([SourceName("app", f"numbers://host/{name}")] for name in ("app", "other"))
    assert already_sealed(names, store) is None
    with pytest.raises(UsageError, match="cannot be the name"):
        already_sealed([SourceName("Größe", "numbers://host/app")], store)
    write_state(store, new_state(names))
    store.put(layout.commit_record("app", "one"), b"of an earlier run")
    assert already_sealed(names, store) is None
    assert already_sealed(others, store) is None, "what they are is known once they are opened"
    made = go(store, Numbers())
    sealed = already_sealed(names, store)
    assert (sealed.already_sealed, sealed.bundle_id, sealed.complete) == (True, made.bundle_id, True)
    with pytest.raises(NotEmptyError, match="holds the bundle of"):
        already_sealed(others, store)


@pytest.mark.parametrize("other", ["0", "z"])
def test_what_was_begun_after_a_seal_is_sealed_too(store, other):
    made = go(store, Numbers(gaps={1: Gap("1", "failed", "lost")}))
    lost = [UnreadableSource("app", "numbers://host/app", SourceGoneError("away"))]
    shut = export(lost, store, workers=1, progress=Silent())
    assert (shut.already_sealed, shut.bundle_id) == (True, made.bundle_id)
    sealed = seal_unasked(store, workers=1, progress=Silent())
    assert (sealed.already_sealed, sealed.bundle_id) == (True, made.bundle_id)
    write_state(store, replace(read_state(store), id=other))
    again = seal_unasked(store, workers=1, progress=Silent())
    assert (again.already_sealed, again.bundle_id, again.files) == (False, other, made.files)


@pytest.mark.parametrize("cancelled", [False, True])
def test_threads_that_do_not_end_in_time_keep_the_lease(monkeypatch, cancelled):
    monkeypatch.setattr(export_run, "GRACE_SECONDS", 0.1)
    abandoned, release, token = [], threading.Event(), CancellationToken()
    lease = SimpleNamespace(abandon=lambda: abandoned.append(True))
    with export_run._threads(1, lease, token) as executor:
        waiting = [executor.submit(release.wait, 1) for _ in range(export_run._REQUESTS + 3)]
        if cancelled:
            token.cancel()
    release.set()
    assert abandoned == [True] * cancelled
    assert sum(future.cancelled() for future in waiting) == 3


def test_another_case_is_refused(store):
    go(store, Numbers(gaps={1: Gap("1", "failed", "lost")}))
    with pytest.raises(NotEmptyError, match=r"holds the bundle of app=numbers://host/app, not of other="):
        go(store, Numbers("other", "numbers://host/other"))
    assert go(store, Numbers(url="numbers://somebody@host/app?profile=new")).complete, (
        "other credentials, same source"
    )


@pytest.mark.parametrize("name", ["notes.txt", "data/app/x.txt", "_work/transfer.json"])
def test_a_location_that_holds_something_else_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(NotEmptyError, match=name):
        go(open_location(str(tmp_path)), Numbers())
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == [name]


@pytest.mark.parametrize("name", ["", "Größe", "a/b", "..", "A"])
def test_names_that_a_bundle_cannot_hold_are_refused(store, name):
    with pytest.raises(UsageError, match="cannot be the name"):
        go(store, Numbers(name))


def test_a_file_that_vanished_is_told_and_exported_again(store):
    """Files that somebody removed behind our back void their unit, before anything is sealed."""

    def vanish() -> None:
        store.delete("data/app/numbers/00000030.txt")

    with pytest.raises(DamageError, match=r"00000030\.txt: expected 30 bytes, found no such file"):
        go(store, Numbers(on_finish=vanish))
    source = Numbers()
    assert go(store, source).complete
    assert source.exported == ["chunk/00000030"]


def test_a_unit_that_no_longer_holds_is_done_again(store):
    with pytest.raises(KeyboardInterrupt):
        go(store, Numbers(on_finish=interrupt))
    source = Numbers(holds=False)
    assert go(store, source).complete
    assert len(source.exported) == 10


def interrupt() -> None:
    raise KeyboardInterrupt


def test_leavings_of_a_dead_run_are_not_in_the_bundle(store, tmp_path):
    marker = tmp_path / "there"
    victim = run(stay_in_unit, store.location, str(marker))
    eventually(marker.exists)
    store.put("data/app/numbers/half.txt", b"half")
    store.begin("data/app/numbers/upload.txt")
    victim.kill()
    victim.join()
    assert go(store, Numbers()).complete
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []
    assert list(store.uploads()) == []


def test_ctrl_c_stops_within_a_moment_and_gives_the_lease_back(tmp_path):
    """130 is the command's business; here it ends by KeyboardInterrupt, and another run goes on at once."""
    marker = tmp_path / "there"
    code = "import sys; from tests.export.victims import stay_until_cancelled; stay_until_cancelled(*sys.argv[1:])"
    victim = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "location"), str(marker)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    eventually(marker.exists)
    began = time.monotonic()
    victim.send_signal(signal.SIGINT)
    _, output = victim.communicate(timeout=60)
    assert time.monotonic() - began < 45
    assert b"KeyboardInterrupt" in output
    store = open_location(str(tmp_path / "location"))
    assert not any(info.key == layout.LEASE for info in store.list())
    source = Numbers()
    assert go(store, source).complete
    assert len(source.exported) == 8


def test_as_many_units_run_at_once_as_there_are_workers(store):
    meeting = threading.Barrier(10, timeout=60)
    assert go(store, Numbers(on_export=lambda _: meeting.wait()), workers=10).complete
