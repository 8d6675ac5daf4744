"""Connections to one file that does not change, borrowed by worker threads."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporters.sqlite.collations import lend_collations
from exporters.sqlite.errors import translate
from exporters.sqlite.files.backup import open_file


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
