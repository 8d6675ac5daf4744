"""What a reader answers beyond its files: positions, predecessors, failures, and what lies there instead."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from msgspec.structs import replace

from exporters.api import Gap
from exporters.objects.index_rows import INDEX
from migrate.bundle import canonical_json, layout, reconciliation
from migrate.bundle.reader import BundleReader, check_hash, hash_file, not_sealed, read_manifest, sound_rows
from migrate.errors import DamageError, GoneError, UsageError
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import open_location
from tests.bundle.test_hostile import write
from tests.export.sources import Numbers
from tests.transfer.bags import contents

OTHER_MAP = pa.map_(pa.large_string(), pa.string())
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


def test_tables_of_a_source_are_those_with_rows_alone(reader, monkeypatch):
    (row,) = [row for row in reader.catalog() if row.source == "app"]
    rows = [
        replace(row, source=source, kind=kind)
        for source in ("aa", "app", "b")
        for kind in ("table", "bucket")
    ]
    monkeypatch.setattr(BundleReader, "catalog", lambda _: rows)
    assert reader.tables("app") == [rows[2]]


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


@pytest.mark.parametrize(
    ("key", "old", "new", "error"),
    [
        (layout.BAGIT, b"1.0", b"1.1", UsageError),
        (layout.BAGIT, b"UTF-8", b"UTF-7", DamageError),
        (layout.BUNDLE_META, b'"version": 1', b'"version": 2', UsageError),
    ],
)
def test_a_declaration_of_something_else_is_refused(reader, tmp_path, key, old, new, error):
    files = contents(reader.store)
    assert old in files[key]
    with pytest.raises(error, match=key):
        BundleReader(write(tmp_path, {**files, key: files[key].replace(old, new)}))


@pytest.mark.parametrize(
    "name", ["data/../x", "../data/x", "data//x", "data/A", "meta/x", "data/", "/data/x"]
)
def test_a_manifest_names_files_below_data_alone(tmp_path, name):
    store = LocalStore(tmp_path)
    store.put(layout.MANIFEST, f"{'0' * 64}  data/app/x\n".encode())
    assert [entry.key for entry in read_manifest(store)] == ["data/app/x"]
    store.put(layout.MANIFEST, f"{'0' * 64}  {name}\n".encode())
    with pytest.raises(DamageError, match=layout.MANIFEST):
        list(read_manifest(store))


@pytest.mark.parametrize("key", [layout.BAG_INFO, layout.BUNDLE_META, layout.MANIFEST, layout.RECONCILIATION])
def test_no_tag_file_is_believed_that_is_not_as_the_tag_manifest_says(reader, tmp_path, key):
    files = contents(reader.store)
    files[key] = files[key].replace(b"0", b"1") if b"0" in files[key] else files[key] + b" "
    with pytest.raises(DamageError, match=key):
        BundleReader(write(tmp_path, files, hashed=False))


@pytest.mark.parametrize("key", [layout.BAGIT, layout.BUNDLE_META, layout.FILES])
def test_a_tag_file_that_the_tag_manifest_leaves_out_is_missed(reader, tmp_path, key):
    files = contents(reader.store)
    lines = files[layout.TAG_MANIFEST].splitlines(keepends=True)
    files[layout.TAG_MANIFEST] = b"".join(line for line in lines if not line.endswith(f"  {key}\n".encode()))
    with pytest.raises(DamageError, match=f"a line for {key}"):
        BundleReader(write(tmp_path, files, hashed=False))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda lines: lines[1:], "a line for data/app/.*, found data/app/"),
        (lambda lines: lines[:-1], "a line for .*, found its end"),
        (lambda lines: [*lines, lines[-1]], "its end, found a line for"),
        (lambda lines: [lines[0].replace(b'"sha256":"', b'"sha256":"0'), *lines[1:]], "a line for data/app/"),
    ],
)
def test_the_list_of_files_names_those_of_the_manifest_and_no_others(reader, tmp_path, change, what):
    files = contents(reader.store)
    files[layout.FILES] = b"".join(change(files[layout.FILES].splitlines(keepends=True)))
    with pytest.raises(DamageError, match=what):
        list(BundleReader(write(tmp_path, files)).files())


def test_rows_of_an_index_have_the_columns_and_the_types_of_the_format():
    table = INDEX.empty_table()
    assert sound_rows(table) is table
    assert sound_rows(table.select(["key"]), ["key"]).column_names == ["key"]
    with pytest.raises(ValueError, match="no column etag, key"):
        sound_rows(table.drop_columns(["key", "etag"]))
    for name in ("key", "size", "tags"):
        number = table.column_names.index(name)
        kind = pa.binary() if name != "tags" else pa.string()
        changed = table.set_column(number, name, pa.array([], kind))
        with pytest.raises(ValueError, match=f"the column {name} is"):
            sound_rows(changed)
    pairs = table.set_column(table.column_names.index("tags"), "tags", pa.array([], OTHER_MAP))
    assert sound_rows(pairs) is pairs
    more = table.append_column("more", pa.array([], pa.int8()))
    assert sound_rows(more) is more


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
        ([], GoneError, "there is nothing at", "moveout transfer brings a bundle there"),
        ([layout.EXPORT_STATE, "data/a"], UsageError, "is not sealed yet", "moveout seal file:///"),
        ([layout.TRANSFER_STATE], UsageError, "has not ended", "run the same transfer again"),
        ([layout.BAGIT], UsageError, "a BagIt bag that is not one of moveout's", "bagit.py"),
        ([layout.BAGIT, layout.BUNDLE_META], UsageError, "no sealed bundle", "fetch the missing file again"),
        ([layout.BUNDLE_META], UsageError, "no sealed bundle", "fetch the missing file again"),
        ([layout.CUSTODY_LOG], GoneError, "only its record", "it may be erased"),
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
