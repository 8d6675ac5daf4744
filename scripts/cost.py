"""What programs take: time, processor and memory, of one that runs to its end or of a server at work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MB = 1_000_000
_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
"""Of ``ru_maxrss`` (getrusage(2))."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of the clock; those of the processor, of the program and of those that it started and waited for; the
    peak of resident memory of the largest of them.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        return f"{self.seconds:7.2f} s {self.cpu_seconds:7.2f} s of CPU {self.peak_bytes / MB:6.0f} MB"


_WAITER = """
import json, os, sys, time
started = time.monotonic()
nothing = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=nothing)
_, status, used = os.wait4(pid, 0)
seconds = time.monotonic() - started
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
"""Starts a command from a small process. The peak of one that is started by a large process counts the memory of that
(Linux, ``exec_mmap``).
"""


def cost_of(command: Sequence[str | Path], variables: Mapping[str, str] | None = None) -> Cost:
    """Run a command, with ``variables`` in addition to those of the environment, and return what it took. Raises
    ``subprocess.CalledProcessError``.
    """
    known = {**os.environ, **(variables or {})}
    known.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    waiting = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _WAITER, *command], env=known, stdout=subprocess.PIPE, check=True
    )
    exit_code, seconds, cpu_seconds, peak = json.loads(waiting.stdout)
    if exit_code:
        raise subprocess.CalledProcessError(exit_code, command)
    return Cost(seconds, cpu_seconds, peak * _RSS_UNIT_BYTES)


def used_by(pid: int) -> float:
    """Return the seconds of processor that a process, its descendants, and those of them that have ended, have used
    (proc(5), ``stat``). 0 where there is no such process on this machine.
    """
    return sum(map(_seconds, _tree(pid)))


def tree_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants; pages that several of them share count for each."""
    return sum(map(_resident_bytes, _tree(pid)))


def parent_of(pid: int) -> int:
    """Return the parent's number, 0 where there is no such process on this machine."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _seconds(pid: int) -> float:
    """User, system, and both of children that were waited for."""
    return sum(map(int, _stat(pid)[11:15])) / _TICKS


def _stat(pid: int) -> list[str]:
    """Return the fields after the name, which may hold blanks."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for folder in _PROC.iterdir():
        if folder.name.isdigit() and parent_of(int(folder.name)) == pid:
            yield from _tree(int(folder.name))


def _resident_bytes(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
