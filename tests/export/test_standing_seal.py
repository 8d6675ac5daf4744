"""A location with a sealed bundle: what lies there is not written again, and the seal goes before anything changes."""

import pytest

from migrate.errors import NoSpaceError
from migrate.export.standing_seal import StandingSeal
from migrate.storage.api import NewFile, UploadedPart
from migrate.storage.checksums import crc64nvme
from migrate.storage.local.store import LocalStore
from tests.faults import Fault, FaultPlan, Faulty, fail

KEY, DATA = "data/app/a", b"as it is"


@pytest.fixture
def bundle(tmp_path):
    """A location with one file, what the seal has seen of it when it went, and the seal."""
    store, seen = LocalStore(tmp_path / "location"), []
    store.put(KEY, DATA)
    seal = StandingSeal(lambda: seen.append({info.key: store.read(info.key) for info in store.list("data/")}))
    return store, seen, seal


def begun(store, data, key=KEY):
    upload = store.begin(key)
    part = store.put_part(key, upload, 1, data)
    return key, upload, [UploadedPart(1, len(data), part.etag, crc64nvme(data))]


def test_equal_files_and_notes_are_no_change(bundle):
    store, seen, seal = bundle
    covered, etag = seal.over(store), store.stat(KEY).etag
    assert covered.put(KEY, DATA).etag == etag
    covered.put_all([])
    covered.put_all([NewFile(KEY, DATA), NewFile("_work/b", b"")])
    assert covered.complete(*begun(covered, DATA), crc64nvme=crc64nvme(DATA)).etag == etag
    covered.delete("_work/b")
    assert (seen, seal.stands, store.stat(KEY).etag, list(store.uploads())) == ([], True, etag, [])


@pytest.mark.parametrize(
    ("change", "there"),
    [
        (lambda store: store.put(KEY, b"as it was"), {KEY: b"as it was"}),
        (lambda store: store.put(KEY, b"as it so"), {KEY: b"as it so"}),
        (lambda store: store.put(KEY, b"as it iz"), {KEY: b"as it iz"}),
        (lambda store: store.put(KEY, b""), {KEY: b""}),
        (lambda store: store.put("data/app/b", DATA), {KEY: DATA, "data/app/b": DATA}),
        (
            lambda store: store.put_all([NewFile(KEY, DATA), NewFile("data/app/b", b"b")]),
            {KEY: DATA, "data/app/b": b"b"},
        ),
        (
            lambda store: store.put_all([NewFile("data/app/b", b"b" * 99), NewFile(KEY, b"c")]),
            {KEY: b"c", "data/app/b": b"b" * 99},
        ),
        (
            lambda store: store.complete(*begun(store, b"other"), crc64nvme=crc64nvme(b"other")),
            {KEY: b"other"},
        ),
        (lambda store: store.delete(KEY), {}),
        (lambda store: store.delete_all([KEY]), {}),
    ],
    ids=[
        "other",
        "lower checksum",
        "higher checksum",
        "empty",
        "new",
        "one of two",
        "both",
        "in parts",
        "removed",
        "all removed",
    ],
)
def test_the_seal_goes_once_and_before_any_other_change(bundle, change, there):
    store, seen, seal = bundle
    change(seal.over(store))
    assert (seen, seal.stands) == ([{KEY: DATA}], False)
    assert {info.key: store.read(info.key) for info in store.list("data/")} == there
    seal.remove()
    seal.over(store).put(KEY, b"again")
    assert (len(seen), list(store.uploads())) == (1, [])


@pytest.mark.parametrize(
    "files", [[NewFile("data/app/b", b"b")], [NewFile("data/app/b", b"b"), NewFile(KEY, b"")]]
)
def test_where_there_is_no_room_the_seal_stays(bundle, files):
    store, seen, seal = bundle
    full = Faulty(store, FaultPlan(Fault("put_part", fail(NoSpaceError("no room")))))
    with pytest.raises(NoSpaceError):
        seal.over(full).put_all(files)
    assert (seen, seal.stands, list(store.uploads())) == ([], True, [])
