"""The listing of a location against its manifests: one finding a file, and all that follows is compared, too."""

from __future__ import annotations

import hashlib

import pytest

from migrate.bundle import layout, tag_files
from migrate.bundle.commit_records import FileRecord
from migrate.storage.local.store import LocalStore
from migrate.verify import payload_files
from migrate.verify.payload_files import PayloadCheck, Tags, expected_files, extra_files

NAMES = ["data/b", "data/d", "data/f", "data/h"]
OXUM = "its Payload-Oxum is not what lies there"
BOTH = frozenset({layout.FILES, layout.MANIFEST})


@pytest.fixture
def store(tmp_path) -> LocalStore:
    store = LocalStore(tmp_path)
    write_lists(store, NAMES, NAMES)
    for name in NAMES:
        store.put(name, b"123")
    return store


def write_lists(store: LocalStore, files: list[str], manifest: list[str]) -> None:
    lines = [tag_files.files_line(FileRecord(name, 3, digest(name), 0)) for name in files]
    store.put(layout.FILES, b"".join(lines))
    store.put(layout.MANIFEST, b"".join(tag_files.manifest_line(name, digest(name)) for name in manifest))


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def look(
    store: LocalStore, sound: frozenset[str] = BOTH, oxum=(12, 4)
) -> tuple[list[str], list[str], tuple[int, int]]:
    """Return the files that can be read on, the findings, and how many files and bytes were counted."""
    payload = PayloadCheck(store, Tags(BOTH, sound, None, oxum))
    good = [file.key for file in payload.present()]
    return good, [str(finding) for finding in payload.findings], (payload.files, payload.size_bytes)


def test_each_difference_is_one_finding_and_the_rest_is_compared(store):
    assert look(store) == (NAMES, [], (4, 12))
    for name in ("data/a", "data/e", "data/z"):
        store.put(name, b"stray")
    store.delete("data/b")
    store.put("data/f", b"1234")
    assert look(store) == (
        ["data/d", "data/h"],
        [
            "data/a: is not in the manifest: found 5 bytes",
            "data/b: is missing; it is in the manifest",
            "data/e: is not in the manifest: found 5 bytes",
            "data/f: has another size: expected 3 bytes, found 4 bytes",
            "data/z: is not in the manifest: found 5 bytes",
            f"bag-info.txt: {OXUM}: expected 12 bytes in 4 files, found 10 bytes in 4 files",
        ],
        (4, 10),
    )
    assert look(store, oxum=(10, 4))[1][5:] == look(store, oxum=None)[1][5:] == []
    payload = PayloadCheck(store, Tags(BOTH, BOTH, None, None))
    list(payload.present())
    assert [finding.extra for finding in payload.findings] == [True, False, True, False, True]


def test_all_files_may_be_gone(tmp_path):
    store = LocalStore(tmp_path)
    write_lists(store, NAMES, NAMES)
    assert look(store, oxum=None)[:2] == (
        [],
        [f"{name}: is missing; it is in the manifest" for name in NAMES],
    )


def test_one_of_two_lists_is_enough_and_sizes_are_compared_where_they_are_known(store):
    store.put("data/d", b"1234")
    wrong_size = ["data/d: has another size: expected 3 bytes, found 4 bytes"]
    assert look(store, frozenset({layout.FILES}), None)[:2] == (["data/b", "data/f", "data/h"], wrong_size)
    assert look(store, frozenset({layout.MANIFEST}), None)[:2] == (NAMES, [])
    assert look(store, frozenset(), None)[:2] == (["data/b", "data/f", "data/h"], wrong_size)
    store.delete(layout.FILES)
    without = Tags(frozenset({layout.MANIFEST}), frozenset(), None, None)
    assert [file.key for file in expected_files(store, without)] == NAMES


@pytest.mark.parametrize(
    ("files", "manifest", "good", "finding"),
    [
        (NAMES[:3], NAMES, NAMES[:3], f"expected {digest('data/h')}  data/h, found no more lines"),
        (NAMES, NAMES[:3], NAMES[:3], "names a file that is not in manifest-sha256.txt"),
        (["data/b", "data/c"], NAMES, ["data/b"], f"found {digest('data/c')}  data/c"),
    ],
)
def test_two_lists_that_differ_are_a_finding(store, files, manifest, good, finding):
    write_lists(store, files, manifest)
    found_good, (first, *_), _ = look(store, oxum=None)
    assert found_good == good
    assert first.startswith(layout.FILES)
    assert finding in first


def test_a_list_that_is_gone_ends_the_comparison(store):
    store.delete(layout.MANIFEST)
    assert look(store, frozenset({layout.MANIFEST}), (12, 4)) == ([], [], (0, 0))


def test_a_list_that_ends_within_is_a_finding_and_what_was_before_is_compared(store):
    store.put(layout.MANIFEST, store.read(layout.MANIFEST)[:-20])
    store.delete("data/b")
    good, (missing, broken), _ = look(store, frozenset({layout.MANIFEST}), (12, 4))
    assert (good, missing) == (["data/d", "data/f"], "data/b: is missing; it is in the manifest")
    assert broken.startswith(f"{layout.MANIFEST}: cannot be read; the files that follow were not checked")


def test_strange_files_outside_of_the_payload_are_found_but_not_what_lies_beside(store):
    for name in ("meta/stray.json", f"{layout.SIGNATURES}a.sig", f"{layout.WORK}x", layout.TAG_MANIFEST):
        store.put(name, b"x")
    tags = Tags(BOTH, BOTH, None, None)
    assert all(finding.extra for finding in extra_files(store, tags))
    sentences = [str(finding) for finding in extra_files(store, tags)]
    assert "meta/stray.json: is not in tagmanifest-sha256.txt" in sentences
    assert not [
        line for line in sentences if line.startswith(("data/", layout.SIGNATURES, layout.TAG_MANIFEST))
    ]
    assert list(extra_files(store, Tags(frozenset(), frozenset(), None, None))) == []


def test_a_tag_file_is_compared_with_its_hash(tmp_path):
    store = LocalStore(tmp_path)
    store.put("meta/bundle.json", b"{}")
    right = hashlib.sha256(b"{}").hexdigest()
    assert payload_files._damage(store, "meta/bundle.json", right) is None
    for expected in ("0" * 64, "f" * 64):
        finding = payload_files._damage(store, "meta/bundle.json", expected)
        assert (finding.expected, finding.found) == (expected, right)
    assert payload_files._damage(store, "meta/none.json", right).what.startswith("is missing")
