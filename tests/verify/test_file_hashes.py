"""Objects of a pack, hashed as the pack streams by: wherever its pieces are cut, each object is compared."""

from __future__ import annotations

import hashlib
import random

import pytest

from migrate.runtime.progress import Silent
from migrate.storage.local.store import LocalStore
from migrate.verify.file_hashes import Member, MemberWalk, check_file
from migrate.verify.payload_files import ExpectedFile

PACK = random.Random(3).randbytes(100)


def member(key: str, offset: int, size_bytes: int, content: bytes | None = None) -> Member:
    content = PACK[offset : offset + size_bytes] if content is None else content
    return Member(key, offset, size_bytes, hashlib.sha256(content).hexdigest())


GOOD = [
    member("last, to the end", 90, 10),
    member("first", 0, 7),
    member("beside it", 7, 13),
    member("empty", 20, 0),
    member("after a gap", 40, 30),
    member("empty at the end", 100, 0),
]


def findings(members: list[Member], piece_bytes: int) -> list[str]:
    walk = MemberWalk("pack", members)
    for begin in range(0, len(PACK), piece_bytes):
        walk.feed(PACK[begin : begin + piece_bytes])
    return [f"{finding.what}: {finding.expected}, {finding.found}" for finding in walk.end()]


@pytest.mark.parametrize("piece_bytes", [1, 7, 10, 33, 100])
def test_every_object_is_compared_wherever_pieces_end(piece_bytes):
    assert findings(GOOD, piece_bytes) == []
    for spoilt in GOOD:
        others = [one for one in GOOD if one is not spoilt]
        wrong = Member(spoilt.key, spoilt.offset, spoilt.size_bytes, "0" * 64)
        assert findings([*others, wrong], piece_bytes) == [
            f"object '{spoilt.key}' has another SHA-256 than in the index: {'0' * 64}, {spoilt.sha256}"
        ]


@pytest.mark.parametrize("piece_bytes", [10, 100])
def test_objects_that_overlap_or_lie_outside_are_named_and_the_others_compared(piece_bytes):
    overlapping = member("over", 6, 3)
    assert findings([*GOOD, overlapping], piece_bytes) == [
        "object 'over' overlaps another object: an offset of at least 7, 6"
    ]
    assert findings([member("before", -1, 1, b"x")], piece_bytes) == [
        "object 'before' overlaps another object: an offset of at least 0, -1"
    ]
    beyond = [
        member("half", 95, 6),
        member("far", 200, 5),
        member("empty and far", 300, 0),
        member("wrong", 0, 5, b"other"),
    ]
    assert sorted(line.partition(":")[0] for line in findings(beyond, piece_bytes)) == [
        "object 'empty and far' is outside of its pack",
        "object 'far' is outside of its pack",
        "object 'half' is outside of its pack",
        "object 'wrong' has another SHA-256 than in the index",
    ]
    assert findings(beyond[:1], piece_bytes) == [
        "object 'half' is outside of its pack: a pack of 101 bytes, 100 bytes"
    ]


def test_a_file_is_compared_unless_the_listing_says_more_of_it(tmp_path):
    store, digest = LocalStore(tmp_path), hashlib.sha256(PACK).hexdigest()
    store.put("data/app/pack", PACK)

    def check(size_bytes: int | None, sha256: str, members=()) -> list[str]:
        file = ExpectedFile("data/app/pack", size_bytes=size_bytes, sha256=sha256)
        return [finding.what for finding in check_file(store, Silent(), file, members)]

    assert check(100, digest, GOOD) == check(None, digest) == []
    assert check(100, "0" * 64, [member("x", 0, 3, b"y")]) == [
        "its SHA-256 differs",
        "object 'x' has another SHA-256 than in the index",
    ]
    for other in "0" * 64, "f" * 64:
        assert check(None, other) == ["its SHA-256 differs"]
    assert check(99, "0" * 64) == []
    store.delete("data/app/pack")
    assert check(100, digest) == []
