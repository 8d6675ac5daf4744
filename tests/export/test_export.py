"""An export makes a sealed bundle that anyone can check."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import duckdb

from exporters.api import Outcome, Unit
from exporters.errors import SourceUnreachableError
from migrate.bundle import layout
from migrate.export import unit_runner
from migrate.export.plan_totals import read_plan_totals
from migrate.export.run import export
from migrate.export.status import export_status
from migrate.export.unit_runner import PlannedUnit, UnitRules, UnitRunner
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Silent
from migrate.storage.api import PART_BYTES, StoreWrapper
from migrate.storage.registry import open_location
from tests.export.sources import Numbers
from tests.tools.waiting import eventually

BAGIT = Path(sys.executable).with_name("bagit.py")


def test_a_bundle_is_a_bag(tmp_path):
    """bagit.py and sha256sum accept what was sealed, and nothing of the work is left."""
    outcome = export([Numbers()], open_location(str(tmp_path)), workers=2, progress=Silent())
    assert outcome.complete
    assert outcome.exit_code == 0
    assert outcome.files == 14
    subprocess.run([BAGIT, "--validate", tmp_path], check=True, capture_output=True)
    subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", "manifest-sha256.txt", "tagmanifest-sha256.txt"],
        cwd=tmp_path,
        check=True,
    )
    assert not (tmp_path / "_work").exists()


def test_a_bundle_is_read_without_moveout(tmp_path):
    """As docs/FORMAT.md says."""
    export([Numbers()], open_location(str(tmp_path)), workers=2, progress=Silent())
    rows = duckdb.sql(f"SELECT schema, name, items, digest FROM '{tmp_path}/data/catalog.parquet'").fetchall()
    assert rows == [("", "numbers", 95, f"{sum(range(95)):032x}")]
    files = duckdb.sql(f"SELECT key, size_bytes FROM read_json('{tmp_path}/meta/files.jsonl')").fetchall()
    assert dict(files) == {
        str(path.relative_to(tmp_path)): path.stat().st_size
        for path in tmp_path.glob("data/**/*")
        if path.is_file()
    }


def test_the_status_of_a_location_is_told_from_the_location_alone(tmp_path):
    store = open_location(str(tmp_path))
    assert export_status(store).state == "empty"
    outcome = export([Numbers()], store, workers=2, progress=Silent())
    status = export_status(store)
    assert (status.state, status.bundle_id, status.holder) == ("complete", outcome.bundle_id, None)
    assert (status.sources[0].done.items, status.sources[0].finished) == (95, True)


def test_how_much_there_is_to_do_is_known_while_the_first_unit_is_exported(tmp_path):
    store = open_location(str(tmp_path))

    def look(unit):
        eventually(lambda: (totals := read_plan_totals(store, "app")) and totals.whole)

    assert export([Numbers(on_export=look)], store, workers=1, progress=Silent()).complete


def test_progress_adds_up_to_the_totals(tmp_path):
    """What is done and skipped is in the end what was planned, items and bytes."""

    class Sums(Silent):
        planned = done = 0
        tasks: ClassVar[list[str]] = []

        def begin(self, what, **_):
            self.tasks.append(what)
            if what == "seal":
                assert not (tmp_path / layout.RESERVE).exists(), "what was kept for the seal is its own now"

        def end(self, *, stopped=False):
            assert not stopped
            self.tasks.append("end")

        def grow(self, *, items=0, size_bytes=0):
            self.planned += items

        def advance(self, *, items=0, size_bytes=0):
            self.done += items

        skip = advance

    sums = Sums()
    export([Numbers()], open_location(str(tmp_path)), workers=1, progress=sums)
    assert sums.planned == sums.done == 95
    assert sums.tasks[-2:] == ["seal", "end"]


def test_progress_is_told_of_what_is_read_as_it_is_read_and_of_nothing_twice(tmp_path, monkeypatch):
    """A unit may take hours on a slow link. This one fails at first, and writes more than it had said."""
    monkeypatch.setattr("migrate.export.unit_runner.RETRY_WAITS", (0.0,))
    told: list[tuple[int, int]] = []

    class Told(Silent):
        def advance(self, *, items=0, size_bytes=0):
            told.append((items, size_bytes))

    class Once:
        position: ClassVar[dict[str, object]] = {}
        failed = False

        def export(self, unit, sink):
            with sink.create("large") as file:
                for _ in range(3):
                    file.write(bytes(PART_BYTES))
                    sink.advance(items=2, size_bytes=PART_BYTES)
                if not self.failed:
                    self.failed = True
                    raise SourceUnreachableError("for once")
            return Outcome(unit.items, unit.size_bytes)

    class Free:
        def check(self):
            pass

    size_bytes = 3 * PART_BYTES - 1000
    store = open_location(str(tmp_path))
    work = UnitRunner(
        store=store,
        lease=Free(),
        cancellation=CancellationToken(),
        progress=Told(),
        source="app",
        url="toy://host/app",
        snapshot=Once(),
        rules=UnitRules(attempts=2),
    )
    work.do(PlannedUnit(Unit("one", 7, size_bytes, {}), recorded=False))
    assert sum(size for _, size in told) == size_bytes
    assert sum(items for items, _ in told) == 7
    assert told[0] == (1, PART_BYTES // 2)  # half of what is read, before any of it has arrived


def test_small_units_share_a_record_and_large_ones_have_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(unit_runner, "_TOGETHER_SECONDS", 60.0)

    class Recorded(StoreWrapper):
        records: ClassVar[list[str]] = []

        def put(self, key, data, *, sha256=None):
            if key.startswith((layout.units_prefix("app"), layout.groups_prefix("app"))):
                self.records.append(key)
            return super().put(key, data, sha256=sha256)

    for name, item_bytes, least, most in (("small", 4, 1, 40), ("large", 2**20, 60, 61)):
        store = Recorded(open_location(str(tmp_path / name)))
        is_planned = threading.Event()
        source = Numbers(
            count=600,
            item_bytes=item_bytes,
            on_plan=lambda number, planned=is_planned: planned.set() if number == 59 else None,
            on_export=lambda _, planned=is_planned: planned.wait(60),  # a slow plan makes smaller groups
        )
        assert export([source], store, workers=4, progress=Silent()).complete
        count = len(store.records)
        store.records.clear()
        assert least <= count <= most, name


def test_large_units_are_done_by_all_workers_at_once(tmp_path):
    """Each waits for its neighbour here, which only the other worker can do: none waits in a group."""
    pairs = [threading.Barrier(2) for _ in range(8)]

    def on_export(unit):
        pairs[unit.spec["start"] // 20].wait(60)

    source = Numbers(count=160, item_bytes=10**6, on_export=on_export)
    assert export([source], open_location(str(tmp_path)), workers=2, progress=Silent()).complete
