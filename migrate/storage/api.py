"""What a location can do with bytes.

A location is a directory, or a bucket and a prefix. Keys are relative to it, match ``[a-z0-9._/-]+`` (plus
whatever the bundle's own names need), and are ordered by their UTF-8 bytes. All methods are thread-safe. They
raise only errors of ``migrate.errors``: the foreign ones are translated where they arise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

MIN_PART_BYTES = 5 * 2**20
"""S3's minimum for all parts but the last (Amazon S3 user guide, "multipart upload limits")."""
MAX_PARTS = 10_000
PART_BYTES = 16 * 2**20
"""The usual part."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file at a location. ``etag`` is opaque and changes with the content; ``sha256`` (64 hex digits) is known
    only where the writer said it and the store keeps it, and only from ``stat``.
    """

    key: str
    size_bytes: int
    etag: str
    modified: datetime
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the store has, durable. Numbers count from 1. ``crc64nvme`` of its bytes, where the store
    tells.
    """

    number: int
    size_bytes: int
    etag: str
    crc64nvme: int | None


@dataclass(frozen=True, slots=True)
class NewFile:
    """A whole file that is to be written."""

    key: str
    data: bytes
    sha256: str | None = None


Parts: TypeAlias = list[Part]
"""A name for use inside of classes that have a method ``list``."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload that was begun and neither completed nor aborted."""

    key: str
    id: str
    started: datetime


class Store(Protocol):
    """Whole files, atomically."""

    location: str
    """The location as a URL, without secrets."""
    keeps_sha256: bool
    """Whether ``stat`` tells the SHA-256 that the writer gave."""
    together: int
    """How many files ``put_all`` and ``delete_all`` should get at once; 1 where many take as long as each by itself."""

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """Write or replace a file. It mustn't be possible to observe a part of it, not even after a crash;
        when this returns it is durable.
        """
        ...

    def put_all(self, files: Sequence[NewFile]) -> None:
        """Write or replace files, each as by ``put``; when this returns all are durable. After an error or a crash some
        may be there, each of them whole.
        """
        ...

    def create(self, key: str, data: bytes) -> FileInfo:
        """Like ``put``, but raise ``AlreadyExistsError`` if the key exists. Of two racing calls exactly one
        wins.
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
        """Return the size of a part for a file of this size that is begun now: less where the way there is slow."""
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

    def parts(self, key: str, upload: str) -> list[Part]:
        """Return the durable parts of an upload, ordered by number (all pages of them). Raises
        ``GoneError``.
        """
        ...

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part:
        """Write one part; writing a number again replaces it. The store checks the part's CRC64NVME where it
        can.
        """
        ...

    def complete(self, key: str, upload: str, parts: list[Part], *, crc64nvme: int) -> FileInfo:
        """Make the file from ``parts``, atomically. Raises ``DamageError`` if the whole's checksum is not
        ``crc64nvme``.
        """
        ...

    def abort(self, key: str, upload: str) -> None:
        """Drop an upload and its parts; nothing happens where there is none."""
        ...
