"""A file at a location, written from beginning to end, hashed on the way."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from migrate.errors import DamageError, MoveoutError, UsageError
from migrate.storage import multipart
from migrate.storage.api import MAX_PARTS, PART_BYTES, FileInfo, MultipartStore, NewFile, Parts, UploadedPart
from migrate.storage.checksums import combine, crc64nvme

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

IN_FLIGHT = 2
"""Parts of one file that may be on their way while the next one fills: (IN_FLIGHT + 1) x part_bytes of memory
a writer.
"""


OnPart = Callable[[int], None]


class FileWriter(io.RawIOBase):
    """A binary file for sequential writing. Up to ``part_bytes`` go by one ``put``; more go in parts,
    uploaded in the background.

    As a context manager: the file exists, whole, once the context has ended without an error (closing it
    inside only ends the writing); after an error nothing of it remains. Without a context, ``close`` makes
    the file. Afterwards ``info``, ``sha256`` (64 hex digits), ``crc64nvme`` and ``size_bytes`` hold. Not for several
    threads at once. Raises the store's errors.

    ``resume``: an interrupted upload of the file is continued: its parts are compared, only others are sent. After
    an error the upload remains, for the next writer. ``on_part`` is called with the size of each part that has arrived.

    ``held``: the context ends with all bytes sent (or, of a file that goes by one ``put``, in memory). What lies at the
    key stays as it is until ``make``, or for good with ``abort``.
    """

    def __init__(
        self,
        store: MultipartStore,
        key: str,
        *,
        part_bytes: int = PART_BYTES,
        resume: bool = False,
        on_part: OnPart | None = None,
        held: bool = False,
    ) -> None:
        super().__init__()
        self.key = key
        self.size_bytes = 0
        self.crc64nvme = 0
        self.info: FileInfo | None = None
        self._store, self._part_bytes = store, part_bytes
        self._resume = resume
        self._on_part = on_part
        self._held_back = held
        self._executor: ThreadPoolExecutor | None = None
        self._hash = hashlib.sha256()
        self._pieces: list[bytes | memoryview] = []
        self._held = 0
        self._upload: str | None = None
        self._has_looked = not resume
        self._there: Mapping[int, UploadedPart] = {}
        self._parts: Parts = []
        self._pending: deque[Future[UploadedPart]] = deque()
        self._in_context = False
        self._ended = False
        self._failed = False

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written so far, in hexadecimal."""
        return self._hash.hexdigest()

    @property
    def closed(self) -> bool:
        """Tell whether the writing has ended."""
        return self._ended

    def writable(self) -> bool:
        """Return True until closed."""
        return not self._ended

    def readable(self) -> bool:
        """Return False."""
        return False

    def seekable(self) -> bool:
        """Return False."""
        return False

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.size_bytes

    def flush(self) -> None:
        """Do nothing: a file that is not whole is not there."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Take all of ``data``."""
        if self._ended:
            raise ValueError(f"{self.key} is closed")
        # What is immutable is kept as it is: each copy of all bytes would hold up all other threads.
        view = memoryview(data if isinstance(data, bytes) else bytes(memoryview(data).cast("B")))
        self._hash.update(view)
        if not self._has_looked:
            self._find()
        written, size = 0, view.nbytes
        while written < size:
            if self._held == self._part_bytes:
                self._send()
            chunk_bytes = min(size - written, self._part_bytes - self._held)
            # Python joins bytes without its lock, views under it.
            self._pieces.append(
                data
                if isinstance(data, bytes) and chunk_bytes == size
                else view[written : written + chunk_bytes]
            )
            self._held += chunk_bytes
            written += chunk_bytes
        self.size_bytes += size
        return size

    def close(self) -> None:
        """End the writing, and outside of a context make the file."""
        if self._ended:
            return
        self._ended = True
        if not self._in_context and not self._failed:
            self.make()

    def abort(self, *, keep: bool | None = None) -> None:
        """Drop what was written; ``keep``: the parts that have arrived stay (default: as ``resume``)."""
        keep = self._resume if keep is None else keep
        self._ended = True
        self._failed = True
        for future in self._pending:
            future.cancel()
        for future in self._pending:
            with suppress(BaseException):
                future.result()
        self._pending.clear()
        self._take()
        self._release()
        if self._upload is not None:
            upload, self._upload = self._upload, None
            with suppress(MoveoutError):  # the error to report is the one that ended the writing
                if not keep:
                    self._store.abort(self.key, upload)

    def __enter__(self) -> Self:
        self._in_context = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._in_context = False
        self._ended = True
        if exc is not None:
            self.abort()
        elif not self._failed:
            self._settle(self._send_rest if self._held_back else self._complete)

    def __del__(self) -> None:
        """Never make a file that nobody closed (``io.IOBase`` would close)."""
        self._ended = True
        self._release()

    def make(self) -> None:
        """Make the file of what was written."""
        self._settle(self._complete)

    def release(self) -> NewFile | None:
        """Give up the file that was held, for ``put_all``; None where it goes in parts, so that ``make`` has to make
        it.
        """
        if self._upload is not None:
            return None
        self._release()
        return NewFile(self.key, self._take(), self.sha256)

    def _settle(self, end: Callable[[], None]) -> None:
        try:
            end()
        except BaseException as exc:
            self.abort(keep=self._resume and not isinstance(exc, DamageError))
            raise
        finally:
            self._release()

    def _complete(self) -> None:
        self._send_rest()
        if self._upload is None:
            self.info = self._store.put(self.key, self._take(), sha256=self.sha256)
            return
        self.info = self._store.complete(self.key, self._upload, self._parts, crc64nvme=self.crc64nvme)
        self._upload = None

    def _send_rest(self) -> None:
        """Wait until all that goes in parts has arrived; what goes by one ``put`` stays here."""
        if self._upload is None:
            data = self._take()
            self.crc64nvme = crc64nvme(data)
            self._pieces, self._held = [data], len(data)
            return
        if self._held:
            self._send()
        while self._pending:
            self._collect()
        self.crc64nvme = combine((part.crc64nvme or 0, part.size_bytes) for part in self._parts)

    def _send(self) -> None:
        """Hand what is held over to be uploaded; waits while too many parts are under way."""
        if self._upload is None:
            self._upload = self._store.begin(self.key, part_bytes=self._part_bytes)
        number = len(self._parts) + len(self._pending) + 1
        if number > MAX_PARTS:
            raise UsageError(f"{self.key}: more than {MAX_PARTS} parts of {self._part_bytes} bytes")
        while len(self._pending) >= IN_FLIGHT:
            self._collect()
        data = self._take()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="moveout-write")
        self._pending.append(self._executor.submit(self._put_part, self._upload, number, data))

    def _find(self) -> None:
        """Look for an interrupted upload of the file; continue it with its part size."""
        self._has_looked = True
        upload = multipart.find_upload(self._store, self.key, self._part_bytes)
        if upload is not None:
            self._upload, self._part_bytes, self._there = upload.id, upload.part_bytes, upload.parts

    def _take(self) -> bytes:
        """Return what is held and hold nothing."""
        data = b"".join(self._pieces)
        self._pieces, self._held = [], 0
        return data

    def _put_part(self, upload: str, number: int, data: bytes) -> UploadedPart:
        part = self._there.get(number)
        if part is None or not multipart.is_part(part, data):
            part = self._store.put_part(self.key, upload, number, data)
        if self._on_part is not None:
            self._on_part(len(data))
        return UploadedPart(part.number, part.size_bytes, part.etag, crc64nvme(data))

    def _collect(self) -> None:
        self._parts.append(self._pending.popleft().result())

    def _release(self) -> None:
        executor = getattr(self, "_executor", None)
        if executor is not None:
            executor.shutdown(wait=False)
            self._executor = None
