"""The contract of a location of bundles: what it can do with bytes.

A location is a directory, or a bucket and a prefix, or whatever a module of ``registry`` adds. Keys are relative to it,
match ``[a-z0-9._/-]+`` (plus whatever the bundle's own names need), and are ordered by their UTF-8 bytes. All methods
are thread-safe. They raise only errors of ``migrate.errors``: foreign errors are translated where they arise.

``migrate.storage.testing`` is the test suite of this contract. A location of its own inherits from ``BaseStore``, which
has the answers of one without optional abilities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from msgspec import Struct

from migrate.errors import GoneError
from migrate.storage.concurrency_limit import ConcurrencyLimiter

MIN_PART_BYTES = 5 * 2**20
"""S3's minimum for all parts but the last (Amazon S3 user guide, "multipart upload limits")."""
MAX_PARTS = 10_000
PART_BYTES = 16 * 2**20
"""The usual part."""
CLOCK_SKEW = timedelta(minutes=15)
"""How far apart S3 lets clocks be: what differs by less is in order."""


class FileInfo(Struct, frozen=True):
    """A file at a location. ``etag`` is opaque and changes with the content; ``sha256`` (64 hex digits) is set
    only where the writer gave it and the store keeps it, and only by ``stat``.
    """

    key: str
    size_bytes: int
    etag: str
    modified: datetime
    sha256: str | None = None


class UploadedPart(Struct, frozen=True):
    """A durable part of an upload. Numbers count from 1. ``crc64nvme`` is that of its bytes, where the store
    reports it.
    """

    number: int
    size_bytes: int
    etag: str
    crc64nvme: int | None


class NewFile(Struct, frozen=True):
    """A whole file that is to be written."""

    key: str
    data: bytes
    sha256: str | None = None


Parts: TypeAlias = list[UploadedPart]
"""A name for use inside of classes that have a method ``list``."""


class Upload(Struct, frozen=True):
    """A multipart upload that was begun and neither completed nor aborted."""

    key: str
    id: str
    started: datetime


class Tidying(Protocol):
    """Optional: what an interrupted writer can leave besides uploads: temporary files of the store, empty folders."""

    def leftovers(self) -> Iterator[FileInfo]:
        """Yield them; their keys are names for ``remove_leftover`` only. That of a folder ends with a slash."""
        ...

    def remove_leftover(self, name: str) -> None:
        """Remove one; nothing happens where there is none."""
        ...


class Store(Protocol):
    """Whole files, atomically."""

    location: str
    """The location as a URL, without secrets."""
    keeps_sha256: bool
    """Whether ``stat`` returns the SHA-256 that the writer gave."""
    together: int
    """How many files ``put_all`` and ``delete_all`` should get at once; 1 where many take as long as each by itself."""

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """Write or replace a file. No reader ever sees a part of it, not even after a crash; when this returns it
        is durable.
        """
        ...

    def put_all(self, files: Sequence[NewFile]) -> None:
        """Write or replace files, each as by ``put``; when this returns all are durable. After an error or a crash some
        may be there, each of them whole.
        """
        ...

    def create(self, key: str, data: bytes) -> FileInfo:
        """Like ``put``, but raise ``AlreadyExistsError`` if the key exists. Exactly one of two racing
        calls wins.
        """
        ...

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """Like ``put``, but raise ``ChangedError`` unless the key exists with this etag."""
        ...

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes from ``start``, fewer only at the end of the file. Raises ``GoneError``."""
        ...

    def stat(self, key: str) -> FileInfo:
        """Raise ``GoneError`` where there is no such file."""
        ...

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        """Yield files whose key begins with ``prefix``, ordered by key, streamed; only keys after
        ``start_after``. Unfinished uploads are not files.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a file; nothing happens where there is none."""
        ...

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove files, each as by ``delete``."""
        ...


class MultipartStore(Store, Protocol):
    """Large files in parts, resumable by anyone who can list them."""

    def part_bytes(self, size_bytes: int) -> int:
        """Return the size of a part for a file of this size that is begun now: smaller where the connection is slow."""
        ...

    def begin(self, key: str, *, sha256: str | None = None, part_bytes: int = PART_BYTES) -> str:
        """Begin an upload, return its id. ``sha256`` is kept with the file where the store can. Every part
        but the last has exactly ``part_bytes``, so that a store can put each where it belongs in the file at
        once.
        """
        ...

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """Yield unfinished uploads whose key begins with ``prefix``: a folder with its slash, or a whole key."""
        ...

    def parts(self, key: str, upload: str) -> list[UploadedPart]:
        """Return the durable parts of an upload, ordered by number (all pages of them). Raises
        ``GoneError``.
        """
        ...

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        """Write one part; writing a number again replaces it. The store checks the part's CRC64NVME where it
        can.
        """
        ...

    def complete(self, key: str, upload: str, parts: list[UploadedPart], *, crc64nvme: int) -> FileInfo:
        """Make the file from ``parts``, atomically. Raises ``DamageError`` if the whole's checksum is not
        ``crc64nvme``.
        """
        ...

    def abort(self, key: str, upload: str) -> None:
        """Drop an upload and its parts; nothing happens where there is none."""
        ...

    # Optional abilities: ``BaseStore`` has none of them, wrappers pass them on.

    @property
    def tidying(self) -> Tidying | None:
        """Temporary files that interrupted writers have left; None where a writer leaves none."""
        ...

    @property
    def limiter(self) -> ConcurrencyLimiter | None:
        """What limits the requests under way while the server struggles; None where nothing does."""
        ...

    def free_bytes(self) -> int | None:
        """Return the free bytes; None where the location does not report them."""
        ...

    def keep_room(self, key: str, size_bytes: int) -> None:
        """Write a file of random bytes that holds room, where the location reports what is free: of that it takes a
        sixteenth at most. It carries nothing, so no rate limit counts it. Raises like ``Store.put``.
        """
        ...

    def free_files(self) -> int | None:
        """Return how many more files a file system takes (inodes); None where there is no such limit."""
        ...


def exists(store: Store, key: str) -> bool:
    """Tell whether there is a file. Raises like ``Store.stat``, except ``GoneError``."""
    try:
        store.stat(key)
    except GoneError:
        return False
    return True


def part_bytes_for(size_bytes: int, usual: int) -> int:
    """Return the size of a part for a file: the usual one, doubled until ``MAX_PARTS`` suffice."""
    part_bytes = usual
    while part_bytes * MAX_PARTS < size_bytes:
        part_bytes *= 2
    return part_bytes


class BaseStore(ABC):
    """The answers of a store without optional abilities, to inherit from."""

    keeps_sha256 = False
    together = 1

    @abstractmethod
    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """See ``Store.delete``."""

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``."""
        for file in files:
            self.put(file.key, file.data, sha256=file.sha256)

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``."""
        for key in keys:
            self.delete(key)

    def part_bytes(self, size_bytes: int) -> int:
        """See ``MultipartStore.part_bytes``."""
        return part_bytes_for(size_bytes, PART_BYTES)

    @property
    def tidying(self) -> Tidying | None:
        """See ``MultipartStore.tidying``."""
        return None

    @property
    def limiter(self) -> ConcurrencyLimiter | None:
        """See ``MultipartStore.limiter``."""
        return None

    def free_bytes(self) -> int | None:
        """See ``MultipartStore.free_bytes``."""
        return None

    def keep_room(self, key: str, size_bytes: int) -> None:  # noqa: B027  what is free is not reported
        """See ``MultipartStore.keep_room``."""

    def free_files(self) -> int | None:
        """See ``MultipartStore.free_files``."""
        return None


class StoreWrapper:
    """A store that passes everything on to another one, to inherit from: a wrapper overrides what it adds to."""

    def __init__(self, store: MultipartStore) -> None:
        self._store = store
        self.location = store.location
        self.keeps_sha256 = store.keeps_sha256
        self.together = store.together

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""
        return self._store.put(key, data, sha256=sha256)

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``."""
        self._store.put_all(files)

    def create(self, key: str, data: bytes) -> FileInfo:
        """See ``Store.create``."""
        return self._store.create(key, data)

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """See ``Store.replace``."""
        return self._store.replace(key, data, etag=etag)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``Store.read``."""
        return self._store.read(key, start, length)

    def stat(self, key: str) -> FileInfo:
        """See ``Store.stat``."""
        return self._store.stat(key)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        """See ``Store.list``."""
        return self._store.list(prefix, start_after=start_after)

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        self._store.delete(key)

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``."""
        self._store.delete_all(keys)

    def part_bytes(self, size_bytes: int) -> int:
        """See ``MultipartStore.part_bytes``."""
        return self._store.part_bytes(size_bytes)

    def begin(self, key: str, *, sha256: str | None = None, part_bytes: int = PART_BYTES) -> str:
        """See ``MultipartStore.begin``."""
        return self._store.begin(key, sha256=sha256, part_bytes=part_bytes)

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """See ``MultipartStore.uploads``."""
        return self._store.uploads(prefix)

    def parts(self, key: str, upload: str) -> Parts:
        """See ``MultipartStore.parts``."""
        return self._store.parts(key, upload)

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        """See ``MultipartStore.put_part``."""
        return self._store.put_part(key, upload, number, data)

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``."""
        return self._store.complete(key, upload, parts, crc64nvme=crc64nvme)

    def abort(self, key: str, upload: str) -> None:
        """See ``MultipartStore.abort``."""
        self._store.abort(key, upload)

    @property
    def tidying(self) -> Tidying | None:
        """See ``MultipartStore.tidying``."""
        return self._store.tidying

    @property
    def limiter(self) -> ConcurrencyLimiter | None:
        """See ``MultipartStore.limiter``."""
        return self._store.limiter

    def free_bytes(self) -> int | None:
        """See ``MultipartStore.free_bytes``."""
        return self._store.free_bytes()

    def keep_room(self, key: str, size_bytes: int) -> None:
        """See ``MultipartStore.keep_room``."""
        self._store.keep_room(key, size_bytes)

    def free_files(self) -> int | None:
        """See ``MultipartStore.free_files``."""
        return self._store.free_files()
