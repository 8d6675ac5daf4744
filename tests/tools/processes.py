"""Processes of tests that end with the test, also where it fails."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def killed_at_end(words: list[Any], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a command meanwhile; at the end it is killed, unless it has ended. ``options``: of ``subprocess.Popen``. The
    context of that one waits for ever for a command that runs until it is stopped.
    """
    with subprocess.Popen([*map(str, words)], **options) as process:
        try:
            yield process
        finally:
            process.kill()
