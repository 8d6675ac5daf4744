"""Processes of tests that end with the test, also where it fails; servers that are killed."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from exporters.connections import silent_servers


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


def kill_server(server: Any) -> None:
    """Kill a server with all processes that it has started."""
    process = server.child.popen
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    process.wait()


@contextmanager
def stopped(server):
    """Stop the main process of a server, so that it lets nobody in: the system takes connections, nothing answers."""
    main = server.child.popen.pid
    os.kill(main, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(main, signal.SIGCONT)
        silent_servers._silent.clear()
