"""Reading a file of a location as if it were open: seek, read, tell."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from migrate.errors import DamageError
from migrate.storage.api import Store

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_AHEAD_BYTES = 2**20


class RandomAccess(io.RawIOBase):
    """A seekable binary file over ranges, for pyarrow, tarfile and zipfile. Small reads fetch ``read_ahead``
    bytes at once.

    One thread at a time; many may be open on one store. Raises the store's errors, and ``DamageError`` where the file
    is shorter than ``size_bytes``.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        *,
        size_bytes: int | None = None,
        read_ahead: int = READ_AHEAD_BYTES,
    ) -> None:
        super().__init__()
        self.key = key
        self._store = store
        self._size = store.stat(key).size_bytes if size_bytes is None else size_bytes
        self._read_ahead = read_ahead
        self._position = 0
        self._window_start = 0
        self._window = b""

    def size(self) -> int:
        """Return the file's size in bytes."""
        return self._size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the position. Raises ``ValueError`` for one before the beginning."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self.key}: there is no position {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Return ``size`` bytes (all that are left by default), fewer only at the end of the file."""
        left = max(0, self._size - self._position)
        read_bytes = left if size is None or size < 0 else min(size, left)
        data = self._range(self._position, read_bytes)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """Return all that is left."""
        return self.read()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer``, less only at the end of the file."""
        with memoryview(buffer) as buffer_view, buffer_view.cast("B") as view:
            data = self.read(view.nbytes)
            view[: len(data)] = data
        return len(data)

    def _range(self, start: int, size_bytes: int) -> bytes:
        if size_bytes == 0:
            return b""
        inside = start - self._window_start
        if inside >= 0 and inside + size_bytes <= len(self._window):
            return self._window[inside : inside + size_bytes]
        if size_bytes >= self._read_ahead:
            return self._read_from_store(start, size_bytes)
        self._window_start = start if self._size > self._read_ahead else 0  # a small file is read once
        size = min(self._read_ahead, self._size - self._window_start)
        self._window = self._read_from_store(self._window_start, size)
        inside = start - self._window_start
        return self._window[inside : inside + size_bytes]

    def _read_from_store(self, start: int, size_bytes: int) -> bytes:
        data = self._store.read(self.key, start, size_bytes)
        if len(data) < size_bytes:
            data = self._store.read(self.key, start, size_bytes)  # it may have been cut on the way
        if len(data) < size_bytes:
            raise DamageError(
                self.key,
                expected=f"{size_bytes} bytes from byte {start} on",
                found=f"{len(data)} bytes",
            )
        return data
