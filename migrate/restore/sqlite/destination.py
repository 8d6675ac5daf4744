"""The destination file: whether it may be restored into, and how far an earlier run came.

A table of our own in the destination holds the state, written in the same transactions as what it records; the last
transaction drops it and overwrites its bytes. So a run can die at any moment: exactly the recorded steps are done.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from exporters.sqlite.address import SqliteAddress, parse_url
from exporters.sqlite.catalog import PROGRESS_TABLE
from exporters.sqlite.errors import code_of
from exporters.sqlite.files.directory import FILES
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import (
    BusyError,
    DamageError,
    GoneError,
    MoveoutError,
    NoSpaceError,
    NotAllowedError,
    UnreachableError,
    UsageError,
    decoding,
)
from migrate.restore.common.api import Created
from migrate.restore.common.table_restore import State
from migrate.storage.local.whole_file import make_directories

LOCK_SECONDS = 10.0
_ABOUT = "about"
_ONLY = "only"
_DONE = "done"


class SqliteDestination(Struct, frozen=True):
    """The file and the one connection that writes to it; it holds an exclusive lock."""

    address: SqliteAddress
    connection: sqlite3.Connection


@contextmanager
def open_destination(address: SqliteAddress) -> Iterator[SqliteDestination]:
    """Open or make the file, and lock others out. Raises ``GoneError``, and what ``translated`` raises."""
    if address.path.parent.is_file():
        raise UsageError(
            f"{address.path.parent} is a file, not a directory", next_step="name a file in a directory"
        )
    if not address.path.parent.is_dir():
        raise GoneError(
            f"there is no directory {address.path.parent}",
            next_step="make it, or add --create; then run the same command again",
        )
    existed = address.path.exists()
    with translated(address):
        make_private(address.path)
        connection = sqlite3.connect(
            address.path, isolation_level=None, timeout=LOCK_SECONDS, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if not is_fresh(connection):  # a new file would get its first page by this
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("COMMIT")
            connection.execute("PRAGMA synchronous = NORMAL")
            yield SqliteDestination(address, connection)
        finally:
            connection.close()
            if not existed and address.path.exists() and not address.path.stat().st_size:
                os.unlink(address.path)  # noqa: PTH108  nothing was written, so nothing is left


def make_private(path: Path) -> None:
    """Make a file that only this account may read, as a bundle is, where there is none: SQLite's is open to all, and
    what it writes next to a file is open to whom the file is. What stands in the way is SQLite's to name.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))


def create_directory(
    reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
) -> Created | None:
    """Make the directory of the file that a URL names. See ``CreateDestination``."""
    del reader, source, secrets
    directory = parse_url(url).path.parent
    if directory.is_dir():
        return None
    make_directory(directory)
    return Created(f"made the directory {directory}")


def make_directory(directory: Path) -> None:
    """Make a directory for a file. Raises ``NotAllowedError``."""
    try:
        make_directories(directory)
    except OSError as exc:
        raise NotAllowedError(
            f"the directory {directory} cannot be made: {exc.strerror}",
            next_step="make it, or name another one",
        ) from exc


@contextmanager
def translated(address: SqliteAddress) -> Iterator[None]:
    """Raise SQLite's errors about the destination as errors with a next step."""
    try:
        yield
    except sqlite3.Error as exc:
        raise _translate(exc, str(address.path)) from exc


def _translate(error: sqlite3.Error, where: str) -> MoveoutError:
    code = code_of(error)
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return BusyError(
            f"{where} is used by another program: {error}",
            next_step="end it (maybe another restore), then run the same command again",
        )
    if code == "SQLITE_FULL":
        return NoSpaceError(f"{where}: {error}", next_step="make room, then run the same command again")
    if code == "SQLITE_NOTADB":
        return UsageError(
            f"{where} is not a SQLite database: {error}", next_step="name a file that does not exist yet"
        )
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return NotAllowedError(
            f"{where}: {error}",
            next_step="check the permissions of the file and its directory, and that there is room",
        )
    if code.startswith("SQLITE_IOERR"):
        return UnreachableError(
            f"{where}: {error}", next_step="check the disk or the mount, then run the same command again"
        )
    return MoveoutError(f"{where}: {error}", next_step="remove the file, then run the same command again")


def is_fresh(connection: sqlite3.Connection) -> bool:
    """Tell whether nothing at all was ever written to the file."""
    return bool(connection.execute("PRAGMA page_count").fetchone()[0] == 0)


def read_state(destination: SqliteDestination) -> State | None:
    """Return what an earlier restore left, None where there was none. Raises ``UsageError`` if it cannot be read."""
    connection = destination.connection
    row = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (PROGRESS_TABLE,)).fetchone()
    if row is None:
        return None
    try:
        (about,) = connection.execute(f"SELECT name, note FROM {PROGRESS_TABLE} WHERE kind = '{_ABOUT}'")
    except (sqlite3.Error, ValueError) as exc:
        raise UsageError(
            f"{destination.address.path} has a table {PROGRESS_TABLE} that is not a restore's",
            next_step="name a file that does not exist yet",
        ) from exc
    return State(about[0], about[1], _note(connection, _ONLY))


def _note(connection: sqlite3.Connection, kind: str) -> str:
    row = connection.execute(f"SELECT note FROM {PROGRESS_TABLE} WHERE kind = ?", (kind,)).fetchone()
    return str(row[0]) if row else ""


def begin_state(connection: sqlite3.Connection, state: State) -> None:
    """Make the table. Called within the transaction that makes the others."""
    connection.execute(
        f"CREATE TABLE {PROGRESS_TABLE} (kind TEXT, name TEXT, note TEXT, PRIMARY KEY (kind, name))"
    )
    connection.execute(
        f"INSERT INTO {PROGRESS_TABLE} VALUES ('{_ABOUT}', ?, ?), ('{_ONLY}', '', ?)",
        (state.bundle, state.source, state.only),
    )


def read_done(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the parts that are done."""
    query = f"SELECT name FROM {PROGRESS_TABLE} WHERE kind = '{_DONE}'"
    return {row[0] for row in connection.execute(query)}


def mark_done(connection: sqlite3.Connection, name: str, refused: str | None = None) -> None:
    """Say, within the transaction that does it, that a part is done, but for what SQLite has ``refused``."""
    connection.execute(f"INSERT INTO {PROGRESS_TABLE} VALUES ('{_DONE}', ?, ?)", (name, refused))


def read_refused(connection: sqlite3.Connection) -> list[str]:
    """Return what was refused of the parts that are done."""
    query = f"SELECT note FROM {PROGRESS_TABLE} WHERE kind = '{_DONE}' AND note IS NOT NULL ORDER BY name"
    return [row[0] for row in connection.execute(query)]


def drop_state(connection: sqlite3.Connection) -> None:
    """Drop the table within the last transaction; its pages are overwritten."""
    connection.execute(f"DROP TABLE {PROGRESS_TABLE}")


def prepare(connection: sqlite3.Connection, pragmas: Mapping[str, Any]) -> None:
    """Set what must be set before the first page is written."""
    connection.execute(f"PRAGMA page_size = {int(pragmas['page_size'])}")
    connection.execute(f"PRAGMA auto_vacuum = {int(pragmas['auto_vacuum'])}")
    encoding = str(pragmas["encoding"]).replace("'", "''")
    connection.execute(f"PRAGMA encoding = '{encoding}'")


def read_files(reader: BundleReader, source: str) -> dict[str, str] | None:
    """Return folders in the bundle by the files' paths, None where the source is one file. A path that leads out of the
    destination's directory is a ``DamageError``: the bundle may come from anywhere.
    """
    file = next(iter(reader.source_files(source, FILES)), None)
    if file is None:
        return None
    folders: dict[str, str] = {}
    with decoding(file.key, "a list of files"):
        for entry in json.loads(reader.read_checked(file))["files"]:
            name, folder = str(entry["name"]), str(entry["folder"])
            if not _is_below(name) or not layout.is_payload_name(folder):
                raise DamageError(file.key, expected="paths below a directory", found=repr(name))
            folders[name] = folder
    return folders


def _is_below(name: str) -> bool:
    return "\0" not in name and all(part not in {"", ".", ".."} for part in name.split("/"))
