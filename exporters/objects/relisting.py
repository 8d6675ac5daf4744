"""The second, independent enumeration: the bucket listed again at the end, compared with the inventory in passing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from exporters.base import Loss
from exporters.bucket import Bucket, ObjectSummary
from exporters.objects.inventory import Totals


class Relisting:
    """Both listings are walked side by side by key; memory holds one shard and one page.

    ``count`` is what the first listing should have found: what the second found, without the objects that were
    written after the first began, with those that have vanished since. It differs from the first listing's count
    only if that one has overlooked objects.
    """

    how = "a second listing, less what was written since the first began, plus what was deleted"

    def __init__(self, bucket: Bucket, totals: Totals) -> None:
        self._bucket = bucket
        self._ordered = totals.ordered
        self._since = datetime.fromisoformat(totals.listed_from)
        self._listing = iter(bucket.list())
        self._next: ObjectSummary | None = next(self._listing, None)
        self.same = self.changed = self.vanished = self.added = self.overlooked = 0
        self._overlooked_keys: list[str] = []

    @property
    def count(self) -> int:
        """Return the number of objects, see the class."""
        return self.same + self.changed + self.vanished + self.overlooked

    def compare(self, keys: Sequence[str], etags: Sequence[str]) -> None:
        """Go on to the end of these keys of the inventory."""
        if not self._ordered:
            keys, etags = zip(*sorted(zip(keys, etags, strict=True)), strict=True)
        for key, etag in zip(keys, etags, strict=True):
            while self._next is not None and self._next.key < key:
                self._see_new(self._next)
                self._next = next(self._listing, None)
            if self._next is None or self._next.key != key:
                self.vanished += 1
                continue
            if self._next.etag == etag:
                self.same += 1
            else:
                self.changed += 1
            self._next = next(self._listing, None)

    def end(self) -> None:
        """Take in what the second listing has behind the last key of the first."""
        while self._next is not None:
            self._see_new(self._next)
            self._next = next(self._listing, None)

    def losses(self) -> Iterator[Loss]:
        """Yield what the bucket's users did meanwhile, which the bundle does not hold."""
        name = self._bucket.name
        for count, what in (
            (self.added, "objects were written after the listing and are not in the bundle"),
            (self.changed, "objects were overwritten since the listing; the bundle holds the older content"),
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
