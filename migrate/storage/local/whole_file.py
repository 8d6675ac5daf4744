"""Files that a command is asked to read or write, outside of any location; and what makes a new name in a directory
survive a crash (fsync(2), the last paragraph of its description).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from migrate.runtime.crash_points import durable
from migrate.storage.local.errors import translated


def sync_directory(directory: Path) -> None:
    """Write a directory's entries to the disk. Raises ``OSError``. Some file systems write them by themselves, and take
    no fsync of a directory (fsync(2): EINVAL).
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def make_directories(directory: Path) -> None:
    """Make a directory and those above it that are missing, and write their names to the disk. Raises ``OSError``."""
    missing = list(takewhile(lambda path: not path.exists(), (directory, *directory.parents)))
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_directory(path.parent)


_NAME_CHARACTERS = 200
"""How much of a name fits into that of its temporary file."""


def open_regular(path: Path, *, follows: bool = True) -> BinaryIO:
    """Open a regular file to read it. Anything else, such as a pipe, is refused, and a symbolic link unless it
    ``follows`` them. Raises ``OSError``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follows else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "it is not a regular file", path)
    return os.fdopen(descriptor, "rb", buffering=0)


def read_regular(path: Path, at_most: int) -> bytes:
    """Return what is in a file, of a longer one a byte more than ``at_most``. Raises ``OSError``."""
    with open_regular(path) as file:
        return file.read(at_most + 1)


def replace_file(path: Path, data: bytes, *, crash_point: str, mode: int | None = None) -> None:
    """Write or replace a file: its bytes are on the disk before they have its name. A file that stood there keeps its
    permissions, unless there is a ``mode``. ``crash_point`` names the step for tests. Raises ``OSError``; then all is
    as before. What a killed process has left is replaced by the next that writes the same file.
    """
    goal = path.resolve()
    temporary = goal.with_name(f".{goal.name[:_NAME_CHARACTERS]}.new")
    descriptor = _create_alone(temporary, 0o666 if mode is None else mode)
    with os.fdopen(descriptor, "wb") as file:
        try:
            if mode is not None:
                os.fchmod(descriptor, mode)
            elif goal.exists():
                shutil.copymode(goal, temporary)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            with durable(crash_point):
                temporary.replace(goal)
            with suppress(OSError):  # what has its name is not taken back
                sync_directory(goal.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def _create_alone(path: Path, mode: int) -> int:
    """Make a file that is locked as long as its descriptor is open. One that is there is waited for while its writer
    lives; what a dead one has left is removed.
    """
    while True:
        is_new = True
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            is_new = False
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                continue
        try:
            with suppress(OSError):  # some file systems have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.lstat()):
                    if is_new:
                        return os.dup(descriptor)
                    path.unlink()
        finally:
            os.close(descriptor)


def write_whole(path: Path, data: bytes, *, crash_point: str) -> None:
    """Write or replace a file that a command is asked to write. What is no file, such as ``/dev/stdout``, is written
    to. Raises the errors of ``migrate.errors``.
    """
    with translated(path):
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            replace_file(path, data, crash_point=crash_point)
