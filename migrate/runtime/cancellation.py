"""Waiting that an interruption cuts short: one switch for all threads of a run."""

from __future__ import annotations

import threading
import time

GRACE_SECONDS = 5.0
"""So long what is on its way when a run is being stopped may still take."""

_halted = threading.Event()
_halted_at = 0.0


def halt() -> None:
    """End all waiting, now and until ``resume``: whatever is being waited for counts as failed for good."""
    global _halted_at  # noqa: PLW0603 - one switch for all threads
    if not _halted.is_set():
        _halted_at = time.monotonic()
    _halted.set()


def resume() -> None:
    """Let waiting be possible again: a new run begins."""
    _halted.clear()


def is_halted() -> bool:
    """Tell whether the run is being stopped."""
    return _halted.is_set()


def is_overdue() -> bool:
    """Tell whether the run is being stopped, and what was on its way then has had its time."""
    return _halted.is_set() and time.monotonic() - _halted_at > GRACE_SECONDS


def pause(seconds: float) -> None:
    """Wait, unless the run is being stopped."""
    _halted.wait(seconds)
