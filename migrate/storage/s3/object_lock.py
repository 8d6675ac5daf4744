"""All versions of a location in a bucket, and Object Lock: two requests for the lock of each version.

boto3 carries only what is asked about the bucket.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from xml.etree import ElementTree as ET

import botocore.exceptions as boto_errors

from migrate.errors import GoneError, MoveoutError, NotAllowedError, UnreachableError, WrongAnswerError
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.object_lock import FileVersion, Lock, Mode
from migrate.storage.retry import FIRST_CONTACT_SECONDS, Note, RetryPolicy, RetryServer, RetryTimeout
from migrate.storage.s3 import client
from migrate.storage.s3.errors import translate
from migrate.storage.s3.http.client import HttpClient, require_success
from migrate.storage.s3.http.concurrent_requests import Requests
from migrate.storage.s3.http.messages import XMLNS, Request, plain, xml_request
from migrate.storage.s3.listing.pages import Pages

T = TypeVar("T")
_AGREES = timedelta(seconds=2)
_WITH_LOCK = "aws s3api create-bucket --bucket {} --object-lock-enabled-for-bucket"
_NO_LOCK = {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NotImplemented"}
_LOOKS = {"GetObjectRetention", "GetObjectLegalHold"}
"""Servers answer these with InvalidRequest where the bucket has no Object Lock."""
_NO_FILE = "moveout-no-such-file"
_MODES: dict[str, Mode] = {"GOVERNANCE": "GOVERNANCE", "COMPLIANCE": "COMPLIANCE"}


class S3ObjectLock:
    """See ``ObjectLock``."""

    def __init__(self, s3_location: client.S3Location, note: Note | None) -> None:
        self._prefix = s3_location.folder
        self._bucket = s3_location.bucket
        self._http = HttpClient.of(s3_location)
        self._client = self._http.boto
        self.location = s3_location.url
        self._listing = Pages(Requests(self._http, CancellationToken(), note=note), self.location)
        self._retry = RetryPolicy(
            RetryTimeout(first_contact_seconds=FIRST_CONTACT_SECONDS), RetryServer(note=note)
        )
        self._ahead: timedelta | None = None
        self._server = ""
        self._minio: bool | None = None

    def now(self) -> datetime:
        """See ``ObjectLock.now``: the date that the server gave with its last answer, and what has passed since."""
        self._meet()
        return datetime.now(UTC) + (self._ahead or timedelta())

    def is_firm(self, mode: Mode) -> bool:
        """See ``ObjectLock.is_firm``. MinIO (2026-02-12) lets every account take a GOVERNANCE retention away: it asks
        for no right where a request to bypass it brings an empty retention.
        """
        if mode == "COMPLIANCE":
            return True
        if self._minio is None:
            self._meet()
            self._minio = self._server == "MinIO" or self._retry.run(self._errs_as_minio)
        return not self._minio

    def _errs_as_minio(self) -> bool:
        """Tell whether the server words its errors as MinIO does: a proxy on the way may give it another name."""
        try:
            self._client.head_object(Bucket=self._bucket, Key=f"{self._prefix}{_NO_FILE}")
        except boto_errors.ClientError as exc:
            translated_error = translate(exc, self.location)
            if translated_error.retryable:
                raise translated_error from exc
            headers = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            return any(str(name).lower().startswith("x-minio-") for name in headers)
        except (boto_errors.BotoCoreError, OSError) as exc:
            raise translate(exc, self.location) from exc
        return False

    def _meet(self) -> None:
        """Make sure that the server has answered once: its answers show which server it is, and its clock."""
        if self._ahead is None:
            self._call("head_bucket", Bucket=self._bucket)

    def check_lock(self) -> None:
        """See ``ObjectLock.check_lock``."""
        # Of a bucket that is not there MinIO says that it has no lock.
        self._call("head_bucket", Bucket=self._bucket)
        try:
            response = self._call("get_object_lock_configuration", Bucket=self._bucket)
        except _NoLockError:
            response = {}
        if response.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
            raise NotAllowedError(
                f"the bucket {self._bucket!r} has no Object Lock, so nothing in it can be held: who may write there may"
                " delete",
                next_step="transfer the bundle to a bucket that was made with Object Lock, and hold it there:"
                f" {_WITH_LOCK.format('NAME')}",
            )

    def versions(self) -> Iterator[FileVersion]:
        """See ``ObjectLock.versions``; one page in memory."""
        skip = len(self._prefix)
        for page in self._listing.versions(self._prefix):
            for row in page.rows():
                is_marker = row.is_delete_marker
                yield FileVersion(
                    row.key[skip:], row.version_id, row.size_bytes, row.is_latest, is_marker=is_marker
                )
        if self._listing.not_utf_8:
            key = min(self._listing.not_utf_8)
            raise MoveoutError(
                f"{key} lies there, percent-encoded here: it is not UTF-8, so it can be neither held nor erased",
                about=self.location,
                next_step="remove it by another program, or name another prefix",
            )

    def lock(self, version: FileVersion) -> Lock:
        """See ``ObjectLock.lock``."""
        mode, until = self._retention(version)
        return Lock(mode, until, self._legal(version))

    def _retention(self, version: FileVersion) -> tuple[Mode | None, datetime | None]:
        retention = self._asked(version, "GetObjectRetention", "retention", "Retention")
        mode = _MODES.get(retention.get("Mode", ""))
        until = retention.get("RetainUntilDate")
        if not until or not mode:
            return None, None
        try:
            return mode, datetime.fromisoformat(until).astimezone(UTC)
        except ValueError as exc:
            raise WrongAnswerError(f"RetainUntilDate {until!r} is no time", about=version.key) from exc

    def _legal(self, version: FileVersion) -> bool:
        return self._asked(version, "GetObjectLegalHold", "legal-hold", "LegalHold").get("Status") == "ON"

    def _asked(self, version: FileVersion, operation: str, subresource: str, root: str) -> dict[str, str]:
        """Return the fields of a lock, none where a version has none. Raises ``WrongAnswerError`` for what is no answer
        of S3's: it would pass for no lock.
        """
        request = Request(operation, "GET", self._prefix + version.key, _which(version, subresource))
        try:
            return self._retry.run(lambda: _fields(root, request, self._exchange(request)))
        except _NoLockError:
            return {}

    def retain(
        self, version: FileVersion, until: datetime | None, mode: Mode, *, firmer: bool = False
    ) -> None:
        """See ``ObjectLock.retain``."""
        if until is None:
            self._lift(version)
        else:
            self._retain(version, _lock_fields(mode, until), bypasses=firmer)

    def _lift(self, version: FileVersion) -> None:
        """Take the retention away; versitygw does not support that, so there it is made to end at once."""
        try:
            self._retain(version, "", bypasses=True)
        except (NotAllowedError, GoneError, UnreachableError):
            raise
        except MoveoutError:
            soon = self.now() + timedelta(seconds=2)
            self._retain(version, _lock_fields("GOVERNANCE", soon), bypasses=True)

    def _retain(self, version: FileVersion, fields: str, *, bypasses: bool) -> None:
        headers = {"x-amz-bypass-governance-retention": "true"} if bypasses else {}
        text = f"<Retention {XMLNS}>{fields}</Retention>"
        self._put(version, "PutObjectRetention", "retention", text, headers)

    def set_legal(self, version: FileVersion, *, on: bool) -> None:
        """See ``ObjectLock.set_legal``."""
        text = f"<LegalHold {XMLNS}><Status>{'ON' if on else 'OFF'}</Status></LegalHold>"
        self._put(version, "PutObjectLegalHold", "legal-hold", text)

    def remove(self, version: FileVersion) -> None:
        """See ``ObjectLock.remove``. What is gone already is gone."""
        request = Request("DeleteObject", "DELETE", self._prefix + version.key, _which(version))
        with contextlib.suppress(GoneError):
            self._retry.run(lambda: self._exchange(request))

    def _put(
        self,
        version: FileVersion,
        operation: str,
        subresource: str,
        text: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        key, query = self._prefix + version.key, _which(version, subresource)
        request = xml_request(operation, "PUT", key, query, text, headers)
        self._retry.run(lambda: self._exchange(request))

    def _exchange(self, request: Request) -> bytes:
        try:
            response = self._http.exchange(request)
            require_success(request, response)
        except (boto_errors.BotoCoreError, boto_errors.ClientError, OSError) as exc:
            raise self._translated(exc, request.operation, request.key) from exc
        self._look_at(response.headers)
        return response.body

    def _call(self, operation: str, **request: Any) -> Any:
        """Return the answer of boto3 to a request about the bucket."""
        return self._retry.run(lambda: self._once(operation, **request))

    def _once(self, operation: str, **request: Any) -> Any:
        try:
            response = getattr(self._client, operation)(**request)
        except (boto_errors.BotoCoreError, boto_errors.ClientError, OSError) as exc:
            raise self._translated(exc, operation, self._prefix) from exc
        self._look_at(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}))
        return response

    def _translated(self, exc: Exception, operation: str, key: str) -> MoveoutError:
        code = exc.response.get("Error", {}).get("Code") if isinstance(exc, boto_errors.ClientError) else ""
        if code in _NO_LOCK or (code == "InvalidRequest" and operation in _LOOKS):
            return _NoLockError(str(exc))
        error = translate(exc, f"s3://{self._bucket}/{key}")
        if operation == "head_bucket" and isinstance(error, GoneError):
            return GoneError(
                f"there is no bucket {self._bucket!r} at {self._client.meta.endpoint_url}",
                next_step=f"check its name; one that can hold a bundle is made by {_WITH_LOCK.format(self._bucket)}",
            )
        if code in {"InvalidRequest", "ObjectLocked"}:
            return NotAllowedError(
                str(error),
                next_step=f"moveout hold status {shlex.quote(self.location)} says what holds it, and until when",
            )
        return error

    def _look_at(self, headers: Mapping[str, str]) -> None:
        self._server = headers.get("server", "")
        self._look_at_clock(headers.get("date"))

    def _look_at_clock(self, date: str | None) -> None:
        """Note how far the server's clock is ahead of ours: nothing where they agree; its dates are whole seconds."""
        self._ahead = timedelta()
        with contextlib.suppress(ValueError, TypeError):
            ahead = parsedate_to_datetime(date or "") - datetime.now(UTC)
            self._ahead = timedelta() if abs(ahead) < _AGREES else ahead


def _which(version: FileVersion, subresource: str = "") -> dict[str, str]:
    """Return the query that names a version, or something of it."""
    return ({subresource: ""} if subresource else {}) | ({"versionId": version.id} if version.id else {})


def _fields(root: str, request: Request, body: bytes) -> dict[str, str]:
    with contextlib.suppress(ET.ParseError):
        answer = ET.fromstring(body)  # noqa: S314 - Expat expands no external entities
        if answer.tag.endswith(root):
            return plain(answer)
    raise WrongAnswerError(f"the answer to {request.operation} cannot be read", about=request.key)


def _lock_fields(mode: Mode, until: datetime) -> str:
    until = until.astimezone(UTC).replace(tzinfo=None)
    return f"<Mode>{mode}</Mode><RetainUntilDate>{until.isoformat()}Z</RetainUntilDate>"


class _NoLockError(NotAllowedError):
    """There is no lock to read."""
