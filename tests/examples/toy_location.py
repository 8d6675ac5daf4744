"""Locations in one SQLite file, ``onefile:///path/bundle.db``. A file in them has at most 1 GB, as SQLite has it."""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from migrate.errors import (
    AlreadyExistsError,
    ChangedError,
    DamageError,
    GoneError,
    UnreachableError,
    UsageError,
)
from migrate.storage.api import PART_BYTES, BaseStore, FileInfo, Parts, Upload, UploadedPart
from migrate.storage.checksums import combine, crc64nvme, to_header
from migrate.storage.key_rules import checked
from migrate.storage.registry import Access, LocationType

TABLES = """
CREATE TABLE IF NOT EXISTS file (key TEXT PRIMARY KEY, data BLOB, etag TEXT, modified TEXT, sha256 TEXT);
CREATE TABLE IF NOT EXISTS upload (id TEXT PRIMARY KEY, key TEXT, started TEXT, sha256 TEXT);
CREATE TABLE IF NOT EXISTS part (upload TEXT, number INTEGER, data BLOB, crc TEXT, PRIMARY KEY (upload, number));
"""


class OneFileStore(BaseStore):
    """A ``MultipartStore``: each method is one transaction, so nobody sees half a file."""

    keeps_sha256 = True

    def __init__(self, path: Path) -> None:
        self.location = f"onefile://{path}"
        self._path = path

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        with self._transaction() as rows:
            return self._write(rows, checked(key), data, sha256)

    def create(self, key: str, data: bytes) -> FileInfo:
        with self._transaction() as rows:
            if rows.execute("SELECT 1 FROM file WHERE key = ?", (checked(key),)).fetchone():
                raise AlreadyExistsError(f"{self.location}: {key} exists already")
            return self._write(rows, key, data)

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        with self._transaction() as rows:
            if rows.execute("SELECT etag FROM file WHERE key = ?", (checked(key),)).fetchone() != (etag,):
                raise ChangedError(f"{self.location}: {key} has changed")
            return self._write(rows, key, data)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        selected = "substr(data, ?, ?)" if length is not None else "substr(data, ?)"
        span = (start + 1,) if length is None else (start + 1, length)
        with self._transaction() as rows:
            query = f"SELECT {selected} FROM file WHERE key = ?"
            row = rows.execute(query, (*span, checked(key))).fetchone()
        return bytes(self._found(row, key)[0] or b"")

    def stat(self, key: str) -> FileInfo:
        with self._transaction() as rows:
            row = rows.execute(
                "SELECT key, length(data), etag, modified, sha256 FROM file WHERE key = ?", (checked(key),)
            ).fetchone()
        return _info(self._found(row, key))

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        query = (
            "SELECT key, length(data), etag, modified, NULL FROM file"
            " WHERE key > ? AND substr(key, 1, ?) = ? ORDER BY key"
        )
        with self._transaction() as rows:
            found = rows.execute(query, (start_after, len(prefix), prefix)).fetchall()
        yield from map(_info, found)

    def delete(self, key: str) -> None:
        with self._transaction() as rows:
            rows.execute("DELETE FROM file WHERE key = ?", (checked(key),))

    def begin(self, key: str, *, sha256: str | None = None, part_bytes: int = PART_BYTES) -> str:
        upload = uuid.uuid4().hex
        with self._transaction() as rows:
            rows.execute("INSERT INTO upload VALUES (?, ?, ?, ?)", (upload, checked(key), _now(), sha256))
        return upload

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        query = "SELECT key, id, started FROM upload WHERE substr(key, 1, ?) = ? ORDER BY key, started"
        with self._transaction() as rows:
            found = rows.execute(query, (len(prefix), prefix)).fetchall()
        for key, upload, started in found:
            yield Upload(key, upload, datetime.fromisoformat(started))

    def parts(self, key: str, upload: str) -> Parts:
        with self._transaction() as rows:
            self._check_upload(rows, key, upload)
            query = "SELECT number, length(data), crc FROM part WHERE upload = ? ORDER BY number"
            found = rows.execute(query, (upload,)).fetchall()
        return [UploadedPart(number, size_bytes, crc, int(crc, 16)) for number, size_bytes, crc in found]

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        crc = crc64nvme(data)
        with self._transaction() as rows:
            self._check_upload(rows, key, upload)
            rows.execute(
                "INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?)", (upload, number, data, f"{crc:x}")
            )
        return UploadedPart(number, len(data), f"{crc:x}", crc)

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        found = combine((part.crc64nvme or 0, part.size_bytes) for part in parts)
        if found != crc64nvme:
            raise DamageError(key, expected=to_header(crc64nvme), found=to_header(found))
        with self._transaction() as rows:
            sha256 = self._check_upload(rows, key, upload)
            query = "SELECT data FROM part WHERE upload = ? AND number = ? AND crc = ?"
            pieces = [rows.execute(query, (upload, part.number, part.etag)).fetchone() for part in parts]
            if None in pieces:
                raise DamageError(key, expected="the parts that were sent", found="others")
            info = self._write(rows, key, b"".join(piece for (piece,) in pieces), sha256)
            self._drop(rows, upload)
        return info

    def abort(self, key: str, upload: str) -> None:
        with self._transaction() as rows:
            self._drop(rows, upload)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Translate SQLite's errors: nothing else may leave a store."""
        try:
            with closing(sqlite3.connect(self._path, timeout=60, isolation_level=None)) as rows:
                rows.executescript(TABLES)
                rows.execute("BEGIN IMMEDIATE")
                yield rows
                rows.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            raise UnreachableError(
                f"{self.location}: {exc}", next_step="check the file and its directory"
            ) from exc

    def _write(self, rows: sqlite3.Connection, key: str, data: bytes, sha256: str | None = None) -> FileInfo:
        row = (key, data, uuid.uuid4().hex, _now(), sha256)
        rows.execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)", row)
        return _info((key, len(data), *row[2:]))

    def _check_upload(self, rows: sqlite3.Connection, key: str, upload: str) -> str | None:
        query = "SELECT sha256 FROM upload WHERE id = ? AND key = ?"
        sha256: str | None = self._found(rows.execute(query, (upload, checked(key))).fetchone(), key)[0]
        return sha256

    def _drop(self, rows: sqlite3.Connection, upload: str) -> None:
        rows.execute("DELETE FROM part WHERE upload = ?", (upload,))
        rows.execute("DELETE FROM upload WHERE id = ?", (upload,))

    def _found(self, row, key):
        if row is None:
            raise GoneError(f"{self.location}: {key} is not there")
        return row


def _info(row) -> FileInfo:
    key, size_bytes, etag, modified, sha256 = row
    return FileInfo(key, size_bytes, etag, datetime.fromisoformat(modified), sha256)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _open(url: str, _access: Access) -> OneFileStore:
    parts = urlsplit(url)
    if parts.netloc or not parts.path:
        raise UsageError(f"{url!r} names no file", next_step="write onefile:///DIRECTORY/bundle.db")
    return OneFileStore(Path(unquote(parts.path)))


LOCATION = LocationType("onefile:///backup/bundle.db", _open)
