"""What has to be moved, in which order, and what a destination records of it."""

from __future__ import annotations

import json

import pytest

from migrate.bundle import layout
from migrate.errors import DamageError
from migrate.storage.api import UploadedPart
from migrate.storage.local.store import LocalStore
from migrate.transfer.destination import TransferState, read_state, write_state
from migrate.transfer.plan import SealedFile, candidates, foreign, phases, plan_file


def file(key: str, size_bytes: int = 1) -> SealedFile:
    return SealedFile(key, size_bytes, None)


def test_the_tag_manifest_arrives_last_and_payload_first():
    keys = [layout.TAG_MANIFEST, "data/a", layout.BAGIT, layout.MANIFEST, "data/b", "sig/a.sig"]
    order = phases(map(file, keys))
    assert [one.key for one in order.payload] == ["data/a", "data/b"]
    assert [one.key for one in order.tags] == [layout.MANIFEST, "sig/a.sig"]
    assert [one.key for one in order.seals] == [layout.BAGIT, layout.TAG_MANIFEST]
    assert [one.key for one in phases([file(layout.TAG_MANIFEST)]).seals] == [layout.TAG_MANIFEST]


def test_a_part_is_offered_to_be_kept_if_it_may_be_the_same():
    kept = [
        UploadedPart(number, size_bytes, "etag", crc64nvme)
        for number, size_bytes, crc64nvme in ((1, 10, 0), (2, 9, 5), (3, 10, None), (5, 3, 7), (9, 10, 8))
    ]
    job = plan_file(file("data/a", 43), 10, "upload", kept)
    assert [(part.number, part.start, part.size_bytes) for part in job.parts] == [
        (1, 0, 10),
        (2, 10, 10),
        (3, 20, 10),
        (4, 30, 10),
        (5, 40, 3),
    ]
    assert [part.kept for part in job.parts] == [kept[0], None, None, None, kept[3]]
    assert (job.upload, job.is_small) == ("upload", False)
    assert [plan_file(file("data/a", size), 10).is_small for size in (0, 10, 11)] == [True, True, False]


def test_what_lies_at_the_destination_with_its_size_may_be_the_same():
    files = [file("data/a", 1), file("data/b", 2), file("data/c", 0)]
    missing, same_size = candidates(files, {"data/a": 1, "data/b": 3})
    assert (missing, same_size) == ([files[1], files[2]], [files[0]])


def test_a_stranger_is_neither_of_the_bundle_nor_beside_it():
    there = ["data/a", "data/b", f"{layout.SIGNATURES}x", f"{layout.WORK}x", "notes.txt"]
    assert list(foreign(there, {"data/a"})) == ["data/b", "notes.txt"]


def test_the_state_of_a_transfer_is_read_as_it_was_written(tmp_path):
    store = LocalStore(tmp_path)
    assert read_state(store) is None
    for state in (TransferState("1", "s3://old", 3, 4), TransferState("1", "s3://old", 3, 4, replaces="0")):
        write_state(store, state)
        assert read_state(store) == state
    whole = json.loads(store.read(layout.TRANSFER_STATE))
    for change in ({"files": "many"}, {"size_bytes": None}):
        store.put(layout.TRANSFER_STATE, json.dumps(whole | change).encode())
        with pytest.raises(DamageError, match=layout.TRANSFER_STATE):
            read_state(store)
    del whole["id"]
    store.put(layout.TRANSFER_STATE, json.dumps(whole).encode())
    with pytest.raises(DamageError, match=layout.TRANSFER_STATE):
        read_state(store)
