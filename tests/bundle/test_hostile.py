"""A bundle may come from anywhere: whatever it says, it is read safely, or refused in one sentence."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.objects.index_rows import INDEX
from migrate.bundle import bundle_json, layout, reconciliation, tag_files
from migrate.bundle.reader import REQUIRED, BundleReader, read_manifest, sound_rows
from migrate.errors import DamageError, GoneError, MoveoutError, UsageError
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.api import FileInfo, Store
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.export.sources import Numbers


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, bytes]:
    """The files of a whole bundle."""
    location = tmp_path_factory.mktemp("good")
    export([Numbers(count=15)], open_location(str(location)), workers=1, progress=Silent())
    return {
        str(path.relative_to(location)): path.read_bytes() for path in location.rglob("*") if path.is_file()
    }


def write(location: Path, files: dict[str, bytes], *, hashed: bool = True) -> LocalStore:
    """Write a bundle; its tag manifest says what lies there unless ``hashed`` is off."""
    files = dict(files)
    if hashed:
        files[layout.TAG_MANIFEST] = tag_manifest(files)
    store = LocalStore(location)
    for key, data in files.items():
        store.put(key, data)
    return store


def tag_manifest(files: dict[str, bytes]) -> bytes:
    tags = sorted(key for key in files if layout.is_tag_name(key) and key != layout.TAG_MANIFEST)
    return b"".join(tag_files.manifest_line(key, hashlib.sha256(files[key]).hexdigest()) for key in tags)


def read_all(store: Store | Memory) -> None:
    """Read a bundle in every way there is."""
    reader = BundleReader(store)
    list(reader.manifest())
    reader.catalog()
    list(reader.losses())
    list(reader.gaps())
    reader.reconciliation()
    for source in reader.sources:
        list(reader.source_files(source))


LINE = "0" * 64
MANIFESTS = {
    "a name that leaves the bundle": f"{LINE}  data/../../etc/passwd\n",
    "an absolute name": f"{LINE}  /etc/passwd\n",
    "a name outside of data": f"{LINE}  meta/bundle.json\n",
    "a name that is encoded": f"{LINE}  data/a%0Ab\n",
    "a name in capitals": f"{LINE}  data/A\n",
    "the same name twice": f"{LINE}  data/a\n{LINE}  data/a\n",
    "names out of order": f"{LINE}  data/b\n{LINE}  data/a\n",
    "a short hash": f"{LINE[1:]}  data/a\n",
    "no name": f"{LINE}\n",
    "a line without end": f"{LINE}  data/a",
    "an empty line": "\n",
    "a huge line": f"{LINE}  data/{'a' * 2**20}\n",
    "Windows line ends": f"{LINE}  data/a\r\n",
}


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_makes_no_sense_is_damage(tmp_path, good, text):
    store = write(tmp_path, {**good, layout.MANIFEST: text.encode()})
    with pytest.raises(DamageError, match=r"manifest-sha256\.txt"):
        list(read_manifest(store))
    with pytest.raises(DamageError):
        list(BundleReader(store).manifest())
    assert layout.MANIFEST in str(verify(store, Level.QUICK, workers=1, progress=Silent()).findings)


@pytest.mark.parametrize("name", ["../up", "data/a", "_work/lease.json", "a//b", "a b", "ä"])
def test_a_tag_manifest_may_name_only_tag_files(tmp_path, good, name):
    text = f"{LINE}  {name}\n".encode()
    store = write(tmp_path, {**good, layout.TAG_MANIFEST: text}, hashed=False)
    with pytest.raises(DamageError, match=r"tagmanifest-sha256\.txt line 1"):
        BundleReader(store)


def test_bytes_that_are_not_utf8_are_damage(tmp_path, good):
    store = write(tmp_path, {**good, layout.MANIFEST: LINE.encode() + b"  data/\xff\n"})
    with pytest.raises(DamageError):
        list(BundleReader(store).manifest())


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_tag_file_is_damage_with_its_name(tmp_path, good, key):
    files = {name: data for name, data in good.items() if name != key}
    with pytest.raises(DamageError, match=key):
        read_all(write(tmp_path / "unnamed", files))
    with pytest.raises(DamageError, match=f"{key}: expected a file, found none"):
        read_all(write(tmp_path / "named", files, hashed=False))


@pytest.mark.parametrize("key", [layout.BUNDLE_META, layout.RECONCILIATION, layout.FILES])
@pytest.mark.parametrize(
    "data", [b"", b"{}\n", b"[]\n", b"null\n", b"\xff\n", b"{" * 100_000 + b"\n", b'{"version": true}\n']
)
def test_wrong_json_is_damage_with_its_name(tmp_path, good, key, data):
    with pytest.raises(DamageError, match=key):
        read_all(write(tmp_path, {**good, key: data}))


@pytest.mark.parametrize(
    ("key", "decode"),
    [(layout.BUNDLE_META, bundle_json.decode), (layout.RECONCILIATION, reconciliation.decode)],
)
def test_values_of_wrong_types_are_damage(good, key, decode):
    """Every value of the two JSON files, replaced by something else, one at a time."""
    refused = 0
    for changed in variations(json.loads(good[key])):
        try:
            decode(json.dumps(changed).encode())
        except MoveoutError as error:
            refused += key in str(error)
    assert refused > 30


def variations(value):
    """Yield copies of a JSON value with one part replaced or left out."""
    yield from (None, 7, "x", [], {}, [[]], -1)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        for changed in variations(inner):
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[key] = changed
            yield copy


@pytest.mark.parametrize(
    ("key", "old", "new", "match"),
    [
        (layout.BUNDLE_META, b'"version": 1', b'"version": 2', r"bundle\.json was made by another version"),
        (layout.BUNDLE_META, b'"version": 1', b'"version": 0', r"bundle\.json was made by another version"),
        (layout.BAGIT, b"BagIt-Version: 1.0", b"BagIt-Version: 1.1", r"declares BagIt 1\.1"),
    ],
)
def test_another_version_is_refused_not_called_damaged(tmp_path, good, key, old, new, match):
    assert old in good[key]
    store = write(tmp_path, {**good, key: good[key].replace(old, new)})
    for look in (BundleReader, lambda store: verify(store, Level.FULL, workers=1, progress=Silent())):
        with pytest.raises(UsageError, match=match) as caught:
            look(store)
        assert "newer" in caught.value.next_step or "the moveout that wrote it" in caught.value.next_step


def test_the_manifest_and_the_list_of_files_must_agree(tmp_path, good):
    store = write(
        tmp_path, {**good, layout.FILES: b"".join(good[layout.FILES].splitlines(keepends=True)[1:])}
    )
    with pytest.raises(DamageError, match=r"meta/files\.jsonl"):
        list(BundleReader(store).manifest())
    assert "meta/files.jsonl" in str(verify(store, Level.QUICK, workers=1, progress=Silent()).findings)


@pytest.mark.parametrize("key", [layout.CATALOG, layout.LOSSES])
@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 100], ids=["empty", "short", "long"])
def test_what_is_no_parquet_is_damage_with_its_name(tmp_path, good, key, data):
    with pytest.raises(DamageError, match=key):
        read_all(write(tmp_path, {**good, key: data}))


def index_of(**changes: pa.Array) -> bytes:
    """An object index of one row, with other columns."""
    row = {
        "bucket": "b",
        "key": "photo",
        "size": 1,
        "sha256": LINE,
        "disposition": "exported",
        "pack": "packs/0.tar",
    }
    columns = {field.name: pa.array([row.get(field.name)], field.type) for field in INDEX} | changes
    written = io.BytesIO()
    pq.write_table(
        pa.table({name: column for name, column in columns.items() if column is not None}), written
    )
    return written.getvalue()


NO_TEXT = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
INDEXES = {
    "a key that is no UTF-8": {"key": NO_TEXT},
    "a time beyond all calendars": {"last_modified": pa.array([2**62], pa.timestamp("us", tz="UTC"))},
    "a key that is a number": {"key": pa.array([7])},
    "no column of packs": {"pack": None},
}


@pytest.mark.parametrize("changes", INDEXES.values(), ids=INDEXES)
def test_an_index_of_other_values_is_damage_with_its_name(tmp_path, good, changes):
    """Parquet itself checks neither texts nor times."""
    assert sound_rows(pq.read_table(io.BytesIO(index_of()))).num_rows == 1
    text, index = "data/app/index/numbers.txt", "data/app/index/objects-0.parquet"
    data = index_of(**changes)
    size, new_size = (f'"size_bytes":{len(each)}'.encode() for each in (good[text], data))
    lines = [
        line.replace(size, new_size) if text.encode() in line else line
        for line in good[layout.FILES].splitlines(keepends=True)
    ]
    lists = {layout.FILES: b"".join(lines), layout.MANIFEST: good[layout.MANIFEST]}
    lists = {name: content.replace(text.encode(), index.encode()) for name, content in lists.items()}
    reader = BundleReader(write(tmp_path, {**good, **lists, index: data}))
    with pytest.raises(DamageError, match=rf"{index}: expected an object index"):
        list(reader.index("app"))


def test_a_row_of_the_catalog_with_another_source_is_damage(tmp_path, good):
    table = pq.read_table(io.BytesIO(good[layout.CATALOG]))
    sources = pa.array(["../elsewhere"] * table.num_rows)
    written = io.BytesIO()
    pq.write_table(table.set_column(table.column_names.index("source"), "source", sources), written)
    assert table.num_rows
    reader = BundleReader(write(tmp_path, {**good, layout.CATALOG: written.getvalue()}))
    with pytest.raises(
        DamageError, match=r"catalog\.parquet: expected the bundle's sources, found '\.\./elsewhere'"
    ):
        reader.catalog()


class Memory:
    """A location that can only be read."""

    location = "memory:"

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.stat(key)
        return self.files[key][start:][:length]

    def stat(self, key: str) -> FileInfo:
        if key not in self.files:
            raise GoneError(key)
        return FileInfo(key, len(self.files[key]), "", datetime.now(UTC))

    def list(self, prefix: str = "") -> Iterator[FileInfo]:
        return (self.stat(key) for key in sorted(self.files) if key.startswith(prefix))


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_random_damage_is_found_and_never_a_traceback(good, data):
    """Bytes replaced, cut out or put in anywhere: findings or an error of ours; nothing is written."""
    key = data.draw(st.sampled_from(sorted(good)))
    at = data.draw(st.integers(0, len(good[key])))
    spoilt = (
        good[key][:at] + data.draw(st.binary(max_size=20)) + good[key][at + data.draw(st.integers(0, 20)) :]
    )
    resealed = data.draw(st.booleans()) and key != layout.TAG_MANIFEST
    files = {**good, key: spoilt}
    if resealed:
        files[layout.TAG_MANIFEST] = tag_manifest(files)
    with suppress(MoveoutError):
        read_all(Memory(files))
    try:
        is_named = bool(verify(Memory(files), Level.FULL, workers=1, progress=Silent()).findings)
    except UsageError:
        is_named = True
    sealed_so = resealed and not key.startswith("data/")
    assert is_named or spoilt == good[key] or sealed_so
