"""A bucket's listings, kept where they can be asked for keys in any order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from exporters.bucket_api import ObjectSummary
from exporters.objects.scratch_table import scratch_table


class ListedObjects:
    """The listing of a bucket, in a private file that SQLite removes: it may be long. Each key can be given a mark, a
    word of the caller's. For one thread at a time.
    """

    def __init__(self, listing: Iterable[ObjectSummary]) -> None:
        rows = (
            (summary.key, summary.size_bytes, summary.etag, summary.modified.timestamp())
            for summary in listing
        )
        self._rows = scratch_table(
            "CREATE TABLE listed (key TEXT PRIMARY KEY, size INTEGER, etag TEXT, modified REAL, mark TEXT)",
            "INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?, '')",
            rows,
        )
        self.count: int = self._rows.execute("SELECT count(*) FROM listed").fetchone()[0]

    def find(self, key: str) -> tuple[ObjectSummary, str] | None:
        """Return what was listed under a key, and its mark; None where nothing was."""
        if not self.count:
            return None
        query = "SELECT size, etag, modified, mark FROM listed WHERE key = ?"
        row = self._rows.execute(query, (key,)).fetchone()
        if row is None:
            return None
        size, etag, modified, mark = row
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


class ListedVersions:
    """The listing of a bucket's versions, likewise; asked for all versions of a key."""

    def __init__(self, listing: Iterable[ObjectSummary]) -> None:
        rows = (
            (
                summary.key, summary.size_bytes, summary.etag, summary.modified.timestamp(), summary.storage_class,
                summary.version_id, summary.is_latest, summary.is_delete_marker,
            )
            for summary in listing
        )  # fmt: skip
        self._rows = scratch_table(
            "CREATE TABLE listed (number INTEGER PRIMARY KEY, key TEXT, size INTEGER, etag TEXT, modified REAL,"
            " class TEXT, version TEXT, latest INTEGER, marker INTEGER);"
            " CREATE TABLE known (key TEXT PRIMARY KEY, mark TEXT) WITHOUT ROWID",
            "INSERT INTO listed (key, size, etag, modified, class, version, latest, marker)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        self._rows.execute("CREATE INDEX by_key ON listed (key, number DESC)")
        self.count: int = self._rows.execute("SELECT count(*) FROM listed").fetchone()[0]

    def of(self, key: str) -> tuple[list[ObjectSummary], str]:
        """Return what was listed of a key, oldest first, and its mark."""
        if not self.count:
            return [], ""
        query = "SELECT * FROM listed WHERE key = ? ORDER BY number DESC"
        summaries = [_summary(row) for row in self._rows.execute(query, (key,))]
        mark = (
            self._rows.execute("SELECT mark FROM known WHERE key = ?", (key,)).fetchone()
            if summaries
            else None
        )
        return summaries, mark[0] if mark else ""

    def mark(self, key: str, mark: str) -> None:
        """Mark a key."""
        self._rows.execute("INSERT OR REPLACE INTO known VALUES (?, ?)", (key, mark))

    def unmarked(self) -> Iterator[str]:
        """Yield the keys without a mark, in order."""
        query = "SELECT DISTINCT key FROM listed WHERE key NOT IN (SELECT key FROM known) ORDER BY key"
        for (key,) in self._rows.execute(query):
            yield key

    def close(self) -> None:
        """Drop the file."""
        self._rows.close()


def _summary(row: tuple[Any, ...]) -> ObjectSummary:
    _, key, size_bytes, etag, modified, storage_class, version, latest, marker = row
    return ObjectSummary(
        key,
        size_bytes,
        etag,
        datetime.fromtimestamp(modified, UTC),
        storage_class,
        version,
        bool(latest),
        bool(marker),
    )
