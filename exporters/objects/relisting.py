"""The second, independent enumeration: the bucket listed again at the end, compared with the inventory in
passing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from exporters.base import Loss
from exporters.bucket import Bucket, ObjectSummary
from exporters.objects.inventory import Totals


class Relisting:
    """Both listings are walked side by side by key; memory holds one shard, one page and what is new.

    ``count`` is what the first listing should have found: what the second found, without the objects that
    were written after the first began, with those that have vanished since. It differs from the first
    listing's count only if that one has overlooked objects.
    """

    how = "a second listing, less what was written since the first began, plus what was deleted"

    def __init__(self, bucket: Bucket, totals: Totals) -> None:
        self._bucket = bucket
        self._since = datetime.fromisoformat(totals.listed_from)
        self._again: _Again = _InOrder(bucket.list()) if totals.ordered else _AnyOrder(bucket.list())
        self.same = self.changed = self.vanished = self.added = self.overlooked = 0
        self._overlooked_keys: list[str] = []

    @property
    def count(self) -> int:
        """Return the number of objects, see the class."""
        return self.same + self.changed + self.vanished + self.overlooked

    def compare(self, keys: Sequence[str], etags: Sequence[str | None]) -> None:
        """Go on to the end of these keys of the inventory. ``etags`` are those of what was read, None for
        what was found to be deleted.
        """
        for key, etag in zip(keys, etags, strict=True):
            found = self._again.take(key)
            if etag is None:
                self.vanished += 1
                self.added += found is not None
            elif found is None:
                self.vanished += 1
            elif found == etag:
                self.same += 1
            else:
                self.changed += 1

    def end(self) -> None:
        """Take in what only the second listing has."""
        for found in self._again.others():
            self._see_new(found)

    def losses(self) -> Iterator[Loss]:
        """Yield what the bucket's users did meanwhile, which the bundle does not hold."""
        name = self._bucket.name
        for count, what in (
            (self.added, "objects were written after the listing and are not in the bundle"),
            (
                self.changed,
                "objects were overwritten after they were read; the bundle holds the older content",
            ),
            (self.vanished, "objects were deleted since the listing"),
        ):
            if count:
                yield Loss(name, "changes during the export", f"{count} {what}")
        for key in self._overlooked_keys:
            yield Loss(key, "object", "the first listing did not show it, though it was there")

    def _see_new(self, found: ObjectSummary) -> None:
        # Whole seconds: some servers round the times in listings.
        if found.modified.timestamp() >= int(self._since.timestamp()):
            self.added += 1
            return
        self.overlooked += 1
        if len(self._overlooked_keys) < 1000:
            self._overlooked_keys.append(found.key)


class _Again(Protocol):
    """The second listing."""

    def take(self, key: str) -> str | None:
        """Return the ETag of a key, or None where it is not listed."""
        ...

    def others(self) -> Iterator[ObjectSummary]:
        """Yield what was listed and not taken; at the end."""
        ...


class _InOrder:
    """Both listings by key: one is walked beside the other. New objects are few and are kept."""

    def __init__(self, listing: Iterator[ObjectSummary]) -> None:
        self._listing = iter(listing)
        self._next = next(self._listing, None)
        self._new: list[ObjectSummary] = []

    def take(self, key: str) -> str | None:
        while self._next is not None and self._next.key < key:
            self._new.append(self._next)
            self._next = next(self._listing, None)
        if self._next is None or self._next.key != key:
            return None
        etag, self._next = self._next.etag, next(self._listing, None)
        return etag

    def others(self) -> Iterator[ObjectSummary]:
        yield from self._new
        while self._next is not None:
            yield self._next
            self._next = next(self._listing, None)


class _AnyOrder:
    """A server that does not list by key: the second listing is kept in a private file, asked key by key."""

    def __init__(self, listing: Iterator[ObjectSummary]) -> None:
        self._rows = sqlite3.connect("", check_same_thread=False)
        self._rows.execute("CREATE TABLE again (key TEXT PRIMARY KEY, etag TEXT, modified TEXT)")
        rows = ((one.key, one.etag, one.modified.isoformat()) for one in listing)
        self._rows.executemany("INSERT OR REPLACE INTO again VALUES (?, ?, ?)", rows)

    def take(self, key: str) -> str | None:
        found = self._rows.execute("DELETE FROM again WHERE key = ? RETURNING etag", (key,)).fetchone()
        return None if found is None else str(found[0])

    def others(self) -> Iterator[ObjectSummary]:
        for key, etag, modified in self._rows.execute("SELECT key, etag, modified FROM again ORDER BY key"):
            yield ObjectSummary(key, 0, etag, datetime.fromisoformat(modified))
        self._rows.close()
