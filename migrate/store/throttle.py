"""A limit on bytes per second, shared by all threads of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from migrate.errors import UsageError
from migrate.store.base import PART_BYTES, FileInfo, MultipartStore, Part, Parts, Upload


class Throttle:
    """A token bucket that may be overdrawn: whoever takes waits until what was taken before has been paid
    for.

    So a part larger than a second's worth goes out in one piece, and the average over any long time is the
    rate.
    """

    def __init__(
        self,
        bytes_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if bytes_per_second <= 0:
            raise UsageError(f"{bytes_per_second} is not a rate")
        self.bytes_per_second = bytes_per_second
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, size_bytes: int) -> None:
        """Wait until ``size_bytes`` may pass."""
        with self._lock:
            now = self._clock()
            start = max(self._free_at, now)
            self._free_at = start + size_bytes / self.bytes_per_second
        if start > now:
            self._sleep(start - now)


class Throttled:
    """A store whose bodies, read and written, count against a throttle."""

    def __init__(self, store: MultipartStore, throttle: Throttle) -> None:
        self.inner = store
        self.place = store.place
        self.keeps_sha256 = store.keeps_sha256
        self._throttle = throttle

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""
        self._throttle.take(len(data))
        return self.inner.put(key, data, sha256=sha256)

    def create(self, key: str, data: bytes) -> FileInfo:
        """See ``Store.create``."""
        self._throttle.take(len(data))
        return self.inner.create(key, data)

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """See ``Store.replace``."""
        self._throttle.take(len(data))
        return self.inner.replace(key, data, etag=etag)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``Store.read``. What was read is paid for afterwards, by whoever comes next."""
        self._throttle.take(0)
        data = self.inner.read(key, start, length)
        self._throttle.take(len(data))
        return data

    def stat(self, key: str) -> FileInfo:
        """See ``Store.stat``."""
        return self.inner.stat(key)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        """See ``Store.list``."""
        return self.inner.list(prefix, start_after=start_after)

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        self.inner.delete(key)

    def begin(self, key: str, *, sha256: str | None = None, part_bytes: int = PART_BYTES) -> str:
        """See ``MultipartStore.begin``."""
        return self.inner.begin(key, sha256=sha256, part_bytes=part_bytes)

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """See ``MultipartStore.uploads``."""
        return self.inner.uploads(prefix)

    def parts(self, key: str, upload: str) -> Parts:
        """See ``MultipartStore.parts``."""
        return self.inner.parts(key, upload)

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part:
        """See ``MultipartStore.put_part``."""
        self._throttle.take(len(data))
        return self.inner.put_part(key, upload, number, data)

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``."""
        return self.inner.complete(key, upload, parts, crc64nvme=crc64nvme)

    def abort(self, key: str, upload: str) -> None:
        """See ``MultipartStore.abort``."""
        self.inner.abort(key, upload)
