"""Exports that die: at a given write to the location, by SIGKILL."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from exporters.api import Unit
from migrate.export.run import export
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Silent
from migrate.storage.api import MultipartStore
from migrate.storage.registry import open_location
from tests.export.sources import Numbers
from tests.tools.waiting import eventually

WRITES = {"put", "create", "replace", "delete", "begin", "put_part", "complete", "abort"}
_IMPORTED_ONCE = [
    "tests.export.victims",
    "exporters.mysql",
    "exporters.postgres",
    "exporters.sqlite",
    "hypothesis",
    "migrate.restore.mysql.restore",
    "migrate.restore.postgres.restore",
    "migrate.restore.postgres.row_steps",
    "migrate.restore.sqlite.restore",
    "migrate.storage.s3.store",
    "migrate.transfer.run",
    "migrate.verify.live_database",
    "pyarrow.parquet",
    "pytest",
]
"""What victims need is imported once, by the process that they are forked from."""
_FORK_SERVER = multiprocessing.get_context("forkserver")


def import_once(*modules: str) -> None:
    """Let further modules be imported once, too, if it comes before the first victim."""
    _IMPORTED_ONCE.extend(modules)
    _FORK_SERVER.set_forkserver_preload(_IMPORTED_ONCE)


import_once()


class Counting:
    """A store that counts its writes, and kills the process before the ``fatal``-th."""

    def __init__(self, inner: MultipartStore, fatal: int = 0) -> None:
        self.inner, self.location, self.writes = inner, inner.location, 0
        self._fatal = fatal
        self._lock = threading.Lock()

    def __getattr__(self, name):
        call = getattr(self.inner, name)
        return self._counted(call) if name in WRITES else call

    def put_all(self, files):
        """Write one file after the other, so that a group dies in the middle too."""
        for file in files:
            self.put(file.key, file.data, sha256=file.sha256)

    def delete_all(self, keys):
        """Remove one file after the other."""
        for key in keys:
            self.delete(key)

    def _counted(self, call):
        def counted(*args, **kwargs):
            with self._lock:
                self.writes += 1
                fatal = self.writes == self._fatal
            if fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted


def die_at_write(location: str, fatal: int, count: int = 15) -> None:
    """Export so many numbers by one worker, until the ``fatal``-th write."""
    store = Counting(open_location(location), fatal)
    export([Numbers(count=count)], store, workers=1, progress=Silent())


def stay_in_unit(
    location: str, marker: str, item_bytes: int = 4, wait: Callable[[float], object] = time.sleep
) -> None:
    """Export until the third unit, tell so by a file, and stay there. Units of large items are committed one by one."""

    def stay(unit: Unit) -> None:
        if unit.spec["start"] == 20:
            Path(marker).touch()
            wait(60)

    source = Numbers(on_export=stay, item_bytes=item_bytes)
    export([source], open_location(location), workers=1, progress=Silent())


def stay_until_cancelled(location: str, marker: str) -> None:
    """Like ``stay_in_unit``, but as a source does that reads on and on: it ends with the writing."""
    cancel, is_cancelled = CancellationToken.cancel, threading.Event()

    def cancel_and_tell(token: CancellationToken) -> None:
        cancel(token)
        is_cancelled.set()

    CancellationToken.cancel = cancel_and_tell  # type: ignore[method-assign]
    stay_in_unit(location, marker, wait=is_cancelled.wait)


def _within(environment: dict[str, str], destination, args) -> None:
    """Do it with the environment of now: the fork server has that of its start."""
    os.environ.clear()
    os.environ.update(environment)
    destination(*args)


def run(destination, *args) -> multiprocessing.process.BaseProcess:
    """Start a victim in a process of its own."""
    process = _FORK_SERVER.Process(target=_within, args=(dict(os.environ), destination, args))
    process.start()
    return process


def execute(script: str, *arguments: str) -> None:
    """Run a script that reads its arguments from ``sys.argv``."""
    sys.argv = ["victim", *arguments]
    exec(script, {"__name__": "__main__"})


def kill_when(ready: Callable[[], bool], destination, *args) -> None:
    """Start a victim, and kill it as soon as ``ready`` says so."""
    process = run(destination, *args)

    def is_ready() -> bool:
        assert process.is_alive(), "it ended before it could be killed"
        return ready()

    try:
        eventually(is_ready)
    finally:
        process.kill()
        process.join()
