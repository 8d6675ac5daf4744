"""A store as the one run sees it that holds its lease: files that nobody else writes are listed once, and what was read
or written need not be asked for again. On a long link each question takes a fifth of a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice

from msgspec import Struct, field
from msgspec.structs import replace

from migrate.errors import GoneError
from migrate.storage.api import FileInfo, MultipartStore, NewFile, Parts, StoreWrapper
from migrate.storage.key_rules import checked

_MOST_FILES = 10_000
"""Where there are more, nothing is known, and every question is asked."""
_KEPT_BYTES = 16 * 2**20
"""How large all contents that are kept may be together."""
_ONE_BYTES = 2**20
_AT_ONCE = 16


class _KnownContents(Struct):
    """What is there. ``infos`` is None where that is not known."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    infos: dict[str, FileInfo] | None = None
    contents: dict[str, bytes] = field(default_factory=dict)
    loading: Future[None] | None = None


def _any_key(_: str) -> bool:
    return True


class KnownFiles(StoreWrapper):
    """A store with files of ``ours``, which nobody else writes meanwhile. ``ours`` is asked for keys and for prefixes
    of listings. Writing a file as it is already sends nothing. Thread-safe as far as a file is written by one thread.
    """

    def __init__(self, store: MultipartStore, ours: Callable[[str], bool] = _any_key) -> None:
        super().__init__(store)
        self._ours = ours
        self._knowledge = _KnownContents()

    def over(self, store: MultipartStore) -> KnownFiles:
        """Return the same knowledge over another way to the same location."""
        other = KnownFiles(store, self._ours)
        other._knowledge = self._knowledge
        return other

    def load(self, names: Iterable[str], prefix: str = "") -> None:
        """List all files below ``prefix``, below which all of ours are, and read these, at once. Nothing may be written
        meanwhile.
        """
        with ThreadPoolExecutor(thread_name_prefix="moveout-known") as threads:
            listed = threads.submit(lambda: list(islice(self._store.list(prefix), _MOST_FILES + 1)))
            contents = {name: threads.submit(self._content, name) for name in names}
            infos = listed.result()
            if len(infos) <= _MOST_FILES:
                self._knowledge.infos = {info.key: info for info in infos}
                self._knowledge.contents |= {
                    name: content
                    for name, future in contents.items()
                    if (content := future.result()) is not None
                }

    def load_by(self, threads: Executor, names: Iterable[str], prefix: str) -> None:
        """``load`` by a thread. Who needs an answer waits for it."""
        self._knowledge.loading = threads.submit(self.load, names, prefix)

    def _content(self, name: str) -> bytes | None:
        try:
            return self._store.read(name)
        except GoneError:
            return None

    def _known(self, key: str) -> dict[str, FileInfo] | None:
        """Return what is there, None where that is not known of this key or prefix."""
        if not self._ours(key):
            return None
        if self._knowledge.loading is not None:
            self._knowledge.loading.result()
        return self._knowledge.infos

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        """See ``Store.list``."""
        known = self._known(prefix)
        if known is None:
            yield from super().list(prefix, start_after=start_after)
            return
        with self._knowledge.lock:
            names = sorted(name for name in known if name.startswith(prefix) and name > start_after)
            infos = [known[name] for name in names]
        yield from infos

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``Store.read``."""
        self._must_be_there(key)
        content = self._knowledge.contents.get(key)
        if content is not None:
            return content[start:] if length is None else content[start : start + length]
        content = super().read(key, start, length)
        if start == 0 and length is None:
            self._keep(key, content)
        return content

    def stat(self, key: str) -> FileInfo:
        """See ``Store.stat``."""
        self._must_be_there(key)
        info = (self._known(key) or {}).get(key)
        return super().stat(key) if info is None or info.sha256 is None else info

    def _must_be_there(self, key: str) -> None:
        known = self._known(checked(key))
        if known is not None and key not in known:
            raise GoneError(f"{key} is not there")

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""
        info = (self._known(key) or {}).get(key)
        if info is not None and self._knowledge.contents.get(key) == data:
            return replace(info, sha256=sha256)
        self._knowledge.contents.pop(key, None)
        info = super().put(key, data, sha256=sha256)
        self._note(info)
        self._keep(key, data)
        return info

    def create(self, key: str, data: bytes) -> FileInfo:
        """See ``Store.create``."""
        info = super().create(key, data)
        self._forget(key)
        self._note(info)
        return info

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """See ``Store.replace``."""
        info = super().replace(key, data, etag=etag)
        self._knowledge.contents.pop(key, None)
        self._note(info)
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
            self._knowledge.contents.pop(file.key, None)
        super().put_all(files)
        for file in files:
            self._note(FileInfo(file.key, len(file.data), "", datetime.now(UTC)))

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``."""
        for key in keys:
            self._forget(key)
        if len(keys) <= self.together:
            super().delete_all(keys)
        else:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="moveout-known") as threads:
                list(threads.map(super().delete, keys))

    def _note(self, info: FileInfo) -> None:
        if not self._ours(info.key):
            return
        with self._knowledge.lock:
            if self._knowledge.infos is None:
                return
            self._knowledge.infos[info.key] = info
            if len(self._knowledge.infos) > _MOST_FILES:
                self._knowledge.infos = None
                self._knowledge.contents.clear()

    def _keep(self, key: str, content: bytes) -> None:
        """Keep a content, and drop the oldest ones where they are too much together."""
        if not self._ours(key):
            return
        with self._knowledge.lock:
            kept = self._knowledge.contents
            kept.pop(key, None)
            if len(content) > _ONE_BYTES or self._knowledge.infos is None:
                return
            kept[key] = content
            kept_bytes = sum(map(len, kept.values()))
            for name in list(kept):
                if kept_bytes <= _KEPT_BYTES:
                    return
                kept_bytes -= len(kept.pop(name))

    def _forget(self, key: str) -> None:
        with self._knowledge.lock:
            self._knowledge.contents.pop(key, None)
            if self._knowledge.infos is not None:
                self._knowledge.infos.pop(key, None)
