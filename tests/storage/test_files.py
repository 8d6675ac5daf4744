"""Files written from beginning to end and read at any offset."""

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from migrate.errors import DamageError, GoneError, NotAllowedError
from migrate.storage.api import MIN_PART_BYTES, StoreWrapper
from migrate.storage.checksums import crc64nvme
from migrate.storage.file_reader import RandomAccess
from migrate.storage.file_writer import FileWriter
from migrate.storage.registry import open_location
from tests.faults import Fault, FaultPlan, Faulty, fail


@pytest.mark.parametrize("size", [0, MIN_PART_BYTES, 12_000_000])
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


@pytest.mark.parametrize("size", [10, 2 * MIN_PART_BYTES + 1])
def test_what_is_held_is_there_once_it_is_made(store, size):
    store.put("file", b"old")
    data = os.urandom(size)
    with FileWriter(store, "file", part_bytes=MIN_PART_BYTES, held=True) as writer:
        writer.write(data)
    assert (writer.size_bytes, writer.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert writer.crc64nvme == crc64nvme(data)
    assert store.read("file") == b"old"
    writer.make()
    assert store.read("file") == data
    assert list(store.uploads()) == []


@pytest.mark.parametrize("size", [10, 2 * MIN_PART_BYTES + 1])
def test_what_is_held_may_be_given_up(store, size):
    store.put("file", b"old")
    with FileWriter(store, "file", part_bytes=MIN_PART_BYTES, held=True) as writer:
        writer.write(os.urandom(size))
    writer.abort()
    assert store.read("file") == b"old"
    assert list(store.uploads()) == []


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


@pytest.mark.parametrize(
    "changed", [(0, 2), *(pytest.param(parts, marks=pytest.mark.torture) for parts in ((), (1,)))]
)
def test_an_interrupted_file_is_gone_on_with(store, changed):
    before = [os.urandom(MIN_PART_BYTES) for _ in range(5)]
    fault = FaultPlan(Fault("put_part", fail(NotAllowedError("no longer")), nth=4, times=2))  # of five
    with pytest.raises(NotAllowedError):
        written(Faulty(store, fault), before)
    (left,) = store.uploads()
    assert list(store.list()) == []
    assert [part.number for part in store.parts("f", left.id)] == [1, 2, 3]
    now = [os.urandom(MIN_PART_BYTES) if number in changed else body for number, body in enumerate(before)]
    seen = FaultPlan(Fault("put_part", fail(NotAllowedError("more than is needed")), nth=3 + len(changed)))
    writer = written(Faulty(store, seen), now)
    assert store.read("f") == b"".join(now)
    assert writer.sha256 == hashlib.sha256(b"".join(now)).hexdigest()
    assert writer.crc64nvme == crc64nvme(b"".join(now))
    assert list(store.uploads()) == []


def written(store, bodies):
    with FileWriter(store, "f", part_bytes=MIN_PART_BYTES, resume=True) as writer:
        for body in bodies:
            writer.write(body)
    return writer


def test_an_upload_that_was_cut_otherwise_is_gone_on_with_as_it_is_cut(store):
    """The link was another one then, so parts were of another size."""
    upload = store.begin("f", part_bytes=2 * MIN_PART_BYTES)
    bodies = [os.urandom(MIN_PART_BYTES) for _ in range(5)]
    for number in (1, 2):
        store.put_part("f", upload, number, b"".join(bodies[2 * number - 2 : 2 * number]))
    seen = FaultPlan(Fault("put_part", fail(NotAllowedError("more than is needed")), nth=2))
    written(Faulty(store, seen), bodies)
    assert store.read("f") == b"".join(bodies)
    assert list(store.uploads()) == []


def test_of_several_interrupted_uploads_the_one_with_most_parts_is_gone_on_with(store):
    bodies = [os.urandom(MIN_PART_BYTES) for _ in range(3)]
    for count in (1, 2, 0):
        upload = store.begin("f", part_bytes=MIN_PART_BYTES)
        for number, body in enumerate(bodies[:count], 1):
            store.put_part("f", upload, number, body)
    seen = FaultPlan(Fault("put_part", fail(NotAllowedError("more than is needed")), nth=2))
    written(Faulty(store, seen), bodies)
    assert store.read("f") == b"".join(bodies)
    assert list(store.uploads()) == []


def test_without_a_context_closing_makes_the_file(store):
    writer = FileWriter(store, "file")
    writer.write(b"hello")
    writer.close()
    writer.close()
    assert store.read("file") == b"hello"
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")


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


class CutAnswers(StoreWrapper):
    """A store that cuts as many answers as it is told to."""

    cut = 0

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        data = super().read(key, start, length)
        if self.cut == 0:
            return data
        self.cut -= 1
        return data[: len(data) // 2]


@pytest.mark.parametrize("size_bytes", [100, 5000])
def test_an_answer_that_was_cut_is_asked_for_again_and_a_file_that_is_short_is_named(store, size_bytes):
    body = os.urandom(size_bytes)
    store.put("file", body)
    cutting = CutAnswers(store)
    for read in (10, size_bytes):
        cutting.cut = 1
        assert RandomAccess(cutting, "file", read_ahead=1000).read(read) == body[:read]
    cutting.cut = 2
    with pytest.raises(DamageError, match=r"file: expected .* bytes from byte 0 on, found"):
        RandomAccess(cutting, "file").read()


def test_an_upload_ends_while_others_are_written(tmp_path):
    """The parts of all were looked through meanwhile, and a transfer ended by that."""
    store, interval = open_location(str(tmp_path / "there")), sys.getswitchinterval()
    others = [store.begin(f"other-{number}") for number in range(4)]
    for upload in others:
        for number in range(1, 1001):
            store.put_part(f"other-{others.index(upload)}", upload, number, b"x")

    def write(number):
        for part in range(1001, 1501):
            store.put_part(f"other-{number}", others[number], part, b"x")

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(others)) as threads:
            writing = [threads.submit(write, number) for number in range(len(others))]
            while not all(future.done() for future in writing):
                store.abort("ended", store.begin("ended"))
            for future in writing:
                future.result()
    finally:
        sys.setswitchinterval(interval)
