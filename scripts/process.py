"""Child processes that do not outlive us, on loopback ports of their own."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 15.0
_PORTS = range(20_000, 32_000)

_AGAIN_SECONDS = 60
_WRAPPER = """
import ctypes, os, sys
parent, user, last_signal, *argv = sys.argv[1:]
if user:
    import pwd
    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(last_signal))
    if os.getppid() != int(parent):
        sys.exit("the parent is gone already")
os.execv(argv[0], argv)
"""
# PR_SET_PDEATHSIG (1) is cleared by a change of user, so it is set after that and just before exec; prctl(2).


Argv = Sequence[str | Path]


class ServerError(Exception):
    """A server could not be had or started; the message says which, why and what to do."""


def free_port() -> int:
    """Return a loopback port that no other call returns as long as this process lives: its UDP port, which no server
    uses, is kept. Else two servers that start at once could get one port, and both answer as the first of them. It is
    none of those that the system gives to connections (from 32768 on, ip(7)): one of them could take it while a server
    is down.
    """
    while True:
        port = random.choice(_PORTS)
        with (
            contextlib.suppress(OSError),
            socket.socket() as probe,
            socket.socket(type=socket.SOCK_DGRAM) as claim,
        ):
            claim.bind(("127.0.0.1", port))
            probe.bind(("127.0.0.1", port))
            claim.detach()
            return port


@dataclass(slots=True)
class Child:
    """A running program. Its output goes to ``log``; ``spawn`` starts it once more."""

    name: str
    log: Path
    popen: subprocess.Popen[bytes]
    spawn: Callable[[], subprocess.Popen[bytes]]
    stop_signal: signal.Signals = signal.SIGTERM
    kill_signal: signal.Signals = signal.SIGKILL
    """What ends it at once, whatever becomes of its data."""

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Return once ``ready()`` holds. Raises ``ServerError`` if the program dies or time runs out."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.popen.poll() is not None:
                raise ServerError(f"{self.name} ended with status {self.popen.returncode}:\n{self.log_end()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} does not answer after {seconds:.0f} s:\n{self.log_end()}")
            time.sleep(0.02)

    def start_again(self, ready: Callable[[], bool]) -> None:
        """Kill the program and start it with the same words, as often as it needs: processes of its own may hold
        something for a moment. Raises ``ServerError`` if it does not answer in time.
        """
        self.popen.kill()
        deadline = time.monotonic() + _AGAIN_SECONDS
        while True:
            self.popen.wait()
            self.popen = self.spawn()
            try:
                return self.wait_until(ready, seconds=_AGAIN_SECONDS)
            except ServerError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def log_end(self) -> str:
        """Return the last lines of the log, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-15:])

    def begin_stop(self) -> None:
        """Ask the program to end; ``finish_stop`` waits for it."""
        if self.popen.poll() is None:
            self.popen.send_signal(self.stop_signal)

    def begin_kill(self) -> None:
        """End the program at once, for when nobody needs its data any more; ``finish_stop`` waits for it."""
        if self.popen.poll() is None:
            self.popen.send_signal(self.kill_signal)

    def finish_stop(self) -> None:
        """Wait for the end of a program that was asked, and end it by force if it takes too long."""
        try:
            self.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
        with contextlib.suppress(ChildProcessError):
            self.popen.wait()

    def stop(self) -> None:
        """End the program, by force if it takes too long. Safe to call twice."""
        self.begin_stop()
        self.finish_stop()


def start(
    name: str,
    argv: Argv,
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    user: str = "",
    stop_signal: signal.Signals = signal.SIGTERM,
    kill_signal: signal.Signals = signal.SIGKILL,
) -> Child:
    """Start a program that is killed when the calling *thread* ends, so call it from the main thread.

    ``user`` is whom it runs as, where we are root. The killing is Linux only; elsewhere call ``stop``.
    """
    command = [sys.executable, "-I", "-S", "-c", _WRAPPER, str(os.getpid()), user, str(int(signal.SIGKILL))]

    def spawn() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [*command, *map(str, argv)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                cwd="/",
                start_new_session=True,
            )

    return Child(name, log, spawn(), spawn, stop_signal, kill_signal)


def unprivileged_user(server: str, *, own_user: str) -> str:
    """Return whom a server that refuses root runs as: its ``own_user`` user, else nobody; "" where we are not root."""
    if os.geteuid() != 0:
        return ""
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in (own_user, "nobody"):
        if name in known:
            return name
    raise ServerError(f"{server} refuses to run as root, and there is neither a user {own_user} nor nobody")


def write_private(path: Path, text: str) -> None:
    """Replace a file that only we may read, atomically."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)
