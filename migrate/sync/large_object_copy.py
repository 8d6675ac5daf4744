"""Large objects: in parts, with as much in memory as a few parts, and gone on with where an earlier run stopped.

Those that the source has from parts are made of the very same parts where they are not too large, so that their
ETag stays the same.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from exporters.api import Gap, Loss
from exporters.bucket_api import Fetched
from exporters.errors import SourceChangedError, SourceError, SourceItemError, SourceUnreachableError
from exporters.objects import changed_objects
from exporters.objects.index_rows import Content
from migrate.errors import DamageError, MoveoutError
from migrate.restore.objects.capabilities import has_own_parts, in_parts
from migrate.storage.multipart import part_sizes
from migrate.storage.s3.destination_bucket import Written
from migrate.storage.s3.object_upload import PartsUpload, Uploaded
from migrate.sync.copy import SyncContext, acls, arrived, as_read, lost_gaps, refusal, source_of
from migrate.sync.diff import SyncStep
from migrate.sync.object_item import Done, Item, item
from migrate.sync.record.column_pages import microseconds
from migrate.sync.upload_owners import Uploads
from migrate.sync.versions.null_version import is_null

OTHER_PARTS = "the source does not say where its parts begin, so the destination has others"
WINDOW_BYTES = 48 * 2**20
_READ_BYTES = 8 * 2**20
_AT_ONCE = threading.BoundedSemaphore(2)
"""Objects on their way at once, each with a window of reads and a few parts in memory."""


@dataclass(slots=True)
class LargeCopy:
    """Copies large objects for one span; ``versions``: each becomes a version of its own, and never two."""

    way: SyncContext
    done: Done
    uploads: Uploads
    versions: bool = False

    def run(self, steps: Sequence[SyncStep]) -> None:
        """Copy one after the other. Raises what stops the whole sync."""
        for step in steps:
            with _AT_ONCE:
                self._copy(step)

    def _copy(self, step: SyncStep) -> None:
        """Copy what is there now; what changes while it is read is read again, a few times."""
        found = self.way.source.head(source_of(step))
        error: SourceError | None = found.error
        for _ in range(changed_objects.ATTEMPTS):
            if error is not None and changed_objects.is_due(error) and not is_null(found.summary):
                found = changed_objects.current(self.way.source, found.summary)
                error = found.error
            if error is not None:
                break
            self.done.newer += found.summary.etag != source_of(step).etag
            try:
                self._copy_found(as_read(step, found), found)
            except SourceChangedError as exc:
                self.uploads.forget(step.key)
                error = exc
            except (SourceItemError, SourceUnreachableError) as exc:
                error = exc
                break
            else:
                return
        self.way.outage.note(error)
        if error is not None:
            self.done.gaps += lost_gaps(self.way.source, [(step, error)])

    def _copy_found(self, step: SyncStep, found: Fetched) -> None:
        way = self.way
        if way.selection.tags and (reason := way.selection.excludes_tags(found.tags)) is not None:
            self.done.gaps.append(Gap(step.name, "excluded", reason))
            return
        parts = way.source.parts(found.summary) if "-" in found.summary.etag else ()
        acl = next(acls(way, [found.summary]))
        made = item(way.source.name, step, found, Content("", None, 0, parts=parts), acl)
        try:
            if in_parts(made.row):
                self._send(made)
            else:
                self._put(made)
        except SourceError:
            raise
        except DamageError as exc:
            self.done.damaged.append(f"{step.name}: did not arrive as it was sent ({exc})")
        except MoveoutError as exc:
            self.done.gaps.append(refusal(step, exc))

    def _put(self, made: Item) -> None:
        """Write an object that was small in parts by one request."""
        way, size_bytes = self.way, made.found.summary.size_bytes
        body = b"".join(self._pieces(made, part_sizes(size_bytes, _READ_BYTES)))
        described = made.described(way.name(made.step), way.terms)
        if self.versions:
            written = next(
                way.destination.put_versions([(replace(described, before=made.step.before), body)])
            )
        else:
            written = way.destination.put(described, body)
        if written.error is not None:
            raise written.error
        crc = way.source.crc64nvme(body)
        self._arrived(made, written, hashlib.sha256(body).hexdigest(), crc)

    def _send(self, made: Item) -> None:
        way, step, row = self.way, made.step, made.row
        own = has_own_parts(row)

        def pieces(cut: int) -> Iterator[bytes]:
            return self._pieces(made, row.part_sizes if own else part_sizes(row.size_bytes, cut))

        which = f"{row.etag} {microseconds(source_of(step).modified)} {source_of(step).version_id}".rstrip()
        upload = PartsUpload(
            way.destination,
            made.described(way.name(step), way.terms),
            row.size_bytes,
            way.progress,
            named=self.uploads.find(step.key, which),
            resumes=False,
            numbers=row.part_numbers if own else (),
            on_begun=lambda begun: self.uploads.note(step.key, which, begun),
        )
        sent: Uploaded = upload.run(pieces)
        self.uploads.end(step.key)
        if own and sent.info.etag != row.etag and not way.terms.encrypts:
            made = replace(made, lost=(*made.lost, Loss(step.name, "ETag", OTHER_PARTS)))
        version = way.destination.newest_version(way.name(step)) if self.versions else ""
        written = Written(step.key, sent.info.etag, version_id=version)
        self._arrived(made, written, sent.sha256, sent.crc64nvme, told=True)

    def _arrived(self, made: Item, written: Written, sha256: str, crc: int, *, told: bool = False) -> None:
        work = made.work | {"sha256": sha256, "crc64nvme": f"{crc:016x}"}
        arrived(self.way, self.done, replace(made, work=work), written, told=told)

    def _pieces(self, made: Item, sizes: Sequence[int]) -> Iterator[bytes]:
        summary = made.found.summary
        for body in self.way.source.stream_parts(summary, sizes, window_bytes=WINDOW_BYTES):
            self.way.source.cancellation.check()
            self.way.take(len(body))
            yield body
