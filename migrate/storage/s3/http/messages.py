"""Requests to S3, its responses, and what an error response says."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import botocore.exceptions as boto_errors
from msgspec import Struct, field
from msgspec.structs import replace

from exporters.lossless_text import bytes_of
from migrate.errors import MoveoutError, SlowDownError, UnreachableError, WrongAnswerError

Headers = Mapping[str, str]
XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
"""The namespace of XML that is sent to S3."""
READING = {"GET", "HEAD"}
"""The methods of requests that change nothing at the server."""
NO_REASON = "no reason is given; so is answered what is encrypted by a key that its owner has (SSE-C)"
_EVERYTHING = {
    "NoSuchBucket",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "InvalidTokenId",
    "TokenRefreshRequired",
    "AccountProblem",
    "RequestTimeTooSkewed",
}


class Request(Struct, frozen=True):
    """One request. ``operation`` is S3's name; ``query`` values are not encoded yet. ``size_bytes`` is that of the
    object that is asked for as a whole, where it is known: no more is read.
    """

    operation: str
    method: str
    key: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Headers = field(default_factory=dict)
    body: bytes = b""
    size_bytes: int | None = None


class Response(Struct, frozen=True):
    """The answer to a request. Header names are in lower case, values as in ``exporters.lossless_text``."""

    status: int
    headers: Headers
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def announced_bytes(self) -> int:
        """The size of its body, also where the body was not read since it is larger than what was asked for."""
        announced = self.headers.get("content-length", "")
        return max(len(self.body), int(announced) if announced.isdecimal() else 0)


_ERROR = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<Error[\s>]")
_ROUNDED = timedelta(seconds=2)
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_UPLOAD_ID = re.compile(rb"UploadId>\s*[^<\s]")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-")


def checked_response(request: Request, response: Response) -> Response:
    """Return what a response comes to. 200 with an error in its body is an error: S3 answers so where it has begun
    before it knows the end. Where a server ignores If-Match or If-Unmodified-Since, an object of another ETag, or time,
    is a failed precondition. Raises ``MoveoutError`` where something on the way, or the server, ignores the range that
    was asked for; ``WrongAnswerError`` where the answer to what was written does not say what S3 says.
    """
    if not response.is_success:
        return response
    if request.operation != "GetObject":
        if response.body and _ERROR.match(response.body):
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, response.headers, response.body)
        _check_written(request, response)
    elif "Range" in request.headers:
        _check_range(request, response)
    if request.method in READING and (
        _has_other_etag(request, response) or _has_other_time(request, response)
    ):
        return Response(HTTPStatus.PRECONDITION_FAILED, response.headers, b"")
    return response


def _has_other_etag(request: Request, response: Response) -> bool:
    etag = request.headers.get("If-Match")
    if etag is None:
        return False
    other = response.headers.get("etag", etag)
    return other != etag and other.strip('"') not in {"", etag.strip('"')}


def _has_other_time(request: Request, response: Response) -> bool:
    since, modified = request.headers.get("If-Unmodified-Since"), response.headers.get("last-modified")
    if since is None or modified is None:
        return False
    try:
        return not timedelta(0) <= parsedate_to_datetime(since) - parsedate_to_datetime(modified) < _ROUNDED
    except ValueError:  # what some proxy has made of it
        return False


def _check_written(request: Request, response: Response) -> None:
    lacking = ""
    if request.operation in {"PutObject", "UploadPart"} and "etag" not in response.headers:
        lacking = "ETag"
    elif request.operation == "CreateMultipartUpload" and not _UPLOAD_ID.search(response.body):
        lacking = "UploadId"
    if lacking:
        server = response.headers.get("server") or "the server"
        answer = f"{server} answers {response.status} to {request.operation}, without {lacking}"
        raise WrongAnswerError(f"{answer}, so that is not S3's answer", about=request.key)


_CHECKSUMS = "x-amz-checksum-"
_NO_CHECKSUMS = re.compile(
    rb"header\W[^<]{0,8}x-amz-checksum-[^<]*(?:received for this API call|not implemented)"
    rb"|Invalid checksum provided|checksum algorithm provided is unsupported",
    re.IGNORECASE,
)
"""In the words of Backblaze B2, of R2, of MinIO before CRC64NVME, and of S3 before it."""


def has_checksums(request: Request) -> bool:
    """Tell whether a request has headers of checksums, or asks for them."""
    return any(name.startswith(_CHECKSUMS) for name in request.headers)


def refuses_checksums(response: Response) -> bool:
    """Tell whether a server says that it takes no headers of checksums."""
    return response.status in {400, 501} and _NO_CHECKSUMS.search(response.body) is not None


def without_checksums(request: Request) -> Request:
    """Return a request without headers of checksums. A body goes with its MD5, which every server checks."""
    headers = {name: value for name, value in request.headers.items() if not name.startswith(_CHECKSUMS)}
    if request.body and request.method == "PUT" and "Content-MD5" not in headers:
        headers["Content-MD5"] = content_md5(request.body)
    return replace(request, headers=headers)


def content_md5(body: bytes) -> str:
    """Return the header Content-MD5 of a body."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def xml_request(
    operation: str,
    method: str,
    key: str,
    query: Mapping[str, str],
    text: str,
    headers: Headers | None = None,
) -> Request:
    """Return a request whose body is XML. S3 requires the MD5 of such a body."""
    body = text.encode()
    own_headers = {"Content-MD5": content_md5(body), "Content-Type": "application/xml"}
    return Request(operation, method, key, query, {**own_headers, **(headers or {})}, body)


def requested_bytes(request: Request) -> int | None:
    """Return how many bytes of an object a request asks for; None where it asks for all, however many that are, or for
    all from somewhere.
    """
    asked = _RANGE.fullmatch(request.headers.get("Range", ""))
    return int(asked[2]) - int(asked[1]) + 1 if asked and asked[2] else request.size_bytes


def _check_range(request: Request, response: Response) -> None:
    """Raise where the answer is another range: its bytes would pass for those that were asked for."""
    start = request.headers["Range"].removeprefix("bytes=").partition("-")[0]
    size_bytes, most_bytes = response.announced_bytes, requested_bytes(request)
    is_longer = most_bytes is not None and size_bytes > most_bytes
    if is_longer or (response.status == HTTPStatus.OK and start != "0"):
        raise MoveoutError(
            f"{size_bytes} bytes come where a part of it is asked for: something ignores Range",
            about=request.key,
            next_step=WrongAnswerError.usual_step,
        )
    came = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    if came is not None and came[1] != start:
        raise WrongAnswerError(
            f"bytes from {came[1]} on came where those from {start} on were asked for", about=request.key
        )


def encoded_query(query: Mapping[str, str]) -> str:
    """Return a query as it is sent and signed: percent-encoded, ordered by name."""
    pairs = [quote(name) + "=" + quote(bytes_of(value), safe="") for name, value in sorted(query.items())]
    return "&".join(pairs)


def client_error(request: Request, response: Response) -> boto_errors.ClientError:
    """Return the error that botocore would raise for an unsuccessful response."""
    code, message = _error_fields(response.body)
    if code == "" and response.status == 412:
        code = "PreconditionFailed"
    if code == "" and response.status == 400 and request.method == "HEAD":
        message = NO_REASON
    fields = {
        "Error": {"Code": code or str(response.status), "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": response.status, "HTTPHeaders": response.headers},
    }
    return boto_errors.ClientError(fields, request.operation)


def _error_fields(body: bytes) -> tuple[str, str]:
    try:
        root = ET.fromstring(body)  # noqa: S314 - Expat expands no external entities and bounds internal ones
    except ET.ParseError:
        return "", ""
    return root.findtext("{*}Code") or "", root.findtext("{*}Message") or ""


def concerns_bucket(error: MoveoutError) -> bool:
    """Tell whether every other request to the bucket would fail with the same error."""
    return error_code(error) in _EVERYTHING


def error_code(error: MoveoutError) -> str:
    """Return S3's code of an error; empty where it has none."""
    cause = error.__cause__
    if isinstance(cause, boto_errors.ClientError):
        return str(cause.response.get("Error", {}).get("Code", ""))
    return ""


def was_answered(error: MoveoutError) -> bool:
    """Tell whether there was an answer, which is the error, rather than none."""
    return isinstance(error, WrongAnswerError) or isinstance(error.__cause__, boto_errors.ClientError)


def is_server_fault(error: MoveoutError) -> bool:
    """Tell whether the server answered with an error of its own, or otherwise than S3 does. That it is asked too much
    is no such error.
    """
    is_passing = isinstance(error, UnreachableError) and not isinstance(error, SlowDownError)
    return is_passing and was_answered(error)


def plain(elements: Iterable[Any]) -> dict[str, str]:
    """Return the texts of XML elements by their names without namespace."""
    return {element.tag.rpartition("}")[2]: element.text or "" for element in elements}
