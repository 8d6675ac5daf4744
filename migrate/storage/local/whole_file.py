"""Files that a command is asked to read or write, outside of any location."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from migrate.storage.local.errors import translated


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


def write_whole(path: Path, data: bytes) -> None:
    """Write or replace a file in one step: a full disk costs nothing that stood there, whose
    permissions stay. What is no file, such as ``/dev/stdout``, is written to. Raises the errors of ``migrate.errors``.
    """
    with translated(path):
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        goal = path.resolve()
        temporary = goal.with_name(f".{goal.name}.{os.getpid()}.new")
        try:
            temporary.touch()
            if goal.exists():
                shutil.copymode(goal, temporary)
            temporary.write_bytes(data)
            temporary.replace(goal)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
