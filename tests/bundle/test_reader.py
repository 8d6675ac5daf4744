"""What a reader answers beyond its files: positions, predecessors, failures, and what lies there instead."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from exporters.api import Gap
from migrate.bundle import canonical_json, layout, reconciliation
from migrate.bundle.reader import BundleReader, check_hash, hash_file, not_sealed
from migrate.errors import DamageError, GoneError, UsageError
from migrate.export import export
from migrate.runtime.progress import Silent
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import open_location
from tests.bundle.test_hostile import write
from tests.export.sources import Numbers
from tests.transfer.bags import contents

POSITIONS = [{"lsn": "0/1", "encoding": "UTF8"}, {"lsn": "0/2", "encoding": ""}]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> BundleReader:
    """A bundle of two sources. One of them failed in part, and has two snapshots; it continues two others."""
    made, changed = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("changed")
    gaps = {3: Gap("3", "failed", "it was gone"), 4: Gap("4", "excluded", "a filter")}
    sources = [Numbers(count=15, gaps=gaps), Numbers(name="shop", count=5)]
    export(sources, open_location(str(made)), workers=1, progress=Silent())
    files = contents(LocalStore(made))
    entries = [
        replace(entry, summary=replace(entry.summary, positions=POSITIONS if entry.name == "app" else []))
        for entry in reconciliation.decode(files[layout.RECONCILIATION])
    ]
    files[layout.RECONCILIATION] = canonical_json.encode(reconciliation.reconciliation_json(entries))
    info = json.loads(files[layout.BUNDLE_META])
    files[layout.BUNDLE_META] = json.dumps({**info, "continues": ["first", "second"]}).encode()
    return BundleReader(write(changed, files))


def test_the_newest_position_is_the_last_and_a_value_comes_from_the_last_that_has_it(reader):
    assert reader.newest_position("app") == POSITIONS[1]
    assert reader.last_position_value("app", "lsn") == "0/2"
    assert reader.last_position_value("app", "encoding") == "UTF8"
    assert reader.last_position_value("app", "locale") is None
    assert reader.newest_position("shop") == {}
    assert reader.last_position_value("shop", "lsn") is None


def test_predecessors_are_told_apart_by_their_id_the_newest_first(reader):
    before = reader.info.id
    assert [earlier.info.id for earlier in reader.predecessors()] == ["second", "first"]
    assert reader.info.id == before


def test_what_an_export_could_not_get_is_told_from_what_it_left_out(reader):
    assert sorted(gap.disposition for _, gap in reader.gaps()) == ["excluded", "failed"]
    assert [gap.item for gap in reader.failed("app")] == ["3"]
    assert list(reader.failed("shop")) == []


def test_files_of_a_source_are_those_alone(reader):
    names = [file.key for file in reader.source_files("shop")]
    assert names
    assert all(name.startswith("data/shop/") for name in names)
    size_bytes, count = reader.payload
    assert (size_bytes, count) == (
        sum(file.size_bytes for file in reader.files()),
        len(list(reader.manifest())),
    )
    with pytest.raises(UsageError, match=r"no source .other."):
        reader.source_files("other")


def test_a_file_that_is_gone_or_has_other_bytes_is_damage(tmp_path):
    store = LocalStore(tmp_path)
    store.put("a", b"a")
    check_hash(store, "a", hash_file(store, "a"))
    with pytest.raises(DamageError, match="SHA-256"):
        check_hash(store, "a", "0" * 64)
    with pytest.raises(DamageError, match="b"):
        check_hash(store, "b", "0" * 64)


@pytest.mark.parametrize(
    ("keys", "kind", "message", "next_step"),
    [
        ([], GoneError, "there is nothing at", "moveout export comes first"),
        ([layout.EXPORT_STATE, "data/a"], UsageError, "is not sealed yet", "run the export again"),
        ([layout.TRANSFER_STATE], UsageError, "has not ended", "run the same transfer again"),
        ([layout.BAGIT], UsageError, "a BagIt bag that is not one of moveout's", "bagit.py"),
        ([layout.BAGIT, layout.BUNDLE_META], UsageError, "no sealed bundle", "fetch the missing file again"),
        ([layout.BUNDLE_META], UsageError, "no sealed bundle", "fetch the missing file again"),
        ([layout.CUSTODY_LOG], UsageError, "no sealed bundle", "it may be erased"),
    ],
)
def test_where_no_bundle_is_sealed_it_says_what_there_is(tmp_path, keys, kind, message, next_step):
    store = LocalStore(tmp_path)
    for key in keys:
        store.put(key, b"x")
    error = not_sealed(store)
    assert type(error) is kind
    assert message in str(error)
    assert next_step in error.next_step
    with pytest.raises(kind, match=message):
        BundleReader(store)
