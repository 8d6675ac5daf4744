"""What following leaves at a location is removed whole."""

from migrate.bundle import layout
from migrate.changes.delta_record import DeltaRecord, write_delta
from migrate.follow.status import kept_things
from migrate.storage.registry import open_location


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
