"""``moveout seal``: what an export left is sealed without its sources, and called complete only where it is."""

import pytest
from msgspec.structs import replace

from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import GoneError, UsageError
from migrate.export.run import export, seal_unasked
from migrate.export.unit_runner import SMALL_BYTES
from migrate.progress.progress_file import encode, read_reports
from migrate.runtime.process_identity import this_process
from migrate.runtime.progress import Silent
from migrate.verify.run import Level, verify
from tests.cli.conftest import call
from tests.export.sources import Numbers
from tests.faults import Fault, FaultPlan, Faulty, fail
from tests.progress.test_progress_file import begun_meter


def seal(store):
    return seal_unasked(store, workers=1, progress=Silent())


def stopped(store, *sources, at=layout.MANIFEST, nth=1):
    """Let an export die while it writes a file, the ``nth`` of those that begin so; none that follows is written."""
    broken = Faulty(
        store, FaultPlan(Fault("put", fail(GoneError("the disk went away")), nth, times=99, prefix=at))
    )
    with pytest.raises(GoneError):
        export(sources, broken, workers=1, progress=Silent())


def test_where_every_source_was_finished_the_bundle_is_complete(store):
    stopped(store, Numbers(), Numbers("other", "numbers://host/other"))
    done = seal(store)
    assert (done.complete, done.exit_code, done.already_sealed) == (True, 0, False)
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []
    assert seal(store).already_sealed


def test_where_one_was_not_the_word_complete_is_refused(store):
    stopped(store, Numbers(item_bytes=SMALL_BYTES), at="data/app/numbers/", nth=6)
    done = seal(store)
    assert (done.complete, done.exit_code) == (False, 3)
    assert "not asked again by this seal" in str(done.sources[0].reasons)
    reader = BundleReader(store)
    assert (reader.info.complete, reader.bag_info["Moveout-Status"]) == (False, "incomplete")
    assert [gap.disposition for _, gap in reader.gaps()] == ["failed"]
    again = seal(store)
    assert (again.already_sealed, again.exit_code, again.bundle_id) == (True, 3, done.bundle_id)
    result = call("seal", store.location.removeprefix("file://"))
    assert (result.code, "was sealed before, INCOMPLETE" in result.out) == (3, True)
    assert export([Numbers()], store, workers=1, progress=Silent()).complete, "it can still go on"


def test_counts_that_differ_are_not_forgotten_by_sealing_without_asking(store):
    stopped(store, Numbers(counted=96))
    done = seal(store)
    assert (done.complete, done.sources[0].items) == (False, 95)
    assert "the counts of objects differ" in done.sources[0].reasons[0]


def test_where_nothing_was_exported_nothing_is_sealed(store, tmp_path):
    for _ in range(2):
        with pytest.raises(UsageError, match="nothing was exported"):
            seal(store)
        stopped(store, Numbers(), at="data/app/numbers/")
    assert call("seal", tmp_path / "location").code == 2


def test_the_command(store, tmp_path):
    stopped(store, Numbers(), at=layout.TAG_MANIFEST)
    dead = replace(this_process(), started="1")
    store.put(layout.progress_file("export"), encode(begun_meter().state(), dead))
    sealed = call("seal", tmp_path / "location", "--json")
    assert (sealed.code, sealed.json["result"]["complete"]) == (0, True), sealed.err
    assert read_reports([store]) == [], "status would show the export that died"
