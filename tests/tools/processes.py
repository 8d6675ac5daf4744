"""Processes of tests that end with the test, also where it fails; servers that are killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from exporters.connections import silent_servers
from migrate.cli import main
from tests.export.victims import run


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


@dataclass(frozen=True)
class RunningCommand:
    """A command that runs in another process; what it prints goes to two files."""

    process: BaseProcess
    out: Path
    err: Path

    def end(self, seconds: float = 120) -> int:
        """Wait until it has ended; return its exit code."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, self.err.read_text()
        return self.process.exitcode


@contextmanager
def forked(words: Sequence[Any], folder: Path) -> Iterator[RunningCommand]:
    """Run a command in another process, without ``moveout``; at the end it is killed, unless it has ended. It need not
    import anything anew, which takes a second of the processor. ``folder``: for what it prints.
    """
    out, err = folder / "command.out", folder / "command.err"
    process = run(_command, [*map(str, words)], out, err)
    try:
        yield RunningCommand(process, out, err)
    finally:
        process.kill()
        process.join()


def _command(words: list[str], out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["moveout", *words]
    sys.exit(main())


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
