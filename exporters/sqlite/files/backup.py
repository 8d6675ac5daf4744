"""A consistent copy of a database file, taken while others write to it, without ever writing to it.

The copy is what workers read: it does not change, needs no locks, and several connections see the same.

A database in WAL mode lets writers go on while it is read. In the other modes a reader keeps writers from
committing, so pages are copied in short steps; SQLite starts again where another process wrote in between
(https://sqlite.org/backup.html). If that does not come to an end, the rest is copied in one go.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from exporters.errors import (
    SourceError,
    SourceGoneError,
    SourceNotAllowedError,
    SourceUnreachableError,
    SourceUsageError,
)
from exporters.sqlite.address import SqliteAddress
from exporters.sqlite.errors import is_damage, is_of_damage, needs_recovery, translate
from exporters.sqlite.files.immutable_file import ImmutableFile

_log = logging.getLogger(__name__)

LOG_ENDINGS = ("-journal", "-wal")
_MAGIC = b"SQLite format 3\0"
"""How every database begins that is not empty (SQLite's "Database File Format", 1.3)."""

LOCK_SECONDS = 60.0
STEP_PAGES = 2000
STEP_SLEEP_SECONDS = 0.002
MOST_RESTARTS = 3
_HEADER_BYTES = 100
_WAL_VERSION = 2
_SHARED_FIRST, _SHARED_BYTES = 2**30 + 2, 510
"""Where SQLite locks a file (SHARED_FIRST and SHARED_SIZE in its os.h)."""


class Header(Struct, frozen=True):
    """Facts of the first 100 bytes (https://sqlite.org/fileformat2.html#the_database_header)."""

    wal: bool
    reserved_bytes: int


class Copy(Struct, frozen=True):
    """The copy's path. ``sha256`` of its content, the same for equal databases: the counters that a backup sets
    anew are left out. ``damage``: why SQLite could not copy it; it is the file as it is then.
    """

    path: Path
    sha256: str
    size_bytes: int
    damage: SourceError | None = None


def is_database(path: Path) -> bool:
    """Tell by its first bytes whether a file is a database. What is no file, such as a FIFO, is not opened: that might
    wait for ever. Raises ``OSError``.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def check_file(address: SqliteAddress) -> Header:
    """Prove that the file is there, readable, and begins like a database. Raises ``SourceError``."""
    path = address.path
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceUsageError(
                f"{address.url} is not a file",
                next_step="name the database's file; several files are several sources",
            )
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceGoneError(f"there is no file {path}", next_step="check the path") from None
    except PermissionError:
        raise SourceNotAllowedError(
            f"{path} may not be read", next_step="use an account that may read the file"
        ) from None
    except OSError as exc:
        raise SourceError(f"{path} cannot be read: {exc.strerror}") from exc
    if not head:
        return Header(wal=False, reserved_bytes=0)
    if not head.startswith(_MAGIC):
        raise SourceUsageError(
            f"{path} is not a SQLite database, or an encrypted one",
            next_step="check the path; an encrypted database must be decrypted by the program that made it first",
        )
    return Header(wal=head[18:19] == bytes([_WAL_VERSION]), reserved_bytes=head[20])


@contextmanager
def connected(address: SqliteAddress) -> Iterator[sqlite3.Connection]:
    """Open the live file for reading. A database in WAL mode that no process has open is read as an immutable file:
    SQLite would leave its two auxiliary files behind. Raises ``SourceError``.
    """
    header = check_file(address)
    quiet = header.wal and not address.companion("-wal").exists()
    before = mark_of(address)
    try:
        with _opened(address, quiet=quiet, seconds=LOCK_SECONDS) as connection:
            yield connection
    except sqlite3.Error as exc:
        raise translate(exc, str(address.path)) from exc
    if quiet and (address.companion("-wal").exists() or mark_of(address) != before):
        raise OpenedMeanwhileError(
            f"{address.path} was opened by another program while it was read",
            next_step="run the same command again",
        )


class OpenedMeanwhileError(SourceUnreachableError):
    """Another process opened the file while it was read as an immutable one."""


@contextmanager
def _opened(address: SqliteAddress, *, quiet: bool, seconds: float) -> Iterator[sqlite3.Connection]:
    """Open the file itself, or where a program has ended in the middle of a write a copy that is put in order."""
    if _is_left(address):
        with recovered(address, sqlite3.OperationalError("the write-ahead log is gone")) as connection:
            yield connection
        return
    with closing(open_file(address.path, immutable=quiet, seconds=seconds)) as connection:
        try:
            accept_damage(connection)
        except sqlite3.OperationalError as exc:
            if not needs_recovery(exc):
                raise
            refused = exc
        else:
            yield connection
            return
    with recovered(address, refused) as connection:
        yield connection


def _is_left(address: SqliteAddress) -> bool:
    """Tell whether a write-ahead log has lost its index, so no program uses it: SQLite would leave a new index behind,
    which another account's program could not write to. One that has locked the file keeps its index in memory.
    """
    if not address.companion("-wal").exists() or address.companion("-shm").exists():
        return False
    with address.path.open("rb") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_BYTES, _SHARED_FIRST)
        except OSError:
            return False
    return True


def open_file(path: Path, *, immutable: bool = False, seconds: float = 5.0) -> sqlite3.Connection:
    """Return a connection that only reads; usable by any one thread at a time."""
    _log.info("opening %s", path)
    escaped = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    options = "mode=ro&immutable=1" if immutable else "mode=ro"
    return sqlite3.connect(
        f"file:{escaped}?{options}",
        uri=True,
        timeout=seconds,
        isolation_level=None,
        check_same_thread=False,
        factory=ImmutableFile if immutable else sqlite3.Connection,
    )


def accept_damage(connection: sqlite3.Connection) -> None:
    """Open the file; where its schema is damaged, have SQLite take what it can read of that
    (https://sqlite.org/pragma.html#pragma_writable_schema). Raises ``sqlite3.Error``.
    """
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as exc:  # its message has the bytes of a damaged name
        if isinstance(exc, sqlite3.DatabaseError) and not is_damage(exc):
            raise
        connection.execute("PRAGMA writable_schema = ON")


@contextmanager
def copied(address: SqliteAddress) -> Iterator[Copy]:
    """Copy the database to a temporary directory, which goes away with the context. Raises ``SourceError``."""
    with copies({"": address}) as copied_files:
        yield copied_files[""]


@contextmanager
def copies(
    addresses: Mapping[str, SqliteAddress], *, lost: dict[str, SourceError] | None = None
) -> Iterator[dict[str, Copy]]:
    """Copy several databases, one after the other, to one temporary directory. ``lost`` takes what is wrong with single
    files, by name; else, and where a file is locked, it is raised. Raises ``SourceError``.
    """
    with scratch_directory() as directory:
        copied_files = {}
        for number, (name, address) in enumerate(addresses.items()):
            try:
                check_file(address)
                check_room(address, directory)
                copied_files[name] = _copied_to(directory / f"copy-{number}.db", address)
            except SourceError as exc:
                if lost is None or isinstance(exc, SourceUnreachableError):
                    raise
                lost[name] = exc
        yield copied_files


def _copied_to(destination: Path, address: SqliteAddress) -> Copy:
    for _ in range(MOST_RESTARTS):
        try:
            # Before it is opened: a file that is closed takes with it all locks of this process on it.
            is_wal = check_file(address).wal
            with connected(address) as connection:
                _copy(connection, destination, gently=not is_wal)
            return Copy(destination, _content_hash(destination), destination.stat().st_size)
        except OpenedMeanwhileError:
            destination.unlink()
        except SourceError as exc:
            if not is_of_damage(exc):
                raise
            for suffix in ("", *LOG_ENDINGS):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(address.companion(suffix), f"{destination}{suffix}")
            size_bytes = destination.stat().st_size
            return Copy(destination, _content_hash(destination), size_bytes, damage=exc)
    raise SourceError(f"{address.path} is opened and closed too fast to be copied")


def _copy(source: sqlite3.Connection, destination: Path, *, gently: bool) -> None:
    copied = sqlite3.connect(destination, isolation_level=None)
    try:
        copied.execute("PRAGMA synchronous = OFF")
        if gently:
            try:
                source.backup(copied, pages=STEP_PAGES, progress=_Watch(), sleep=STEP_SLEEP_SECONDS)
            except _TooManyRestartsError:
                copied.close()
                destination.unlink()
                copied = sqlite3.connect(destination, isolation_level=None)
            else:
                return
        source.backup(copied, pages=-1, progress=_Watch(), sleep=STEP_SLEEP_SECONDS)
    finally:
        copied.close()


class _TooManyRestartsError(Exception):
    """Others write faster than the file can be copied in steps."""


class _Watch:
    """Counts how often a backup started again, and how long it has waited."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._restarts = 0
        self._moved = time.monotonic()

    def __call__(self, status: int, remaining: int, total: int) -> None:
        del total
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            if time.monotonic() - self._moved > LOCK_SECONDS:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorname = "SQLITE_BUSY"
                raise error
            return
        self._moved = time.monotonic()
        if self._left is not None and remaining >= self._left:
            self._restarts += 1
            if self._restarts > MOST_RESTARTS:
                raise _TooManyRestartsError
        self._left = remaining


def _content_hash(path: Path) -> str:
    """Hash all but the change counter, the schema cookie and the version-valid-for number."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
        digest.update(head[:24] + head[28:40] + head[44:92])
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def recovered(address: SqliteAddress, refused: sqlite3.Error) -> Iterator[sqlite3.Connection]:
    """Open a copy that SQLite may put in order. ``refused``: why the file itself cannot be read, which is raised where
    there is none next to it. Raises ``SourceError``.
    """
    files = {
        suffix: address.companion(suffix) for suffix in LOG_ENDINGS if address.companion(suffix).exists()
    }
    if not files:
        raise refused
    marks = [mark_of(replace(address, path=path)) for path in (address.path, *files.values())]
    with scratch_directory() as directory:
        check_room(address, directory)
        copy = directory / "left.db"
        try:
            shutil.copyfile(address.path, copy)
            for suffix, path in files.items():
                shutil.copyfile(path, f"{copy}{suffix}")
        except OSError:
            raise refused from None
        if marks != [mark_of(replace(address, path=path)) for path in (address.path, *files.values())]:
            raise SourceUnreachableError(
                f"{address.path} changes while it is copied", next_step="run the same command again"
            )
        connection = sqlite3.connect(copy, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            yield connection
        finally:
            connection.close()


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
