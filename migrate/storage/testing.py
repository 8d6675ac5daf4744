"""The contract of ``migrate.storage.api`` as tests, for whoever adds a location.

Subclass ``LocationContract``, say how your store is opened, and let pytest run it::

    class TestMyLocation(LocationContract):
        @pytest.fixture
        def reopen(self, tmp_path):
            return lambda: MyStore(tmp_path / "location")

``reopen`` opens the same location, at first empty, again and again: each time as if by another process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from migrate.errors import AlreadyExistsError, ChangedError, DamageError, GoneError, MoveoutError, UsageError
from migrate.storage.api import MIN_PART_BYTES, MultipartStore, NewFile, UploadedPart
from migrate.storage.checksums import combine, crc64nvme

Reopen = Callable[[], MultipartStore]

_KEYS = ["a-b", "a.b", "a/b", "a/c/d", "a0", "b b", "b+c", "b%2f", "b?", "k/é", "k/\U0001f600", "k/\uff5e"]
"""In the order of their UTF-8 bytes: ``a/`` comes after ``a.`` and before ``a0``."""


def _keys(store: MultipartStore, prefix: str = "", **options: str) -> list[str]:
    return [info.key for info in store.list(prefix, **options)]


def _big(seed: int = 0) -> list[bytes]:
    """Two parts of the least size and a short last one."""
    return [os.urandom(MIN_PART_BYTES), os.urandom(MIN_PART_BYTES), b"the end" * (seed + 1)]


def _send(
    store: MultipartStore, key: str, upload: str, pieces: list[bytes], *numbers: int
) -> list[UploadedPart]:
    return [store.put_part(key, upload, number, pieces[number - 1]) for number in numbers]


def _whole_crc(pieces: list[bytes]) -> int:
    return combine((crc64nvme(piece), len(piece)) for piece in pieces)


class LocationContract:
    """What every location promises. ``tolerated``: parts of names that its listings may show for a moment."""

    tolerated: Sequence[str] = ()

    @pytest.fixture
    def reopen(self) -> Reopen:
        """Return what opens the location. To be overridden."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, reopen: Reopen) -> MultipartStore:
        """Open the location once."""
        return reopen()

    def test_a_file_is_read_as_it_was_written(self, store: MultipartStore) -> None:
        info = store.put("dir/file", b"hello")
        assert store.read("dir/file") == b"hello"
        assert (info.key, info.size_bytes) == ("dir/file", 5)
        file = store.stat("dir/file")
        assert (file.key, file.size_bytes, file.etag) == ("dir/file", 5, info.etag)
        assert abs(file.modified - datetime.now(UTC)) < timedelta(minutes=1)

    def test_an_empty_file_is_a_file(self, store: MultipartStore) -> None:
        store.put("empty", b"")
        assert store.read("empty") == store.read("empty", 0, 10) == b""
        assert store.stat("empty").size_bytes == 0

    def test_a_put_replaces_and_changes_the_etag(self, store: MultipartStore) -> None:
        first = store.put("file", b"one")
        second = store.put("file", b"two")
        assert store.read("file") == b"two"
        assert first.etag != second.etag == store.stat("file").etag

    def test_the_sha256_is_kept_where_the_store_says_so(self, store: MultipartStore) -> None:
        store.put("file", b"hello", sha256="ab" * 32)
        assert store.stat("file").sha256 == ("ab" * 32 if store.keeps_sha256 else None)

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, None, b"0123456789"),
            (3, None, b"3456789"),
            (3, 4, b"3456"),
            (8, 9, b"89"),
            (10, 5, b""),
            (99, 1, b""),
            (99, None, b""),
            (2, 0, b""),
        ],
    )
    def test_ranges_end_with_the_file(
        self, store: MultipartStore, start: int, length: int | None, expected: bytes
    ) -> None:
        store.put("file", b"0123456789")
        assert store.read("file", start, length) == expected

    def test_many_files_at_once(self, store: MultipartStore) -> None:
        store.put("a/old", b"old")
        files = [NewFile(f"a/{number}/file", b"x" * number) for number in range(40)]
        store.put_all([*files, NewFile("a/old", b"new", sha256="ab" * 32)])
        assert {info.key: store.read(info.key) for info in store.list("a/")} == {
            **{file.key: file.data for file in files},
            "a/old": b"new",
        }
        assert store.stat("a/old").sha256 == ("ab" * 32 if store.keeps_sha256 else None)
        store.delete_all([file.key for file in files] + ["a/missing"])
        assert [info.key for info in store.list()] == ["a/old"]
        store.delete_all(["a/old"])
        store.put_all([])
        assert list(store.list()) == []

    def test_what_is_not_there_is_gone(self, store: MultipartStore) -> None:
        for ask in (
            store.read,
            store.stat,
            lambda key: store.read(key, 3, 4),
            lambda key: store.read(key, 0, 0),
        ):
            with pytest.raises(GoneError, match="nothing-here"):
                ask("nothing-here")

    def test_deleting_is_done_once_or_twice(self, store: MultipartStore) -> None:
        store.put("dir/file", b"x")
        store.delete("dir/file")
        store.delete("dir/file")
        assert _keys(store) == []
        with pytest.raises(GoneError):
            store.stat("dir/file")

    def test_an_empty_location_lists_nothing(self, store: MultipartStore) -> None:
        assert _keys(store) == []
        assert list(store.uploads()) == []

    def test_files_are_listed_by_the_bytes_of_their_keys(self, store: MultipartStore) -> None:
        for key in reversed(_KEYS):
            store.put(key, key.encode())
        assert _keys(store) == sorted(_KEYS, key=str.encode)
        assert {info.key: info.size_bytes for info in store.list()} == {
            key: len(key.encode()) for key in _KEYS
        }
        for key in _KEYS:
            assert store.read(key) == key.encode()

    def test_listing_keeps_to_its_prefix_and_starts_after_a_key(self, store: MultipartStore) -> None:
        for key in ("a-b", "a/b", "a/c/d", "a/c/e", "a0", "b"):
            store.put(key, b"")
        assert _keys(store, "a/") == ["a/b", "a/c/d", "a/c/e"]
        assert _keys(store, "a/c/d") == ["a/c/d"]
        assert _keys(store, "a") == ["a-b", "a/b", "a/c/d", "a/c/e", "a0"]
        assert _keys(store, start_after="a/c/d") == ["a/c/e", "a0", "b"]
        assert _keys(store, "a/", start_after="a/b") == ["a/c/d", "a/c/e"]
        assert _keys(store, "zzz") == []

    def test_a_listing_goes_over_pages(self, reopen: Reopen) -> None:
        store = reopen()
        names = [f"n/{number:03}" for number in range(30)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b"."), names))
        assert _keys(store) == names

    @pytest.mark.parametrize(
        "key",
        ["", "/etc/x", "../x", "a/../b", "a//b", "./a", "a/", "a\0b", "_work/.uploads/x", "_work/.tmp/x"],
    )
    def test_a_key_cannot_leave_the_location_or_hide_in_it(self, store: MultipartStore, key: str) -> None:
        for ask in (
            store.read,
            store.stat,
            store.delete,
            store.begin,
            lambda k: store.put(k, b""),
            lambda k: store.create(k, b""),
        ):
            with pytest.raises(UsageError):
                ask(key)
        assert _keys(store) == []

    def test_create_makes_a_file_only_once(self, store: MultipartStore) -> None:
        info = store.create("file", b"first")
        with pytest.raises(AlreadyExistsError, match="file"):
            store.create("file", b"second")
        assert store.read("file") == b"first"
        assert store.stat("file").etag == info.etag

    def test_replace_needs_the_etag_that_is_there(self, store: MultipartStore) -> None:
        old = store.put("file", b"one")
        new = store.replace("file", b"two", etag=old.etag)
        with pytest.raises(ChangedError, match="file"):
            store.replace("file", b"three", etag=old.etag)
        assert store.read("file") == b"two"
        store.replace("file", b"four", etag=new.etag)
        with pytest.raises(ChangedError):
            store.replace("nothing-here", b"x", etag=new.etag)
        assert _keys(store) == ["file"]

    def test_of_racing_creates_exactly_one_wins(self, reopen: Reopen) -> None:
        stores = [reopen() for _ in range(8)]

        def create(number: int) -> int | None:
            try:
                stores[number].create("d/lease", f"{number}".encode())
            except (AlreadyExistsError, MoveoutError):
                return None
            return number

        with ThreadPoolExecutor(8) as pool:
            winners = [number for number in pool.map(create, range(8)) if number is not None]
        assert [f"{number}".encode() for number in winners] == [stores[0].read("d/lease")]

    def test_of_racing_replaces_exactly_one_wins(self, reopen: Reopen) -> None:
        stores = [reopen() for _ in range(8)]
        etag = stores[0].put("lease", b"none").etag

        def replace(number: int) -> int | None:
            try:
                stores[number].replace("lease", f"{number}".encode(), etag=etag)
            except MoveoutError:
                return None
            return number

        with ThreadPoolExecutor(8) as pool:
            winners = [number for number in pool.map(replace, range(8)) if number is not None]
        assert [f"{number}".encode() for number in winners] == [stores[0].read("lease")]

    def test_a_reader_never_sees_half_a_file(self, reopen: Reopen) -> None:
        versions = [bytes([65 + number]) * (200_000 + number) for number in range(4)]
        writer, reader = reopen(), reopen()
        writer.put("file", versions[0])

        def write() -> None:
            for round_number in range(24):
                writer.put("file", versions[round_number % 4])

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            seen = 0
            while not writing.done():
                assert reader.read("file") in versions
                shown = [key for key in _keys(reader) if not any(it in key for it in self.tolerated)]
                assert shown == ["file"]
                seen += 1
            writing.result()
        assert seen > 0

    def test_a_file_comes_from_parts_sent_in_any_order(self, store: MultipartStore) -> None:
        pieces = _big()
        upload = store.begin("dir/big", sha256="cd" * 32, part_bytes=MIN_PART_BYTES)
        sent = _send(store, "dir/big", upload, pieces, 3, 1, 2)
        assert _keys(store) == []
        with pytest.raises(GoneError):
            store.stat("dir/big")
        info = store.complete(
            "dir/big", upload, sorted(sent, key=lambda part: part.number), crc64nvme=_whole_crc(pieces)
        )
        assert store.read("dir/big") == b"".join(pieces)
        assert info.size_bytes == sum(map(len, pieces))
        file = store.stat("dir/big")
        assert (file.etag, file.sha256) == (info.etag, "cd" * 32 if store.keeps_sha256 else None)
        assert list(store.uploads()) == []
        assert _keys(store) == ["dir/big"]

    def test_another_process_goes_on_with_an_upload(self, reopen: Reopen) -> None:
        pieces = _big()
        first = reopen()
        upload = first.begin("big", part_bytes=MIN_PART_BYTES)
        _send(first, "big", upload, pieces, 2, 3)
        second = reopen()
        (upload_found,) = second.uploads("big")
        assert (upload_found.key, upload_found.id) == ("big", upload)
        assert abs(upload_found.started - datetime.now(UTC)) < timedelta(minutes=1)
        durable = second.parts("big", upload)
        assert [(part.number, part.size_bytes, part.crc64nvme) for part in durable] == [
            (number, len(pieces[number - 1]), crc64nvme(pieces[number - 1])) for number in (2, 3)
        ]
        _send(second, "big", upload, pieces, 1)
        second.complete("big", upload, second.parts("big", upload), crc64nvme=_whole_crc(pieces))
        assert first.read("big") == b"".join(pieces)

    def test_a_part_sent_again_replaces_the_old_one(self, store: MultipartStore) -> None:
        pieces, others = _big(0), _big(1)
        upload = store.begin("big", part_bytes=MIN_PART_BYTES)
        _send(store, "big", upload, pieces, 1, 2, 3)
        _send(store, "big", upload, others, 2, 3)
        mixed = [pieces[0], others[1], others[2]]
        parts = store.parts("big", upload)
        assert [part.crc64nvme for part in parts] == [crc64nvme(piece) for piece in mixed]
        store.complete("big", upload, parts, crc64nvme=_whole_crc(mixed))
        assert store.read("big") == b"".join(mixed)

    def test_the_whole_s_wrong_checksum_is_refused_and_nothing_appears(self, store: MultipartStore) -> None:
        pieces = _big()
        upload = store.begin("big", part_bytes=MIN_PART_BYTES)
        sent = _send(store, "big", upload, pieces, 1, 2, 3)
        with pytest.raises(DamageError, match="big"):
            store.complete("big", upload, sent, crc64nvme=_whole_crc(pieces) ^ 1)
        assert _keys(store) == []
        store.complete("big", upload, sent, crc64nvme=_whole_crc(pieces))
        assert _keys(store) == ["big"]

    def test_parts_are_listed_over_pages(self, reopen: Reopen) -> None:
        store = reopen()
        upload = store.begin("big", part_bytes=100)
        pieces = [bytes([number]) * 100 for number in range(1, 8)]
        _send(store, "big", upload, pieces, *range(1, 8))
        parts = store.parts("big", upload)
        assert [(part.number, part.crc64nvme) for part in parts] == [
            (number, crc64nvme(piece)) for number, piece in enumerate(pieces, 1)
        ]

    def test_an_upload_is_dropped_with_its_parts_once_or_twice(self, store: MultipartStore) -> None:
        upload = store.begin("big", part_bytes=MIN_PART_BYTES)
        _send(store, "big", upload, _big(), 1)
        store.abort("big", upload)
        store.abort("big", upload)
        assert list(store.uploads()) == []
        with pytest.raises(GoneError):
            store.parts("big", upload)
        with pytest.raises(GoneError):
            store.put_part("big", upload, 1, b"x")

    def test_uploads_of_several_files_are_told_apart(self, store: MultipartStore) -> None:
        ids = {key: store.begin(key) for key in ("x/one", "x/two", "y")}
        assert {upload.key: upload.id for upload in store.uploads()} == ids
        assert {upload.key for upload in store.uploads("x/")} == {"x/one", "x/two"}
        assert [upload.id for upload in store.uploads("x/two")] == [ids["x/two"]]

    def test_many_threads_write_at_once(self, store: MultipartStore) -> None:
        def put_and_delete(number: int) -> None:
            store.put(f"d{number % 3}/f{number}", b"%d" % number)
            if number % 4 == 0:
                store.delete(f"d{number % 3}/f{number}")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put_and_delete, range(60)))
        left = [number for number in range(60) if number % 4]
        assert sorted(_keys(store)) == sorted(f"d{number % 3}/f{number}" for number in left)
        assert all(store.read(f"d{number % 3}/f{number}") == b"%d" % number for number in left)
