"""A bucket is copied to another one and kept in step, on real servers."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

from exporters.selection import Selection
from migrate.bundle import layout, lease
from migrate.bundle.lease import Lease
from migrate.errors import BusyError, UsageError
from migrate.progress.meter import Meter
from migrate.runtime.process_identity import uptime
from migrate.runtime.progress import Silent
from migrate.sync import execute
from tests.exporters.objects.conftest import ODD_KEYS, fill
from tests.sync.conftest import Move, body


def described(shop, key):
    head = shop.boto.head_object(Bucket=shop.name, Key=key)
    tags = shop.boto.get_object_tagging(Bucket=shop.name, Key=key)["TagSet"]
    kept = (
        "ContentType",
        "CacheControl",
        "ContentDisposition",
        "ContentEncoding",
        "ContentLanguage",
        "Metadata",
    )
    return {name: head.get(name) for name in kept}, sorted((tag["Key"], tag["Value"]) for tag in tags)


def times(shop):
    pages = shop.boto.get_paginator("list_objects_v2").paginate(Bucket=shop.name)
    return {
        one["Key"]: (one["LastModified"], one["ETag"])
        for page in pages
        for one in page.get("Contents", ())
        if not one["Key"].startswith(".moveout-sync/")
    }


def test_one_to_one_and_again(move: Move) -> None:
    """Bytes, headers, metadata and tags arrive; the same again moves nothing and touches nothing."""
    objects = fill(move.source)
    first = move.run()
    assert (first.exit_code, first.listed, first.copied, first.same) == (0, len(objects), len(objects), 0)
    assert move.contents(move.destination) == objects
    for key in ("described", "small/007.bin", ODD_KEYS[0]):
        assert described(move.source, key) == described(move.destination, key)
    rows = {row["key"]: row for row in move.record_rows()}
    assert set(rows) == set(objects)
    assert all(rows[key]["sha256"] == hashlib.sha256(data).hexdigest() for key, data in objects.items())
    before = times(move.destination)
    move.progress = Meter()
    again = move.run()
    assert (again.exit_code, again.same, again.copied, again.adopted) == (0, len(objects), 0, 0)
    (compared,) = move.progress.state().tasks
    assert (compared.items, compared.total_items) == (len(objects), len(objects))
    assert times(move.destination) == before


@pytest.mark.torture
def test_what_a_killed_sync_had_tried_out_is_removed(move: Move) -> None:
    """It had written objects to see what the destination takes, and died before it could remove them."""
    objects = fill(move.source)
    for key in ("moveout-probe-0123456789ab/\u00e9", "/moveout-probe-0123456789ab"):
        move.destination.boto.put_object(Bucket=move.destination.name, Key=key, Body=b"probe")
    done = move.run()
    assert (done.exit_code, done.extra) == (0, 0)
    assert move.contents(move.destination) == objects


def test_what_has_changed_since(move: Move) -> None:
    """New, changed, described anew, deleted: each is brought over, what is deleted only when told."""
    for number in range(8):
        move.source.put(f"k/{number}", b"%d" % number, Metadata={"n": "1"})
    move.run()
    move.source.put("k/1", b"changed")
    move.source.put("k/2", b"2", Metadata={"n": "2"})  # the same bytes, the same ETag
    move.source.put("new", b"new")
    move.source.boto.delete_object(Bucket=move.source.name, Key="k/3")
    before = times(move.destination)
    delta = move.run()
    assert (delta.copied, delta.same, delta.extra, delta.deleted, delta.exit_code) == (3, 5, 1, 0, 0)
    after = times(move.destination)
    assert {key for key in before if before[key] != after[key]} == {"k/1", "k/2"}
    assert described(move.destination, "k/2")[0]["Metadata"] == {"n": "2"}
    assert delta.extras == ("k/3",)
    assert body(move.destination, "k/3") == b"3"
    outcome = move.run(delete=True)
    assert (outcome.copied, outcome.deleted, [one.key for one in outcome.removed]) == (0, 1, ["k/3"])
    assert outcome.extras == ()
    both = outcome.then(move.run(delete=True))
    assert (both.extra, both.deleted, both.extras) == (1, 1, ())
    assert move.contents(move.destination) == move.contents(move.source)
    deleted = [info.key for info in move.location().list("deleted/")]
    assert len(deleted) == 1


def test_tags_that_have_changed(move: Move) -> None:
    """No listing shows them; who asks for a look at each object gets them over, and the digests stay."""
    for key in ("a", "b"):
        move.source.put(key, b"1", Tagging="t=1")
    move.run()
    move.source.boto.put_object_tagging(
        Bucket=move.source.name, Key="a", Tagging={"TagSet": [{"Key": "t", "Value": "2"}]}
    )
    assert move.run().same == 2
    outcome = move.run(recheck=True, cutover=True)
    assert (outcome.copied, outcome.same, outcome.exit_code, outcome.proof.objects) == (1, 1, 0, 2)
    assert described(move.destination, "a") == described(move.source, "a")
    assert all(row["sha256"] for row in move.record_rows())


def test_what_was_deleted_and_comes_again_is_still_ours(move: Move) -> None:
    move.source.put("a", b"1")
    move.source.put("b", b"1")
    move.run()
    move.source.boto.delete_object(Bucket=move.source.name, Key="a")
    assert move.run().extra == 1
    move.source.put("a", b"2")
    assert (move.run().copied, body(move.destination, "a")) == (1, b"2")


def test_an_empty_source_removes_nothing(move: Move) -> None:
    move.destination.put("precious")
    with pytest.raises(UsageError, match="lists no object"):
        move.run(delete=True)
    assert list(move.contents(move.destination)) == ["precious"]


def test_objects_of_others_are_left_alone(move: Move) -> None:
    """What the destination has already is taken as it is if it is the same, and not overwritten unless told."""
    for key, data in {"same": b"1", "other": b"22", "unlike": b"3"}.items():
        move.source.put(key, data, Metadata={"n": "1"}, ContentType="text/x")
    move.destination.put("same", b"1", Metadata={"n": "1"}, ContentType="text/x")
    move.destination.put("other", b"is another thing")
    move.destination.put("unlike", b"3", Metadata={"n": "2"}, ContentType="text/x")
    first = move.run()
    assert (first.adopted, first.copied, first.failed, first.exit_code) == (1, 0, 2, 3)
    assert {gap.item for gap in first.gaps} == {"other", "unlike"}
    assert body(move.destination, "other") == b"is another thing"
    assert move.run().failed == 2
    outcome = move.run(overwrite=True)
    assert (outcome.copied, outcome.failed, outcome.exit_code) == (2, 0, 0)
    assert move.contents(move.destination) == move.contents(move.source)
    assert described(move.destination, "unlike") == described(move.source, "unlike")


def test_what_somebody_changed_at_the_destination(move: Move) -> None:
    move.source.put("a", b"ours")
    move.run()
    move.destination.put("a", b"theirs")
    outcome = move.run()
    assert (outcome.failed, outcome.copied, body(move.destination, "a")) == (1, 0, b"theirs")
    move.destination.boto.delete_object(Bucket=move.destination.name, Key="a")
    assert (move.run().copied, body(move.destination, "a")) == (1, b"ours")


def test_hostile_keys_are_known_before(move: Move, versitygw, make_shop) -> None:
    """Each key arrives under its own name, or is a gap and a loss; none is merged with another one."""
    keys = [
        "a..b",
        "ctl\u0001x",
        "del\x7f",
        "e",
        "E",
        "emoji-\U0001f600",
        "name",
        "name/",
        "q?x",
        "%41",
        "x" * 255,
    ]
    for key in keys:
        move.source.put(key, b"" if key.endswith("/") else key.encode())
    move.destination = make_shop(versitygw)
    done = move.run()
    refused = {gap.item for gap in done.gaps}
    assert {"ctl\u0001x", "name/"} <= refused
    assert set(move.contents(move.destination)) == set(keys) - refused
    assert (done.exit_code, done.copied + done.failed) == (3, len(keys))
    again = move.run()
    assert (again.copied, again.failed) == (0, done.failed)
    store = move.location()
    foreseen = [
        row["item"]
        for info in store.list("losses.parquet")
        for row in pq.read_table(io.BytesIO(store.read(info.key))).to_pylist()
        if row["property"] == "object"
    ]
    assert set(foreseen) == refused


def test_between_prefixes(move: Move) -> None:
    move.source.put("photos/a", b"1")
    move.source.put("photos/sub/b", b"2")
    move.source.put("photos2/c", b"3")
    move.destination.put("elsewhere")
    move.source_prefix, move.destination_prefix = "photos", "old/pictures"
    assert move.run(delete=True).copied == 2
    assert set(move.contents(move.destination)) == {"elsewhere", "old/pictures/a", "old/pictures/sub/b"}
    assert move.run(delete=True, cutover=True).proof.objects == 2


def test_only_what_is_wanted(move: Move) -> None:
    for key in ("a.jpg", "b.tmp", "c.jpg"):
        move.source.put(key)
    move.destination.put("d.tmp")
    done = move.run(selection=Selection(exclude=("*.tmp",)), delete=True, cutover=True)
    assert (done.copied, done.excluded, done.extra, done.proof.objects) == (2, 1, 0, 2)
    assert set(move.contents(move.destination)) == {"a.jpg", "c.jpg", "d.tmp"}
    with pytest.raises(UsageError, match="--delete"):
        move.run(selection=Selection(min_bytes=1), delete=True)


def test_only_what_has_a_tag(move: Move) -> None:
    """No listing shows tags, so whatever would be copied is asked for them; the proof is over what was chosen."""
    for number, tag in enumerate(("t=1", "t=2", "t=1&u=1", "")):
        move.source.put(f"k{number}", b"%d" % number, Tagging=tag)
    kept = Selection(tags={"t": "1"})
    done = move.run(selection=kept, cutover=True)
    assert (done.copied, done.excluded, done.unproven, done.exit_code) == (2, 2, "", 0)
    assert (done.proof.objects, done.proof.excluded) == (2, 2)
    assert set(move.contents(move.destination)) == {"k0", "k2"}
    tagged = {"TagSet": [{"Key": "t", "Value": "1"}]}
    move.source.boto.put_object_tagging(Bucket=move.source.name, Key="k1", Tagging=tagged)
    again = move.run(selection=kept, cutover=True)
    assert (again.copied, again.same, again.excluded, again.proof.objects) == (1, 2, 1, 3)


def test_a_plan_touches_nothing(move: Move) -> None:
    move.source.put("a")
    move.destination.put("b")
    done = move.run(dry_run=True, delete=True)
    assert done.planned["copy"] == {"count": 1, "first": ["a"]}
    assert done.planned["extra"] == {"count": 1, "first": ["b"]}
    assert move.destination.keys() == ["b"]


def test_a_record_somewhere_else(move: Move, tmp_path: Path) -> None:
    """With --record the destination holds nothing but the objects; without the record objects are compared one by
    one."""
    fill(move.source, odd=False)
    move.record = str(tmp_path / "record")
    first = move.run()
    assert move.destination.keys() == move.source.keys()
    assert move.run().same == first.copied
    move.record = str(tmp_path / "another")
    again = move.run()
    assert (again.copied, again.adopted, again.exit_code) == (0, first.copied, 0)
    move.record = f"s3://{move.destination.name}/records?profile={move.destination.server.profile}"
    with pytest.raises(UsageError, match="among the objects"):
        move.run()


def test_another_source_for_the_same_destination(move: Move, make_shop, minio) -> None:
    move.source.put("a")
    move.run()
    move.source = make_shop(minio)
    with pytest.raises(UsageError, match="another sync"):
        move.run()


def test_a_destination_that_is_copied_on(move: Move, make_shop, minio) -> None:
    """The record that lies in a bucket is no object of it."""
    move.source.put("a")
    move.run()
    onward = Move(move.destination, make_shop(minio))
    done = onward.run(cutover=True)
    assert (done.copied, done.proof.objects) == (1, 1)
    assert list(onward.contents(onward.destination)) == ["a"]


def test_two_at_once(move: Move) -> None:
    move.source.put("a")
    move.run()
    with Lease(move.location(), "sync"), pytest.raises(BusyError, match="in use"):
        move.run()


@pytest.mark.parametrize("large", [False, True])
def test_a_run_that_hung_writes_nothing_more_once_another_has_taken_over(
    move: Move, monkeypatch, large: bool
) -> None:
    """That one may have ended, and the destination be in use by now."""
    for number in range(6):
        move.source.put(f"{number}", b"old" * (6_000_000 if large else 1))
    took: list[int] = []

    class Hang:
        """Comes back after a minute, in which another machine has brought everything and gone."""

        def take(self, size_bytes: int) -> None:
            took.append(size_bytes)
            if len(took) == 2:
                began = uptime()
                monkeypatch.setattr(lease, "uptime", lambda: began + 60)
                move.location().delete(layout.LEASE)

    with pytest.raises(BusyError, match="lease of this run is gone"):
        replace(move, rate_limiter=cast("Any", Hang())).run(workers=1)
    assert len(took) == 2
    assert move.contents(move.destination).keys() <= {"0"}


class At(Silent):
    """Does something when a stage begins."""

    def __init__(self, stage: str, what) -> None:
        self._stage, self._what = stage, what

    def begin(self, what: str, *, items: int, size_bytes: int, of: object = None) -> None:
        if what.startswith(self._stage):
            self._stage = "-"
            self._what()


def test_objects_that_change_while_they_are_copied(move: Move) -> None:
    """What is written is one version, whole: the one that is there when it is read."""
    for key in ("a", "b", "c", "large"):
        move.source.put(key, b"old")
    move.source.put("large", b"o" * 40_000_000)

    def change() -> None:
        move.source.put("a", b"newer")
        move.source.put("large", b"n" * 40_000_001)
        move.source.boto.delete_object(Bucket=move.source.name, Key="b")

    done = move.with_progress(At("copy", change)).run()
    assert (done.copied, done.newer, done.excluded, done.exit_code) == (3, 2, 1, 0)
    assert body(move.destination, "a") == b"newer"
    assert body(move.destination, "large") == b"n" * 40_000_001
    assert "b" not in move.contents(move.destination)
    assert move.run().copied == 0


def test_cutover(move: Move) -> None:
    """Both sides are shown to be equal; what is written meanwhile is brought over first."""
    fill(move.source)
    move.run()
    done = move.with_progress(At("prove", lambda: move.source.put("late", b"late"))).run(cutover=True)
    assert done.proof is not None
    assert (done.exit_code, done.runs, done.copied, done.proof.objects) == (0, 2, 1, done.listed)
    assert done.proof.source_digest != ""
    assert body(move.destination, "late") == b"late"
    kept = json.loads(move.location().read("cutover.json"))
    assert kept["source_digest"] == done.proof.source_digest
    listing = "".join(
        f"{one['Size']} {one['ETag'].strip(chr(34))} {one['Key']}\n"
        for one in sorted(
            move.source.boto.list_objects_v2(Bucket=move.source.name)["Contents"],
            key=lambda it: it["Key"].encode(),
        )
    )
    assert hashlib.sha256(listing.encode()).hexdigest() == done.proof.source_digest


def test_no_cutover_while_the_destination_has_more(move: Move) -> None:
    move.source.put("a")
    move.destination.put("mine")
    done = move.run(cutover=True)
    assert (done.exit_code, done.proof) == (3, None)
    assert "only at the destination" in done.unproven
    assert move.run(cutover=True, delete=True).proof is not None
    assert list(move.contents(move.destination)) == ["a"]


def test_a_run_that_broke_off(move: Move, monkeypatch) -> None:
    """What is committed is not looked at again, what was on its way is found to be ours, even where it has changed."""
    monkeypatch.setattr(execute, "BATCH_OBJECTS", 10)
    for number in range(60):
        move.source.put(f"{number:03d}", b"%d" % number)

    class Breaks(Silent):
        count = 0

        def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
            Breaks.count += items and size_bytes > 0
            if Breaks.count == 35:
                raise RuntimeError("broken off")

    from migrate.sync.record.sync_record import Record

    with monkeypatch.context() as patch:
        patch.setattr(Record, "write_done", _only_whole(Record.write_done))
        with pytest.raises(RuntimeError, match="broken off"):
            move.with_progress(Breaks()).run(workers=1)
    there = set(move.contents(move.destination))
    assert 0 < len(there) < 60
    changed = max(there)
    move.source.put(changed, b"changed since")
    done = move.run()
    assert done.exit_code == 0
    assert done.adopted + done.copied == 60 - done.same
    assert done.same >= 30
    assert done.copied <= 60 - len(there) + 1
    assert move.contents(move.destination) == move.contents(move.source)
    assert move.run().same == 60


def _only_whole(write):
    """A killed run commits no part of a batch."""

    def write_done(self, run, number, rows):
        if len(rows) == 10:
            write(self, run, number, rows)

    return write_done
