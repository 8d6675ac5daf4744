"""Files that a command is asked to read or write, outside of any location."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from migrate.runtime.crash_points import durable
from migrate.storage.local.errors import translated

_NAME_CHARACTERS = 200
"""So much of a name fits into that of its temporary file."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read it. Anything else, such as a pipe, is refused. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
    as before.
    """
    goal = path.resolve()
    temporary = goal.with_name(f".{goal.name[:_NAME_CHARACTERS]}.{os.getpid()}.new")
    try:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666 if mode is None else mode
        )
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            elif goal.exists():
                shutil.copymode(goal, temporary)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        with durable(crash_point):
            temporary.replace(goal)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_whole(path: Path, data: bytes, *, crash_point: str) -> None:
    """Write or replace a file that a command is asked to write. What is no file, such as ``/dev/stdout``, is written
    to. Raises the errors of ``migrate.errors``.
    """
    with translated(path):
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            replace_file(path, data, crash_point=crash_point)
