"""The record writes beside other work; who needs what is written waits for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from exporters.api import Loss
from exporters.bucket_api import ObjectSummary
from exporters.sql.parquet_read import READ_ERRORS
from migrate.errors import DamageError, NoSpaceError, UsageError
from migrate.storage.api import FileInfo, StoreWrapper
from migrate.storage.local.store import LocalStore
from migrate.sync.diff import Action, SyncStep
from migrate.sync.record import record_rows, sync_record
from migrate.sync.record.record_rows import read_losses, synced_table, to_bytes
from migrate.sync.record.sync_record import HEADER, Header, Record

RUN = "work/000001/"
FRESH = Header("old", "p/", "new", "q/", begun="2026-01-01T00:00:00Z")


class Late(StoreWrapper):
    """Writes some files later than others, or not at all."""

    late, full = "", ""

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        if self.late and self.late in key:
            time.sleep(0.2)
        if self.full and self.full in key:
            raise NoSpaceError(key)
        return super().put(key, data, sha256=sha256)


@pytest.fixture
def store(tmp_path: Path) -> Late:
    return Late(LocalStore(tmp_path))


@pytest.fixture
def record(store: Late) -> Iterator[Record]:
    with ThreadPoolExecutor() as threads:
        yield Record(store, Header("old", "", "new", "", begun=""), threads)


def row(key: str, **values: object) -> dict[str, object]:
    return {"key": key, "size": 1, "etag": "e", "destination_etag": "e"} | values


def keys_of(record: Record) -> list[tuple[str, int, bool]]:
    """What is known of each key: its size, and whether a run that did not end may have written it."""
    known = (page.row(number) for page in record.known() for number in range(len(page.keys)))
    return [(one.key, one.size_bytes, one.begun) for one in known]


@pytest.mark.parametrize("threads", [0, 2])
def test_what_a_killed_run_has_done_is_taken_in_and_what_it_planned_may_be_ours(
    store: Late, threads: int
) -> None:
    steps = [
        SyncStep(Action.COPY, "a", "", ours=True),
        SyncStep(Action.COPY, "b", ""),
        SyncStep(Action.LOOK, "c", "", ours=True),
        SyncStep(Action.EXTRA, "d", "", ours=True),
    ]
    with ThreadPoolExecutor(threads) if threads else nullcontext() as pool:
        record = Record(store, FRESH, pool)
        assert (record.runs(), record.begin_run(), keys_of(record)) == ([], RUN, [])
        assert (record.header.rows, record.header.size_bytes) == (0, 0)
        record.begin()
        for number, step in enumerate(steps):
            record.write_plan(RUN, number, [step])
        assert list(record.plan(RUN)) == steps
        record.write_done(RUN, 0, [row("b", size=3), row("a", size=0)])
        record.write_done(RUN, 1, [])
        record.finish_done()
    assert [info.key for info in store.list(f"{RUN}done-")] == [f"{RUN}done-000000.parquet"]
    later = Record(store, FRESH)
    assert (later.runs(), later.begin_run()) == ([RUN], "work/000002/")
    assert later.settle()
    assert not later.settle()
    assert later.header == Record(store, FRESH).header
    assert (later.header.generation, later.header.files, later.header.rows) == (1, 1, 2)
    assert later.header.size_bytes == 3
    assert list(store.list(f"{RUN}done-")) == []
    assert keys_of(later) == [("a", 0, True), ("b", 3, False), ("c", -1, True)]
    later.sweep()
    assert (later.runs(), keys_of(later)) == ([], [("a", 0, False), ("b", 3, False)])
    assert later.begin_run() == "work/000002/"


def test_the_old_index_counts_until_the_header_is_written(
    store: Late, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_record, "FILE_ROWS", 2)
    record.write_done(RUN, 0, [row(key, size=number) for number, key in enumerate("abcde", 1)])
    record.fold(RUN, ())
    record.write_header()
    assert (record.header.generation, record.header.files, record.header.rows) == (1, 3, 5)
    assert [table["key"].to_pylist() for table in record.tables()] == [["a", "b"], ["c", "d"], ["e"]]
    record.sweep(RUN)
    run = record.begin_run()
    record.write_done(run, 0, [row("c", size=30), row("f", size=6)])
    record.fold(run, [("a", "a"), ("c", "c")])
    before = [(key, number, False) for number, key in enumerate("abcde", 1)]
    assert keys_of(Record(store, record.header)) == before
    record.write_header()
    record.sweep(run)
    after = [("b", 2, False), ("c", 30, False), ("d", 4, False), ("e", 5, False), ("f", 6, False)]
    assert keys_of(Record(store, record.header)) == after
    assert (record.header.rows, record.header.size_bytes) == (5, 47)
    assert {info.key.split("/")[1] for info in store.list("index/")} == {"000002"}
    assert list(store.list("work/")) == []


def test_a_record_of_empty_objects_has_no_bytes(store: Late, record: Record) -> None:
    record.write_done(RUN, 0, [row("a", size=0)])
    record.fold(RUN, ())
    assert (record.header.rows, record.header.size_bytes) == (1, 0)


def test_what_another_run_left_stays_when_a_run_is_swept(store: Late, record: Record) -> None:
    names = [f"work/{number}/plan-000000.parquet" for number in (999999, 1000000, "other")]
    for name in names:
        store.put(name, b"")
    assert record.runs() == ["work/999999/", "work/1000000/"]
    assert record.begin_run() == "work/1000001/"
    record.sweep("work/999999/")
    assert [info.key for info in store.list("work/")] == sorted(names[1:])


@pytest.mark.parametrize("change", [
    {"source_bucket": "x"}, {"source_prefix": "x"}, {"destination_bucket": "x"}, {"destination_prefix": "x"},
])  # fmt: skip
def test_the_record_of_another_sync_is_refused(store: Late, change: dict[str, str]) -> None:
    Record(store, FRESH).write_header()
    with pytest.raises(UsageError, match=r"another sync: from s3://old/p/ to s3://new/q/"):
        Record(store, replace(FRESH, **change))


@pytest.mark.parametrize(("history", "next_step"), [(True, "say --history"), (False, "leave out --history")])
def test_a_record_of_versions_is_none_of_objects(store: Late, history: bool, next_step: str) -> None:
    Record(store, replace(FRESH, history=history)).write_header()
    with pytest.raises(UsageError, match="is the record of a sync of") as raised:
        Record(store, replace(FRESH, history=not history))
    assert raised.value.next_step.startswith(next_step)
    assert Record(store, replace(FRESH, history=history, begun="later")).header.begun == FRESH.begun


def test_no_plan_is_written_without_the_header_that_says_whose_it_is(store: Late, record: Record) -> None:
    store.full = HEADER
    record.begin()
    record.write_plan(RUN, 0, [SyncStep(Action.COPY, "a", "")])
    with pytest.raises(NoSpaceError):
        list(record.plan(RUN))
    assert list(store.list()) == []


def test_what_is_done_is_committed_some_batches_later_and_what_is_large_at_once(
    store: Late, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.late = "done-"
    monkeypatch.setattr(sync_record, "_DONE_BYTES", 10_000_000)
    for number in range(10):
        record.write_done(RUN, number, [row(f"{number}")])
    assert len(list(store.list(RUN))) >= 2
    monkeypatch.setattr(sync_record, "_DONE_BYTES", 0)
    record.write_done(RUN, 10, [row("a")])
    assert f"{RUN}done-000010.parquet" in [info.key for info in store.list(RUN)]


def test_a_batch_that_could_not_be_written_ends_those_after_it(store: Late, record: Record) -> None:
    store.full = "done-000000"
    for number in range(8):
        record.write_done(RUN, number, [row(f"{number}")])
    with pytest.raises(NoSpaceError):
        record.write_done(RUN, 8, [row("8")])
    record.finish_done()
    assert len(list(store.list(RUN))) == 8


def test_a_step_of_a_history_is_called_after_its_version(store: Late) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    step = SyncStep(Action.COPY, "a", "", ObjectSummary("p/a", 1, "e", moment, "", "v1"))
    versions = Record(store, replace(FRESH, history=True))
    assert versions.which(step) == ("a", "a\x00v1\x00")
    other = replace(step, source=replace(step.source, version_id="1"))
    assert versions.which(other) == ("a", "a\x001\x00")
    null = replace(step, source=ObjectSummary("p/a", 1, "e", moment, "", "null"))
    assert versions.which(null) == ("a", "a\x00null\x001767225600000000")
    assert versions.which(replace(step, source=None)) == Record(store, FRESH).which(step) == ("a", "a")


def test_versions_are_known_by_key_and_losses_by_version(store: Late) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        row(key, version_id=version, last_modified=moment, is_delete_marker=version == "3",
            destination_version_id=f"d{version}", losses={"acl": "refused"} if version == "2" else None)
        for key, version in (("a", "1"), ("a", "2"), ("b", "3"))
    ]  # fmt: skip
    record = Record(store, replace(FRESH, history=True))
    record.write_done(RUN, 0, rows)
    record.fold(RUN, [("a", "a\x001\x00")])
    versions = {
        key: [(one.version_id, one.destination_version, one.is_delete_marker, one.modified) for one in known]
        for key, known in record.known_versions()
    }
    moments = 1767225600000000
    assert versions == {
        "a": [("1", "d1", False, moments), ("2", "d2", False, moments)],
        "b": [("3", "d3", True, moments)],
    }
    assert list(record.losses()) == [Loss("a (version 2)", "acl", "refused")]
    assert record.header.losses == 0
    store.delete("index/000001/objects-000000.parquet")
    with pytest.raises(DamageError, match="index/000001/objects-000000") as raised:
        list(record.tables())
    assert raised.value.found == "nothing"


def test_every_reader_waits_for_the_plan(store: Late, record: Record) -> None:
    store.late = "plan-"
    for number in range(3):
        record.write_plan(RUN, number, [SyncStep(Action.COPY, f"{number}", "")])
    with ThreadPoolExecutor() as threads:
        plans = list(threads.map(lambda _: [step.key for step in record.plan(RUN)], range(4)))
    assert plans == [["0", "1", "2"]] * 4


def test_the_index_has_what_is_still_being_written(store: Late, record: Record) -> None:
    store.late = "done-"
    record.write_done(RUN, 0, [row("a")])
    record.write_done(RUN, 1, [row("b")])
    record.fold(RUN, ())
    assert record.header.rows == 2
    assert [info.key for info in store.list(RUN)] == [f"{RUN}done-00000{number}.parquet" for number in (0, 1)]


def test_what_could_not_be_written_does_not_count(store: Late, record: Record) -> None:
    store.full = "done-"
    record.write_done(RUN, 0, [row("a")])
    with pytest.raises(NoSpaceError):
        record.fold(RUN, ())
    assert record.header.generation == 0


@pytest.mark.parametrize("data", [b"", b"PAR1", bytes(100)])
def test_a_damaged_file_of_the_record_is_named_with_the_way_out(
    store: Late, record: Record, data: bytes
) -> None:
    record.begin()
    record.write_plan(RUN, 0, [SyncStep(Action.COPY, "a", "", ours=True)])
    assert [step.key for step in record.plan(RUN)] == ["a"]
    store.put(f"{RUN}plan-000000.parquet", data)
    for read in (lambda: list(record.plan(RUN)), lambda: list(record.known())):
        with pytest.raises(DamageError, match="plan-000000") as raised:
            read()
        assert raised.value.next_step.startswith("remove what is left of the record at ")


@pytest.mark.parametrize("step", [131, pytest.param(1, marks=pytest.mark.torture)])
def test_losses_of_a_damaged_file_of_the_record_are_not_read_as_none(step: int) -> None:
    """Arrow returns no rows and no error for some of these bytes."""
    data = to_bytes(synced_table([row("a") | {"losses": {"acl": "refused"}}]))
    for place in range(4, len(data), step):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with suppress(*READ_ERRORS):
            assert len(list(read_losses(damaged, history=False))) == 1


def test_losses_are_read_from_all_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_rows, "_LOSSES_AT_ONCE", 1)
    data = to_bytes(synced_table([row("a"), row("b", losses={"acl": "refused"}), row("c")]))
    assert list(read_losses(data, history=False)) == [Loss("b", "acl", "refused")]


@pytest.mark.parametrize("change", [{"files": []}, {"generation": "1"}])
def test_a_damaged_header_is_named_with_the_way_out(
    store: Late, record: Record, change: dict[str, object]
) -> None:
    record.begin()
    assert list(record.plan(RUN)) == []  # which waits for what is being written
    store.put(HEADER, json.dumps(json.loads(store.read(HEADER)) | change).encode())
    with pytest.raises(DamageError, match=HEADER) as raised:
        Record(store, record.header)
    assert raised.value.next_step.startswith("remove what is left of the record at ")
