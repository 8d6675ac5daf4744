"""Objects that the destination has already, of which the record does not say that they are the same: looked at on both
sides, one request each. What is the same is taken into the record; what is not is copied if it is ours to write, else
left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exporters.api import Gap
from exporters.bucket_api import Fetched, ObjectSummary
from exporters.errors import SourceError, SourceGoneError
from exporters.objects.index_rows import Content
from migrate.storage.s3.destination_bucket import Written
from migrate.storage.s3.metadata.metadata_check import has_headers, has_tags, kept_crc64nvme
from migrate.storage.s3.metadata.object_metadata import is_md5
from migrate.sync.copy import SyncContext, acls, as_read, is_small, source_of
from migrate.sync.diff import AGAIN, SyncStep
from migrate.sync.object_item import Acl, Done, Item, item

FOREIGN = (
    "the destination has another object of this key, which this sync did not write; --overwrite replaces it"
)


@dataclass(slots=True)
class Look:
    """Looks at objects for one span."""

    way: SyncContext
    done: Done
    overwrite: bool

    def run(self, steps: Sequence[SyncStep]) -> list[SyncStep]:
        """Look; return what is to be copied after all. Raises what stops the whole sync."""
        way = self.way
        here = way.source.heads(map(source_of, steps))
        there = way.destination.reader.heads(map(destination_of, steps))
        found_acls = acls(way, map(source_of, steps))
        return [
            step
            for step, ours, theirs, acl in zip(steps, here, there, found_acls, strict=False)
            if self._is_due(step, ours, theirs, acl)
        ]

    def _is_due(self, step: SyncStep, ours: Fetched, theirs: Fetched, acl: Acl) -> bool:
        self.way.note(ours, theirs)
        if ours.error is not None or isinstance(theirs.error, SourceGoneError):
            return True  # copying finds out what has become of it
        if (
            theirs.error is None
            and (same := self.same(step, ours, theirs, acl, self._content_of(step))) is not None
        ):
            self.way.progress.skip(items=1, size_bytes=ours.summary.size_bytes)
            if step.why == AGAIN:
                self.done.same += 1
                return False
            self.done.rows.append(
                same.finished(
                    Written(step.key, theirs.summary.etag, version_id=theirs.summary.version_id),
                    self.way.terms,
                )
            )
            self.done.adopted += 1
            return False
        if step.ours or self.overwrite:
            return True
        self.done.gaps.append(Gap(step.name, "failed", _reason(theirs.error)))
        return False

    def _content_of(self, step: SyncStep) -> Callable[[Fetched, Fetched], bool]:
        """Return what tells of the content where ETags and checksums do not: the record, of what is looked at again; of
        a large object that may be ours, its bytes: to read them is less than to send them.
        """
        if step.why == AGAIN:
            return lambda _ours, _theirs: True
        if step.ours and not is_small(step):
            return self.way.is_same_when_read
        return lambda _ours, _theirs: False

    def same(
        self,
        step: SyncStep,
        ours: Fetched,
        theirs: Fetched,
        acl: Acl,
        is_same: Callable[[Fetched, Fetched], bool] = lambda _ours, _theirs: False,
    ) -> Item | None:
        """Return the object where both sides have the same, bytes and description, else None. ``is_same`` is asked
        where what both servers keep does not tell.
        """
        if not is_same_content(ours, theirs) and not is_same(ours, theirs):
            return None
        md5 = ours.summary.etag if is_md5(ours.summary.etag) else None
        made = item(self.way.source.name, as_read(step, ours), ours, Content("", md5, 0), acl)
        crc = kept_crc64nvme(ours.headers)
        made.work["crc64nvme"] = None if crc is None else f"{crc:016x}"
        described = made.described(self.way.name(step), self.way.terms)
        if not (has_headers(theirs, described) and has_tags(theirs, described)):
            return None
        version = destination_of(step).version_id
        has_acl = (
            not self.way.source.has_acls or self.way.destination.acl(described.key, version) == described.acl
        )
        return made if has_acl else None


def is_same_content(ours: Fetched, theirs: Fetched) -> bool:
    """Tell whether two objects have the same bytes, by what both servers keep: the same ETag, or the CRC64NVME of the
    whole. Where that cannot tell, they are taken for different.
    """
    one, other = ours.summary, theirs.summary
    if one.size_bytes != other.size_bytes:
        return False
    if one.etag == other.etag and one.etag:
        return True
    kept = kept_crc64nvme(ours.headers)
    return kept is not None and kept == kept_crc64nvme(theirs.headers)


def destination_of(step: SyncStep) -> ObjectSummary:
    """Return what the destination has."""
    assert step.destination is not None
    return step.destination


def _reason(error: SourceError | None) -> str:
    return FOREIGN if error is None else f"{FOREIGN} (it cannot be looked at: {error})"
