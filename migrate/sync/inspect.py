"""Compares objects that the destination has already and that the record does not know as the same: by one request to
each side. Equal ones are added to the record. Others are copied if a sync may overwrite them, else left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Gap
from exporters.bucket_api import Fetched
from exporters.errors import SourceError, SourceGoneError
from exporters.objects.index_rows import Content
from exporters.objects.source_checksums import kept_crc64nvme
from migrate.storage.s3.destination_bucket import VERSION, Written
from migrate.storage.s3.metadata.metadata_check import has_headers, has_tags
from migrate.storage.s3.metadata.object_metadata import is_md5
from migrate.sync.amendment import lock_amendment
from migrate.sync.copy import SyncContext, acls, as_read, is_small
from migrate.sync.diff import AGAIN, SyncStep, destination_of, source_of
from migrate.sync.object_item import Acl, BatchOutcome, Item, item

FOREIGN = (
    "the destination has another object of this key, which this sync did not write; --overwrite replaces it"
)


class Looked(Struct, frozen=True):
    """An object as both sides have it."""

    step: SyncStep
    source: Fetched
    destination: Fetched
    acl: Acl
    """The ACL of the source."""

    @property
    def written(self) -> Written:
        """What a write of the destination's object would have returned."""
        summary = self.destination.summary
        return Written(self.step.key, summary.etag, version_id=summary.version_id)


def look(context: SyncContext, steps: Sequence[SyncStep]) -> Iterator[Looked]:
    """Look at objects on both sides, one request each. Raises what stops the whole sync."""
    source_objects = context.source.heads(map(source_of, steps))
    destination_objects = context.destination.reader.heads(map(destination_of, steps))
    acls_read = acls(context, map(source_of, steps))
    for looked in map(Looked, steps, source_objects, destination_objects, acls_read):
        context.note(looked.source, looked.destination)
        yield looked


class ObjectCheck(Struct):
    """Looks at objects for one batch. ``unlike_locked``: what is the same apart from its retention or legal hold."""

    context: SyncContext
    outcome: BatchOutcome
    unlike_locked: list[SyncStep] = field(default_factory=list)

    def run(self, steps: Sequence[SyncStep]) -> list[SyncStep]:
        """Compare both sides; return the steps that need a copy. Raises what stops the whole sync."""
        return [looked.step for looked in look(self.context, steps) if self._is_due(looked)]

    def _is_due(self, looked: Looked) -> bool:
        step, error = looked.step, looked.destination.error
        if looked.source.error is not None or isinstance(error, SourceGoneError):
            return True  # copying finds out what has become of it
        same = None if error is not None else same_item(self.context, looked, self._content_of(step))
        if same is not None:
            self._note_same(looked, same)
            return False
        if step.ours or self.context.overwrite:
            return True
        self.outcome.gaps.append(Gap(step.name, "failed", _reason(error)))
        return False

    def _note_same(self, looked: Looked, same: Item) -> None:
        """Add an object that both sides have to the record, unless its retention or legal hold has to be changed."""
        step = looked.step
        locks = lock_amendment(
            destination_of(step),
            looked.destination,
            self.context.describe(same),
            locks_itself=self.context.locks_itself,
        )
        if locks.changes or locks.faults:
            self.unlike_locked.append(_of_version(step, looked.destination))
            return
        self.context.progress.skip(items=1, size_bytes=looked.source.summary.size_bytes)
        if step.why == AGAIN:
            self.outcome.same += 1
            return
        self.outcome.rows.append(same.finished(looked.written, self.context.terms))
        self.outcome.adopted += 1

    def _content_of(self, step: SyncStep) -> Callable[[Fetched, Fetched], bool]:
        """Return how to compare the content where ETags and checksums do not help. An object that is looked at again is
        the same by the record. A large object that a sync may have written is read: that is cheaper than to send it.
        """
        if step.why == AGAIN:
            return lambda _ours, _theirs: True
        if step.ours and not is_small(step):
            return self.context.is_same_when_read
        return lambda _ours, _theirs: False


def same_item(
    context: SyncContext, looked: Looked, is_same: Callable[[Fetched, Fetched], bool]
) -> Item | None:
    """Return the object where both sides have the same, bytes and description, else None. ``is_same`` is asked where
    what both servers keep does not tell.
    """
    source, destination = looked.source, looked.destination
    if not is_same_content(source, destination) and not is_same(source, destination):
        return None
    md5 = source.summary.etag if is_md5(source.summary.etag) else None
    same = item(context.source.name, as_read(looked.step, source), source, Content("", md5, 0), looked.acl)
    crc = kept_crc64nvme(source.headers)
    same.record_row["crc64nvme"] = None if crc is None else f"{crc:016x}"
    described = context.describe(same)
    if not (has_headers(destination, described) and has_tags(destination, described)):
        return None
    version = destination_of(looked.step).version_id
    has_acl = (
        not context.source.has_acls
        or (context.destination.acl(described.key, version) or "") == described.acl
    )
    return same if has_acl else None


def is_same_content(source_object: Fetched, destination_object: Fetched) -> bool:
    """Tell whether two objects have the same bytes, by what both servers keep: the same ETag, or the CRC64NVME of the
    whole. Where that cannot tell, they are taken for different.
    """
    source_summary, destination_summary = source_object.summary, destination_object.summary
    if source_summary.size_bytes != destination_summary.size_bytes:
        return False
    if source_summary.etag == destination_summary.etag and source_summary.etag:
        return True
    crc = kept_crc64nvme(source_object.headers)
    return crc is not None and crc == kept_crc64nvme(destination_object.headers)


def _of_version(step: SyncStep, destination_object: Fetched) -> SyncStep:
    """Return the step about the very version that was looked at: a listing of what is current names none."""
    version_id = destination_object.headers.get(VERSION, "")
    return replace(step, destination=replace(destination_object.summary, version_id=version_id))


def _reason(error: SourceError | None) -> str:
    return FOREIGN if error is None else f"{FOREIGN} (it cannot be looked at: {error})"
