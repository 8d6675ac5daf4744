"""A bucket and a prefix as a location: bodies by the HTTP client, the rest by boto3.

Every body carries its CRC64NVME, so that the server refuses what was damaged on the way. Uploads in parts are
begun with a full-object CRC64NVME, which the server compares with ours when it makes the file. A server that
supports none of this is noted in ``S3Store.checksums``; what it does not check is checked by reading back.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from html import escape
from typing import Any, Literal
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

import botocore.exceptions as boto_errors
from msgspec.structs import replace

from exporters.bucket_api import Page
from exporters.objects.source_checksums import kept_crc64nvme
from migrate.errors import (
    AlreadyExistsError,
    ChangedError,
    DamagedOnTheWayError,
    DamageError,
    GoneError,
    MoveoutError,
    WrongAnswerError,
)
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import (
    MIN_PART_BYTES,
    PART_BYTES,
    BaseStore,
    FileInfo,
    Parts,
    Upload,
    UploadedPart,
    part_bytes_for,
)
from migrate.storage.checksums import crc64nvme as crc64
from migrate.storage.checksums import to_header
from migrate.storage.key_rules import checked
from migrate.storage.multipart import HALF_PART_BYTES
from migrate.storage.s3 import client
from migrate.storage.s3.errors import (
    as_listed,
    as_utc,
    asked_range,
    http_date,
    is_invalid_part,
    not_empty,
    part_of,
    required_field,
    translate,
)
from migrate.storage.s3.http.client import HttpClient, require_success
from migrate.storage.s3.http.messages import Request, Response, error_code, plain
from migrate.storage.s3.listing.pages import (
    LoopDetector,
    objects_request,
    parse_objects,
    parsed,
    token_behind,
)

_XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"
SHA256_METADATA = "moveout-sha256"
_FAST = 8_000_000
"""Bytes a second, from which on parts are as large as usual."""
_NO_BUCKET = "NoSuchBucket"
_NO_UPLOAD = "NoSuchUpload"
"""rclone 1.75 answers so where a bucket has no uploads at all."""
_CHECKSUM = "x-amz-checksum-crc64nvme"
_FOREIGN = (boto_errors.BotoCoreError, boto_errors.ClientError, OSError)


class S3Store(BaseStore):
    """The ``MultipartStore`` over S3. ``checksums`` says what the server was seen to check: CRC64NVME, or
    nothing.
    """

    keeps_sha256 = True

    def __init__(
        self, s3_location: client.S3Location, *, cancellation: CancellationToken | None = None
    ) -> None:
        self.s3_location = replace(s3_location, prefix=s3_location.folder)
        self.location = self.s3_location.url
        self.checksums: Literal["crc64nvme", "none"] = "crc64nvme"
        self._bucket = self.s3_location.bucket
        self._http = HttpClient.of(self.s3_location)
        self._client = self._http.boto
        self._page_size = 1000
        self._cancellation = cancellation or CancellationToken()

    def stuck_seconds(self) -> float | None:
        """See ``Moving``."""
        return self._http.stuck_seconds()

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``. ``sha256`` is kept as user metadata. Browsers show pages, and download the rest."""
        crc = to_header(crc64(data))
        headers = {_CHECKSUM: crc}
        if key.endswith(".html"):
            headers["Content-Type"] = "text/html; charset=utf-8"
        if sha256:
            headers[f"x-amz-meta-{SHA256_METADATA}"] = sha256
        response = self._exchange(Request("PutObject", "PUT", key, headers=headers, body=data))
        return replace(self._was_put(key, len(data), response.headers, crc), sha256=sha256)

    def create(self, key: str, data: bytes) -> FileInfo:
        """See ``Store.create`` (If-None-Match)."""
        try:
            return self._put(key, data, {"If-None-Match": "*"})
        except ChangedError as exc:
            raise AlreadyExistsError(f"{self._named(key)} exists already") from exc

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """See ``Store.replace`` (If-Match)."""
        try:
            return self._put(key, data, {"If-Match": f'"{etag}"'})
        except GoneError as exc:
            if error_code(exc) == _NO_BUCKET:
                raise
            raise ChangedError(f"{self._named(key)} is not there any more") from exc

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``Store.read``. A body shorter than the server announced is an ``UnreachableError``."""
        if length == 0:
            self.stat(key)
            return b""
        data, stored_crc = self._read(key, start, length)
        if stored_crc is not None and crc64(data) != stored_crc:
            data, stored_crc = self._read(key, start, length)  # it may have been damaged on the way
        if stored_crc is not None and (actual_crc := crc64(data)) != stored_crc:
            raise DamageError(
                self._named(key),
                expected=f"CRC64NVME {to_header(stored_crc)}",
                found=f"CRC64NVME {to_header(actual_crc)}",
            )
        return data

    def _read(self, key: str, start: int, length: int | None) -> tuple[bytes, int | None]:
        """Return the bytes, and the CRC64NVME that the server keeps of them: of a whole file, and if it has one."""
        span = asked_range(start, length)
        try:
            response = self._exchange(
                Request("GetObject", "GET", key, headers=span or {"x-amz-checksum-mode": "ENABLED"})
            )
        except MoveoutError as exc:
            if error_code(exc) in {"InvalidRange", "416"}:
                return b"", None
            raise
        is_whole = start == 0 and length is None
        return response.body, kept_crc64nvme(response.headers) if is_whole else None

    def stat(self, key: str) -> FileInfo:
        """See ``Store.stat``."""
        return self._stat(key)[0]

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        """See ``Store.list``; one page in memory."""
        skip, token, loops = len(self.s3_location.prefix), "", LoopDetector(self.location)
        first = self.s3_location.prefix + start_after if start_after else ""
        while True:
            page, token = self._page(self.s3_location.prefix + prefix, first, token)
            for key, size_bytes, etag, modified in zip(
                page.keys, page.sizes, page.etags, page.modified, strict=True
            ):
                if len(key) > skip and key[skip:] > start_after:
                    yield FileInfo(key[skip:], size_bytes, etag, modified)
            if not token:
                return
            loops.note(token)

    def _page(self, whole_prefix: str, start_after: str, token: str) -> tuple[Page, str]:
        """Return a page of a listing, and where the next one begins. An answer that says nothing is no empty list."""
        request = objects_request(whole_prefix, "" if token else start_after, token, self._page_size)
        with self._translated(""):
            body = self._send(request).body
            try:
                page = parse_objects(body)
                if not page.keys:
                    not_empty(plain(parsed(body)), self._named(""))
                return page, token_behind(body, self._named(""))
            except (ET.ParseError, ValueError) as exc:
                raise WrongAnswerError(f"the answer is not a listing ({exc})", about=self._named("")) from exc

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        self._exchange(Request("DeleteObject", "DELETE", key))

    def part_bytes(self, size_bytes: int) -> int:
        """See ``MultipartStore.part_bytes``: a part takes a few seconds, where it can."""
        rate = self._http.inflight.rate
        if not rate:
            return part_bytes_for(size_bytes, HALF_PART_BYTES)
        return part_bytes_for(size_bytes, PART_BYTES if rate >= _FAST else MIN_PART_BYTES)

    def begin(
        self,
        key: str,
        *,
        sha256: str | None = None,
        part_bytes: int = PART_BYTES,  # noqa: ARG002
    ) -> str:
        """See ``MultipartStore.begin``."""
        headers = {f"x-amz-meta-{SHA256_METADATA}": sha256} if sha256 else {}
        request = Request("CreateMultipartUpload", "POST", key, {"uploads": ""}, headers | self._algorithm())
        return self._begun(key, self._exchange(request))

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """See ``MultipartStore.uploads``.

        MinIO takes the prefix for a whole key and otherwise answers with nothing; so where a folder is asked for and
        nothing is found, all of the bucket's uploads are asked for.
        """
        full_prefix = self.s3_location.prefix + prefix
        uploads = list(self._uploads(full_prefix))
        if not uploads and full_prefix.endswith("/"):
            uploads = [upload for upload in self._uploads("") if upload.key.startswith(prefix)]
        yield from sorted(uploads, key=lambda upload: (upload.key.encode(), upload.started, upload.id))

    def parts(self, key: str, upload: str) -> Parts:
        """See ``MultipartStore.parts``."""
        parts: Parts = []
        request: dict[str, Any] = {"UploadId": upload, "MaxParts": self._page_size}
        loops = LoopDetector(self._named(key))
        while True:
            with self._translated(key):
                page = self._call("list_parts", key, **request)
            not_empty(page, self._named(key))
            parts.extend(part_of(row) for row in page.get("Parts", ()))
            if not page.get("IsTruncated"):
                return sorted(parts, key=lambda part: part.number)
            request["PartNumberMarker"] = int(required_field(page, "NextPartNumberMarker", self._named(key)))
            loops.note(request["PartNumberMarker"])

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        """See ``MultipartStore.put_part``."""
        crc = crc64(data)
        headers = {_CHECKSUM: to_header(crc)} if self.checksums == "crc64nvme" else {}
        query = {"partNumber": str(number), "uploadId": upload}
        response = self._exchange(Request("UploadPart", "PUT", key, query, headers, data))
        etag = required_field(response.headers, "etag", self._named(key)).strip('"')
        return UploadedPart(number, len(data), etag, crc)

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``. Called again after a lost answer it finds the file and says so."""
        headers = {}
        if self.checksums == "crc64nvme":
            headers = {_CHECKSUM: to_header(crc64nvme), "x-amz-checksum-type": "FULL_OBJECT"}
        size_bytes = sum(part.size_bytes for part in parts)
        try:
            self._make(key, upload, headers, parts)
        except GoneError as exc:
            return self._completed_before(exc, key, size_bytes, crc64nvme)
        info, stored_crc = self._stat(key)
        if info.size_bytes != size_bytes or stored_crc not in {None, crc64nvme}:
            raise DamageError(
                key, expected=f"{size_bytes} bytes, CRC64NVME {to_header(crc64nvme)}",
                found=f"{info.size_bytes} bytes, CRC64NVME {to_header(stored_crc or 0)}",
            )  # fmt: skip
        if stored_crc is None:
            self._check_by_reading(key, info, crc64nvme)
        return info

    def _completed_before(self, gone: GoneError, key: str, size_bytes: int, crc64nvme: int) -> FileInfo:
        """Return the file that a lost answer was about, else raise that its upload is gone."""
        info, stored_crc = self._stat(key)
        if info.size_bytes == size_bytes and stored_crc == crc64nvme:
            return info
        raise gone

    def _make(self, key: str, upload: str, headers: Mapping[str, str], parts: Parts) -> None:
        """Make the file. Where the server does not accept a part by its ETag, the answer that gave it may have been
        damaged. Then it is taken from the listing, if the part there has our checksum.
        """
        try:
            self._make_of(key, upload, headers, parts)
        except MoveoutError as exc:
            if not is_invalid_part(exc):
                raise
            listed = as_listed(parts, self.parts(key, upload))
            try:
                self._make_of(key, upload, headers, listed)
            except MoveoutError as again:
                if not is_invalid_part(again):
                    raise
                raise DamagedOnTheWayError(
                    key, expected="the parts that were sent", found=str(again)
                ) from again

    def _make_of(self, key: str, upload: str, headers: Mapping[str, str], parts: Parts) -> None:
        rows = "".join(map(self._row, parts))
        body = f'<CompleteMultipartUpload xmlns="{_XMLNS}">{rows}</CompleteMultipartUpload>'.encode()
        request = Request("CompleteMultipartUpload", "POST", key, {"uploadId": upload}, headers, body)
        self._exchange(request)

    def abort(self, key: str, upload: str) -> None:
        """See ``MultipartStore.abort``."""
        try:
            with self._translated(key):
                self._call("abort_multipart_upload", key, UploadId=upload)
        except GoneError as exc:
            if error_code(exc) == _NO_BUCKET:
                raise

    def _put(self, key: str, data: bytes, condition: Mapping[str, str]) -> FileInfo:
        """Put under a condition."""
        crc = to_header(crc64(data))
        headers = {_CHECKSUM: crc, **condition}
        response = self._exchange(Request("PutObject", "PUT", key, headers=headers, body=data))
        return self._was_put(key, len(data), response.headers, crc)

    def _exchange(self, request: Request) -> Response:
        """Send a request about a file of the location. Return a successful response."""
        with self._translated(request.key):
            return self._send(replace(request, key=self._whole(request.key)))

    def _send(self, request: Request) -> Response:
        """Send a request about a whole key, or about the bucket. Raises what is yet to be translated."""
        with self._http.inflight.sending(len(request.body), self._cancellation):
            response = self._http.exchange(request)
            require_success(request, response)
        return response

    def _was_put(self, key: str, size_bytes: int, headers: Mapping[str, str], crc: str) -> FileInfo:
        if headers.get(_CHECKSUM) != crc:
            self.checksums = "none"
        etag = required_field(headers, "etag", self._named(key)).strip('"')
        return FileInfo(key, size_bytes, etag, http_date(headers.get("date", "")))

    def _stat(self, key: str) -> tuple[FileInfo, int | None]:
        """Return the file and the CRC64NVME that the server has of the whole, if it has one."""
        request = Request("HeadObject", "HEAD", key, headers={"x-amz-checksum-mode": "ENABLED"})
        headers = self._exchange(request).headers
        size_bytes = headers.get("content-length")
        info = FileInfo(
            key=key,
            size_bytes=self._listed_size(key) if size_bytes is None else int(size_bytes),
            etag=required_field(headers, "etag", self._named(key)).strip('"'),
            modified=http_date(headers.get("last-modified", "")),
            sha256=headers.get(f"x-amz-meta-{SHA256_METADATA}"),
        )
        return info, kept_crc64nvme(headers)

    def _listed_size(self, key: str) -> int:
        """Return the size of a file for which HEAD does not report it: a proxy on the way may take it out."""
        for info in self.list(key):
            if info.key == key:
                return info.size_bytes
        raise GoneError(f"{self._named(key)} is not listed")

    def _check_by_reading(self, key: str, info: FileInfo, expected: int) -> None:
        actual_crc = 0
        for start in range(0, info.size_bytes, PART_BYTES):
            actual_crc = crc64(self.read(key, start, PART_BYTES), actual_crc)
        if actual_crc != expected:
            raise DamageError(
                key, expected=f"CRC64NVME {to_header(expected)}", found=f"CRC64NVME {to_header(actual_crc)}"
            )

    def _uploads(self, whole_prefix: str) -> Iterator[Upload]:
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": whole_prefix, "EncodingType": "url"}
        loops = LoopDetector(self._named(""))
        while True:
            try:
                with self._translated(""):
                    page = self._client.list_multipart_uploads(**request)
            except GoneError as exc:
                if error_code(exc) == _NO_UPLOAD:
                    return
                raise
            not_empty(page, self._named(""))
            decode: Callable[[str], str] = unquote_plus if page.get("EncodingType") == "url" else str
            for row in page.get("Uploads", ()):
                key = decode(row["Key"])
                if key.startswith(self.s3_location.prefix):
                    yield Upload(
                        key[len(self.s3_location.prefix) :], row["UploadId"], as_utc(row["Initiated"])
                    )
            if not page.get("IsTruncated"):
                return
            request["KeyMarker"] = decode(required_field(page, "NextKeyMarker", self._named("")))
            request["UploadIdMarker"] = required_field(page, "NextUploadIdMarker", self._named(""))
            loops.note((request["KeyMarker"], request["UploadIdMarker"]))

    def _algorithm(self) -> dict[str, str]:
        if self.checksums == "none":
            return {}
        return {"x-amz-checksum-algorithm": "CRC64NVME", "x-amz-checksum-type": "FULL_OBJECT"}

    def _begun(self, key: str, response: Response) -> str:
        """Return the id of an upload from the answer to its begin."""
        if response.headers.get("x-amz-checksum-algorithm") != "CRC64NVME":
            self.checksums = "none"
        upload_id = None
        with suppress(ET.ParseError):
            upload_id = ET.fromstring(response.body).findtext("{*}UploadId")  # noqa: S314 - see s3_pages
        if not upload_id:
            raise WrongAnswerError(
                "the answer to CreateMultipartUpload cannot be read", about=self._named(key)
            )
        return upload_id

    def _row(self, part: UploadedPart) -> str:
        checksum = ""
        if self.checksums == "crc64nvme" and part.crc64nvme is not None:
            checksum = f"<ChecksumCRC64NVME>{to_header(part.crc64nvme)}</ChecksumCRC64NVME>"
        etag = escape(f'"{part.etag}"')
        return f"<Part><ETag>{etag}</ETag>{checksum}<PartNumber>{part.number}</PartNumber></Part>"

    def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        return getattr(self._client, operation)(Bucket=self._bucket, Key=self._whole(key), **arguments)

    def _whole(self, key: str) -> str:
        return self.s3_location.prefix + checked(key)

    def _named(self, key: str) -> str:
        return f"s3://{self._bucket}/{self.s3_location.prefix}{key}"

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except _FOREIGN as exc:
            if _is_no_bucket(exc):
                profile = self.s3_location.profile
                option = f" --profile {shlex.quote(profile)}" if profile else ""
                raise GoneError(
                    f"there is no bucket {self._bucket!r} at {self._client.meta.endpoint_url}",
                    next_step="check its name; if a bundle is to be written there, create the bucket first:"
                    f" aws s3 mb s3://{self._bucket}{option}",
                ) from exc
            raise translate(exc, self._named(key)) from exc


def _is_no_bucket(exc: Exception) -> bool:
    return isinstance(exc, boto_errors.ClientError) and exc.response["Error"]["Code"] == _NO_BUCKET
