"""Connections to one file that does not change, borrowed by worker threads; and stand-ins for collations that only the
application has.

Without one SQLite reads no table with a key in its order, and makes none. A stand-in orders by code points. Reading
compares nothing with it, and what was written in its order is put into the application's by ``REINDEX name``
(https://sqlite.org/lang_reindex.html).
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporters.sqlite.errors import is_damage, translate
from exporters.sqlite.files.backup import accept_damage, open_file


class Pool:
    """``where`` names the database in errors. Thread-safe."""

    def __init__(self, path: Path, where: str) -> None:
        self._path = path
        self._where = where
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection; after an error it is closed. Raises ``SourceError`` for SQLite's errors meanwhile."""
        with self._lock:
            lent = self._idle.pop() if self._idle else None
        try:
            if lent is None:
                lent = open_file(self._path, immutable=True)
                lend_collations(lent)
                accept_damage(lent)
            lent.text_factory = str
            yield lent
        except BaseException as exc:
            if lent is not None:
                lent.close()
            if isinstance(exc, sqlite3.Error):
                raise translate(exc, self._where) from exc
            raise
        with self._lock:
            self._idle.append(lent)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()


_NAMED = re.compile(
    r"\bCOLLATE\s+(?:\"((?:[^\"]|\"\")+)\"|`([^`]+)`|\[([^\]]+)\]|'([^']+)'|(\w+))", re.IGNORECASE
)


def lend_collations(connection: sqlite3.Connection) -> None:
    """Lend every collation that a definition names and SQLite does not have."""
    known = {str(row[1]).lower() for row in connection.execute("PRAGMA collation_list")}
    try:
        rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql LIKE '%collate%'").fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as exc:
        if isinstance(exc, sqlite3.DatabaseError) and not is_damage(exc):
            raise
        return
    for (sql,) in rows:
        for name in ("".join(groups).replace('""', '"') for groups in _NAMED.findall(str(sql))):
            if name.lower() not in known:
                lend_collation(connection, name)


def lend_collation(connection: sqlite3.Connection, name: str) -> None:
    """Lend one."""
    connection.create_collation(name, _by_code_points)


def _by_code_points(first: str, second: str) -> int:
    return (first > second) - (first < second)
