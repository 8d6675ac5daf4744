"""A bucket as the target of a restore: objects with their headers, metadata and tags, each in one request.

Small objects go by one PUT that carries everything and its checksums, so that none is ever seen half
described. Larger ones go in parts, and what an interrupted run has sent is found again through ListParts.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from exporters.bucket import ObjectSummary
from migrate.errors import GoneError, MoveoutError
from migrate.store import s3_client
from migrate.store.checksums import crc64nvme, from_header, to_header
from migrate.store.content import Content
from migrate.store.s3 import S3Store
from migrate.store.s3_bucket import S3Bucket
from migrate.store.s3_configuration import read_configuration, write_setting
from migrate.store.s3_crt import Request
from migrate.store.s3_objects import Job

PUT_BYTES = 32 * 2**20
"""Objects up to this size go by one PUT; their ETag is then their MD5."""
_READ_BYTES = 8 * 2**20
_META = "x-amz-meta-"
_MD5 = re.compile(r"[0-9a-f]{32}")
_ARGUMENTS = {
    "content-type": "ContentType",
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "expires": "Expires",
    "x-amz-website-redirect-location": "WebsiteRedirectLocation",
}


@dataclass(frozen=True, slots=True)
class Description:
    """What belongs to an object besides its bytes. ``key`` is the whole key in the bucket; ``metadata``
    without ``x-amz-meta-``.
    """

    key: str
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one object. ``etag`` is the server's, without quotes."""

    key: str
    etag: str = ""
    error: MoveoutError | None = None


class ObjectParts(S3Store):
    """Multipart uploads whose objects are described when they are begun. Keys are whole keys of the
    bucket.
    """

    def __init__(self, location: s3_client.S3Location) -> None:
        super().__init__(replace(location, prefix=""))

    def begin_described(self, it: Description) -> str:
        """Begin an upload, return its id."""
        arguments = {_ARGUMENTS[name]: value for name, value in sendable(it.headers).items()}
        if it.tags:
            arguments["Tagging"] = _tagging(it.tags)
        with self._translated(it.key):
            answer = self._call(
                "create_multipart_upload",
                it.key,
                Metadata=dict(it.metadata),
                **arguments,
                **self._algorithm(),
            )
        if answer.get("ChecksumAlgorithm") != "CRC64NVME":
            self.checksums = "none"
        return str(answer["UploadId"])

    def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        """Any key goes here, not only those of a bundle."""
        return getattr(self._client, operation)(Bucket=self._bucket, Key=key, **arguments)


class TargetBucket:
    """Writes to one bucket under one prefix. Thread-safe. Raises ``MoveoutError``s."""

    def __init__(self, location: s3_client.S3Location) -> None:
        self.source = S3Bucket(location)
        self.name, self.prefix, self.url = location.bucket, self.source.prefix, location.url
        self._boto = self.source.boto
        self._requests = self.source.requests
        self._parts = ObjectParts(location)

    @property
    def server(self) -> str:
        """What the server calls itself, or empty."""
        return self.source.server

    def list(self, *, prefix: str | None = None) -> Iterator[ObjectSummary]:
        """Yield what is there, by key: under the bucket's prefix or another one."""
        for page in self.source.pages(prefix=prefix):
            yield from page

    def holds(self, found: ObjectSummary, content: Content) -> bool:
        """Tell whether an object of the target has this content: by its ETag where that is an MD5, by the
        whole-object checksum that the server keeps, or by reading it.
        """
        if found.size_bytes != content.size_bytes:
            return False
        if is_md5(found.etag) and found.etag == content.etag:
            return True
        kept = self.crc64nvme(found.key)
        if kept is not None:
            return f"{kept:016x}" == content.crc64nvme
        return not is_md5(found.etag) and self.sha256(found) == content.sha256

    def sha256(self, found: ObjectSummary) -> str:
        """Read an object, return its SHA-256 in hex digits."""
        digest = hashlib.sha256()
        for body in self.source.read_parts(found, part_bytes=_READ_BYTES, window_bytes=4 * _READ_BYTES):
            digest.update(body)
        return digest.hexdigest()

    def put_all(
        self, objects: Iterable[tuple[Description, bytes]], *, window_bytes: int
    ) -> Iterator[Written]:
        """Write small objects, many at once; yield in order what became of each. Raises what concerns all
        of them.
        """
        jobs = (Job(it.key, _put_request(it, body), len(body)) for it, body in objects)
        for answer in self._requests.run(jobs, window_bytes=window_bytes):
            if answer.response is None:
                yield Written(answer.item, error=answer.error)
            else:
                yield Written(answer.item, answer.response.headers.get("etag", "").strip('"'))

    def put(self, described: Description, body: bytes) -> Written:
        """Write one object by one request."""
        return next(self.put_all([(described, body)], window_bytes=len(body)))

    def parts(self) -> ObjectParts:
        """Return the store by which large objects are written in parts, under their whole keys."""
        return self._parts

    def crc64nvme(self, key: str) -> int | None:
        """Return the CRC64NVME that the server keeps for a whole object, or None. Raises ``GoneError``."""
        request = Request("HeadObject", "HEAD", key, headers={"x-amz-checksum-mode": "ENABLED"})
        headers = self._requests.call(request).headers
        kept = headers.get("x-amz-checksum-crc64nvme")
        composite = headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT"
        return None if kept is None or composite or "-" in kept else from_header(kept)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        self._requests.call(Request("DeleteObject", "DELETE", key))

    def exists(self, key: str) -> bool:
        """Tell whether there is an object of this key."""
        try:
            self._requests.call(Request("HeadObject", "HEAD", key))
        except GoneError:
            return False
        return True

    def configuration(self) -> Mapping[str, Any]:
        """Return the bucket's settings by name."""
        return read_configuration(self._boto, self.name)

    def configure(self, name: str, value: Mapping[str, Any]) -> bool:
        """Write one setting, as ``configuration`` gives it. Return whether there is a way to write it."""
        return write_setting(self._boto, self.name, name, value)


def is_md5(etag: str) -> bool:
    """Tell whether an ETag may be an MD5: that of a multipart upload has another form."""
    return bool(_MD5.fullmatch(etag))


def open_target_bucket(url: str, *, secrets: Mapping[str, str] | None = None) -> TargetBucket:
    """Open the bucket of an ``s3://`` URL for writing and prove that it is there. Raises ``MoveoutError``."""
    target = TargetBucket(s3_client.parse(url, secrets=secrets))
    target.source.check()
    return target


def _put_request(it: Description, body: bytes) -> Request:
    md5 = hashlib.md5(body, usedforsecurity=False).digest()
    headers = {
        **sendable(it.headers),
        **{_META + name: value for name, value in it.metadata.items()},
        "Content-MD5": base64.b64encode(md5).decode(),
        "x-amz-checksum-crc64nvme": to_header(crc64nvme(body)),
    }
    if it.tags:
        headers["x-amz-tagging"] = _tagging(it.tags)
    return Request("PutObject", "PUT", it.key, headers=headers, body=body)


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a target takes. ``aws-chunked`` describes how a request was sent, not the
    object; some servers keep it.
    """
    found = {name: value for name, value in headers.items() if name in _ARGUMENTS}
    encodings = [it.strip() for it in found.pop("content-encoding", "").split(",")]
    kept = [it for it in encodings if it and it != "aws-chunked"]
    return found | ({"content-encoding": ",".join(kept)} if kept else {})


def _tagging(tags: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in tags.items())
