"""The operating system's errors about files, translated."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migrate.errors import (
    GoneError,
    MoveoutError,
    NoSpaceError,
    NotAllowedError,
    UnreachableError,
    UsageError,
)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM}
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
_UNUSABLE = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.ENOTEMPTY}
_LACKING = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN}


def translate_os(exc: OSError, path: str | os.PathLike[str]) -> MoveoutError:
    """Return the error of ours that says what ``exc`` means; ``path`` names the file."""
    message = f"{os.fspath(path)}: {exc.strerror or exc}"
    if exc.errno in _FULL:
        return NoSpaceError(message, next_step="make room there, then run the same command again")
    if exc.errno == errno.EROFS:
        return NotAllowedError(
            message, next_step="name a location that can be written, or mount it for writing"
        )
    if exc.errno in _DENIED:
        return NotAllowedError(message, next_step="check the owner and the permissions of the directory")
    if exc.errno == errno.ENOTDIR:
        files = (part for part in (Path(path), *Path(path).parents) if part.is_file())
        return GoneError(f"{next(files, path)} is a file, not a directory", next_step="name a directory")
    if exc.errno in _GONE:
        return GoneError(message, next_step="check the path")
    if exc.errno in _UNUSABLE:
        return UsageError(message)
    if exc.errno in _LACKING:
        return UsageError(
            message,
            next_step="this file system has no locks (flock): mount it with them, or name another directory",
        )
    if exc.errno in _PASSING:
        return UnreachableError(
            message, next_step="check the disk or the mount, then run the same command again"
        )
    return MoveoutError(message)


@contextmanager
def translated(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise our errors instead of ``OSError`` within the context."""
    try:
        yield
    except OSError as exc:
        raise translate_os(exc, path) from exc
