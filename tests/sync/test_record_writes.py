"""The record writes beside other work; who needs what is written waits for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from exporters.sql.parquet_read import READ_ERRORS
from migrate.errors import DamageError, NoSpaceError
from migrate.storage.api import FileInfo, StoreWrapper
from migrate.storage.local.store import LocalStore
from migrate.sync.diff import Action, SyncStep
from migrate.sync.record.record_rows import read_losses, synced_table, to_bytes
from migrate.sync.record.sync_record import HEADER, Header, Record

RUN = "work/000001/"


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


def row(key: str) -> dict[str, object]:
    return {"key": key, "size": 1, "etag": "e", "destination_etag": "e"}


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


def test_losses_of_a_damaged_file_of_the_record_are_not_read_as_none() -> None:
    """Arrow returns no rows and no error for some of these bytes."""
    data = to_bytes(synced_table([row("a") | {"losses": {"acl": "refused"}}]))
    for place in range(4, len(data)):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with suppress(*READ_ERRORS):
            assert len(list(read_losses(damaged, history=False))) == 1


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
