"""Small objects: each read whole and written whole, many at once, in one thread.

A read is pinned to the version that was listed, or, where that is gone, to the one that is there now. The write
carries everything that belongs to the object, so that none is ever seen half described.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat, tee

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Gap, Loss
from exporters.bucket_api import Fetched, ObjectSummary
from exporters.errors import SourceDamagedError, SourceError, SourceGoneError
from exporters.objects import changed_objects
from exporters.objects.index_rows import Content
from exporters.objects.outage_detection import OutageDetector
from exporters.objects.source_checksums import md5_of, promises_md5, read_again
from exporters.selection import Selection
from migrate.errors import MoveoutError
from migrate.restore.objects.destination_terms import Terms
from migrate.runtime.progress import Progress
from migrate.storage.checksums import crc64nvme
from migrate.storage.multipart import part_sizes
from migrate.storage.rate_limit import RateLimiter
from migrate.storage.s3.capability_probe import stops_all
from migrate.storage.s3.destination_bucket import DestinationBucket, Written
from migrate.storage.s3.metadata.object_metadata import PUT_BYTES, Description
from migrate.storage.s3.source_bucket import S3Bucket
from migrate.sync.diff import SyncStep, source_of
from migrate.sync.object_item import Acl, BatchOutcome, Item, item
from migrate.sync.versions.null_version import REPLACED, is_null, is_replaced

WINDOW_BYTES = 8 * 2**20
_READ_AGAIN = 3
_READ_BYTES = 8 * 2**20
UNLIKE = "the content does not have the MD5 that the source's ETag looks like"


class SyncContext(Struct, frozen=True):
    """From one bucket to the other, and on what terms. ``overwrite``: also what no sync has written. ``locks_itself``:
    see ``amendment``. ``check_lease`` raises ``BusyError`` once another run has taken over: it may have ended, and the
    destination be in use. Shared by all threads.
    """

    source: S3Bucket
    destination: DestinationBucket
    terms: Terms
    selection: Selection
    progress: Progress
    outage: OutageDetector
    """Detects an outage of the source."""
    destination_outage: OutageDetector
    rate_limiter: RateLimiter | None
    overwrite: bool
    locks_itself: bool
    check_lease: Callable[[], None]

    def note(self, source_object: Fetched, destination_object: Fetched | None = None) -> None:
        """Note the answers of both sides. Raises ``SourceUnreachableError`` when a side does not answer at all; see
        ``OutageDetector``.
        """
        self.outage.note(source_object.error)
        if destination_object is not None:
            self.destination_outage.note(destination_object.error)

    def name(self, step: SyncStep) -> str:
        """Return the whole key at the destination."""
        return self.destination.prefix + step.key

    def describe(self, read_item: Item) -> Description:
        """Return the metadata to write at the destination."""
        return self.terms.describe(self.name(read_item.step), read_item.row)

    def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may pass. Raises ``BusyError``: see ``check_lease``, a run may have hung."""
        if self.rate_limiter is not None:
            self.rate_limiter.take(size_bytes)
        self.check_lease()

    def is_same_when_read(self, source_object: Fetched, destination_object: Fetched) -> bool:
        """Tell whether both sides have the same bytes: read those of the source, and compare them with the checksum
        that the destination keeps.
        """
        summary = source_object.summary
        destination_crc = self.destination.crc64nvme(
            destination_object.summary.key, destination_object.summary.version_id
        )
        if destination_crc is None or summary.size_bytes != destination_object.summary.size_bytes:
            return False
        crc = 0
        sizes = part_sizes(summary.size_bytes, _READ_BYTES)
        for body in self.source.stream_parts(summary, sizes, window_bytes=4 * _READ_BYTES):
            self.source.cancellation.check()
            crc = crc64nvme(body, crc)
        return crc == destination_crc


def is_small(step: SyncStep) -> bool:
    """Tell whether an object goes by one request each way, and is not known to have been made of parts."""
    source = source_of(step)
    return source.size_bytes <= PUT_BYTES and "-" not in source.etag


class SmallCopy(Struct):
    """Copies small objects for one batch. ``grown`` gets those that are large by now."""

    context: SyncContext
    outcome: BatchOutcome
    grown: list[SyncStep] = field(default_factory=list)
    _lost: list[tuple[SyncStep, SourceError]] = field(default_factory=list)
    _unlike: list[tuple[Item, Written]] = field(default_factory=list)

    def run(self, steps: Sequence[SyncStep]) -> None:
        """Copy, in order. Raises what stops the whole sync."""
        self._copy(steps)
        self._settle_doubts()
        self.end()

    def _settle_doubts(self) -> None:
        """Read again what may have been damaged on the way from the source. Copy it again where other bytes come."""
        doubts, self._unlike = self._unlike, []
        steps_again: list[SyncStep] = []
        for number, (read_item, written) in enumerate(doubts):
            fetched = (
                read_again(self.context.source, read_item.fetched)
                if number < _READ_AGAIN
                else read_item.fetched
            )
            if fetched.error is None and fetched.body == read_item.fetched.body:
                self._record_unlike(read_item, written)
            else:
                steps_again.append(read_item.step)
        self._copy(steps_again)
        for read_item, written in self._unlike:
            self._record_unlike(read_item, written)
        self._unlike = []

    def _record_unlike(self, read_item: Item, written: Written) -> None:
        """Record an object whose bytes contradict its ETag, with that as a loss."""
        loss = Loss(read_item.step.key, "ETag", UNLIKE)
        record_copied(self.context, self.outcome, read_item, written, loss)

    def note_doubt(self, read_item: Item, written: Written) -> None:
        """Note an object that may have been damaged on the way from the source."""
        self._unlike.append((read_item, written))

    def checked(self, fetched: Fetched) -> Fetched:
        """Return an object to write; a subclass may read it again before."""
        return fetched

    def end(self) -> None:
        """Note what could not be read."""
        self.outcome.gaps += lost_gaps(self.context.source, self._lost)
        self._lost = []

    def _copy(self, steps: Sequence[SyncStep]) -> None:
        context = self.context
        read_items, items_to_write = tee(self.read(steps))
        objects = ((context.describe(read_item), read_item.fetched.body) for read_item in items_to_write)
        answers = context.destination.put_all(objects, window_bytes=WINDOW_BYTES)
        for written, read_item in zip(answers, read_items, strict=True):
            self.take(read_item, written)

    def read(self, steps: Sequence[SyncStep]) -> Iterator[Item]:
        """Read objects; yield those to write. Note those that cannot be read, or are not selected."""
        context = self.context
        fetched = context.source.fetch(map(source_of, steps), window_bytes=WINDOW_BYTES)
        acls_read = acls(context, map(source_of, steps))
        for step, first, acl in zip(steps, context.outage.watch(fetched), acls_read, strict=False):
            context.source.cancellation.check()
            fetched_object = first
            if isinstance(fetched_object.error, SourceDamagedError):
                fetched_object = read_again(context.source, fetched_object)
            if changed_objects.has_changed(fetched_object.error) and not is_null(fetched_object.summary):
                fetched_object = changed_objects.read_current(context.source, fetched_object, PUT_BYTES)
                self.outcome.newer += fetched_object.error is None
            if fetched_object.error is not None:
                self._lost.append((step, fetched_object.error))
                continue
            if (
                context.selection.tags
                and (reason := context.selection.excludes_tags(fetched_object.tags)) is not None
            ):
                self.outcome.gaps.append(Gap(step.name, "excluded", reason))
                continue
            if fetched_object.summary.size_bytes > PUT_BYTES or "-" in fetched_object.summary.etag:
                self.grown.append(as_read(step, fetched_object))
                continue
            fetched_object = self.checked(fetched_object)
            if fetched_object.error is not None:
                self._lost.append((step, fetched_object.error))
                continue
            read_item = self._item(step, fetched_object, acl)
            context.take(len(fetched_object.body))
            yield read_item

    def _item(self, step: SyncStep, fetched: Fetched, acl: Acl) -> Item:
        body, crc = fetched.body, fetched.crc64nvme
        content = Content(
            sha256=hashlib.sha256(body).hexdigest(),
            md5=None,
            crc64nvme=self.context.source.crc64nvme(body) if crc is None else crc,
        )
        return item(self.context.source.name, as_read(step, fetched), fetched, content, acl)

    def take(self, read_item: Item, written: Written) -> None:
        """Note what became of one object."""
        if written.error is not None:
            self.outcome.gaps.append(refusal(self.context, read_item.step, written.error))
            return
        summary, md5 = read_item.fetched.summary, written.md5
        if promises_md5(read_item.fetched):
            if (
                read_item.fetched.crc64nvme is None
                and (md5 or md5_of(read_item.fetched.body)) != summary.etag
            ):
                self.note_doubt(read_item, written)
                return
            if md5 not in {"", summary.etag} and not self.context.terms.encrypts:
                sentence = (
                    f"{read_item.step.key}: the destination answers with the ETag {md5}, not {summary.etag}"
                )
                self.outcome.damaged.append(sentence)
                return
        record_copied(self.context, self.outcome, read_item, written)


def record_copied(
    context: SyncContext,
    outcome: BatchOutcome,
    read_item: Item,
    written: Written,
    *losses: Loss,
    bytes_counted: bool = False,
) -> None:
    """Note an object that is at the destination now. ``bytes_counted``: the progress has counted its bytes already."""
    size_bytes = read_item.fetched.summary.size_bytes
    outcome.rows.append(read_item.finished(written, context.terms, *losses))
    outcome.copied += 1
    outcome.copied_bytes += size_bytes
    context.progress.advance(items=1, size_bytes=0 if bytes_counted else size_bytes)


def refusal(context: SyncContext, step: SyncStep, error: MoveoutError) -> Gap:
    """Return the gap of an object that the destination does not take. Raises what stops the whole sync."""
    if stops_all(context.destination, error):
        raise error
    return Gap(step.name, "failed", f"the destination does not take it ({error})")


def lost_gaps(source: S3Bucket, unreadable: Sequence[tuple[SyncStep, SourceError]]) -> list[Gap]:
    """Return the gaps of objects that could not be read: what is deleted by now is excluded, or was replaced and has no
    id.
    """
    replaced = [
        step for step, _ in unreadable if is_null(step.source) and is_replaced(source, source_of(step))
    ]
    rest = [(step, error) for step, error in unreadable if step not in replaced]
    gaps_found = changed_objects.gaps(
        source, [(source_of(step), error) for step, error in rest], ordered=False
    )
    return [
        *(Gap(step.name, "excluded", REPLACED) for step in replaced),
        *(
            Gap(step.name, gap.disposition, gap.reason)
            for (step, _), gap in zip(rest, gaps_found, strict=True)
        ),
    ]


def acls(context: SyncContext, summaries: Iterable[ObjectSummary]) -> Iterator[Acl]:
    """Yield the ACLs of objects, in order and without end where the source has none: then nobody is asked."""
    source = context.source
    if not source.has_acls:
        yield from repeat((None, ()))
    asked_summaries = list(summaries)
    for summary, (acl, error) in zip(
        asked_summaries,
        source.acls((summary.key, summary.version_id) for summary in asked_summaries),
        strict=True,
    ):
        context.outage.note(error)
        if error is None or isinstance(error, SourceGoneError):
            yield acl, ()
        else:
            yield None, (Loss(summary.name, "ACL", f"it could not be read: {error}"),)


def as_read(step: SyncStep, fetched: Fetched) -> SyncStep:
    """Return the step with what was really read."""
    if fetched.summary is step.source:
        return step
    return replace(step, source=fetched.summary)
