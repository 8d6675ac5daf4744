"""A bucket's listing, kept where it can be asked for keys in any order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from exporters.bucket import ObjectSummary


class Listed:
    """In a private file that SQLite removes: a listing may be long. Each key can be given a mark, a word of
    the caller's. For one thread at a time.
    """

    def __init__(self, listing: Iterable[ObjectSummary]) -> None:
        self._rows = sqlite3.connect("", check_same_thread=False)
        self._rows.execute(
            "CREATE TABLE listed (key TEXT PRIMARY KEY, size INTEGER, etag TEXT, modified REAL, mark TEXT)"
        )
        rows = ((one.key, one.size_bytes, one.etag, one.modified.timestamp()) for one in listing)
        self._rows.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?, '')", rows)
        self.count: int = self._rows.execute("SELECT count(*) FROM listed").fetchone()[0]

    def find(self, key: str) -> tuple[ObjectSummary, str] | None:
        """Return what was listed under a key, and its mark; None where nothing was."""
        if not self.count:
            return None
        query = "SELECT size, etag, modified, mark FROM listed WHERE key = ?"
        found = self._rows.execute(query, (key,)).fetchone()
        if found is None:
            return None
        size, etag, modified, mark = found
        return ObjectSummary(key, size, etag, datetime.fromtimestamp(modified, UTC)), mark

    def mark(self, key: str, mark: str) -> None:
        """Mark a key."""
        self._rows.execute("UPDATE listed SET mark = ? WHERE key = ?", (mark, key))

    def unmarked(self) -> Iterator[str]:
        """Yield the keys without a mark, in order."""
        for (key,) in self._rows.execute("SELECT key FROM listed WHERE mark = '' ORDER BY key"):
            yield key

    def close(self) -> None:
        """Drop the file."""
        self._rows.close()
