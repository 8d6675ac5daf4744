"""What S3's answers mean: which are errors of ours, which of them are worth a retry, and which are a source's fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import botocore.exceptions as boto_errors

from exporters.connections.silent_servers import FIRST_ANSWER_SECONDS
from exporters.errors import (
    SourceChangedError,
    SourceDamagedError,
    SourceError,
    SourceGoneError,
    SourceNotAllowedError,
    SourceSilentError,
    SourceUnreachableError,
    SourceUsageError,
)
from migrate.case.secrets import hide_url_passwords
from migrate.errors import (
    ChangedError,
    DamagedOnTheWayError,
    DamageError,
    GoneError,
    MoveoutError,
    NoSpaceError,
    NotAllowedError,
    SlowDownError,
    UnreachableError,
    UsageError,
    WrongAnswerError,
)
from migrate.storage.api import CLOCK_SKEW, Parts, UploadedPart
from migrate.storage.checksums import from_header
from migrate.storage.outage import is_looking

_ARCHIVED = "InvalidObjectState"
_NO_SUCH_CALL = {"NotImplemented", "MethodNotAllowed"}
_DENIED = {
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "Forbidden", "ExpiredToken",
    "InvalidToken", "InvalidTokenId", "TokenRefreshRequired", "RequestTimeTooSkewed",
    "AllAccessDisabled", "AccountProblem", "NotSignedUp", "401",
}  # fmt: skip
_EXPIRED = "get new credentials, then run the same command again: it goes on from there"
_DENIED_NEXT = {
    "InvalidAccessKeyId": "check the access key; where it has ended, as that of a grant or a session does,"
    " get another one, then run the same command again: it goes on from there",
    "SignatureDoesNotMatch": "the secret key is not that of the access key: check aws_secret_access_key of the profile,"
    " or AWS_SECRET_ACCESS_KEY; or something on the way, such as a proxy, changes requests",
    "RequestTimeTooSkewed": "set this machine's clock: it and the server's are minutes apart",
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
}
"""Codes for which another next step helps than to check the credentials."""
_PERMISSIONS = {
    **dict.fromkeys(("ListObjects", "ListObjectsV2", "HeadBucket"), "ListBucket"),
    "ListObjectVersions": "ListBucketVersions",
    "ListBuckets": "ListAllMyBuckets",
    "ListParts": "ListMultipartUploadParts",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "HeadObject": "GetObject",
    "DeleteObjects": "DeleteObject",
    **dict.fromkeys(
        ("CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload", "CopyObject"),
        "PutObject",
    ),
}
"""The permissions of calls that have another name (Service Authorization Reference, "Actions for Amazon S3")."""
_GONE = {"NoSuchKey", "NoSuchBucket", "InvalidBucketName", "NoSuchUpload", "NoSuchVersion", "404", "NotFound"}
_SLOW = {
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "TooManyRequests",
    "ThrottlingException",
    "RequestLimitExceeded",
    "429",
    "503",
}
_PASSING = {
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "OperationAborted",
    "ConditionalRequestConflict",  # two conditional writes at once; S3's guide says: send it again
    "500",
    "502",
    "504",
}
_DAMAGED = {"BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest", "XAmzContentSHA256Mismatch"}
_FULL = {"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "507"}
_SILENCE = boto_errors.ReadTimeoutError | boto_errors.ConnectTimeoutError | TimeoutError


_UNREACHABLE_NEXT = "check the endpoint and the network, then run the same command again"
_TLS_NEXT = {
    "CERTIFICATE_VERIFY_FAILED": "if that is the right server, name a file with its certificate, or with its"
    " authority's: ca_bundle in the AWS profile, or AWS_CA_BUNDLE, which comes first",
    "WRONG_VERSION_NUMBER": "the server does not speak TLS at this port: check the port, or write http:// in"
    " endpoint_url if server and network are yours",
}
"""What to do about an error of TLS, by the word of OpenSSL."""


CREDENTIAL_ERRORS = (boto_errors.BotoCoreError, boto_errors.ClientError, OSError, ValueError)
"""What botocore may raise while it gets credentials: from files, a program, a login, or another service."""


def no_credentials(exc: Exception, what: str) -> MoveoutError:
    """Return the error of ours that says why there are no credentials for ``what``."""
    if isinstance(exc, boto_errors.HTTPClientError):
        return UnreachableError(_words(exc), about=what, next_step=_UNREACHABLE_NEXT)
    return NotAllowedError(
        f"no usable credentials: {_words(exc)}",
        about=what,
        next_step="check the profile and its login (aws sts get-caller-identity), or the AWS_* variables",
    )


def translate(exc: Exception, what: str) -> MoveoutError:
    """Return the error of ours that says what ``exc`` means; ``what`` names the file or bucket."""
    if isinstance(exc, boto_errors.ClientError):
        return _translate_response(exc, what)
    if isinstance(
        exc,
        boto_errors.NoCredentialsError
        | boto_errors.CredentialRetrievalError
        | boto_errors.TokenRetrievalError,
    ):
        return no_credentials(exc, what)
    if isinstance(exc, boto_errors.ParamValidationError):
        return UsageError(str(exc), about=what)
    if is_looking() and isinstance(exc, _SILENCE):
        return SourceSilentError(
            f"the server has not answered for {FIRST_ANSWER_SECONDS} s",
            about=what,
            next_step="look at the server and the network, then run the same command again",
        )
    if isinstance(exc, boto_errors.BotoCoreError | OSError):
        fault = next((word for word in _TLS_NEXT if word in str(exc)), "")
        return UnreachableError(_words(exc), about=what, next_step=_TLS_NEXT.get(fault, _UNREACHABLE_NEXT))
    return UnreachableError(_words(exc), about=what)


def _words(exc: Exception) -> str:
    """Return what a library says, without the passwords of proxies."""
    return hide_url_passwords(str(exc))


def _translate_response(exc: boto_errors.ClientError, what: str) -> MoveoutError:
    error = exc.response.get("Error", {})
    metadata = exc.response.get("ResponseMetadata", {})
    code = str(error.get("Code", ""))
    status = int(metadata.get("HTTPStatusCode", 0))
    # An answer to HEAD has no body, and so no words of the server's.
    reason = error.get("Message", "") or (responses.get(status, "") if code == str(status) else "")
    is_said = reason.replace(" ", "").rstrip(".") == code  # MinIO's "Access Denied." of AccessDenied
    message = f"{code}{f': {reason}' if reason and not is_said else ''}"
    if code in _SLOW or status in {429, 503}:
        return SlowDownError(
            message,
            about=what,
            wait_seconds=retry_after(metadata.get("HTTPHeaders", {}).get("retry-after")),
            next_step="wait, or use fewer --workers",
        )
    if code in _NO_SUCH_CALL or status in {405, 501}:
        return MoveoutError(f"{message} (this server cannot do that)", about=what)
    if code == _ARCHIVED:
        return MoveoutError(
            f"{message} (archived)",
            about=what,
            next_step="retrieve it first, then run the same command again",
        )
    if code in _DENIED or status in {401, 403}:
        next_step = _of_denial(code, status, metadata.get("HTTPHeaders", {}), exc.operation_name)
        return NotAllowedError(message, about=what, next_step=next_step)
    if code in _GONE or status == 404:
        return GoneError(message, about=what, next_step="check the name of the bucket and the prefix")
    if code == "PreconditionFailed" or status == 412:
        return ChangedError(message, about=what)
    if code in _DAMAGED:
        return DamagedOnTheWayError(what, expected="the checksum that was sent", found=code)
    if code in _FULL or status == 507:
        return NoSpaceError(message, about=what, next_step="make room there, then run the same command again")
    if code in _PASSING or status >= 500:
        return UnreachableError(message, about=what, next_step="run the same command again")
    return MoveoutError(message, about=what, next_step=_of_redirect(metadata.get("HTTPHeaders", {})))


def _of_denial(code: str, status: int, headers: Mapping[str, str], operation: str) -> str:
    """Return what to do where access is denied. What has no words of the server's may have its date."""
    meaning = "RequestTimeTooSkewed" if code == str(status) and _is_skewed(headers.get("date")) else code
    if meaning in _DENIED_NEXT:
        return _DENIED_NEXT[meaning]
    payer = "; where who reads has to pay, add request_payer=requester to the URL"
    permission = _PERMISSIONS.get(operation, operation)
    usual = f"check the credentials, the name, and that s3:{permission} is permitted here"
    return usual + payer * (headers.get("server") == "AmazonS3")


def _of_redirect(headers: Mapping[str, str]) -> str:
    """Return what to do where the server sends a request to another one; empty where it does not."""
    there = urlsplit(headers.get("location", ""))
    if not there.hostname:
        return ""
    return (
        f"the server sends to {there.scheme}://{there.netloc.rpartition('@')[2]}: name that as the endpoint"
    )


def _is_skewed(date: str | None) -> bool:
    """Tell whether a server's date is further from ours than S3 lets requests be."""
    try:
        return date is not None and abs(parsedate_to_datetime(date) - datetime.now(UTC)) > CLOCK_SKEW
    except (ValueError, TypeError):
        return False


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a server asks to wait: RFC 9110, section 10.2.3, a number or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def required_field(answer: Mapping[str, Any], name: str, what: str) -> Any:
    """Return a field that every S3 server sends. Raises ``WrongAnswerError`` where it is missing."""
    if name not in answer:
        raise WrongAnswerError(f"the answer has no {name}, so it is not S3's", about=what)
    return answer[name]


def not_empty(answer: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """Return an answer that has any content: an empty one would pass for an empty list, or for no lock. Raises
    ``WrongAnswerError``.
    """
    if not answer.keys() - {"ResponseMetadata"}:
        raise WrongAnswerError("the answer is empty, so it is not S3's", about=what)
    return answer


def asked_range(start: int, length: int | None) -> dict[str, str]:
    """Return the header that asks for a range; none for all."""
    if length is None:
        return {"Range": f"bytes={start}-"} if start else {}
    return {"Range": f"bytes={start}-{start + length - 1}"}


def part_of(row: Mapping[str, Any]) -> UploadedPart:
    """Return a part of a row of ListParts."""
    checksum = row.get("ChecksumCRC64NVME")
    return UploadedPart(
        int(row["PartNumber"]),
        int(row["Size"]),
        row["ETag"].strip('"'),
        from_header(checksum) if checksum else None,
    )


def as_listed(parts: Parts, listed: Parts) -> Parts:
    """Return parts with the ETags that the server lists, where what it has is the same by size and CRC64NVME."""
    listed_by_number = {part.number: part for part in listed}
    matched = [listed_by_number.get(part.number, part) for part in parts]
    return [
        listed_part
        if listed_part.crc64nvme is not None
        and (listed_part.crc64nvme, listed_part.size_bytes) == (sent_part.crc64nvme, sent_part.size_bytes)
        else sent_part
        for sent_part, listed_part in zip(parts, matched, strict=True)
    ]


def is_invalid_part(error: MoveoutError) -> bool:
    """Tell whether a server did not know a part by its ETag or checksum when it was to make a file."""
    cause = error.__cause__
    is_invalid = isinstance(cause, boto_errors.ClientError) and code_of(cause) == "InvalidPart"
    return is_invalid and not wants_equal_parts(error)


def wants_equal_parts(error: MoveoutError) -> bool:
    """Tell whether a server makes no object of these parts since all but the last must have one size: Cloudflare R2."""
    return "must have the same length" in str(error)


def code_of(exc: boto_errors.ClientError) -> str:
    """Return S3's code of an error."""
    return str(exc.response.get("Error", {}).get("Code", ""))


def as_utc(moment: datetime) -> datetime:
    """Return a moment in UTC."""
    return moment.astimezone(UTC)


def http_date(text: str) -> datetime:
    """Return the moment of a Date header, now where it cannot be read."""
    try:
        return datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)


def source_error(exc: MoveoutError) -> SourceError:
    """Return an error of the same kind that says that the source is the side that failed."""
    if isinstance(exc, SourceError):
        return exc
    if isinstance(exc, ChangedError):
        explanation = f"{exc.explanation}: it has changed since it was listed"
        return SourceChangedError(explanation, about=exc.about, next_step=exc.next_step)
    for error_class, source_class in (
        (DamageError, SourceDamagedError),
        (UsageError, SourceUsageError),
        (NotAllowedError, SourceNotAllowedError),
        (UnreachableError, SourceUnreachableError),
        (GoneError, SourceGoneError),
    ):
        if isinstance(exc, error_class):
            return source_class(exc.explanation, about=exc.about, next_step=exc.next_step)
    return SourceError(exc.explanation, about=exc.about, next_step=exc.next_step)


@contextmanager
def as_source_errors(what: str) -> Iterator[None]:
    """Raise errors of the client, and of pages that cannot be read, as errors of a source."""
    try:
        yield
    except MoveoutError as exc:
        raise source_error(exc) from exc
    except (ValueError, ET.ParseError, KeyError) as exc:
        raise SourceError(f"the listing cannot be read: {exc}", about=what) from exc
