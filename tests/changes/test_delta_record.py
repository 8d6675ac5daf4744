"""What is kept of delta passes is read as it was written."""

import json

import pytest

from migrate.changes.delta_record import DeltaRecord, read_delta, recorded_deltas, write_delta
from migrate.errors import DamageError
from migrate.storage.local.store import LocalStore


def test_records_of_delta_passes(tmp_path):
    store = LocalStore(tmp_path)
    assert (read_delta(store, "app"), list(recorded_deltas(store))) == (None, [])
    app = DeltaRecord(
        "app",
        "no rights",
        passes=2,
        at="2026-01-01T00:00:00Z",
        seconds=1.5,
        rows=7,
        tables_read=3,
        unequal=["a: it has no key"],
        states={"a": "1"},
        left={"a": ("xxh3 0a", 7, "0b")},
        unsettled=["b"],
    )
    shop = DeltaRecord("shop", unequal=[], unsettled=[])
    for record in (app, shop):
        write_delta(store, record)
        assert read_delta(store, record.source) == record
    store.put("changes/app/other.json", b"{}")
    assert list(recorded_deltas(store)) == [app, shop]
    written = json.loads(store.read("changes/shop/delta.json"))
    assert written["version"] == 1
    assert (written["passes"], written["seconds"], written["rows"], written["tables_read"]) == (0, 0.0, 0, 0)
    for changed in (
        {"pauses": 1},
        {"passes": "1"},
        {"at": "soon"},
        {"unequal": "a"},
        {"states": {"a": 1}},
        {"left": {"a": ["xxh3 0a", "7", "0b"]}},
        {"source": None},
    ):
        store.put("changes/shop/delta.json", json.dumps(written | changed).encode())
        with pytest.raises(DamageError, match=r"changes/shop/delta\.json"):
            read_delta(store, "shop")


def test_what_a_source_has_captured_is_not_listed_to_find_records(tmp_path, monkeypatch):
    store, listed = LocalStore(tmp_path), []
    names = ["app", "app-1", "app.b", "app0"]
    for name in names:
        write_delta(store, DeltaRecord(name))
        for number in range(5):
            store.put(f"changes/{name}/base/{number}.json", b"{}")
    every = LocalStore.list

    def counted(self, prefix="", *, start_after=""):
        for info in every(self, prefix, start_after=start_after):
            listed.append(info.key)
            yield info

    monkeypatch.setattr(LocalStore, "list", counted)
    assert sorted(record.source for record in recorded_deltas(store)) == names
    assert len(listed) == len(names)
