"""One object that is being copied: what was read, its metadata, and its row for the record."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from exporters.api import Gap, Loss
from exporters.bucket_api import Fetched
from exporters.objects import index_rows
from migrate.bundle.object_index import ObjectRow, row_of
from migrate.restore.objects.destination_terms import Terms, is_of_concern
from migrate.storage.s3.destination_bucket import Written
from migrate.storage.s3.metadata.object_metadata import is_md5
from migrate.sync.diff import SyncStep
from migrate.sync.record.record_rows import DESTINATION_ETAG, DESTINATION_VERSION, LOSSES

Acl = tuple[str | None, tuple[Loss, ...]]
"""The ACL of an object as the index keeps it, and the losses of reading it."""


class Item(Struct, frozen=True):
    """An object of the source as it was read. ``record_row``: its row for the record, so far."""

    step: SyncStep
    fetched: Fetched
    row: ObjectRow
    record_row: dict[str, Any]
    lost: tuple[Loss, ...] = ()

    def finished(self, written: Written, terms: Terms, *further_losses: Loss) -> dict[str, Any]:
        """Return the row of the record once it is at the destination, with what the destination does not have of it."""
        losses_of_copy = [
            (loss.property, loss.reason) for loss in (*self.lost, *self._losses(terms), *further_losses)
        ]
        record_row = self.record_row | {
            DESTINATION_ETAG: written.etag,
            DESTINATION_VERSION: written.version_id or None,
            LOSSES: losses_of_copy,
        }
        if record_row["md5"] is None and is_md5(written.etag) and written.etag == self.fetched.summary.etag:
            record_row["md5"] = written.etag  # both servers say so, of what each of them has
        return record_row

    def _losses(self, terms: Terms) -> list[Loss]:
        all_losses = list(index_rows.losses(self.fetched))
        if is_of_concern(self.row) or not terms.lost_headers.keys().isdisjoint(self.row.headers):
            all_losses += terms.losses(self.step.key, self.row)
        return all_losses


def item(
    bucket: str, step: SyncStep, fetched: Fetched, content: index_rows.Content, acl: Acl = (None, ())
) -> Item:
    """Build the item of an object that was read. An empty ``content.sha256`` means that its bytes were not read."""
    record_row = index_rows.exported(bucket, 0, fetched, content) | {"acl": acl[0]}
    row = row_of("", bucket)(record_row)
    record_row |= {"key": step.key, "sha256": content.sha256 or None}
    return Item(step, fetched, row, record_row, acl[1])


class BatchOutcome(Struct):
    """The result of a batch. ``rows`` are for the record; ``noted`` is how many of them were written to it.
    ``damaged``: sentences about objects that are at the destination and are not what they should be. ``amended``:
    versions whose tags, locks or ACL were changed. ``hidden``: keys whose newest version could not be copied.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    noted: int = 0
    copied: int = 0
    copied_bytes: int = 0
    adopted: int = 0
    amended: int = 0
    same: int = 0
    newer: int = 0
    hidden: set[str] = field(default_factory=set)

    def add(self, other: BatchOutcome) -> None:
        """Add the counts, gaps and damage of another batch; not its rows."""
        self.gaps += other.gaps
        self.damaged += other.damaged
        self.noted += other.noted
        self.copied += other.copied
        self.copied_bytes += other.copied_bytes
        self.adopted += other.adopted
        self.amended += other.amended
        self.same += other.same
        self.newer += other.newer
        self.hidden |= other.hidden
