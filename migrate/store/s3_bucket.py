"""A bucket as a source: listing, reading many small objects at once, tags, its own settings.

Implements ``exporters.bucket.Bucket``; the errors of this side of the fence end here and go on as
``SourceError``s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from html import unescape
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from exporters.bucket import Fetched, ObjectSummary
from exporters.errors import (
    SourceChangedError,
    SourceError,
    SourceGoneError,
    SourceItemError,
    SourceNotAllowedError,
    SourceUnreachableError,
    SourceUsageError,
)
from migrate.errors import (
    ChangedError,
    GoneError,
    MoveoutError,
    NotAllowedError,
    UnreachableError,
    UsageError,
)
from migrate.store import s3_client
from migrate.store.checksums import crc64nvme, from_header
from migrate.store.s3_configuration import read_configuration
from migrate.store.s3_crt import CrtClient, Headers, Request, Response, concerns_bucket
from migrate.store.s3_lanes import Lanes
from migrate.store.s3_objects import Answer, Job, Stream

PAGE_KEYS = 1000
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]+)</NextContinuationToken>")
"""S3's maximum for one page of a listing."""
_COUNTS_TAGS = ("amazons3", "minio", "versitygw")
"""Servers known to send ``x-amz-tagging-count``; any other is asked for the tags of every object."""


class S3Bucket:
    """See ``exporters.bucket.Bucket``. ``stream`` and ``client`` are for the writing side."""

    def __init__(self, location: s3_client.S3Location) -> None:
        self.name = location.bucket
        self.prefix = location.prefix + "/" * (bool(location.prefix) and not location.prefix.endswith("/"))
        self.url = location.url
        self.boto = s3_client.client(location)
        self.client = CrtClient(self.boto, location)
        self.requests = Stream(self.client)
        self._lanes = Lanes(self.boto, location, self.requests)
        self.server = ""
        self._no_tags = False

    def check(self) -> None:
        """Prove that the bucket can be listed. Raises ``MoveoutError``, at once."""
        try:
            response = self.client.call(self._page_request(self.prefix, "", "", 1))
        except GoneError as exc:
            raise GoneError(
                f"there is no bucket {self.name!r} at {self.boto.meta.endpoint_url}",
                next_step="check its name, or create it",
            ) from exc
        self.server = response.headers.get("server", "")

    def fetch(self, wanted: Iterable[ObjectSummary], *, window_bytes: int) -> Iterator[Fetched]:
        """See ``Bucket.fetch``."""
        jobs = (Job(summary, _get(summary), summary.size_bytes) for summary in wanted)
        with _as_source_errors(self.url):
            if self._lanes.usable:
                answers = self._lanes.run(jobs, also=self._ask_tags)
            else:
                answers = self.requests.run(jobs, window_bytes=window_bytes, also=self._ask_tags)
            for answer in answers:
                yield self._fetched(answer)

    def head(self, summary: ObjectSummary) -> Fetched:
        """See ``Bucket.head``."""
        request = Request("HeadObject", "HEAD", summary.key, headers=_pinned(summary))
        answers = self.requests.run([Job(summary, request, 0)], window_bytes=0, also=self._ask_tags)
        with _as_source_errors(self.url):
            return self._fetched(next(answers), body=False)

    def heads(self, wanted: Iterable[ObjectSummary]) -> Iterator[Fetched]:
        """``head`` of many, in order."""
        jobs = (Job(it, Request("HeadObject", "HEAD", it.key, headers=_pinned(it)), 0) for it in wanted)
        with _as_source_errors(self.url):
            for answer in self.requests.run(jobs, window_bytes=0, also=self._ask_tags):
                yield self._fetched(answer, body=False)

    def read_range(self, summary: ObjectSummary, start: int, length: int) -> bytes:
        """See ``Bucket.read_range``."""
        with _as_source_errors(self.url):
            return _whole(self.requests.call(_get(summary, start, length)), summary, length).body

    def stream(self, summary: ObjectSummary, *, part_bytes: int, window_bytes: int) -> Iterator[bytes]:
        """See ``Bucket.stream``."""
        parts = self.read_parts(summary, part_bytes=part_bytes, window_bytes=window_bytes)
        with _as_source_errors(self.url):
            while (body := _own_fault(parts)) is not None:
                yield body

    def read_parts(self, summary: ObjectSummary, *, part_bytes: int, window_bytes: int) -> Iterator[bytes]:
        """Do the work of ``stream``. Raises ``MoveoutError``."""
        starts = range(0, summary.size_bytes, part_bytes)
        ranges = ((start, min(part_bytes, summary.size_bytes - start)) for start in starts)
        jobs = (Job(length, _get(summary, start, length), length) for start, length in ranges)
        for answer in self.requests.run(jobs, window_bytes=window_bytes):
            if answer.response is None:
                raise answer.error or GoneError(summary.key)
            yield _whole(answer.response, summary, answer.item).body

    def list(self, *, start_after: str = "") -> Iterator[ObjectSummary]:
        """See ``Bucket.list``."""
        with _as_source_errors(self.url):
            for page in self.pages(start_after):
                yield from page

    def crc64nvme(self, data: bytes, previous: int = 0) -> int:
        """See ``Bucket.crc64nvme``."""
        return crc64nvme(data, previous)

    def tags_readable(self, samples: Sequence[ObjectSummary]) -> bool:
        """See ``Bucket.tags_readable``."""
        with _as_source_errors(self.url):
            for summary in samples:
                try:
                    self.requests.call(_tags_request(summary.key))
                except NotAllowedError:
                    return False
                except GoneError:
                    continue
                except UnreachableError:
                    raise
                except MoveoutError:  # the server knows no tags
                    self._no_tags = True
                    return True
        return True

    def configuration(self) -> Mapping[str, Any]:
        """See ``Bucket.configuration``."""
        with _as_source_errors(self.url):
            return read_configuration(self.boto, self.name)

    def _ask_tags(self, summary: ObjectSummary, headers: Headers) -> Request | None:
        count = headers.get("x-amz-tagging-count")
        if count is None and (self._no_tags or self.server.lower().startswith(_COUNTS_TAGS)):
            return None
        return None if count == "0" else _tags_request(summary.key)

    def _fetched(self, answer: Answer[ObjectSummary], *, body: bool = True) -> Fetched:
        summary, response = answer.item, answer.response
        if response is None:
            return Fetched(summary, error=source_error(answer.error or GoneError(summary.key)))
        try:
            if body:
                _whole(response, summary, summary.size_bytes)
            checked = body and _check(response, summary.key)
            tags = _tags(answer.also)
        except MoveoutError as exc:
            return Fetched(summary, error=source_error(exc))
        return Fetched(summary, response.body, response.headers, tags, checked=checked)

    def pages(self, start_after: str = "", *, prefix: str | None = None) -> Iterator[Sequence[ObjectSummary]]:
        """Yield the listing page by page, of the whole prefix or of another one. Raises ``MoveoutError``."""
        within = self.prefix if prefix is None else prefix
        request = self._page_request(within, start_after, "", PAGE_KEYS)
        ahead = self.client.send(request)
        while True:
            try:
                response = ahead.wait()
            except UnreachableError:
                response = self.requests.call(request)
            root = None
            token = _next_token(response.body)
            if token is None:
                root = ET.fromstring(response.body)  # noqa: S314 - see the import
                token = _parsed_token(root, self.url)
            if token:
                request = self._page_request(within, "", token, PAGE_KEYS)
                ahead = self.client.send(request)  # the server works on it while this page is parsed and used
            yield parse_page(ET.fromstring(response.body) if root is None else root)  # noqa: S314
            if not token:
                return

    def _page_request(self, prefix: str, start_after: str, token: str, count: int) -> Request:
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(count)}
        given = {"prefix": prefix, "start-after": start_after, "continuation-token": token}
        query |= {name: value for name, value in given.items() if value}
        return Request("ListObjectsV2", "GET", query=query)


def open_bucket(url: str, *, secrets: Mapping[str, str] | None = None) -> S3Bucket:
    """Open the bucket of ``s3://bucket/prefix?profile=NAME`` and prove that it can be listed.

    Raises ``SourceError``s: a wrong URL (2), credentials (4), no answer (5), no such bucket (7).
    """
    with _as_source_errors(url.partition("?")[0]):
        bucket = S3Bucket(s3_client.parse(url, secrets=secrets))
        bucket.check()
        return bucket


def _next_token(body: bytes) -> str | None:
    """Return how to go on after a page, by a glance at its bytes; None where only parsing it can tell."""
    found = _TOKEN.search(body)
    if found is None or b"<IsTruncated>true</IsTruncated>" not in body:
        return None
    return unescape(found[1].decode())


def _parsed_token(root: Any, url: str) -> str:
    """Return how to go on after a page, empty after the last."""
    if root.findtext("{*}IsTruncated") != "true":
        return ""
    token = root.findtext("{*}NextContinuationToken") or ""
    if not token:
        raise UnreachableError(f"{url}: the listing breaks off without saying how to go on")
    return token


def parse_page(root: Any) -> list[ObjectSummary]:
    """Return the objects on a page of ListObjectsV2. Keys are decoded where the server says that they are
    encoded (as in a query: ``+`` is a space); versitygw is asked for that and does not.
    """
    encoded = root.findtext("{*}EncodingType") == "url"
    page = []
    for contents in root.iterfind("{*}Contents"):
        found = {element.tag.rpartition("}")[2]: element.text or "" for element in contents}
        key = found["Key"]
        page.append(
            ObjectSummary(
                key=unquote_plus(key, errors="strict") if encoded else key,
                size_bytes=int(found["Size"]),
                etag=found.get("ETag", "").strip('"'),
                modified=datetime.fromisoformat(found["LastModified"]),
                storage_class=found.get("StorageClass") or "STANDARD",
            )
        )
    return page


def source_error(exc: MoveoutError) -> SourceError:
    """Return the exporters' error for one of ours."""
    if isinstance(exc, ChangedError):
        return SourceChangedError(f"{exc}: it has changed since it was listed", next_step=exc.next_step)
    for ours, theirs in (
        (UsageError, SourceUsageError),
        (NotAllowedError, SourceNotAllowedError),
        (UnreachableError, SourceUnreachableError),
        (GoneError, SourceGoneError),
    ):
        if isinstance(exc, ours):
            return theirs(str(exc), next_step=exc.next_step)
    return SourceError(str(exc), next_step=exc.next_step)


@contextmanager
def _as_source_errors(what: str) -> Iterator[None]:
    try:
        yield
    except MoveoutError as exc:
        raise source_error(exc) from exc
    except (UnicodeDecodeError, ET.ParseError, KeyError) as exc:
        raise SourceError(f"{what}: the listing cannot be read: {exc}") from exc


def _pinned(summary: ObjectSummary) -> dict[str, str]:
    headers = {"x-amz-checksum-mode": "ENABLED"}
    return headers | {"If-Match": f'"{summary.etag}"'} if summary.etag else headers


def _get(summary: ObjectSummary, start: int = 0, length: int | None = None) -> Request:
    headers = _pinned(summary)
    if length is not None:
        del headers["x-amz-checksum-mode"]
        headers["Range"] = f"bytes={start}-{start + length - 1}"
    return Request("GetObject", "GET", summary.key, headers=headers)


def _tags_request(key: str) -> Request:
    return Request("GetObjectTagging", "GET", key, query={"tagging": ""})


def _tags(response: Response | None) -> dict[str, str]:
    if response is None:
        return {}
    root = ET.fromstring(response.body)  # noqa: S314 - see the import
    return {
        tag.findtext("{*}Key") or "": tag.findtext("{*}Value") or "" for tag in root.iter() if _is_tag(tag)
    }


def _is_tag(element: Any) -> bool:
    return bool(element.tag.rpartition("}")[2] == "Tag")


def _whole(response: Response, summary: ObjectSummary, length: int) -> Response:
    if len(response.body) != length:
        raise ChangedError(f"{summary.key}: {len(response.body)} bytes came, {length} were listed")
    return response


def _own_fault(parts: Iterator[bytes]) -> bytes | None:
    """Return the next part. What is the object's fault alone is told apart from an outage."""
    try:
        return next(parts, None)
    except MoveoutError as exc:
        if isinstance(exc, UnreachableError) or concerns_bucket(exc):
            raise
        kind = SourceChangedError if isinstance(exc, ChangedError | GoneError) else SourceItemError
        raise kind(str(source_error(exc)), next_step=exc.next_step) from exc


def _check(response: Response, key: str) -> bool:
    """Compare the body with the whole-object CRC64NVME that the server keeps. Return whether it keeps one."""
    kept = response.headers.get("x-amz-checksum-crc64nvme")
    if kept is None:
        return False
    if from_header(kept) != crc64nvme(response.body):
        raise MoveoutError(f"{key}: the body does not have the CRC64NVME {kept} that the server keeps for it")
    return True
