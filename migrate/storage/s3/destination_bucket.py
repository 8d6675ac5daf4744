"""A bucket as the destination of a restore: objects with their headers, metadata and tags, each in one request.

Small objects go by one PUT that carries everything and its checksums, so that none is ever seen half
described. Larger ones go in parts, and what an interrupted run has sent is found again through ListParts.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from http import HTTPStatus
from typing import Any

import botocore.exceptions as boto_errors
from msgspec import Struct
from msgspec.structs import replace

from exporters.bucket_api import ObjectSummary
from exporters.objects.source_checksums import is_md5_of, kept_crc64nvme
from migrate.errors import (
    GoneError,
    MoveoutError,
    NotAllowedError,
    SlowDownError,
    UnreachableError,
    WrongAnswerError,
)
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import FileInfo
from migrate.storage.checksums import Content, crc64nvme
from migrate.storage.multipart import part_sizes
from migrate.storage.retry import Note, RetryPolicy, RetryTimeout
from migrate.storage.s3 import client
from migrate.storage.s3.errors import translate
from migrate.storage.s3.http.concurrent_requests import RETRY_SECONDS, Answer, Job, Requests
from migrate.storage.s3.http.messages import Headers, Request, Response, was_answered
from migrate.storage.s3.http.read_responses import acl_query, parse_tags
from migrate.storage.s3.listing.pages import versioning_status
from migrate.storage.s3.metadata import acl as s3_acl
from migrate.storage.s3.metadata.bucket_configuration import (
    BEGINNING_BYTES,
    LISTING,
    read_configuration,
    read_setting,
    remove_setting,
    unless_it_fails,
    write_setting,
)
from migrate.storage.s3.metadata.object_metadata import Description, described_headers, is_md5, put_request
from migrate.storage.s3.source_bucket import S3Bucket
from migrate.storage.s3.store import S3Store

_ATTEMPT_SECONDS, _BUSY_SECONDS = 5.0, 120.0
_READ_BYTES = 8 * 2**20
_VERSIONS_AT_ONCE = 8
VERSION = "x-amz-version-id"


class Written(Struct, frozen=True):
    """What became of one object. ``etag`` is the server's, without quotes; ``md5`` the same where it is the MD5 of the
    bytes, else empty; ``version_id`` empty where it keeps no versions.
    """

    key: str
    etag: str = ""
    error: MoveoutError | None = None
    version_id: str = ""
    md5: str = ""


class UploadGoneError(MoveoutError):
    """An upload is not there when it is to become an object: it has become one, or was dropped."""


class ObjectParts(S3Store):
    """Multipart uploads whose objects are described when they are begun. Keys are whole keys of the
    bucket.
    """

    def __init__(self, s3_location: client.S3Location, requests: Requests) -> None:
        super().__init__(replace(s3_location, prefix=""), cancellation=requests.cancellation)
        self._requests = requests

    def _completed_before(self, gone: GoneError, *_: Any) -> FileInfo:
        """Leave it to who sends the object: an older one, or an older version, may have the same bytes."""
        raise UploadGoneError(str(gone)) from gone

    def begin_described(self, described: Description) -> str:
        """Begin an upload, return its id. Not through boto, which takes no metadata beyond ASCII."""
        headers = described_headers(described) | self._algorithm()
        request = Request("CreateMultipartUpload", "POST", described.key, {"uploads": ""}, headers)
        return self._begun(described.key, self._requests.call(request))

    def _whole(self, key: str) -> str:
        """Any key goes here, not only those of a bundle."""
        return key


class DestinationBucket:
    """Writes to one bucket under one prefix. Thread-safe. Raises ``MoveoutError``s."""

    def __init__(
        self,
        s3_location: client.S3Location,
        cancellation: CancellationToken | None = None,
        *,
        note: Note | None = None,
    ) -> None:
        self.reader = S3Bucket(s3_location, cancellation, note=note)
        self.name, self.prefix, self.url = s3_location.bucket, self.reader.prefix, s3_location.url
        self._boto = self.reader.boto
        self._requests = self.reader.requests
        self._location = s3_location
        self._object_lock: Mapping[str, Any] | None = None
        self.lock_denied = False
        """Whether these credentials may not read if the bucket has object lock; once it was asked for."""
        self._versioning: str | None = None
        self.probe_lock, self.took_probe_at = threading.Lock(), -math.inf
        self.keeps_probes: str | None = None
        """Why what is tried out would stay; empty where it can be removed, None before that was looked at."""
        self.has_faltered = False
        """Once it answered a trial with errors of its own, or was busy, for longer than the trial waits."""
        self.refuses_small_parts = False
        """Once it has refused an object since parts of it were too small."""
        self.wants_equal_parts = False
        """Once it has refused an object since its parts, but for the last one, had different sizes."""
        self.has_md5_etags = True
        """Until the ETags of parts that it took were others than those that the source has made an ETag of."""

    @property
    def server(self) -> str:
        """What the server calls itself, or empty."""
        return self.reader.server

    def list(self, *, prefix: str | None = None) -> Iterator[ObjectSummary]:
        """Yield what is there, by key: under the bucket's prefix or another one."""
        for page in self.reader.listing.objects(self.prefix if prefix is None else prefix):
            yield from page.rows()

    def list_versions(self, *, prefix: str | None = None) -> Iterator[ObjectSummary]:
        """Yield all versions and delete markers, by key, newest first."""
        for page in self.reader.listing.versions(self.prefix if prefix is None else prefix):
            yield from page.rows()

    def holds(self, summary: ObjectSummary, content: Content) -> bool:
        """Tell whether an object of the destination has this content: by its ETag where that is an MD5, by the
        whole-object checksum that the server keeps, or by reading it.
        """
        if summary.size_bytes != content.size_bytes:
            return False
        if is_md5(summary.etag) and summary.etag == content.etag:
            return True
        headers = self.headers(summary.key, summary.version_id)
        stored_crc = kept_crc64nvme(headers)
        if stored_crc is not None:
            return f"{stored_crc:016x}" == content.crc64nvme
        if is_md5(content.etag) and is_md5_of(summary.etag, headers):
            return False
        return self.sha256(summary) == content.sha256

    def sha256(self, summary: ObjectSummary) -> str:
        """Read an object, return its SHA-256 in hex digits."""
        digest = hashlib.sha256()
        sizes = part_sizes(summary.size_bytes, _READ_BYTES)
        for body in self.reader.read_parts(summary, sizes, window_bytes=4 * _READ_BYTES):
            digest.update(body)
        return digest.hexdigest()

    def put_all(
        self, objects: Iterable[tuple[Description, bytes]], *, window_bytes: int
    ) -> Iterator[Written]:
        """Write small objects, many at once; yield in order what became of each. Raises what concerns all
        of them. One that was to be new gets a ``ChangedError`` where its key is taken, maybe by itself: it is sent
        again where the answer was lost.
        """
        jobs = (Job(described.key, put_request(described, body)) for described, body in objects)
        return map(_written, self._requests.run(jobs, window_bytes=window_bytes))

    def put_versions(self, objects: Iterable[tuple[Description, bytes | None]]) -> Iterator[Written]:
        """Write versions, a few at once, None for a delete marker. Like ``put_all``, but none is made twice: a request
        is sent again only after a look at what the key has become.
        """
        with ThreadPoolExecutor(_VERSIONS_AT_ONCE, thread_name_prefix="moveout-versions") as executor:
            pending: deque[Future[Written]] = deque()
            for described, body in objects:
                pending.append(executor.submit(self._put_version, described, body))
                while len(pending) >= self._requests.limiter.of(_VERSIONS_AT_ONCE):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _put_version(self, described: Description, body: bytes | None) -> Written:
        request = (
            Request("DeleteObject", "DELETE", described.key) if body is None else put_request(described, body)
        )
        sent = False

        def attempt() -> Response:
            nonlocal sent
            if sent and (earlier := self._earlier(described, body)) is not None:
                return Response(HTTPStatus.OK, earlier, b"")
            sent = True
            with self._requests.http.inflight.sending(len(body or b""), self._requests.cancellation):
                return self._requests.retry.ask_once(lambda: self._requests.http.call(request))

        try:
            response = RetryPolicy(
                RetryTimeout(RETRY_SECONDS),
                limiter=self._requests.limiter,
                cancellation=self._requests.cancellation,
            ).run(attempt)
        except GoneError:
            raise
        except MoveoutError as exc:
            return Written(described.key, error=exc)
        return _written(Answer(described.key, request, response))

    def _earlier(self, described: Description, body: bytes | None) -> Headers | None:
        """Return what was made by an attempt whose answer was lost, None where nothing was."""
        versions = self.versions(described.key)
        if described.before is None or len(versions) <= described.before:
            return None
        newest = versions[-1]
        if body is None or newest.is_delete_marker:
            is_same_marker = body is None and newest.is_delete_marker
            return {VERSION: newest.version_id} if is_same_marker else None
        if not self.holds(newest, _content(body)):
            return None
        return {**self.headers(described.key, newest.version_id), VERSION: newest.version_id}

    def current(self, key: str) -> ObjectSummary | None:
        """Return the current object of a key, None where there is none."""
        first = next(self.list(prefix=key), None)
        return first if first is not None and first.key == key else None

    def between(self, first: str, last: str) -> Iterator[ObjectSummary]:
        """Yield what is there from one key to another, both included."""
        for page in self.reader.listing.objects(self.prefix, first[:-1], lambda: last):
            yield from (summary for summary in page.rows() if first <= summary.key <= last)

    def send(self, request: Request) -> None:
        """Send a request that may be sent twice, and retry it for a while."""
        self._requests.call(request)

    def versions(self, key: str) -> Sequence[ObjectSummary]:
        """Return all versions and delete markers of a key, oldest first."""
        versions = []
        for version in self.list_versions(prefix=key):
            if version.key > key:
                break
            if version.key == key:
                versions.append(version)
        return versions[::-1]

    def attempt(self, described: Description, body: bytes) -> MoveoutError | None:
        """Write one object without much patience, unless the server is busy; return why it does not take it. Raises
        ``UnreachableError`` where there is no answer at all, and ``NotAllowedError``.
        """
        request = put_request(described, body)

        def put() -> None:
            self._requests.retry.ask_once(lambda: self.reader.http.call(request))

        def within(seconds: float) -> None:
            RetryPolicy(RetryTimeout(seconds), cancellation=self._requests.cancellation).run(put)

        try:
            try:
                within(_ATTEMPT_SECONDS)
            except SlowDownError:  # which rather says something of the server than of the object
                within(_BUSY_SECONDS)
        except NotAllowedError:
            raise
        except UnreachableError as exc:
            if not was_answered(exc):
                raise
            self.has_faltered = True
            return exc
        except MoveoutError as exc:
            return exc
        return None

    def put(self, described: Description, body: bytes) -> Written:
        """Write one object by one request."""
        return next(self.put_all([(described, body)], window_bytes=len(body)))

    def parts(self) -> ObjectParts:
        """Return the store by which large objects are written in parts, under their whole keys."""
        return self._parts

    @cached_property
    def _parts(self) -> ObjectParts:
        return ObjectParts(self._location, self._requests)

    def crc64nvme(self, key: str, version_id: str = "") -> int | None:
        """Return the CRC64NVME that the server keeps for a whole object, or None. Raises ``GoneError``."""
        return kept_crc64nvme(self.headers(key, version_id))

    def headers(self, key: str, version_id: str = "") -> Headers:
        """Return what the server says of an object, its checksums included. Raises ``GoneError``."""
        query = {"versionId": version_id} if version_id else {}
        request = Request("HeadObject", "HEAD", key, query, {"x-amz-checksum-mode": "ENABLED"})
        return self._requests.call(request).headers

    def delete_all(self, keys: Iterable[str]) -> Iterator[Written]:
        """Remove objects, many at once; like ``put_all``. Where versions are kept they stay, below delete markers."""
        jobs = (Job(key, Request("DeleteObject", "DELETE", key)) for key in keys)
        return map(_written, self._requests.run(jobs, window_bytes=0))

    def delete_versions(self, versions: Iterable[tuple[str, str]]) -> Iterator[Written]:
        """Remove versions (key, id) for good, many at once; like ``delete_all``."""
        jobs = (
            Job(key, Request("DeleteObject", "DELETE", key, {"versionId": version_id}))
            for key, version_id in versions
        )
        return map(_written, self._requests.run(jobs, window_bytes=0))

    def amend(self, changes: Iterable[Request]) -> Iterator[Written]:
        """Send changes of what is there (see ``object_metadata``), many at once; like ``put_all``."""
        jobs = (Job(change.key, change) for change in changes)
        return map(_written, self._requests.run(jobs, window_bytes=0))

    def delete(self, key: str, version_id: str = "") -> None:
        """Remove an object, or a version of it for good; nothing happens where there is none."""
        query = {"versionId": version_id} if version_id else {}
        self._requests.call(Request("DeleteObject", "DELETE", key, query))

    def newest_version(self, key: str) -> str:
        """Return the id of the version that the key names now, empty without versions. Raises ``GoneError``."""
        return self._requests.call(Request("HeadObject", "HEAD", key)).headers.get(VERSION, "")

    def versioning(self) -> str:
        """Return ``Enabled``, ``Suspended`` or nothing. It is asked for once, and again after a setting was written.
        Raises ``NotAllowedError`` where these credentials may not know.
        """
        if self._versioning is None:
            self._versioning = self._read_versioning()
        return self._versioning

    def _read_versioning(self) -> str:
        try:
            body = self._requests.call(Request("GetBucketVersioning", "GET", query={"versioning": ""})).body
        except UnreachableError:
            raise
        except NotAllowedError as exc:
            raise NotAllowedError(
                f"whether it keeps versions may not be read: {exc.explanation}",
                about=self.url,
                next_step=f"allow s3:GetBucketVersioning on the bucket {self.name}",
            ) from exc
        except MoveoutError:
            return ""
        status = versioning_status(body)
        if status is None and LISTING not in body[:BEGINNING_BYTES]:
            raise WrongAnswerError(
                "whether it keeps versions cannot be read, so the answer is not S3's", about=self.url
            )
        return status or ""  # a server without versions may answer with its listing

    def acl(self, key: str, version_id: str = "") -> str | None:
        """Return the canned ACL that an object has, or a version of it; empty where it has another one or the server
        has none, None where these credentials may not know.
        """
        try:
            body = self._requests.call(Request("GetObjectAcl", "GET", key, acl_query(version_id))).body
        except UnreachableError:
            raise
        except NotAllowedError:
            return None
        except MoveoutError:
            return ""
        return s3_acl.canned(s3_acl.parse(body) or {})

    def tags(self, key: str) -> Mapping[str, str] | None:
        """Return the tags that an object has; none where the server has no tags, None where these credentials may not
        read them.
        """
        request = Request("GetObjectTagging", "GET", key, {"tagging": ""})
        try:
            response = unless_it_fails(lambda: self.reader.http.call(request), self._requests.cancellation)
            return parse_tags(response, key)
        except UnreachableError:
            raise
        except NotAllowedError:
            return None
        except MoveoutError:
            return {}

    def exists(self, key: str) -> bool:
        """Tell whether there is an object of this key."""
        try:
            self._requests.call(Request("HeadObject", "HEAD", key))
        except GoneError:
            return False
        return True

    def object_lock(self) -> Mapping[str, Any] | None:
        """Return the bucket's lock configuration (with its ``Rule`` of default retention, if there is one); None
        where it has none, or that may not be read (``lock_denied``). It is asked for once, and again after a setting
        was written.
        """
        if self._object_lock is None:
            self._object_lock = self._read_object_lock()
        configuration = self._object_lock
        return configuration if configuration.get("ObjectLockEnabled") == "Enabled" else None

    def _read_object_lock(self) -> Mapping[str, Any]:
        try:
            setting = read_setting(self.reader.http, "object-lock", self._requests.cancellation)
        except UnreachableError:
            raise
        except MoveoutError as exc:
            self.lock_denied = isinstance(exc, NotAllowedError)
            return {}
        return dict(setting.get("ObjectLockConfiguration", {}))

    def configuration(self) -> Mapping[str, Any]:
        """Return the bucket's settings by name."""
        return read_configuration(self.reader.http, self._requests.cancellation)

    def setting(self, name: str) -> Mapping[str, Any]:
        """Return one of the bucket's settings, empty where it is not set."""
        try:
            return read_setting(self.reader.http, name, self._requests.cancellation)
        except UnreachableError:
            raise
        except MoveoutError:
            return {}

    def configure(self, name: str, value: Mapping[str, Any]) -> bool:
        """Write one setting, as ``configuration`` gives it. Return whether there is a way to write it."""
        self._forget_settings()
        return write_setting(self._boto, self.name, name, value)

    def unset(self, name: str) -> bool:
        """Take one setting away. Return whether there is a way to."""
        self._forget_settings()
        return remove_setting(self._boto, self.name, name)

    def _forget_settings(self) -> None:
        self._object_lock = self._versioning = None


def open_destination_bucket(
    url: str,
    *,
    secrets: Mapping[str, str] | None = None,
    cancellation: CancellationToken | None = None,
    note: Note | None = None,
    ask_lock: bool = False,
    connections: int = 0,
) -> DestinationBucket:
    """Open the bucket of an ``s3://`` URL for writing and prove that it is there. ``ask_lock``: somebody needs its
    object lock at once, and so many ``connections``. ``note`` is called where it does not answer for long. Raises
    ``MoveoutError``.
    """
    token = (cancellation or CancellationToken()).child()
    destination = DestinationBucket(client.parse(url, secrets=secrets), token, note=note)
    with ThreadPoolExecutor(2, thread_name_prefix="moveout-open") as threads:
        threads.submit(destination.reader.http.warm, connections)
        if ask_lock:
            threads.submit(destination.object_lock)
        try:
            destination.reader.check()
        except BaseException:
            token.cancel()  # the other question is not repeated
            raise
    return destination


def make_bucket(url: str, *, secrets: Mapping[str, str] | None = None, object_lock: bool = False) -> str:
    """Make the bucket of an ``s3://`` URL, in the profile's region. Return its name. Raises ``MoveoutError``."""
    s3_location = client.parse(url, secrets=secrets)
    boto = client.client(s3_location)
    region = boto.meta.region_name
    arguments: dict[str, Any] = {"ObjectLockEnabledForBucket": True} if object_lock else {}
    if region != "us-east-1":  # which must not be named (API reference, CreateBucket)
        arguments["CreateBucketConfiguration"] = {"LocationConstraint": region}
    try:
        boto.create_bucket(Bucket=s3_location.bucket, **arguments)
    except (boto_errors.ClientError, boto_errors.BotoCoreError, OSError) as exc:
        raise translate(exc, f"the bucket {s3_location.bucket}") from exc
    return s3_location.bucket


class MadeBucket(Struct, frozen=True):
    """A bucket that was made; ``refused``: without the object lock that it was to have."""

    sentence: str
    refused: bool = False


def make_bucket_like(settings: Mapping[str, Any], url: str, *, secrets: Mapping[str, str]) -> MadeBucket:
    """Make the bucket of a URL, with object lock where another bucket's settings have it. Object lock can only be
    switched on when a bucket is made.
    """
    if "object-lock" not in settings:
        return MadeBucket(f"made the bucket {make_bucket(url, secrets=secrets)}")
    try:
        name = make_bucket(url, secrets=secrets, object_lock=True)
    except (NotAllowedError, UnreachableError):
        raise
    except MoveoutError as exc:
        name = make_bucket(url, secrets=secrets)
        lacks = f"made the bucket {name} without object lock, which the server refuses ({exc})"
        return MadeBucket(lacks, refused=True)
    return MadeBucket(f"made the bucket {name} with object lock")


def _content(body: bytes) -> Content:
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return Content(len(body), hashlib.sha256(body).hexdigest(), md5, f"{crc64nvme(body):016x}")


def _written(answer: Answer[str]) -> Written:
    """Return what became of an object by what the server says of it."""
    if answer.response is None:
        return Written(answer.item, error=answer.error)
    headers = answer.response.headers
    etag = headers.get("etag", "").strip('"')
    md5 = etag if is_md5_of(etag, headers) else ""
    return Written(answer.item, etag, version_id=headers.get(VERSION, ""), md5=md5)
