"""The files of a record as the one run that holds its lease sees them: listed once, and what it has read or written it
need not ask for again. On a long link each question takes a fifth of a second.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from migrate.errors import GoneError
from migrate.storage.api import FileInfo, MultipartStore, NewFile, Parts, StoreWrapper

_KEPT_BYTES = 16 * 2**20
"""Of all contents together."""
_ONE_BYTES = 2**20
_AT_ONCE = 16


class RecordFiles(StoreWrapper):
    """A store that nobody else writes to meanwhile, except for the lease, which does not go through it. Writing a file
    as it is already sends nothing. Thread-safe as far as a file is written by one thread.
    """

    def __init__(self, store: MultipartStore) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self._infos: dict[str, FileInfo] | None = None
        self._contents: dict[str, bytes] = {}

    def load(self, names: Iterable[str]) -> None:
        """List all files and read these, at once."""
        with ThreadPoolExecutor(thread_name_prefix="moveout-record") as threads:
            listed = threads.submit(lambda: {info.key: info for info in self._store.list()})
            contents = {name: threads.submit(self._content, name) for name in names}
            self._infos = listed.result()
            self._contents |= {
                name: content for name, future in contents.items() if (content := future.result()) is not None
            }

    def _content(self, name: str) -> bytes | None:
        try:
            return self._store.read(name)
        except GoneError:
            return None

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        """See ``Store.list``."""
        if self._infos is None:
            yield from super().list(prefix, start_after=start_after)
            return
        with self._lock:
            names = sorted(name for name in self._infos if name.startswith(prefix) and name > start_after)
            infos = [self._infos[name] for name in names]
        yield from infos

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``Store.read``."""
        if self._infos is not None and key not in self._infos:
            raise GoneError(f"{key} is not there")
        content = self._contents.get(key)
        if content is not None:
            return content[start:] if length is None else content[start : start + length]
        content = super().read(key, start, length)
        if start == 0 and length is None:
            self._keep(key, content)
        return content

    def stat(self, key: str) -> FileInfo:
        """See ``Store.stat``."""
        info = (self._infos or {}).get(key)
        return super().stat(key) if info is None or info.sha256 is None else info

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""
        info = (self._infos or {}).get(key)
        if info is not None and self._contents.get(key) == data:
            return replace(info, sha256=sha256)
        self._contents.pop(key, None)
        info = super().put(key, data, sha256=sha256)
        self._note(info)
        self._keep(key, data)
        return info

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``."""
        info = super().complete(key, upload, parts, crc64nvme=crc64nvme)
        self._forget(key)
        self._note(info)
        return info

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        self._forget(key)
        super().delete(key)

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``."""
        for file in files:
            self.put(file.key, file.data, sha256=file.sha256)

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``."""
        if keys:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="moveout-record") as threads:
                list(threads.map(self.delete, keys))

    def _note(self, info: FileInfo) -> None:
        with self._lock:
            if self._infos is not None:
                self._infos[info.key] = info

    def _keep(self, key: str, content: bytes) -> None:
        """Keep a content, and drop the oldest ones where they are too much together."""
        with self._lock:
            self._contents.pop(key, None)
            if len(content) > _ONE_BYTES or self._infos is None:
                return
            self._contents[key] = content
            kept_bytes = sum(map(len, self._contents.values()))
            for name in list(self._contents):
                if kept_bytes <= _KEPT_BYTES:
                    return
                kept_bytes -= len(self._contents.pop(name))

    def _forget(self, key: str) -> None:
        with self._lock:
            self._contents.pop(key, None)
            if self._infos is not None:
                self._infos.pop(key, None)
