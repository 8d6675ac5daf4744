"""Faults on purpose, for tests of whatever works on a store.

plan = FaultPlan(Fault("put_part", nth=3, what=fail(UnreachableError("gone away"))))
store = Retrying(Faulty(real_store, plan))
...
plan.assert_all_fired()
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from migrate.errors import MoveoutError, UnreachableError
from migrate.storage.api import (
    PART_BYTES,
    FileInfo,
    MultipartStore,
    NewFile,
    Parts,
    StoreWrapper,
    Upload,
    UploadedPart,
)

T = TypeVar("T")
Call = Callable[[], Any]
What = Callable[[Call], Any]
"""Gets the call that was to be made; makes it or not, and returns what the caller sees."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Happens at the ``nth`` call (from 1) of ``method`` for keys that begin with ``prefix``, ``times`` calls
    in a row.
    """

    method: str
    what: What
    nth: int = 1
    times: int = 1
    prefix: str = ""


def fail(error: MoveoutError) -> What:
    """Raise ``error`` instead of making the call."""

    def before(_: Call) -> Any:
        raise error

    return before


def lose_answer(error: MoveoutError | None = None) -> What:
    """Make the call, then raise as if its answer had been lost."""

    def after(call: Call) -> Any:
        call()
        raise error or UnreachableError("the answer was lost")

    return after


def lose_file(store: MultipartStore, key: str) -> What:
    """Make the call, and remove the file as a server does that loses what it took."""

    def after(call: Call) -> Any:
        answer = call()
        store.delete(key)
        return answer

    return after


def flip_bit(offset: int = 0) -> What:
    """Return what was read with one bit changed, silently."""

    def flipped(call: Call) -> Any:
        data = bytearray(call())
        data[offset] ^= 1
        return bytes(data)

    return flipped


def truncate(size_bytes: int) -> What:
    """Return only the beginning of what was read, silently."""
    return lambda call: call()[:size_bytes]


def kill(*, after: bool) -> What:
    """End this process with SIGKILL, before or after the call."""

    def die(call: Call) -> Any:
        if after:
            call()
        os.kill(os.getpid(), signal.SIGKILL)

    return die


class FaultPlan:
    """Which faults happen, and which have. Thread-safe; may be shared by several stores."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        self._calls = [0] * len(faults)
        self._fired = [0] * len(faults)
        self._lock = threading.Lock()

    def take(self, method: str, key: str) -> What | None:
        """Count a call, return what is to happen to it."""
        chosen = None
        with self._lock:
            for number, fault in enumerate(self.faults):
                if fault.method != method or not key.startswith(fault.prefix):
                    continue
                self._calls[number] += 1
                if chosen is None and fault.nth <= self._calls[number] < fault.nth + fault.times:
                    self._fired[number] += 1
                    chosen = fault.what
        return chosen

    def unfired(self) -> list[Fault]:
        """Return the faults that did not happen as often as planned."""
        return [fault for fault, fired in zip(self.faults, self._fired, strict=True) if fired < fault.times]

    def assert_all_fired(self) -> None:
        """Raise ``AssertionError`` that names a fault that never happened: such a test has tested nothing."""
        missing = [f"{fault.method} #{fault.nth} {fault.prefix}".rstrip() for fault in self.unfired()]
        if missing:
            raise AssertionError(f"planned faults that did not happen: {', '.join(missing)}")


class Faulty(StoreWrapper):
    """A store to which the planned faults happen. The faults of ``list`` and ``uploads`` strike at the first
    row.
    """

    def __init__(self, store: MultipartStore, plan: FaultPlan) -> None:
        super().__init__(store)
        self._plan = plan

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""
        return self._do("put", key, lambda: self._store.put(key, data, sha256=sha256))

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``. A fault of ``put`` strikes between two files."""
        for file in files:
            self.put(file.key, file.data, sha256=file.sha256)

    def create(self, key: str, data: bytes) -> FileInfo:
        """See ``Store.create``."""
        return self._do("create", key, lambda: self._store.create(key, data))

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """See ``Store.replace``."""
        return self._do("replace", key, lambda: self._store.replace(key, data, etag=etag))

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``Store.read``."""
        return self._do("read", key, lambda: self._store.read(key, start, length))

    def stat(self, key: str) -> FileInfo:
        """See ``Store.stat``."""
        return self._do("stat", key, lambda: self._store.stat(key))

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        """See ``Store.list``."""
        yield from self._do("list", prefix, lambda: self._store.list(prefix, start_after=start_after))

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        self._do("delete", key, lambda: self._store.delete(key))

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``."""
        for key in keys:
            self.delete(key)

    def begin(self, key: str, *, sha256: str | None = None, part_bytes: int = PART_BYTES) -> str:
        """See ``MultipartStore.begin``."""
        return self._do("begin", key, lambda: self._store.begin(key, sha256=sha256, part_bytes=part_bytes))

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """See ``MultipartStore.uploads``."""
        yield from self._do("uploads", prefix, lambda: self._store.uploads(prefix))

    def parts(self, key: str, upload: str) -> Parts:
        """See ``MultipartStore.parts``."""
        return self._do("parts", key, lambda: self._store.parts(key, upload))

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        """See ``MultipartStore.put_part``."""
        return self._do("put_part", key, lambda: self._store.put_part(key, upload, number, data))

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``."""
        return self._do(
            "complete", key, lambda: self._store.complete(key, upload, parts, crc64nvme=crc64nvme)
        )

    def abort(self, key: str, upload: str) -> None:
        """See ``MultipartStore.abort``."""
        self._do("abort", key, lambda: self._store.abort(key, upload))

    def _do(self, method: str, key: str, call: Callable[[], T]) -> T:
        what = self._plan.take(method, key)
        if what is None:
            return call()
        changed: T = what(call)
        return changed
