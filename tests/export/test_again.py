"""A bundle that was sealed incomplete is taken up again: what failed is tried, and what is there is never given up
for less, whatever the source answers by then.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from exporters.api import Gap, Loss, Sink, Source, SourceSummary, Unit
from exporters.errors import SourceError, SourceGoneError, SourceNotAllowedError, SourceUnreachableError
from migrate.bundle import layout
from migrate.bundle.lease import Lease
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError, GoneError
from migrate.export import unit_runner
from migrate.export.open_sources import UnreadableSource
from migrate.export.outcome import ExportOptions, ExportOutcome
from migrate.export.run import export
from migrate.export.status import export_status
from migrate.export.unit_runner import PlannedUnit, SettledUnit, UnitPool, UnitRunner
from migrate.runtime.progress import Silent
from migrate.runtime.worker_pool import ThreadWorkerPool
from migrate.storage.api import MultipartStore
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from scripts.servers import S3Server
from tests.export.sources import Numbers, fingerprint
from tests.faults import Fault, FaultPlan, Faulty, fail

FAILED = Gap("13", "failed", "it could not be read")


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was sealed without one number, to be copied."""
    folder = tmp_path_factory.mktemp("incomplete") / "location"
    assert go(open_location(str(folder)), Numbers(gaps={13: FAILED})).exit_code == 3
    return folder


@pytest.fixture
def store(incomplete: Path, tmp_path: Path) -> MultipartStore:
    """A location where a bundle lies that was sealed without one number."""
    return open_location(str(shutil.copytree(incomplete, tmp_path / "location")))


def go(store: MultipartStore, source: Numbers) -> ExportOutcome:
    return export([source], store, workers=2, progress=Silent(), options=ExportOptions())


def numbers(store: MultipartStore) -> list[int]:
    """What the files of the bundle hold."""
    keys = [info.key for info in store.list("data/app/numbers/")]
    return [int(line) for key in keys for line in store.read(key).split()]


def check_as_before(store: MultipartStore) -> None:
    """All but one are there, that one is named, and the bundle is whole by its own summary."""
    assert numbers(store) == [number for number in range(95) if number != 13]
    assert list(BundleReader(store).gaps()) == [("app", FAILED)]
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []


def raising(error: BaseException) -> Callable[[Unit], None]:
    def on_export(_: Unit) -> None:
        raise error

    return on_export


@dataclass
class Shut(Numbers):
    """A source that does not even let itself be opened any more."""

    error: SourceError = field(default_factory=lambda: SourceNotAllowedError("shut out"))

    @contextmanager
    def snapshot(self, workspace, *, workers):
        raise self.error
        yield


@pytest.mark.parametrize(
    "error",
    [
        SourceNotAllowedError("shut out"),
        *(
            pytest.param(error, marks=pytest.mark.torture)
            for error in (SourceGoneError("gone"), SourceUnreachableError("no route"))
        ),
    ],
)
def test_a_source_that_is_shut_takes_nothing_away(store: MultipartStore, error: SourceError) -> None:
    outcome = go(store, Shut(error=error))
    assert outcome.exit_code == 3
    check_as_before(store)
    assert go(store, Numbers()).complete
    assert numbers(store) == list(range(95))


@pytest.mark.parametrize("error", [SourceNotAllowedError("shut out"), SourceError("the unit cannot be read")])
def test_a_unit_that_fails_the_second_time_stays_as_it_was(store: MultipartStore, error: SourceError) -> None:
    assert go(store, Numbers(on_export=raising(error), gaps={13: FAILED})).exit_code == 3
    check_as_before(store)


@pytest.mark.parametrize(
    "gaps",
    [
        {number: Gap(str(number), "failed", "shut out") for number in range(10, 20)},
        {14: Gap("14", "excluded", "deleted since")},
        {13: FAILED},
    ],
    ids=["nothing can be read", "another one was deleted", "no better"],
)
def test_a_second_reading_that_has_less_is_dropped(store: MultipartStore, gaps: dict[int, Gap]) -> None:
    source = Numbers(gaps=dict(gaps))
    outcome = go(store, source)
    assert outcome.exit_code == 3
    assert "chunk/00000010" not in " ".join(outcome.sources[0].reasons)
    assert source.exported == ["chunk/00000010"]
    assert numbers(store) == [number for number in range(95) if number != 13]


def test_a_unit_whose_rows_have_changed_stays_until_it_was_read_again(store: MultipartStore) -> None:
    """Its snapshot does not hold any more, and then the source fails: better what was so before than nothing."""
    source = Numbers(holds=False, on_export=raising(SourceError("it cannot be read")), gaps={13: FAILED})
    outcome = go(store, source)
    assert outcome.exit_code == 3
    assert "unit chunk/00000000 (10 items) failed: it cannot be read" in outcome.sources[0].reasons
    assert numbers(store) == [number for number in range(95) if number != 13]


def test_a_kill_in_the_second_reading_takes_nothing_away(
    store: MultipartStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(unit_runner, "_is_better", die)
    with pytest.raises(KeyboardInterrupt):
        go(store, Numbers())
    monkeypatch.undo()
    record = layout.commit_record("app", "chunk/00000010")
    assert store.stat(record)
    assert numbers(store) == [number for number in range(95) if number != 13]
    assert go(store, Numbers()).complete


def test_what_a_source_has_no_more_is_not_in_the_bundle(store: MultipartStore) -> None:
    assert go(store, Numbers(count=30)).complete
    assert numbers(store) == list(range(30))


def test_no_record_stays_of_what_a_source_has_no_more(store: MultipartStore) -> None:
    assert go(store, Numbers(count=30, gaps={13: FAILED})).exit_code == 3
    assert numbers(store) == [number for number in range(30) if number != 13]
    (status,) = export_status(store).sources
    assert status.done.items == 29
    assert not [info.key for info in store.list(layout.WORK) if "00000090" in info.key]


def test_a_source_that_breaks_off_takes_no_unit_that_was_not_begun(
    store: MultipartStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_runner, "RETRY_WAITS", (0.0,))
    source = Numbers(holds=False, on_export=raising(SourceUnreachableError("away")))
    assert go(store, source).exit_code == 3
    assert len(set(source.exported)) < 10
    check_as_before(store)


def test_progress_is_told_what_an_earlier_run_has_done(store: MultipartStore) -> None:
    skipped: list[int] = []

    class Told(Silent):
        def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
            skipped.append(items)

    export([Numbers()], store, workers=2, progress=Told(), options=ExportOptions())
    assert sum(skipped) == 85


def test_only_a_source_that_is_whole_is_said_to_need_no_reading(tmp_path: Path) -> None:
    location = open_location(str(tmp_path / "two"))
    sources = [Numbers(), Numbers("more", "numbers://host/more", gaps={13: FAILED})]
    notes: list[str] = []

    class Told(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    for _ in range(2):
        export(sources, location, workers=1, progress=Told())
    assert [note for note in notes if "not read again" in note] == [
        "exported by an earlier run, and not read again: app"
    ]


def test_no_record_describes_files_that_were_replaced(store: MultipartStore) -> None:
    """The run ends between the new files of a unit and their record."""
    record, key = layout.commit_record("app", "chunk/00000000"), "data/app/numbers/00000000.txt"

    def break_off(put: Callable[[], object]) -> object:
        if store.read(key).startswith(b"00\n"):
            raise GoneError("the disk went away")
        return put()

    with suppress(GoneError):
        go(
            Faulty(store, FaultPlan(Fault("put", break_off, prefix=record, times=99))),
            Numbers(holds=False, padding=b"0"),
        )
    assert store.read(key).startswith(b"00\n")
    assert record not in [info.key for info in store.list("_work/")]


def test_what_the_source_has_no_more_goes_also_where_a_unit_fails(store: MultipartStore) -> None:
    """Its files stayed, named as ones without a record. Those of a unit that fails stay, also where its record is
    damaged.
    """
    damaged = "chunk/00000020"

    def on_export(unit: Unit) -> None:
        if unit.id == damaged:
            raise SourceError("it cannot be read now")

    store.put(layout.commit_record("app", damaged), b"{")
    assert go(store, Numbers(count=80, gaps={13: FAILED}, on_export=on_export)).exit_code == 3
    assert numbers(store) == [number for number in range(80) if number != 13]
    gaps = {gap.item: gap.reason for _, gap in BundleReader(store).gaps()}
    assert gaps.keys() == {"13", "data/app/numbers/00000020.txt"}
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []


@dataclass
class AnotherTime(Numbers):
    """The same numbers under another snapshot."""

    time: str = "later"

    @contextmanager
    def snapshot(self, workspace, *, workers):
        with super().snapshot(workspace, workers=workers) as snapshot:
            snapshot.position = {"time": self.time}
            yield snapshot


@dataclass
class Finished(Numbers):
    """The same numbers, of which ``finish`` makes another summary: of the usual one, and of where it writes to."""

    finish: Callable[..., SourceSummary] = lambda finish, done, sink: finish(done, sink)

    @contextmanager
    def snapshot(self, workspace, *, workers):
        with super().snapshot(workspace, workers=workers) as snapshot:
            snapshot.finish = partial(self.finish, snapshot.finish)
            yield snapshot


def without_index(finish: Callable[..., SourceSummary], done: object, _: Sink) -> SourceSummary:
    return finish(done, SimpleNamespace(create=lambda _: BytesIO()))


def renamed(finish: Callable[..., SourceSummary], done: object, sink: Sink) -> SourceSummary:
    summary = finish(done, sink)
    return replace(summary, entries=[replace(entry, name="integers") for entry in summary.entries])


def breaking_off() -> None:
    raise SourceUnreachableError("it went away")


GAPS = {13: FAILED}


@pytest.mark.parametrize(
    "source",
    [
        Numbers(gaps=GAPS),
        pytest.param(
            Numbers(gaps={13: Gap("13", "failed", "the disk is damaged")}), marks=pytest.mark.torture
        ),
        pytest.param(AnotherTime(gaps=GAPS), marks=pytest.mark.torture),
        AnotherTime(gaps=GAPS, holds=False),
        pytest.param(Shut(), marks=pytest.mark.torture),
        Numbers(on_export=raising(SourceUnreachableError("away"))),
        pytest.param(Numbers(gaps=GAPS, on_finish=breaking_off), marks=pytest.mark.torture),
        UnreadableSource("app", "numbers://host/app", SourceUnreachableError("no route")),
    ],
    ids=[
        "equal",
        "another reason",
        "later",
        "read again",
        "shut",
        "breaks off",
        "ends without a summary",
        "lost",
    ],
)
def test_a_bundle_to_which_nothing_comes_stays_as_it_is(
    store: MultipartStore, source: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_runner, "RETRY_WAITS", (0.0,))
    before, info = fingerprint(store), BundleReader(store).info
    for _ in range(2):
        outcome = go(store, source)
        assert (outcome.already_sealed, outcome.bundle_id, outcome.exit_code) == (True, info.id, 3)
        assert fingerprint(store) == before
    assert export_status(store).state == "incomplete"
    assert go(store, Numbers()).complete
    assert BundleReader(store).info.continues == [info.id]


@pytest.mark.parametrize(
    "source",
    [
        Numbers(gaps=GAPS, losses=[Loss("numbers", "order", "it is none")]),
        Numbers(gaps=GAPS, counted=96),
        Numbers(gaps=GAPS, holds=False, padding=b"0"),
        Numbers(gaps=GAPS, count=94),
        Numbers(gaps=GAPS, url="numbers://other@host/app"),
        Finished(gaps=GAPS, finish=without_index),
        Finished(gaps=GAPS, finish=renamed),
    ],
    ids=["loss", "count", "bytes", "fewer", "address", "files", "name"],
)
def test_a_bundle_of_which_anything_is_other_now_gets_another_id(
    store: MultipartStore, source: Numbers
) -> None:
    before = BundleReader(store).info.id
    outcome = go(store, source)
    info = BundleReader(store).info
    assert (outcome.already_sealed, outcome.bundle_id, info.continues) == (False, info.id, [before])
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []


def test_a_catalog_of_an_earlier_run_does_not_describe_files_that_were_replaced(
    store: MultipartStore,
) -> None:
    assert len(BundleReader(store).catalog()) == 1
    assert go(store, Numbers(gaps=GAPS, holds=False, padding=b"0", on_finish=breaking_off)).exit_code == 3
    assert store.read("data/app/numbers/00000000.txt").startswith(b"00\n")
    assert BundleReader(store).catalog() == []
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []


def test_the_seal_goes_before_other_machines_begin(store: MultipartStore) -> None:
    """They write to the location themselves."""
    stands: list[bool] = []

    def open_pool(_: Source, work: UnitRunner, __: Lease, ___: Executor) -> UnitPool:
        def do_all(units: Sequence[PlannedUnit]) -> Sequence[SettledUnit]:
            stands.append(any(store.list(layout.TAG_MANIFEST)))
            return work.do_all(units)

        return ThreadWorkerPool(do_all, 1, name="others", ahead=1)

    options = ExportOptions(open_pool=open_pool)
    assert export([Numbers(gaps=GAPS)], store, workers=1, progress=Silent(), options=options).exit_code == 3
    assert {*stands} == {False}


def test_with_a_strict_snapshot_a_newer_one_is_a_change(store: MultipartStore) -> None:
    strict = ExportOptions(strict_snapshot=True)
    for source, is_kept in ((AnotherTime(gaps=GAPS), False), (AnotherTime(gaps=GAPS), True)):
        outcome = export([source], store, workers=1, progress=Silent(), options=strict)
        assert outcome.already_sealed is is_kept
    assert [position["time"] for position in BundleReader(store).reconciliation()[0].summary.positions] == [
        "later"
    ]


def test_what_came_to_one_source_is_sealed_although_another_one_is_lost(store: MultipartStore) -> None:
    lost = UnreadableSource("more", "numbers://host/more", SourceUnreachableError("no route"))
    pair = [Numbers(gaps=GAPS), lost]
    ids = [
        export(pair, store, workers=1, progress=Silent()).bundle_id,
        export(pair, store, workers=1, progress=Silent()).bundle_id,
        export([Numbers(), lost], store, workers=1, progress=Silent()).bundle_id,
        export([Numbers(), lost], store, workers=1, progress=Silent()).bundle_id,
    ]
    assert (ids[0] == ids[1], ids[1] == ids[2], ids[2] == ids[3]) == (True, False, True)
    assert numbers(store) == list(range(95))


def test_a_damaged_bundle_is_not_kept(store: MultipartStore) -> None:
    before = BundleReader(store).info.id
    store.put(layout.REPORT, b"somebody else's")
    assert go(store, Numbers(gaps=GAPS)).bundle_id != before
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []
    store.put("data/app/numbers/00000020.txt", b"short")
    with pytest.raises(DamageError, match="expected 30 bytes, found 5 bytes"):
        go(store, Numbers(gaps=GAPS))
    assert go(store, Numbers(gaps=GAPS)).exit_code == 3
    check_as_before(store)


def test_while_a_run_is_at_work_the_status_says_so(store: MultipartStore) -> None:
    seen = []
    go(store, Numbers(gaps=GAPS, on_finish=lambda: seen.append(export_status(store).state)))
    assert (seen, export_status(store).state) == (["exporting"], "incomplete")


def test_it_is_the_same_in_a_bucket(minio: S3Server, bucket: str) -> None:
    store = open_location(f"s3://{bucket}/bundle?profile={minio.profile}")
    first = go(store, Numbers(gaps=GAPS))
    before = fingerprint(store)
    assert go(store, AnotherTime(gaps=GAPS, holds=False)).bundle_id == first.bundle_id
    assert fingerprint(store) == before
    assert go(store, Numbers(gaps=GAPS, holds=False, padding=b"0")).bundle_id != first.bundle_id
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []
    assert list(store.uploads()) == []


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_source_of_which_more_was_read_before_it_broke_off_keeps_its_catalog_unless_anything_was_replaced(
    tmp_path: Path, *, is_replaced: bool
) -> None:
    """Else what was exported of it before could not be restored any more."""
    store = open_location(str(tmp_path / "location"))
    assert go(store, Numbers(count=90, counted=95)).exit_code == 3
    index, (row,) = store.read("data/app/index/numbers.txt"), BundleReader(store).catalog()
    assert (
        go(
            store, Numbers(holds=not is_replaced, padding=b"0" * is_replaced, on_finish=breaking_off)
        ).exit_code
        == 3
    )
    reader = BundleReader(store)
    rows = [replace(row, position={}) for row in reader.catalog()]
    assert rows == ([] if is_replaced else [replace(row, position={})])
    assert is_replaced or store.read("data/app/index/numbers.txt") == index
    kept = ["data/app/index/numbers.txt"] if is_replaced else []
    assert [gap.item for _, gap in reader.gaps()] == [*kept, "the rest of app"]
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []
    assert numbers(store) == list(range(95))
    assert go(store, Numbers()).complete
    assert list(BundleReader(store).gaps()) == []


def test_the_order_of_the_sources_is_no_change(tmp_path: Path) -> None:
    store = open_location(str(tmp_path / "location"))
    gap, loss = Gap("3", "failed", "it could not be read"), Loss("numbers", "order", "it is none")
    others = [
        Numbers(name, f"numbers://host/{name}", gaps={3: gap}, losses=[loss]) for name in ("b", "c", "a")
    ]
    first = export(others, store, workers=1, progress=Silent())
    again = export(others[::-1], store, workers=1, progress=Silent())
    assert (again.bundle_id, [source.name for source in again.sources]) == (first.bundle_id, ["b", "c", "a"])


def test_a_complete_bundle_whose_export_ended_before_it_was_tidied_up_stays_in_any_order(
    tmp_path: Path,
) -> None:
    store = open_location(str(tmp_path / "location"))
    pair = [Numbers(), Numbers("more", "numbers://host/more")]
    dying = Faulty(
        store, FaultPlan(Fault("delete", fail(GoneError("the disk went away")), prefix=layout.EXPORT_STATE))
    )
    with pytest.raises(GoneError):
        export(pair, dying, workers=1, progress=Silent())
    before = BundleReader(store).info
    assert (before.complete, export(pair[::-1], store, workers=1, progress=Silent()).bundle_id) == (
        True,
        before.id,
    )
    assert not (tmp_path / "location/_work").exists()
