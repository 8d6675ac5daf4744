"""Translates SQLite's errors into the source errors, by result code (https://sqlite.org/rescode.html)."""

from __future__ import annotations

import os
import shlex
import sqlite3

from exporters.errors import (
    SourceError,
    SourceNotAllowedError,
    SourceUnreachableError,
    SourceUsageError,
)

_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
_REFUSED = ("SQLITE_PERM", "SQLITE_AUTH")
_SURE_PATH_BYTES = 500
"""A path up to this length can be opened: its limit, and what stands behind it for a journal (MAX_PATHNAME in os.h)."""
_NEEDS_RECOVERY = ("SQLITE_READONLY", "SQLITE_CANTOPEN")


def code_of(error: BaseException) -> str:
    """Return the symbolic result code, or ""."""
    return str(getattr(error, "sqlite_errorname", None) or "")


def is_damage(error: BaseException) -> bool:
    """Tell whether pages of the file make no sense."""
    return code_of(error).startswith("SQLITE_CORRUPT")


def is_of_damage(error: SourceError) -> bool:
    """Tell whether SQLite could not make sense of a file."""
    cause = error.__cause__ or error
    return is_damage(cause) or code_of(cause) == "SQLITE_NOTADB"


def needs_recovery(error: BaseException) -> bool:
    """Tell whether the file cannot be read before it is written to."""
    return code_of(error).startswith(_NEEDS_RECOVERY)


def translate(error: sqlite3.Error, source: str) -> SourceError:
    """Return the source error that ``error`` stands for; ``source`` names what was read."""
    code, path = code_of(error), shlex.quote(source)
    if code.startswith(_BUSY):
        return SourceUnreachableError(
            str(error),
            about=source,
            next_step="another program holds a lock on the file: end its transaction, then give the same command"
            " again",
        )
    if code.startswith("SQLITE_IOERR"):
        return SourceUnreachableError(
            str(error),
            about=source,
            next_step="check the disk or the mount, then run the same command again",
        )
    if code == "SQLITE_NOTADB":
        return SourceUsageError(
            f"{source} is not a SQLite database, or an encrypted one: {error}",
            next_step="check the path; an encrypted database must be decrypted by the program that made it first",
        )
    if is_damage(error):
        return SourceError(
            f"{source} is damaged: {error}",
            next_step=f"save what can be saved: sqlite3 {path} .recover | sqlite3"
            f" {shlex.quote(f'{source}.recovered')}; then move that file",
        )
    if code == "SQLITE_FULL":
        return SourceError(
            f"no room for a copy of the database: {error}",
            about=source,
            next_step="set TMPDIR to a directory with as much room as the file has",
        )
    if code.startswith(_REFUSED):
        return SourceNotAllowedError(
            str(error), about=source, next_step="use an account that may read the file"
        )
    if code.startswith("SQLITE_CANTOPEN") and len(os.fsencode(source)) > _SURE_PATH_BYTES:
        return SourceUsageError(
            f"{source} is a longer path than SQLite opens: {error}",
            next_step="mount its directory at a shorter path (mount --bind), or move it to one",
        )
    if needs_recovery(error):
        return SourceError(
            f"{source} cannot be read without writing to it: {error}",
            next_step="a program ended in the middle of a write. Copy the file together with its -journal or -wal to"
            " another directory, open it there once with sqlite3, and move that one",
        )
    return SourceError(str(error), about=source, next_step=f"try: sqlite3 {path} 'PRAGMA integrity_check'")
