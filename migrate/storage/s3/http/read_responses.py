"""Requests that read objects, whole or in ranges, and what their answers must be."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import formatdate
from itertools import accumulate
from typing import Any
from xml.etree import ElementTree as ET

from msgspec.structs import replace

from exporters.bucket_api import ObjectPart, ObjectSummary
from exporters.objects.source_checksums import OtherChecksum, is_md5_of, kept_crc64nvme
from migrate.errors import ChangedError, DamageError, MoveoutError
from migrate.storage.checksums import crc64nvme, to_header
from migrate.storage.s3.http.concurrent_requests import Requests
from migrate.storage.s3.http.messages import Request, Response


def acl_query(version: str) -> dict[str, str]:
    """Return the query that asks for the ACL of an object (``version``: empty without)."""
    return {"acl": ""} | ({"versionId": version} if version else {})


def read_request(summary: ObjectSummary, *, body: bool, whole: bool) -> Request:
    """Return the request for the version of an object that was listed, with its checksum; without ``body`` for its
    headers. Not ``whole``: for ranges of it, which the caller names; where it has no ETag they are of the object of its
    time, which is rounded up to whole seconds, as some servers compare.
    """
    headers = {"x-amz-checksum-mode": "ENABLED"} if whole else {}
    if summary.etag:
        headers["If-Match"] = f'"{summary.etag}"'
    elif not whole:
        headers["If-Unmodified-Since"] = formatdate(math.ceil(summary.modified.timestamp()), usegmt=True)
    if not body:
        return Request("HeadObject", "HEAD", summary.key, which(summary), headers)
    size_bytes = summary.size_bytes if whole else None
    return Request("GetObject", "GET", summary.key, which(summary), headers, size_bytes=size_bytes)


def which(summary: ObjectSummary) -> dict[str, str]:
    """Return the query that names the version, where one is named."""
    return {"versionId": summary.version_id} if summary.version_id else {}


def tags_request(summary: ObjectSummary) -> Request:
    """Return the request for an object's tags."""
    return Request("GetObjectTagging", "GET", summary.key, query={"tagging": ""} | which(summary))


def parts_request(summary: ObjectSummary, after: int) -> Request:
    """Return the request for the list of an object's parts, behind the one with this number."""
    headers = {"x-amz-object-attributes": "ObjectParts", "x-amz-part-number-marker": str(after)}
    return Request("GetObjectAttributes", "GET", summary.key, {"attributes": ""} | which(summary), headers)


def parse_parts(response: Response) -> list[ObjectPart]:
    """Return the parts of an answer to GetObjectAttributes, in order; none where it has none, or cannot be read."""
    try:
        return [
            ObjectPart(int(part.findtext("{*}PartNumber") or 0), int(part.findtext("{*}Size") or 0))
            for part in ET.fromstring(response.body).iter()  # noqa: S314 - see s3_pages
            if part.tag.rpartition("}")[2] == "Part"
        ]
    except (ET.ParseError, ValueError):
        return []


def parse_tags(response: Response, key: str) -> dict[str, str]:
    """Return the tags of an answer to GetObjectTagging. Raises ``MoveoutError``."""
    try:
        root = ET.fromstring(response.body)  # noqa: S314 - see s3_pages
    except ET.ParseError as exc:
        raise MoveoutError(f"{key}: its tags cannot be read: {exc}") from exc
    if root.tag.rpartition("}")[2] != "Tagging":
        raise MoveoutError(f"{key}: its tags cannot be read: the answer is <{root.tag}>, which is not S3's")
    return {
        tag.findtext("{*}Key") or "": tag.findtext("{*}Value") or "" for tag in root.iter() if _is_tag(tag)
    }


def _is_tag(element: Any) -> bool:
    return bool(element.tag.rpartition("}")[2] == "Tag")


def _other_length(response: Response, summary: ObjectSummary, length: int) -> ChangedError:
    """Return the error for a body that has another length than the one listed."""
    return ChangedError(f"{summary.key}: {response.announced_bytes} bytes came, {length} were listed")


def checked(response: Response, summary: ObjectSummary) -> int | None:
    """Compare the body of an object with its size, and with the whole-object CRC64NVME that the server keeps. Return
    this; None where it keeps none. Another checksum is compared where the ETag is no MD5. Raises ``ChangedError``,
    ``DamageError``.
    """
    if response.announced_bytes != summary.size_bytes:
        raise _other_length(response, summary, summary.size_bytes)
    stored_crc = kept_crc64nvme(response.headers)
    if stored_crc is None:
        _check_other(response, summary)
        return None
    crc = crc64nvme(response.body)
    if stored_crc != crc:
        raise DamageError(
            summary.key,
            expected=f"the CRC64NVME {to_header(stored_crc)} that the server keeps",
            found=to_header(crc),
        )
    return crc


def _check_other(response: Response, summary: ObjectSummary) -> None:
    other = None if is_md5_of(summary.etag, response.headers) else OtherChecksum.of(response.headers)
    if other is None:
        return
    other.update(response.body)
    if other.fault is not None:
        raise DamageError(summary.key, expected=other.fault, found="another one")


AT_ONCE = 6
"""At most, where the window has room for them."""


def read_ranges(
    requests: Requests, request: Request, summary: ObjectSummary, sizes: Sequence[int], *, window_bytes: int
) -> Iterator[bytes]:
    """Yield ranges of these sizes, one behind the other, in order; a few are read ahead, at most ``window_bytes`` of
    them. Raises ``MoveoutError``, ``ChangedError`` where they are of an object of another size.
    """
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="moveout-read") as executor:
        under_way: deque[tuple[Future[bytes], int]] = deque()
        ahead_bytes = 0
        try:
            for start, length in zip(accumulate(sizes, initial=0), sizes, strict=False):
                while under_way and (
                    len(under_way) >= requests.limiter.of(AT_ONCE) or ahead_bytes + length > window_bytes
                ):
                    future, size_bytes = under_way.popleft()
                    ahead_bytes -= size_bytes
                    yield future.result()
                under_way.append(
                    (executor.submit(read_range, requests, request, summary, start, length), length)
                )
                ahead_bytes += length
            while under_way:
                yield under_way.popleft()[0].result()
        finally:
            for future, _ in under_way:
                future.cancel()


def read_range(
    requests: Requests, request: Request, summary: ObjectSummary, start: int, length: int
) -> bytes:
    """Return one range. Raises ``MoveoutError``, ``ChangedError`` where it is of an object of another size."""
    if not length:  # no range means nothing
        return b""
    headers = {**request.headers, "Range": f"bytes={start}-{start + length - 1}"}
    response = requests.call(replace(request, headers=headers))
    total = response.headers.get("content-range", "").rpartition("/")[2]
    if total.isdecimal() and int(total) != summary.size_bytes:
        raise ChangedError(f"{summary.key}: it has {total} bytes, {summary.size_bytes} were listed")
    if len(response.body) != length:
        raise _other_length(response, summary, length)
    return response.body
