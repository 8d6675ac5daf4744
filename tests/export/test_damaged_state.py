"""What an unfinished export has of its own at the location is damaged: it is read again, or named with the way out; the
other sources are exported all the same.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from exporters.api import OUTLINE, Sink
from exporters.errors import SourceError, SourceStateError
from exporters.rate_sampling import MemoryWorkspace
from exporters.sql import snapshots
from exporters.sql.chunk_plan import Plan
from exporters.sqlite.files.directory import summary_of_gone
from migrate.bundle import layout
from migrate.bundle.commit_records import read_group, refuse_damage, separate_groups
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError, UnreachableError
from migrate.export.outcome import ExportOptions, ExportOutcome
from migrate.export.run import export, seal_unasked
from migrate.runtime.progress import Silent
from migrate.storage.api import MultipartStore
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.export.sources import Numbers


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that broke off after its first source, to be copied."""
    folder = tmp_path_factory.mktemp("broken-off") / "location"
    store = open_location(str(folder))

    def break_off() -> None:
        raise UnreachableError("the line is cut")

    with pytest.raises(UnreachableError):
        go(store, Numbers("other", "numbers://host/other", on_finish=break_off))
    assert store.read(layout.final_record("app"))
    return folder


@pytest.fixture
def store(broken_off: Path, tmp_path: Path) -> MultipartStore:
    """A location with an export that broke off after its first source."""
    return open_location(str(shutil.copytree(broken_off, tmp_path / "location")))


def go(store: MultipartStore, other: Numbers) -> ExportOutcome:
    return export([Numbers(), other], store, workers=1, progress=Silent(), options=ExportOptions())


def check_whole(store: MultipartStore) -> None:
    for source in ("app", "other"):
        keys = [info.key for info in store.list(f"data/{source}/numbers/")]
        assert [int(line) for key in keys for line in store.read(key).split()] == list(range(95))
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        *(pytest.param(data, marks=pytest.mark.torture) for data in (bytes(200), b"\xff{}", b"[]", b"{}")),
        b'{"version": 1}',
    ],
)
@pytest.mark.parametrize("which", ["final", "unit"])
def test_a_source_whose_record_is_damaged_is_read_again(
    store: MultipartStore, which: str, data: bytes
) -> None:
    separate_groups(store, "app", lambda _: None)
    units = [info.key for info in store.list(layout.units_prefix("app"))]
    store.put(layout.final_record("app") if which == "final" else units[3], data)
    assert go(store, Numbers("other", "numbers://host/other")).complete
    check_whole(store)


@pytest.mark.parametrize("which", ["unit", "group"])
def test_files_whose_record_is_damaged_are_kept_where_the_source_is_gone(
    store: MultipartStore, which: str
) -> None:
    if which == "unit":
        separate_groups(store, "other", refuse_damage)
    prefix = layout.units_prefix("other") if which == "unit" else layout.groups_prefix("other")
    damaged = next(info.key for info in store.list(prefix))
    damaged_units = (
        [damaged.removeprefix(prefix)]
        if which == "unit"
        else [record.unit.id for record in read_group(store, "other", damaged)]
    )
    store.put(damaged, b"{")
    before = {info.key: store.read(info.key) for info in store.list("data/other/numbers/")}

    outcome = seal_unasked(store, workers=1, progress=Silent())

    assert outcome.exit_code == 3
    assert {info.key: store.read(info.key) for info in store.list("data/other/numbers/")} == before
    kept = [gap.item for _, gap in BundleReader(store).gaps() if "kept as it is" in gap.reason]
    assert [Path(key).stem for key in kept] == sorted(Path(unit).stem for unit in damaged_units)
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []
    assert go(store, Numbers("other", "numbers://host/other")).complete
    check_whole(store)


def test_the_tables_of_contents_of_a_finished_source_outlive_a_damaged_record(
    store: MultipartStore,
) -> None:
    separate_groups(store, "app", refuse_damage)
    damaged = [info.key for info in store.list(layout.units_prefix("app"))][3]
    store.put(damaged, b"{")

    assert seal_unasked(store, workers=1, progress=Silent()).exit_code == 3

    reader = BundleReader(store)
    assert [row.items for row in reader.catalog() if row.source == "app"] == [95]
    keys = {file.key for file in reader.files()}
    assert {"data/app/index/numbers.txt", "data/app/numbers/00000030.txt"} <= keys
    gaps = {gap.item: gap.reason for source, gap in reader.gaps() if source == "app"}
    assert damaged in gaps
    assert "kept as it is" in gaps["data/app/numbers/00000030.txt"]


@dataclass
class Unopened(Numbers):
    """A source whose own code fails when it is opened, and not by an error that it should raise."""

    @contextmanager
    def snapshot(self, workspace, *, workers):
        raise RuntimeError("a defect")
        yield


def test_a_source_that_fails_to_open_stops_no_other(tmp_path: Path) -> None:
    store = open_location(str(tmp_path / "location"))
    outcome = go(store, Unopened("other", "numbers://host/other"))
    assert outcome.exit_code == 3
    assert {source.name: source.complete for source in outcome.sources} == {"app": True, "other": False}
    assert "a defect" in str(list(BundleReader(store).gaps()))


def test_an_export_without_its_name_is_not_continued(store: MultipartStore) -> None:
    store.put(layout.EXPORT_STATE, b"")
    with pytest.raises(DamageError) as raised:
        go(store, Numbers("other", "numbers://host/other"))
    assert raised.value.next_step == "nothing can go on without this file: export to another location"


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b"[1]", b'[{"number": "1"}]', bytes(9)])
def test_a_plan_that_makes_no_sense_is_named_with_the_way_out(data: bytes) -> None:
    with pytest.raises(SourceStateError, match=r"plan\.json") as raised:
        Plan.load(data)
    assert "remove the directory _work/SOURCE" in raised.value.next_step


@pytest.mark.parametrize("data", [b"\xff", b"7"])
def test_positions_that_make_no_sense_are_named(data: bytes) -> None:
    workspace = MemoryWorkspace()
    workspace.write(snapshots.POSITIONS, data)
    with pytest.raises(SourceStateError, match=r"positions\.json"):
        snapshots.remember_position(workspace, {"time": "now"})


@pytest.mark.parametrize("data", [b"\xff", b"7", b"[1]", b'{"folders": 1}'])
def test_an_outline_that_makes_no_sense_is_named(data: bytes) -> None:
    workspace = MemoryWorkspace()
    workspace.write(OUTLINE, data)
    with pytest.raises(SourceStateError, match=r"outline\.json"):
        summary_of_gone(workspace, iter(()), cast("Sink", None), SourceError("it is gone"))
