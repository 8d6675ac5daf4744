"""Threads that work through lanes, and how they are stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from migrate.storage.api import Store
from migrate.transfer.scheduler import Lanes

GRACE_SECONDS = 10.0
"""How long an interrupted run waits for parts that are on their way."""


def run_workers(lanes: Lanes, workers: int, *, stores: Sequence[Store], on_stuck: Callable[[], None]) -> None:
    """Work through the lanes with so many threads. The first error of any of them stops all and is raised.

    On an interruption no new piece is begun, the stores' retries are ended, and what is on its way gets
    ``GRACE_SECONDS``; if a thread still runs then, ``on_stuck`` is called before the interruption goes on.
    """
    errors: list[BaseException] = []

    def work() -> None:
        try:
            lanes.work()
        except BaseException as exc:  # told by the caller's thread
            errors.append(exc)
            lanes.stop()

    # Daemons: a thread that hangs in a dead connection must not keep an interrupted process alive.
    threads = [
        threading.Thread(target=work, name=f"moveout-transfer-{number}", daemon=True)
        for number in range(workers)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
    except BaseException:
        lanes.stop()
        for store in stores:
            getattr(store, "stop", _nothing)()
        if not _ended(threads, GRACE_SECONDS):
            on_stuck()
        raise
    if errors:
        raise errors[0]


def _ended(threads: Sequence[threading.Thread], seconds: float) -> bool:
    end = time.monotonic() + seconds
    for thread in threads:
        if thread.ident is not None:  # an interruption may come before the last one is started
            thread.join(max(0.0, end - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _nothing() -> None:
    """Do nothing."""
