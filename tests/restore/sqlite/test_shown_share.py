"""How much of a restore the user sees as done: it rises, and ends at 100 %."""

import pytest

from migrate.progress.meter import Meter
from tests.cli.conftest import make_file, result
from tests.exporters.sqlite.databases import url_of
from tests.tools.bundles import read_bundle, restore_from


class Recording(Meter):
    """Keeps the share of all at the end of each task."""

    def __init__(self):
        super().__init__()
        self.shares = []

    def end(self, **how):
        super().end(**how)
        self.shares.append(self.state().fraction)


def restored_shares(bundle, destination):
    meter = Recording()
    meter.open("restore")
    meter.expect(["app"])
    restore_from(read_bundle(bundle), "app", url_of(destination), workers=2, progress=meter)
    return meter.shares


def test_the_share_of_a_file_rises_to_all_of_it_and_is_all_of_it_where_nothing_is_left_to_do(tmp_path):
    make_file(tmp_path / "app.db")
    result("export", f"app=sqlite://{tmp_path}/app.db", "--to", tmp_path / "bundle")
    first = restored_shares(tmp_path / "bundle", tmp_path / "new.db")
    assert (first, first[-1]) == (sorted(first), 1.0)
    assert restored_shares(tmp_path / "bundle", tmp_path / "new.db") == [1.0]


def test_each_of_several_files_is_its_part_of_the_source(tmp_path):
    (tmp_path / "files").mkdir()
    for name in ("a", "b"):
        make_file(tmp_path / "files" / f"{name}.db", 100_000)
    result("export", f"app=sqlite://{tmp_path}/files", "--to", tmp_path / "bundle")
    shares = restored_shares(tmp_path / "bundle", tmp_path / "new")
    assert (shares, shares[-1]) == (sorted(shares), 1.0)
    assert pytest.approx(0.5) in shares
