"""What following leaves at a location is removed whole."""

import pytest

from migrate.bundle import layout
from migrate.changes.delta_record import DeltaRecord, write_delta
from migrate.follow.status import kept_things
from migrate.storage.registry import open_location
from tests.cli.conftest import call


def test_all_files_of_changes_are_removed_and_nothing_else(tmp_path):
    store = open_location(str(tmp_path))
    store.put("data/app/1", b"x")
    assert kept_things(store, {}, {}) == []
    for source in ("app", "other", "third"):
        write_delta(store, DeltaRecord(source))
    (kept,) = kept_things(store, {}, {})
    assert (kept.is_at_location, kept.what) == (True, f"3 files of changes at {store.location}")
    assert kept.remove()
    assert list(store.list(layout.CHANGES)) == []
    assert store.read("data/app/1") == b"x"


@pytest.mark.parametrize("beside", [(), ("other",)], ids=["alone", "beside files"])
def test_a_folder_that_a_killed_run_left_empty_is_removed(tmp_path, beside):
    """As where it died between the making of a folder and that of its first file."""
    store = open_location(str(tmp_path))
    store.put("data/app/1", b"x")
    (tmp_path / "changes" / "app" / "00000000000000ff").mkdir(parents=True)
    for source in beside:
        write_delta(store, DeltaRecord(source))
    (kept,) = kept_things(store, {}, {})
    assert kept.what == f"1 {'file' if beside else 'empty folder'} of changes at {store.location}"
    assert kept.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert kept_things(store, {}, {}) == []


def test_empty_folders_of_others_are_not_removed_with_the_changes(tmp_path):
    store = open_location(str(tmp_path))
    (tmp_path / "changes" / "app" / "00000000000000ff").mkdir(parents=True)
    (tmp_path / "data" / "app").mkdir(parents=True)
    (kept,) = kept_things(store, {}, {})
    assert kept.what.startswith("1 empty folder of changes at ")
    assert kept.remove()
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "app"]


def test_clean_without_changes_removes_it_too(tmp_path):
    store = open_location(str(tmp_path))
    store.put("data/app/1", b"x")
    (tmp_path / "changes" / "app" / "00000000000000ff").mkdir(parents=True)
    answer = call("clean", tmp_path, "--yes", "--json")
    (leftover,) = answer.json["result"]["leftovers"]
    assert (leftover["kind"], leftover["key"]) == ("empty folder", "changes/app/00000000000000ff/")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
