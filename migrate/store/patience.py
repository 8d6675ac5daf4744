"""Waiting that an interruption cuts short: one switch for all threads of a run."""

from __future__ import annotations

import threading

_halted = threading.Event()


def halt() -> None:
    """End all waiting, now and until ``resume``: whatever is being waited for counts as failed for good."""
    _halted.set()


def resume() -> None:
    """Let waiting be possible again: a new run begins."""
    _halted.clear()


def is_halted() -> bool:
    """Tell whether the run is being stopped."""
    return _halted.is_set()


def pause(seconds: float) -> None:
    """Wait, unless the run is being stopped."""
    _halted.wait(seconds)
