"""Which process this is, and whether another one of this machine still lives.

A process id alone proves nothing: it is used again after a while, and it means another process in another
container. So a process is named by machine, boot, process-id namespace, id and start time. Only where all of
that is known and equal may "there is no such process" be believed.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from msgspec import Struct

_command = "moveout"
"""A process runs one command, as it has one id: so both are asked of the process, and not handed down."""


def name_command(name: str) -> None:
    """Set what others are to call this process where it is in their way, such as ``moveout follow``."""
    global _command  # noqa: PLW0603  see above
    _command = name


def command_name() -> str:
    """Return what others are to call this process."""
    return _command


class ProcessName(Struct, frozen=True):
    """``machine`` is empty where the system does not tell enough to recognise it again."""

    host: str
    machine: str
    pid: int
    started: str


def this_process() -> ProcessName:
    """Return the name of the running process."""
    pid = os.getpid()
    return ProcessName(socket.gethostname(), _machine(), pid, start_time(pid) or "")


def is_dead(process: ProcessName) -> bool:
    """Tell whether ``process`` ran on this machine and is gone; False also where that cannot be known."""
    if not process.machine or process.machine != _machine() or not process.started:
        return False
    return start_time(process.pid) != process.started


def is_alive(process: ProcessName) -> bool:
    """Tell whether ``process`` runs on this machine now; False also where that cannot be known."""
    if not process.machine or process.machine != _machine() or not process.started:
        return False
    return start_time(process.pid) == process.started


def start_time(pid: int) -> str | None:
    """Return the start of a process in clock ticks since boot (proc(5), ``stat`` field 22), None where it
    does not run.

    A zombie counts as gone: it writes nothing any more.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if len(fields) < 20 or fields[0] in {"Z", "X"} else fields[19]


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        machine = "-"
    return f"{machine}/{boot}/{namespace}/{socket.gethostname()}"


def uptime() -> float:
    """Seconds that also pass while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
