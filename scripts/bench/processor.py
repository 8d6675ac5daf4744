"""Seconds of processor that a server and its sessions have used: what counts on a machine on which others work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def used_by(pid: int) -> float:
    """Return what a process, its descendants, and those of them that have ended, have used (proc(5), ``stat``). 0 where
    there is no such process on this machine.
    """
    return sum(map(_seconds, _tree(pid)))


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
