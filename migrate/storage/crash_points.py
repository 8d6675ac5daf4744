"""Writes to a location as points at which a test can end the process."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.runtime.crash_points import durable
from migrate.storage.api import PART_BYTES, FileInfo, NewFile, Parts, StoreWrapper, UploadedPart


class CrashPoints(StoreWrapper):
    """A store that names its durable steps: ``location.`` and the method. Files that are written together are written
    one after the other, so that a group ends in its middle, too.
    """

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""
        with durable("location.put"):
            return self._store.put(key, data, sha256=sha256)

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``."""
        for file in files:
            with durable("location.put_all"):
                self._store.put_all([file])

    def create(self, key: str, data: bytes) -> FileInfo:
        """See ``Store.create``."""
        with durable("location.create"):
            return self._store.create(key, data)

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """See ``Store.replace``."""
        with durable("location.replace"):
            return self._store.replace(key, data, etag=etag)

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        with durable("location.delete"):
            self._store.delete(key)

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``."""
        for key in keys:
            with durable("location.delete_all"):
                self._store.delete_all([key])

    def begin(self, key: str, *, sha256: str | None = None, part_bytes: int = PART_BYTES) -> str:
        """See ``MultipartStore.begin``."""
        with durable("location.begin"):
            return self._store.begin(key, sha256=sha256, part_bytes=part_bytes)

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        """See ``MultipartStore.put_part``."""
        with durable("location.put_part"):
            return self._store.put_part(key, upload, number, data)

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``."""
        with durable("location.complete"):
            return self._store.complete(key, upload, parts, crc64nvme=crc64nvme)

    def abort(self, key: str, upload: str) -> None:
        """See ``MultipartStore.abort``."""
        with durable("location.abort"):
            self._store.abort(key, upload)
