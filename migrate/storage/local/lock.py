"""A lock between threads and processes that work in one directory."""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryLock:
    """Exclusive while held. The lock file lies in ``directory``, which is made, and may be removed when it is the last
    thing in there. Raises ``FileNotFoundError`` where the directory above is gone.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".lock"
        self._thread_lock = threading.RLock()
        self._descriptor: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        self._thread_lock.acquire()
        self._depth += 1
        if self._depth > 1:
            return
        try:
            self._descriptor = self._acquire()
        except BaseException:
            self._depth -= 1
            self._thread_lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0 and self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._thread_lock.release()

    def remove_if_last(self) -> None:
        """Remove the lock file if nothing else lies in its directory."""
        with suppress(OSError):
            if list(self._path.parent.iterdir()) == [self._path]:
                with self:
                    self._path.unlink(missing_ok=True)

    def _acquire(self) -> int:
        """Open and lock the file; again if whoever held it before has removed it."""
        while True:
            try:
                descriptor = os.open(self._path, _FLAGS, 0o666)
            except FileNotFoundError:
                self._path.parent.mkdir(exist_ok=True)
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                    return descriptor
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
