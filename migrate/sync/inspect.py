"""Objects that the destination has already, of which the record does not say that they are the same: looked at on both
sides, one request each. What is the same is taken into the record; what is not is copied if it is ours to write, else
left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Gap
from exporters.bucket_api import Fetched, ObjectSummary
from exporters.errors import SourceError, SourceGoneError
from exporters.objects.index_rows import Content
from migrate.storage.s3.destination_bucket import VERSION, Written
from migrate.storage.s3.metadata.metadata_check import has_headers, has_tags, kept_crc64nvme
from migrate.storage.s3.metadata.object_metadata import is_md5
from migrate.sync.amendment import lock_amendment
from migrate.sync.copy import SyncContext, acls, as_read, is_small, source_of
from migrate.sync.diff import AGAIN, SyncStep
from migrate.sync.object_item import Acl, Done, Item, item

FOREIGN = (
    "the destination has another object of this key, which this sync did not write; --overwrite replaces it"
)


class ObjectCheck(Struct):
    """Looks at objects for one batch. ``locks_itself``: see ``amendment``. ``unlike_locked``: what is the same apart
    from its retention or legal hold.
    """

    context: SyncContext
    done: Done
    overwrite: bool
    locks_itself: bool = False
    unlike_locked: list[SyncStep] = field(default_factory=list)

    def run(self, steps: Sequence[SyncStep]) -> list[SyncStep]:
        """Compare both sides; return the steps that need a copy. Raises what stops the whole sync."""
        context = self.context
        source_objects = context.source.heads(map(source_of, steps))
        destination_objects = context.destination.reader.heads(map(destination_of, steps))
        acls_read = acls(context, map(source_of, steps))
        return [
            step
            for step, source_object, destination_object, acl in zip(
                steps, source_objects, destination_objects, acls_read, strict=False
            )
            if self._is_due(step, source_object, destination_object, acl)
        ]

    def _is_due(self, step: SyncStep, source_object: Fetched, destination_object: Fetched, acl: Acl) -> bool:
        self.context.note(source_object, destination_object)
        if source_object.error is not None or isinstance(destination_object.error, SourceGoneError):
            return True  # copying finds out what has become of it
        if (
            destination_object.error is None
            and (same_item := self.same(step, source_object, destination_object, acl, self._content_of(step)))
            is not None
        ):
            if self._is_locked_otherwise(step, destination_object, same_item):
                self.unlike_locked.append(_of_version(step, destination_object))
                return False
            self.context.progress.skip(items=1, size_bytes=source_object.summary.size_bytes)
            if step.why == AGAIN:
                self.done.same += 1
                return False
            self.done.rows.append(
                same_item.finished(
                    Written(
                        step.key,
                        destination_object.summary.etag,
                        version_id=destination_object.summary.version_id,
                    ),
                    self.context.terms,
                )
            )
            self.done.adopted += 1
            return False
        if step.ours or self.overwrite:
            return True
        self.done.gaps.append(Gap(step.name, "failed", _reason(destination_object.error)))
        return False

    def _is_locked_otherwise(self, step: SyncStep, destination_object: Fetched, same_item: Item) -> bool:
        """Tell whether the retention or the legal hold at the destination is to be another one."""
        described = same_item.described(self.context.name(step), self.context.terms)
        locks = lock_amendment(
            destination_of(step), destination_object, described, locks_itself=self.locks_itself
        )
        return bool(locks.changes or locks.faults)

    def _content_of(self, step: SyncStep) -> Callable[[Fetched, Fetched], bool]:
        """Return what tells of the content where ETags and checksums do not. Of what is looked at again it is the
        record. Of a large object that may be ours it is its bytes: to read them is less than to send them.
        """
        if step.why == AGAIN:
            return lambda _ours, _theirs: True
        if step.ours and not is_small(step):
            return self.context.is_same_when_read
        return lambda _ours, _theirs: False

    def same(
        self,
        step: SyncStep,
        source_object: Fetched,
        destination_object: Fetched,
        acl: Acl,
        is_same: Callable[[Fetched, Fetched], bool] = lambda _ours, _theirs: False,
    ) -> Item | None:
        """Return the object where both sides have the same, bytes and description, else None. ``is_same`` is asked
        where what both servers keep does not tell.
        """
        if not is_same_content(source_object, destination_object) and not is_same(
            source_object, destination_object
        ):
            return None
        md5 = source_object.summary.etag if is_md5(source_object.summary.etag) else None
        same_item = item(
            self.context.source.name, as_read(step, source_object), source_object, Content("", md5, 0), acl
        )
        crc = kept_crc64nvme(source_object.headers)
        same_item.record_row["crc64nvme"] = None if crc is None else f"{crc:016x}"
        described = same_item.described(self.context.name(step), self.context.terms)
        if not (has_headers(destination_object, described) and has_tags(destination_object, described)):
            return None
        version = destination_of(step).version_id
        has_acl = (
            not self.context.source.has_acls
            or self.context.destination.acl(described.key, version) == described.acl
        )
        return same_item if has_acl else None


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


def destination_of(step: SyncStep) -> ObjectSummary:
    """Return the object at the destination."""
    assert step.destination is not None
    return step.destination


def _of_version(step: SyncStep, destination_object: Fetched) -> SyncStep:
    """Return the step about the very version that was looked at: a listing of what is current names none."""
    version_id = destination_object.headers.get(VERSION, "")
    return replace(step, destination=replace(destination_object.summary, version_id=version_id))


def _reason(error: SourceError | None) -> str:
    return FOREIGN if error is None else f"{FOREIGN} (it cannot be looked at: {error})"
