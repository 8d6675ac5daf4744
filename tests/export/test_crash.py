"""An export may die at any moment; the same command goes on, and ends with the same bundle."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exporters.api import Unit
from migrate.bundle import layout
from migrate.bundle.commit_records import read_record, record_ids, separate_groups, write_records
from migrate.errors import BusyError
from migrate.export.run import export
from migrate.export.status import export_status
from migrate.export.unit_runner import SMALL_BYTES
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.export.sources import Numbers, fingerprint
from tests.export.victims import die_at_write, run, stay_in_unit
from tests.tools.commit_records import recorded_units
from tests.tools.counting import Notes
from tests.tools.waiting import eventually

BAGIT = Path(sys.executable).with_name("bagit.py")
OF_THE_RUN = {"REPORT.html", "meta/bundle.json", "bag-info.txt", "tagmanifest-sha256.txt"}
"""Files that hold the bundle's id and the time."""


def content(store):
    return {key: digest for key, digest in fingerprint(store).items() if key not in OF_THE_RUN}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The content of an undisturbed export."""
    store = open_location(str(tmp_path_factory.mktemp("whole")))
    assert export([Numbers(count=15)], store, workers=1, progress=Silent()).complete
    return content(store)


@pytest.mark.torture
def test_killed_before_every_write_then_the_same_command(tmp_path, whole):
    """Every write of units, records, seal and clean-up; no unit with a commit record is done again. How many writes a
    run has depends on its speed, so the last one is that of the first run that ends.
    """
    for fatal in itertools.count(1):
        location = str(tmp_path / f"{fatal}")
        victim = run(die_at_write, location, fatal)
        victim.join()
        store = open_location(location)
        if victim.exitcode == 0:
            break
        assert victim.exitcode == -signal.SIGKILL
        recorded = recorded_units(Path(location))
        source = Numbers(count=15)
        began = time.monotonic()
        outcome = export([source], store, workers=2, progress=Silent())
        assert time.monotonic() - began < 25, "the dead run's lease was waited for"
        assert outcome.complete
        assert not recorded & set(source.exported)
        assert content(store) == whole
        assert not any(info.key.startswith("_work/") for info in store.list())
        assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []
    assert content(store) == whole
    assert fatal > 20
    subprocess.run([BAGIT, "--validate", tmp_path / f"{fatal - 1}"], check=True, capture_output=True)


@pytest.mark.torture
def test_killed_while_units_of_a_group_get_records_of_their_own(tmp_path):
    """The next run begins with that, and may die at each of its writes: no unit loses its record."""
    count, begun = 35, tmp_path / "begun"
    whole = open_location(str(tmp_path / "whole"))
    assert export([Numbers(count=count)], whole, workers=1, progress=Silent()).complete

    def interrupt(unit: Unit) -> None:
        if unit.spec["start"] == 20:
            raise KeyboardInterrupt

    store = open_location(str(begun))
    with pytest.raises(KeyboardInterrupt):
        export([Numbers(count=count, on_export=interrupt)], store, workers=1, progress=Silent())
    separate_groups(store, "app", lambda _: None)
    ids = list(record_ids(store, "app"))
    write_records(store, [read_record(store, "app", unit_id) for unit_id in ids])
    for unit_id in ids:
        store.delete(layout.commit_record("app", unit_id))
    assert export_status(store).sources[0].done.units == len(ids) >= 2
    for fatal in range(1, 7):
        location = tmp_path / f"{fatal}"
        shutil.copytree(begun, location)
        victim = run(die_at_write, str(location), fatal, count)
        victim.join()
        assert victim.exitcode == -signal.SIGKILL
        store = open_location(str(location))
        recorded = recorded_units(location)
        assert recorded >= {"chunk/00000000", "chunk/00000010"}
        source = Numbers(count=count)
        assert export([source], store, workers=1, progress=Silent()).complete
        assert not recorded & set(source.exported)
        assert content(store) == content(whole)


def test_two_runs_at_once_are_one_too_many(tmp_path):
    """The second says who holds the location; the first goes on."""
    location, marker = str(tmp_path / "location"), tmp_path / "there"
    first = run(stay_in_unit, location, str(marker), SMALL_BYTES)
    eventually(marker.exists)
    store = open_location(location)
    with pytest.raises(BusyError, match=rf"process {first.pid}, since") as caught:
        export([Numbers()], store, workers=1, progress=Silent())
    assert "moveout status" in caught.value.next_step
    status = export_status(store)
    assert (status.state, status.sources[0].done.units) == ("exporting", 2)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert export_status(store).state == "stopped"
    notes = Notes()
    outcome = export([Numbers()], store, workers=1, progress=notes)
    assert outcome.complete
    assert "took over" in notes.lines[0]
