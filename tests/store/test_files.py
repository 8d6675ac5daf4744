"""Files written from beginning to end and read at any offset."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from migrate.errors import GoneError, NotAllowedError
from migrate.store.base import MIN_PART_BYTES
from migrate.store.checksums import crc64nvme
from migrate.store.faults import Fault, FaultPlan, Faulty, fail
from migrate.store.reader import RandomAccess
from migrate.store.writer import FileWriter


@pytest.mark.parametrize("size", [0, 1, MIN_PART_BYTES, MIN_PART_BYTES + 1, 2 * MIN_PART_BYTES, 12_000_000])
def test_what_was_written_is_there_with_its_hashes(store, size):
    data = os.urandom(size)
    with FileWriter(store, "dir/file", part_bytes=MIN_PART_BYTES) as writer:
        for start in range(0, size, 777_777):
            assert writer.write(data[start : start + 777_777]) == len(data[start : start + 777_777])
        assert writer.tell() == size
        assert list(store.list()) == []
    assert store.read("dir/file") == data
    assert (writer.size_bytes, writer.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert writer.crc64nvme == crc64nvme(data)
    assert writer.info.etag == store.stat("dir/file").etag
    assert writer.closed
    assert list(store.uploads()) == []


def test_nothing_remains_after_an_error(store):
    for size in (10, 3 * MIN_PART_BYTES):
        with pytest.raises(ZeroDivisionError), FileWriter(store, "file", part_bytes=MIN_PART_BYTES) as writer:  # noqa: PT012
            writer.write(bytes(size))
            writer.close()  # as a library does that ends its file before it lets the error through
            raise ZeroDivisionError
    assert list(store.list()) == list(store.uploads()) == []


def test_the_old_file_stays_after_an_error(store):
    store.put("file", b"old")
    with pytest.raises(ZeroDivisionError), FileWriter(store, "file") as writer:  # noqa: PT012
        writer.write(b"new")
        raise ZeroDivisionError
    assert store.read("file") == b"old"


def test_an_error_of_the_store_is_raised_and_nothing_remains(store):
    plan = FaultPlan(Fault("put_part", fail(NotAllowedError("no longer")), nth=2))
    with (  # noqa: PT012
        pytest.raises(NotAllowedError),
        FileWriter(Faulty(store, plan), "f", part_bytes=MIN_PART_BYTES) as writer,
    ):
        for _ in range(8):
            writer.write(bytes(MIN_PART_BYTES))
    plan.assert_all_fired()
    assert list(store.list()) == list(store.uploads()) == []


def test_without_a_context_closing_makes_the_file(store):
    writer = FileWriter(store, "file")
    writer.write(b"hello")
    writer.close()
    writer.close()
    assert store.read("file") == b"hello"
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")


def test_writers_share_an_executor(store):
    with ThreadPoolExecutor(2) as pool:

        def write(number: int) -> str:
            with FileWriter(store, f"f{number}", part_bytes=MIN_PART_BYTES, executor=pool) as writer:
                for _ in range(3):
                    writer.write(bytes([number]) * MIN_PART_BYTES)
            return writer.sha256

        with ThreadPoolExecutor(3) as writers:
            hashes = list(writers.map(write, range(3)))
    assert hashes == [hashlib.sha256(bytes([n]) * 3 * MIN_PART_BYTES).hexdigest() for n in range(3)]
    assert [info.size_bytes for info in store.list()] == [3 * MIN_PART_BYTES] * 3


def test_parquet_is_written_and_read_in_place(store):
    table = pa.table({"n": list(range(200_000)), "t": [f"row {n}" for n in range(200_000)]})
    with FileWriter(store, "t.parquet") as writer, pq.ParquetWriter(writer, table.schema) as parquet:
        parquet.write_table(table, row_group_size=50_000)
    file = pq.ParquetFile(RandomAccess(store, "t.parquet"))
    assert file.num_row_groups == 4
    assert file.read().equals(table)
    assert file.read_row_group(2, columns=["n"])["n"][0].as_py() == 100_000


def test_a_file_is_read_like_an_open_one(store):
    data = os.urandom(300_000)
    store.put("file", data)
    file = RandomAccess(store, "file", read_ahead=1000)
    assert file.size() == len(data)
    for start, size in (
        (0, 10),
        (5, 20),
        (990, 30),
        (250_000, 100_000),
        (299_999, 5),
        (300_000, 5),
        (100, 5000),
    ):
        assert file.seek(start) == start
        assert file.read(size) == data[start : start + size]
        assert file.tell() == min(start + size, len(data))
    file.seek(-7, os.SEEK_END)
    assert file.read() == data[-7:]
    with pytest.raises(ValueError, match="no position"):
        file.seek(-1)
    with pytest.raises(GoneError):
        RandomAccess(store, "nothing-here")
