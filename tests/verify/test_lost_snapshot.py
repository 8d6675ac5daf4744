"""A live database that ends the sessions in the middle of a comparison: it begins again under a new snapshot."""

from functools import partial

import pytest

from exporters.errors import SourceSnapshotLostError
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.cli.common.sources import open_sources
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify import compare as compare_module
from migrate.verify.compare import ComparisonRequest, compare_source
from tests.export.test_lost_snapshot import TABLES, mariadb_source, postgres_source

ENGINES = pytest.mark.parametrize(
    ("kind", "make"), [("postgres", postgres_source), ("mariadb", mariadb_source)]
)


class Ending(Silent):
    """Ends the sessions so often, each time when the first rows of a comparison have come. Keeps the notes."""

    def __init__(self, end_sessions, times):
        self.end_sessions, self.times, self.notes = end_sessions, times, []
        self._is_begun = False

    def begin(self, what, **_):
        self._is_begun = True

    def advance(self, **_):
        if self._is_begun and self.times:
            self._is_begun, self.times = False, self.times - 1
            self.end_sessions()

    def note(self, message):
        self.notes.append(message)


@pytest.fixture
def compared(kind, make, request, tmp_path, monkeypatch):
    """Compares an exported database with itself."""
    monkeypatch.setattr(compare_module, "RESTART_POLL_SECONDS", 0.1)
    url, end_sessions, connection = make(request.getfixturevalue(kind), rows=30_000)
    store = open_location(str(tmp_path / "bundle"))
    with open_sources({"app": Endpoint(url)}) as opened:
        assert export(opened, store, workers=2, progress=Silent()).complete
    request = partial(ComparisonRequest, BundleReader(store), "app", url, 1)
    with connection:
        yield lambda **options: compare_source(request(**options)), end_sessions


@ENGINES
def test_a_comparison_whose_snapshot_is_lost_begins_again_under_a_new_one(compared):
    compare, end_sessions = compared
    progress = Ending(end_sessions, 2)
    comparison = compare(progress=progress)
    assert comparison.findings == []
    assert progress.times == 0
    assert len(comparison.digests) == TABLES, "those of the last snapshot alone"
    first, second = progress.notes
    assert "the session that held the snapshot has ended" in first
    assert first.endswith("app is compared from its beginning, under a new snapshot")
    assert second.endswith("under a new snapshot")


@ENGINES
def test_one_that_loses_each_of_its_snapshots_says_so(compared):
    compare, end_sessions = compared
    progress = Ending(end_sessions, 9)
    with pytest.raises(SourceSnapshotLostError, match="the session that held the snapshot has ended: "):
        compare(progress=progress)
    assert len(progress.notes) == 2
