"""Listings by key, also of servers that list in another order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from exporters.bucket import ObjectSummary
from migrate.sync.compare import microseconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RESERVED = ".moveout-sync/"
"""What lies below is the record of a sync: no object of anybody's."""


def without_records(listing: Iterable[ObjectSummary], prefix: str) -> Iterator[ObjectSummary]:
    """Leave out the records of syncs, where the listing of a prefix can hold them."""
    if not RESERVED.startswith(prefix):
        return iter(listing)
    return (one for one in listing if not one.key.startswith(RESERVED))


def in_order(listing: Iterable[ObjectSummary]) -> Iterator[ObjectSummary]:
    """Sort a listing by key, through a private file that SQLite removes."""
    rows = sqlite3.connect("", check_same_thread=False)
    try:
        rows.execute(
            "CREATE TABLE listed (key TEXT PRIMARY KEY, size INTEGER, etag TEXT, modified INTEGER, class TEXT)"
            " WITHOUT ROWID"
        )
        found = (
            (one.key, one.size_bytes, one.etag, microseconds(one.modified), one.storage_class)
            for one in listing
        )
        rows.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?, ?)", found)
        for key, size, etag, modified, storage_class in rows.execute("SELECT * FROM listed ORDER BY key"):
            when = _EPOCH + timedelta(microseconds=modified)
            yield ObjectSummary(key, size, etag, when, storage_class)
    finally:
        rows.close()
