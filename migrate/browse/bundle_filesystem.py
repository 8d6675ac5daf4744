"""A bundle as a file system that DuckDB reads through: the manifest's payload files, and nothing else.

DuckDB brings its own clients for S3 as an extension that has to be downloaded; here every kind of location is read by
our own storage. Needs ``fsspec``: only imported where SQL is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fsspec.spec import AbstractFileSystem

from migrate.errors import DamageError, GoneError, MoveoutError
from migrate.storage.api import Store

PROTOCOL = "bundle"
_SMALL_BYTES = 2**20
"""A file up to this size is read at once."""


class BundleFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Opens ``bundle://<key>`` for reading. ``sizes``: of every file that may be opened, by key. ``error`` is the last
    error of the location: DuckDB wraps it in one of its own.
    """

    protocol = PROTOCOL
    cachable = False

    def __init__(self, store: Store, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.error: MoveoutError | None = None
        self._store, self.location = store, store.location
        self._sizes = sizes

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with ``prefix``, in order."""
        return [key for key in self._sizes if key.startswith(prefix)]

    def has(self, key: str) -> bool:
        """Tell whether there is such a file."""
        return key in self._sizes

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the size of a file."""
        key = self._strip_protocol(path)
        if key not in self._sizes:
            raise FileNotFoundError(path)
        return {"name": key, "size": self._sizes[key], "type": "file"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return nothing: files are opened by their keys, which the catalog has."""
        del path, detail
        return []

    def modified(self, path: str) -> datetime:
        """Return the same moment for all files: a sealed bundle does not change."""
        del path
        return datetime.fromtimestamp(0, UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BundleFile:
        key = self._strip_protocol(path)
        if mode != "rb":
            raise PermissionError(f"{key} is read only")
        return BundleFile(self, key, self.info(path)["size"])

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes of a file; remember an error of the location."""
        try:
            return self._store.read(key, start, length)
        except GoneError:
            self.error = DamageError(key, expected="a file", found="none")
        except MoveoutError as exc:
            self.error = exc
        raise self.error


class BundleFile:
    """An open file. DuckDB moves and reads from several threads at once: each has a position of its own."""

    def __init__(self, filesystem: BundleFileSystem, key: str, size_bytes: int) -> None:
        self._filesystem = filesystem
        self._key = key
        self._size_bytes = size_bytes
        self._positions: dict[int, int] = {}
        self._whole: bytes | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set this thread's position."""
        position = (0, self.tell(), self._size_bytes)[whence] + offset
        self._positions[threading.get_ident()] = position
        return position

    def tell(self) -> int:
        """Return this thread's position."""
        return self._positions.get(threading.get_ident(), 0)

    def read(self, size: int = -1) -> bytes:
        """Return bytes from this thread's position on."""
        position = self.tell()
        left = max(0, self._size_bytes - position)
        length = left if size < 0 else min(size, left)
        data = self._range(position, length) if length else b""
        self.seek(position + len(data))
        return data

    def _range(self, start: int, length: int) -> bytes:
        if self._size_bytes > _SMALL_BYTES:
            return self._filesystem.read_range(self._key, start, length)
        if self._whole is None:
            self._whole = self._filesystem.read_range(self._key, 0, self._size_bytes)
        return self._whole[start : start + length]

    def close(self) -> None:
        """Forget what was read."""
        self._whole = None
