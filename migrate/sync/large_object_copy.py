"""Copies large objects in parts, with a few parts in memory. An upload that an earlier run began is continued.

An object that was uploaded to the source in parts gets the same parts at the destination, unless they are too large.
So its ETag stays the same. The record says which unfinished upload belongs to which version. So an upload that was
begun for an older version, with its metadata, is never continued.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Gap, Loss
from exporters.bucket_api import Fetched
from exporters.errors import (
    SourceChangedError,
    SourceDamagedError,
    SourceError,
    SourceItemError,
    SourceUnreachableError,
)
from exporters.objects import changed_objects
from exporters.objects.index_rows import Content
from exporters.objects.source_checksums import ContentProof, etag_of_parts, kept_crc64nvme, only_parts_prove
from migrate.bundle import canonical_json
from migrate.errors import BusyError, DamageError, GoneError, MoveoutError
from migrate.restore.objects.destination_terms import has_own_parts, in_parts
from migrate.storage.api import MultipartStore, UploadedPart
from migrate.storage.checksums import combine
from migrate.storage.multipart import part_sizes
from migrate.storage.retry import Retrying
from migrate.storage.s3.destination_bucket import DestinationBucket, Written
from migrate.storage.s3.metadata.object_metadata import Description, is_md5
from migrate.storage.s3.object_upload import PartsUpload, Uploaded
from migrate.sync.copy import SyncContext, acls, as_read, lost_gaps, record_copied, refusal
from migrate.sync.diff import SyncStep, source_of
from migrate.sync.object_item import BatchOutcome, Item, item
from migrate.sync.record.column_pages import microseconds
from migrate.sync.versions.null_version import is_null

OTHER_PARTS = "the destination has another: its parts are others, or the source encrypts it by a key"
WINDOW_BYTES = 48 * 2**20
_READ_BYTES = 8 * 2**20
_AT_ONCE = threading.BoundedSemaphore(2)
"""Objects on their way at once, each with a window of reads and a few parts in memory."""


class LargeCopy(Struct):
    """Copies large objects for one batch; ``versions``: each becomes a version of its own, and never two. None is made
    of bytes that contradict what the source says of them: they are read again, for they may have been damaged on the
    way. ``_proof`` is of what is being read, None where the checksums of the parts that arrive are enough for it.
    ``_doubted`` is of what came before and was doubted.
    """

    context: SyncContext
    outcome: BatchOutcome
    uploads: Uploads
    versions: bool = False
    _proof: ContentProof | None = None
    _doubted: ContentProof | None = None

    def run(self, steps: Sequence[SyncStep]) -> None:
        """Copy the objects one by one. Raises what stops the whole sync."""
        for step in steps:
            with _AT_ONCE:
                self._copy(step)

    def _copy(self, step: SyncStep) -> None:
        """Copy what is there now; what changes while it is read is read again, a few times."""
        fetched = self.context.source.head(source_of(step))
        error: SourceError | None = fetched.error
        self._doubted = None
        for _ in range(changed_objects.ATTEMPTS):
            if error is not None and changed_objects.has_changed(error) and not is_null(fetched.summary):
                fetched = changed_objects.current(self.context.source, fetched.summary)
                error = fetched.error
            if error is not None and not isinstance(error, SourceDamagedError):
                break
            self.outcome.newer += fetched.summary.etag != source_of(step).etag
            try:
                self._copy_fetched(as_read(step, fetched), fetched)
            except SourceChangedError as exc:
                self.uploads.forget(step.key)
                error = exc
            except SourceDamagedError as exc:
                error = exc  # it is read again
            except (SourceItemError, SourceUnreachableError) as exc:
                error = exc
                break
            else:
                return
        self.context.outage.note(error)
        if error is not None:
            self.outcome.gaps += lost_gaps(self.context.source, [(step, error)])

    def _copy_fetched(self, step: SyncStep, fetched: Fetched) -> None:
        context = self.context
        if context.selection.tags and (reason := context.selection.excludes_tags(fetched.tags)) is not None:
            self.outcome.gaps.append(Gap(step.name, "excluded", reason))
            return
        parts = context.source.parts(fetched.summary) if "-" in fetched.summary.etag else ()
        acl = next(acls(context, [fetched.summary]))
        read_item = item(context.source.name, step, fetched, Content("", None, 0, parts=parts), acl)
        try:
            if in_parts(read_item.row):
                self._send(read_item)
            else:
                self._put(read_item)
        except (SourceError, BusyError):
            raise
        except DamageError as exc:
            self.outcome.damaged.append(f"{step.name}: did not arrive as it was sent ({exc})")
        except MoveoutError as exc:
            self.outcome.gaps.append(refusal(context, step, exc))

    def _put(self, read_item: Item) -> None:
        """Write an object that was small in parts by one request."""
        context, size_bytes = self.context, read_item.fetched.summary.size_bytes
        body = b"".join(self._pieces(read_item, part_sizes(size_bytes, _READ_BYTES)))
        self._check(read_item)
        assert self._proof is not None, "its bytes were read"
        described = self._described(read_item)
        if self.versions:
            written = next(context.destination.put_versions([(described, body)]))
        else:
            written = context.destination.put(described, body)
        if written.error is not None:
            raise written.error
        self._arrived(read_item, written, hashlib.sha256(body).hexdigest(), self._proof.crc64nvme)

    def _send(self, read_item: Item) -> None:
        context, step, row = self.context, read_item.step, read_item.row
        has_own = has_own_parts(row)

        identity = (
            f"{row.etag} {microseconds(source_of(step).modified)} {source_of(step).version_id}".rstrip()
        )
        upload = PartsUpload(
            context.destination,
            self._described(read_item),
            row.size_bytes,
            context.progress,
            named=self.uploads.find(step.key, identity),
            resumes=False,
            sizes=row.part_sizes if has_own else (),
            numbers=row.part_numbers if has_own else (),
            on_begun=lambda upload_id: self.uploads.note(step.key, identity, upload_id),
            before_end=partial(self._check, read_item, counted_bytes=row.size_bytes),
        )
        sent: Uploaded = upload.run(partial(self._pieces, read_item))
        self.uploads.end(step.key)
        if has_own and sent.info.etag != row.etag and not context.terms.encrypts:
            read_item = replace(read_item, lost=(*read_item.lost, Loss(step.name, "ETag", OTHER_PARTS)))
        version = context.destination.newest_version(context.name(step)) if self.versions else ""
        written = Written(step.key, sent.info.etag, version_id=version)
        self._arrived(read_item, written, sent.sha256, sent.crc64nvme, bytes_counted=True)

    def _described(self, read_item: Item) -> Description:
        before = read_item.step.before if self.versions else None
        return replace(self.context.describe(read_item), before=before)

    def _arrived(
        self, read_item: Item, written: Written, sha256: str, crc: int, *, bytes_counted: bool = False
    ) -> None:
        record_row = read_item.record_row | {"sha256": sha256, "crc64nvme": f"{crc:016x}"}
        doubts = self._proof.losses() if self._proof else ()
        record_copied(
            self.context,
            self.outcome,
            replace(read_item, record_row=record_row),
            written,
            *doubts,
            bytes_counted=bytes_counted,
        )

    def _check(self, read_item: Item, parts: Sequence[UploadedPart] = (), *, counted_bytes: int = 0) -> None:
        """Raise ``SourceDamagedError`` where the bytes that were read, and have arrived as ``parts``, do not have the
        source's checksum: they are read again.
        """
        self.context.check_lease()
        proof = self._proof
        error = self._parts_error(read_item, parts) if proof is None else proof.error(self._doubted)
        if error is not None:
            self._doubted = proof
            self.context.progress.grow(size_bytes=counted_bytes)  # which come once more
            raise error

    def _parts_error(self, read_item: Item, parts: Sequence[UploadedPart]) -> SourceDamagedError | None:
        """Compare the source's CRC64NVME, or its ETag, with what the checksums of parts, in order, come to."""
        if (kept := kept_crc64nvme(read_item.fetched.headers)) is not None:
            if kept == combine((part.crc64nvme or 0, part.size_bytes) for part in parts):
                return None
            return SourceDamagedError(
                f"{read_item.step.name}: what came does not have the CRC64NVME that the server keeps for it"
            )
        etags = [part.etag for part in parts]
        if all(map(is_md5, etags)) and etag_of_parts([*map(bytes.fromhex, etags)]) == read_item.row.etag:
            return None
        self.context.destination.has_md5_etags = False
        return SourceDamagedError(
            f"{read_item.step.name}: its parts arrive with other ETags than at the source"
        )

    def _do_parts_prove(self, read_item: Item, sizes: Sequence[int]) -> bool:
        """Tell whether the CRC64NVMEs of the parts that are sent prove what was read, or the MD5s that the destination
        computes of the source's own parts.
        """
        fetched, row, context = read_item.fetched, read_item.row, self.context
        if kept_crc64nvme(fetched.headers) is not None:
            return in_parts(row)
        has_same_parts = has_own_parts(row) and list(sizes) == list(row.part_sizes)
        is_proved_there = has_same_parts and only_parts_prove(fetched)
        return is_proved_there and context.destination.has_md5_etags and not context.terms.encrypts

    def _pieces(self, read_item: Item, sizes: Sequence[int]) -> Iterator[bytes]:
        fetched, row, context = read_item.fetched, read_item.row, self.context
        self._proof = None
        if not self._do_parts_prove(read_item, sizes):
            self._proof = ContentProof(context.source, fetched, row.part_sizes)
            self._proof.update(b"")  # of an object that is one empty part nothing else comes
        pinned = changed_objects.pinned(fetched)
        for body in context.source.stream_parts(pinned, sizes, window_bytes=WINDOW_BYTES):
            context.source.cancellation.check()
            context.take(len(body))
            if self._proof is not None:
                self._proof.update(body)
            yield body


_FOLDER = "uploads/"


class Uploads:
    """The uploads that runs have begun. Thread-safe, as no key is copied twice at once."""

    def __init__(self, store: MultipartStore, destination: DestinationBucket) -> None:
        self._store, self._destination = store, destination

    def find(self, key: str, identity: str) -> str:
        """Return the upload of this version of an object, empty where there is none. One of another is dropped."""
        recorded = self._noted(key)
        if not recorded:
            return ""
        if recorded.get("which") == identity:
            return str(recorded.get("upload", ""))
        self._drop(key, recorded)
        return ""

    def note(self, key: str, identity: str, upload: str) -> None:
        """Record that an upload has begun."""
        value = {"version": 1, "key": key, "which": identity, "upload": upload}
        self._store.put(_file(key), canonical_json.encode(value))

    def end(self, key: str) -> None:
        """Remove the record of an upload that has become an object."""
        self._store.delete(_file(key))

    def forget(self, key: str) -> None:
        """Drop the upload of a key with all its parts."""
        if recorded := self._noted(key):
            self._drop(key, recorded)

    def clear(self) -> None:
        """Drop all uploads: those whose objects are there, or are not needed any more."""
        for info in list(self._store.list(_FOLDER)):
            recorded = self._read(info.key)
            self._drop(str(recorded.get("key", "")), recorded)

    def _drop(self, key: str, recorded: dict[str, object]) -> None:
        if recorded.get("upload"):
            Retrying(self._destination.parts()).abort(self._destination.prefix + key, str(recorded["upload"]))
        self.end(key)

    def _noted(self, key: str) -> dict[str, object]:
        return self._read(_file(key))

    def _read(self, name: str) -> dict[str, object]:
        try:
            return canonical_json.decode(self._store.read(name), name)
        except (GoneError, DamageError):
            return {}


def _file(key: str) -> str:
    return f"{_FOLDER}{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}.json"
