"""Waiting in tests until something holds."""

import time

SECONDS = 120.0


def eventually(condition, seconds=SECONDS):
    """Return once the condition holds; fail where that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
