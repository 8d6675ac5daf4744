"""Temporary directories for copies of databases, which do not outlive us for long."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporters.errors import SourceError
from exporters.sqlite.address import SqliteAddress

_PREFIX = "moveout-sqlite-"
_LOCK = "lock"


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Make a directory that is locked as long as this process lives; those of killed ones are removed before."""
    _sweep()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        directory = Path(name)
        unlocked = directory / "unlocked"
        lock = os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unlocked.rename(directory / _LOCK)  # before it has this name, no other process looks at it
            yield directory
        finally:
            os.close(lock)


def _sweep() -> None:
    """Remove the copies of runs that were killed: no process holds their locks."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(directory / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory)
            finally:
                os.close(lock)


def check_room(address: SqliteAddress, directory: Path) -> None:
    """Raise ``SourceError`` unless the directory has room for a copy."""
    wal = address.companion("-wal")
    needed = address.path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise SourceError(
            f"{address.path}: a copy needs {needed:,} bytes, {directory.parent} has {free:,}",
            next_step="set TMPDIR to a directory with as much room as the file has",
        )


def mark_of(address: SqliteAddress) -> tuple[int, int]:
    """Return what changes when a process writes to the file: size and time."""
    try:
        status = address.path.stat()
    except OSError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)
