"""A described object in parts. What an interrupted run has sent is compared with what is to be sent, and kept."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.bucket_api import Fetched, ObjectSummary
from migrate.errors import (
    AlreadyExistsError,
    DamagedOnTheWayError,
    DamageError,
    GoneError,
    MoveoutError,
    NoSpaceError,
    NotAllowedError,
    UnreachableError,
)
from migrate.runtime.progress import Progress
from migrate.storage.api import FileInfo, Upload, UploadedPart
from migrate.storage.checksums import Content, combine, crc64nvme
from migrate.storage.multipart import ResumableUpload, find_upload, is_part, part_sizes
from migrate.storage.retry import Retrying
from migrate.storage.s3.destination_bucket import DestinationBucket, UploadGoneError
from migrate.storage.s3.errors import wants_equal_parts
from migrate.storage.s3.http.messages import error_code
from migrate.storage.s3.metadata.metadata_check import has_headers, has_locks, has_tags
from migrate.storage.s3.metadata.object_metadata import Description

PARTS_AHEAD = 6
"""Parts of one object that are sent at once: fewer where they are large."""
AHEAD_BYTES = 48 * 2**20


class Uploaded(Struct, frozen=True):
    """The object as the destination has it, and the hashes of what was sent."""

    info: FileInfo
    sha256: str
    crc64nvme: int


_LEAST_BYTES = 5 * 2**20
"""S3's least size of a part (Amazon S3 user guide, "multipart upload limits"), which not every server has."""
_STOPS_ALL = (UnreachableError, NotAllowedError, NoSpaceError)
ANOTHERS = "another program had begun to upload it, with other metadata, and that was gone on with"


class _RefusedError(Exception):
    """The destination refuses the parts, or makes no object of them. The upload may be gone: some servers drop those
    that have gone on for long, and people do. Seen with uploads that others had begun, with other checksums or none.
    With MinIO 2026-02-12 also once in some hundred uploads of ours that were continued after a kill: every part had the
    checksum that was sent, the whole another one.
    """

    def __init__(self, reason: MoveoutError) -> None:
        super().__init__(reason)
        self.reason = reason


class PartsUpload(Struct):
    """One object on its way. ``named`` is the upload to continue, where the caller has it. Else, with ``resumes``, it
    is the unfinished one of the key that has most bytes. If others had begun that, it shows in what becomes of it.
    ``on_begun`` is called with a new one before the first part is sent; ``before_end`` gets all parts in order, and
    raises where the object must not be made of them.
    """

    destination: DestinationBucket
    described: Description
    size_bytes: int
    progress: Progress
    named: str = ""
    resumes: bool = True
    sizes: Sequence[int] = ()
    """Those of the source's own parts, where the object is to be made of the same; a destination that refuses them gets
    others.
    """
    numbers: Sequence[int] = ()
    """The numbers of the parts, where not 1, 2, 3 …; a destination that refuses these gets 1, 2, 3 …."""
    on_begun: Callable[[str], None] = lambda _: None
    before_end: Callable[[Sequence[UploadedPart]], None] = lambda _: None
    _counted: list[int] = field(default_factory=list)
    """The sizes of the parts that the progress has counted, by any thread."""

    def run(self, pieces: Callable[[Sequence[int]], Iterable[bytes]], *, sha256: str = "") -> Uploaded:
        """Send the pieces of the sizes that are given, each a part. Where the destination refuses them, or what it
        makes of them, or where it makes an object that is described otherwise, they are sent once more, by another
        upload; cut otherwise, where it refuses the source's own parts.

        Raises ``DamageError``, with nothing left of the upload, where they do not have the SHA-256 that is given, or
        are refused again, and ``AlreadyExistsError`` where the object was to be new; otherwise what is there stays, to
        be continued.
        """
        retrying = Retrying(self.destination.parts())
        earlier = self._find(retrying)
        cut = earlier.part_bytes if earlier else retrying.part_bytes(self.size_bytes)
        own_sizes = () if self._are_refused() else self.sizes
        numbers = self.numbers if own_sizes else ()
        is_first = True
        while True:
            upload = earlier or self._begin()
            sizes = own_sizes or part_sizes(self.size_bytes, cut)
            parts = zip(numbers or count(1), pieces(sizes), strict=False)
            try:
                written = self._send(
                    retrying,
                    upload,
                    parts,
                    sha256,
                    may_refuse=bool(earlier or own_sizes),
                    only_new=self.described.only_new and is_first,
                )
                if not earlier or self.named or self._drop_another(written.info):
                    return written
                reason = ANOTHERS
            except _RefusedError as exc:
                retrying.abort(self.described.key, upload.id)
                if not (is_first or own_sizes):
                    raise exc.reason from exc
                self._note_refusal(exc.reason)
                # Once, the fault may be of what was begun before, of the numbers or of the way, and not of the sizes.
                may_keep_sizes = is_first and (
                    earlier or numbers or isinstance(exc.reason, DamageError | GoneError | UploadGoneError)
                )
                if not may_keep_sizes or self._are_refused():
                    own_sizes = ()
                reason = str(exc.reason)
            self._begin_again(reason)
            earlier, numbers, is_first = None, (), False

    def _begin(self) -> ResumableUpload:
        upload_id = self.destination.parts().begin_described(self.described)
        self.on_begun(upload_id)
        return ResumableUpload(upload_id, 0, {})

    def _are_refused(self) -> bool:
        """Tell whether the destination is known to refuse parts as small as the source's, or of such sizes. The last
        may be smaller.
        """
        first_sizes = self.sizes[:-1]
        if not first_sizes:
            return False
        are_small = self.destination.refuses_small_parts and min(first_sizes) < _LEAST_BYTES
        are_unequal = min(first_sizes) < max(self.sizes)
        return are_small or (self.destination.wants_equal_parts and are_unequal)

    def _note_refusal(self, reason: MoveoutError) -> None:
        self.destination.refuses_small_parts |= error_code(reason) == "EntityTooSmall"
        self.destination.wants_equal_parts |= wants_equal_parts(reason)

    def _begin_again(self, reason: str) -> None:
        """Say that what was sent is sent once more."""
        self.progress.grow(size_bytes=sum(self._counted))
        self._counted.clear()
        self.progress.note(f"{self.described.key}: {reason}; sent once more")

    def _drop_another(self, info: FileInfo) -> bool:
        """Look at what an upload has become that was there before; tell whether it is described as it is to be.
        Otherwise it is removed where versions are kept; where not, it is written over.
        """
        described, destination = self.described, self.destination
        fetched = self._at_destination(info)
        if self._is_described(fetched):
            return True
        if version := fetched.headers.get("x-amz-version-id", ""):
            try:
                destination.delete(described.key, version)
            except UnreachableError:
                raise
            except MoveoutError as exc:
                raise MoveoutError(f"{ANOTHERS}; the version it became cannot be removed: {exc}") from exc
        return False

    def _at_destination(self, info: FileInfo) -> Fetched:
        key, destination = self.described.key, self.destination
        summary = ObjectSummary(key, info.size_bytes, info.etag, info.modified)
        tags = destination.tags(key)
        tags = self.described.tags if tags is None else tags  # which may not be read
        return Fetched(summary, headers=destination.headers(key), tags=tags)

    def _is_described(self, fetched: Fetched) -> bool:
        described = self.described
        return (
            has_headers(fetched, described) and has_tags(fetched, described) and has_locks(fetched, described)
        )

    def _send(
        self,
        retrying: Retrying,
        upload: ResumableUpload,
        pieces: Iterable[tuple[int, bytes]],
        sha256: str,
        *,
        may_refuse: bool,
        only_new: bool,
    ) -> Uploaded:
        """Send the parts that are not there, and make an object of all. Raises ``_RefusedError``, and
        ``AlreadyExistsError`` where there is one, though ``only_new`` forbids that.
        """
        key = self.described.key
        sha256_hash = hashlib.sha256()
        sent: list[UploadedPart] = []
        numbers: list[int] = []
        with ThreadPoolExecutor(PARTS_AHEAD) as executor:
            under_way: deque[Future[UploadedPart]] = deque()
            for number, body in pieces:
                sha256_hash.update(body)
                numbers.append(number)
                if is_part(upload.parts.get(number), body):
                    sent.append(_with_crc(upload.parts[number], body))
                    self.progress.skip(size_bytes=len(body))
                    self._counted.append(len(body))
                    continue
                under_way.append(executor.submit(self._put, retrying, upload.id, number, body))
                while len(under_way) >= _ahead(len(body)):
                    self._arrived(under_way.popleft(), sent, may_refuse=may_refuse)
            while under_way:
                self._arrived(under_way.popleft(), sent, may_refuse=may_refuse)
        if sha256 and sha256_hash.hexdigest() != sha256:
            retrying.abort(key, upload.id)
            raise DamageError(key, expected=f"SHA-256 {sha256}", found=sha256_hash.hexdigest())
        sent.sort(key=lambda part: part.number)
        self._check_end(retrying, upload, sent, only_new=only_new)
        by_number = {part.number: part for part in sent}
        # Of the parts in the order in which they were read: that is the object, however they are numbered.
        crc = combine((by_number[number].crc64nvme or 0, by_number[number].size_bytes) for number in numbers)
        try:
            info = retrying.complete(key, upload.id, sent, crc64nvme=crc)
        except UploadGoneError as exc:
            size_bytes = sum(part.size_bytes for part in sent)
            content = Content(size_bytes, sha256_hash.hexdigest(), "", f"{crc:016x}")
            completed = self._completed_before(content)
            if completed is None:
                raise _RefusedError(exc) from exc
            info = completed
        except MoveoutError as exc:
            strange = may_refuse and not isinstance(exc, (*_STOPS_ALL, DamageError))
            if not strange and not isinstance(exc, DamagedOnTheWayError | GoneError):
                raise
            raise _RefusedError(exc) from exc
        return Uploaded(info, sha256_hash.hexdigest(), crc)

    def _check_end(
        self, retrying: Retrying, upload: ResumableUpload, sent: Sequence[UploadedPart], *, only_new: bool
    ) -> None:
        """Raise where the object must not be made; ``AlreadyExistsError`` with nothing left of the upload."""
        self.before_end(sent)
        key = self.described.key
        if only_new and self.destination.exists(key):
            retrying.abort(key, upload.id)
            raise AlreadyExistsError("there is an object of this key", about=key)

    def _completed_before(self, content: Content) -> FileInfo | None:
        """Return the object that a lost answer was about, None where the upload has become none. An older one may have
        the same bytes, an older version all that it is to have.
        """
        described, destination = self.described, self.destination
        if described.before is not None and len(destination.versions(described.key)) <= described.before:
            return None
        try:
            info = destination.parts().stat(described.key)
        except GoneError:
            return None
        fetched = self._at_destination(info)
        is_same = destination.holds(fetched.summary, content) and self._is_described(fetched)
        return info if is_same else None

    def _find(self, retrying: Retrying) -> ResumableUpload | None:
        """Return the unfinished upload to continue, None also where those of the bucket cannot be listed: that needs a
        right of its own, and some servers have no such call.
        """
        key = self.described.key
        if not self.named and not self.resumes:
            return None
        known = [Upload(key, self.named, datetime.now(UTC))] if self.named else None
        part_bytes = retrying.part_bytes(self.size_bytes)
        try:
            return find_upload(retrying, key, part_bytes, uploads=known, least_bytes=0, drop_others=False)
        except UnreachableError:
            raise
        except MoveoutError:
            if self.named:
                raise
            return None

    def _put(self, retrying: Retrying, upload: str, number: int, body: bytes) -> UploadedPart:
        """Send a part. It is counted at once: the parts behind it may wait for a limit of the bandwidth."""
        part = retrying.put_part(self.described.key, upload, number, body)
        self.progress.advance(size_bytes=part.size_bytes)
        self._counted.append(part.size_bytes)
        return part

    def _arrived(self, future: Future[UploadedPart], sent: list[UploadedPart], *, may_refuse: bool) -> None:
        try:
            part = future.result()
        except MoveoutError as exc:
            if not isinstance(exc, GoneError) and (not may_refuse or isinstance(exc, _STOPS_ALL)):
                raise
            raise _RefusedError(exc) from exc
        sent.append(part)


def _with_crc(part: UploadedPart, body: bytes) -> UploadedPart:
    """Return a part with the CRC64NVME of its bytes, where the store does not say it."""
    return part if part.crc64nvme is not None else replace(part, crc64nvme=crc64nvme(body))


def _ahead(part_bytes: int) -> int:
    return max(2, min(PARTS_AHEAD, AHEAD_BYTES // max(part_bytes, 1)))
