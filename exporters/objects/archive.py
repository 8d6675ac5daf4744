"""Archived objects: the source is asked to bring them back before anything is read, and they are read last.

Amazon S3 user guide, "Working with archived objects": an archived object cannot be read until RestoreObject was called
and hours have passed. How many depends on its class and on the tier that is paid for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from exporters.bucket_api import Bucket, Fetched, ObjectSummary
from exporters.errors import SourceUnreachableError
from exporters.limits import ARCHIVE_TIERS, Note
from exporters.objects.listing.inventory import Inventory

ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})
AUTO, NEVER, *TIERS = ARCHIVE_TIERS
READY: Mapping[tuple[str, str], timedelta] = {
    ("GLACIER", "Bulk"): timedelta(hours=12),
    ("GLACIER", "Standard"): timedelta(hours=5),
    ("GLACIER", "Expedited"): timedelta(minutes=5),
    ("DEEP_ARCHIVE", "Bulk"): timedelta(hours=48),
    ("DEEP_ARCHIVE", "Standard"): timedelta(hours=12),
}
"""How long it takes, as S3 promises; the other pairs do not exist (user guide, "Archive retrieval options")."""
LEAST_DAYS = 3
"""How long what was brought back stays, at least."""
_SPARE = 2
"""A tier is in time if it takes no more than this part of the time that is left."""
_ASKED = "archive.json"
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_NOTE_SECONDS = 300.0


def tier_for(storage_class: str, choice: str, left: timedelta | None) -> str:
    """Return by which tier an object is asked for: the one that is given, else the cheapest that is in time
    (Standard where there is no deadline). Where none is in time, it is the quickest there is.
    """
    offered = [tier for tier in TIERS if (storage_class, tier) in READY] or ["Standard"]
    if choice != AUTO:
        return choice if choice in offered else offered[-1]
    if left is None:
        return "Standard"
    in_time = [tier for tier in offered if READY.get((storage_class, tier), timedelta()) * _SPARE <= left]
    return in_time[0] if in_time else offered[-1]


def is_archived(fetched: Fetched) -> bool:
    """Tell whether an object is archived and cannot be read as it is, by its headers."""
    storage_class = fetched.headers.get("x-amz-storage-class", "")
    archived = storage_class in ARCHIVED or "x-amz-archive-status" in fetched.headers
    return archived and 'ongoing-request="false"' not in fetched.headers.get("x-amz-restore", "")


class Thaw(Struct):
    """How archived objects of one bucket are retrieved. Thread-safe. ``choice``: a tier, ``AUTO`` or ``NEVER``."""

    bucket: Bucket
    choice: str = AUTO
    deadline: datetime | None = None
    note: Note = lambda _: None

    def ask_all(self, inventory: Inventory) -> None:
        """Ask for every selected object that is archived; once, also where a later run comes here again. Raises
        ``SourceError``.
        """
        workspace = inventory.workspace
        if self.choice == NEVER or workspace.read(_ASKED) is not None:
            return
        count = self.ask(_archived(inventory))
        if count:
            self.note(
                f"{count} archived objects were asked for; they are read last, as soon as they are there"
            )
        if count or inventory.totals.shards > 1:  # a single shard is soon looked at again
            workspace.write(_ASKED, b"{}")

    def ask(self, summaries: Iterable[ObjectSummary]) -> int:
        """Ask for objects; return how many there were."""
        now = datetime.now(UTC)
        left = None if self.deadline is None else self.deadline - now
        days = max(LEAST_DAYS, (left.days if left else 0) + LEAST_DAYS)
        requests = ((summary, tier_for(summary.storage_class, self.choice, left)) for summary in summaries)
        return sum(1 for _ in self.bucket.thaw(requests, days=days))

    def wait(self, summaries: Sequence[ObjectSummary]) -> None:
        """Return once all of them can be read, or the deadline has passed: what cannot be read then is its own error.
        Raises ``SourceError``.
        """
        left = [summary for summary in summaries if summary.storage_class in ARCHIVED]
        noted_at, seconds = time.monotonic(), _FIRST_WAIT
        while left and self.choice != NEVER:
            cold = [head for head in self.bucket.heads(left) if head.error is None and is_archived(head)]
            left = [head.summary for head in cold]
            if not left or (self.deadline is not None and datetime.now(UTC) >= self.deadline):
                return
            self.ask(head.summary for head in cold if "x-amz-restore" not in head.headers)
            if time.monotonic() - noted_at > _NOTE_SECONDS:
                noted_at = time.monotonic()
                self.note(f"{self.bucket.name}: waiting for {len(left)} archived objects")
            if not self.bucket.pause(seconds):
                raise SourceUnreachableError(
                    f"{self.bucket.name}: stopped while waiting for archived objects"
                )
            seconds = min(seconds * 1.5, _LONGEST_WAIT)


def _archived(inventory: Inventory) -> Iterator[ObjectSummary]:
    for shard in range(inventory.totals.shards):
        table = inventory.shard(shard)
        if inventory.has_class(shard, ARCHIVED):
            for _, summary in inventory.included(shard, 0, table.num_rows):
                if summary.storage_class in ARCHIVED and not summary.is_delete_marker:
                    yield summary
