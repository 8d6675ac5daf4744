"""All versions of a location in a bucket, and Object Lock, through boto3."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import botocore.exceptions as boto_errors

from migrate.errors import GoneError, MoveoutError, NotAllowedError, UnreachableError
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.object_lock import FileVersion, Lock, Mode
from migrate.storage.retry import FIRST_CONTACT_SECONDS, Note, RetryPolicy, RetryServer, RetryTimeout
from migrate.storage.s3 import client
from migrate.storage.s3.errors import not_empty, translate
from migrate.storage.s3.http.client import HttpClient
from migrate.storage.s3.http.concurrent_requests import Requests
from migrate.storage.s3.listing.pages import Pages

T = TypeVar("T")
_AGREES = timedelta(seconds=2)
_NO_LOCK = {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NotImplemented"}
_LOOKS = {"get_object_retention", "get_object_legal_hold"}
"""To these servers answer InvalidRequest where the bucket has no Object Lock."""
_NO_FILE = "moveout-no-such-file"
_HELD = "moveout hold status LOCATION says what holds it, and until when"
_MODES: dict[str, Mode] = {"GOVERNANCE": "GOVERNANCE", "COMPLIANCE": "COMPLIANCE"}


class S3ObjectLock:
    """See ``ObjectLock``."""

    def __init__(self, s3_location: client.S3Location, note: Note | None = None) -> None:
        self._prefix = s3_location.folder
        self._bucket = s3_location.bucket
        http = HttpClient.of(s3_location)
        self._client = http.boto
        self.location = s3_location.url
        self._listing = Pages(Requests(http, CancellationToken(), note=note), self.location)
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
            self._call("", "head_bucket", Bucket=self._bucket)

    def check_lock(self) -> None:
        """See ``ObjectLock.check_lock``."""
        # Of a bucket that is not there MinIO says that it has no lock.
        self._call("", "head_bucket", Bucket=self._bucket)
        try:
            response = self._call("", "get_object_lock_configuration", Bucket=self._bucket)
        except _NoLockError:
            response = {}
        if response.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
            raise NotAllowedError(
                f"the bucket {self._bucket!r} has no Object Lock, so nothing in it can be held: who may write there may"
                " delete",
                next_step="transfer the bundle to a bucket that was made with Object Lock, and hold it there",
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
        try:
            retention = self._of(version, "get_object_retention").get("Retention", {})
        except _NoLockError:
            return None, None
        until = retention.get("RetainUntilDate")
        mode = _MODES.get(retention.get("Mode", ""))
        return (mode, until.astimezone(UTC)) if until and mode else (None, None)

    def _legal(self, version: FileVersion) -> bool:
        try:
            response = self._of(version, "get_object_legal_hold")
        except _NoLockError:
            return False
        return bool(response.get("LegalHold", {}).get("Status") == "ON")

    def retain(
        self, version: FileVersion, until: datetime | None, mode: Mode, *, firmer: bool = False
    ) -> None:
        """See ``ObjectLock.retain``."""
        if until is None:
            self._lift(version)
            return
        bypass = {"BypassGovernanceRetention": True} if firmer else {}
        retention = {"Mode": mode, "RetainUntilDate": until}
        self._of(version, "put_object_retention", Retention=retention, **bypass)

    def _lift(self, version: FileVersion) -> None:
        """Take the retention away; versitygw does not support that, so there it is made to end at once."""
        try:
            self._of(version, "put_object_retention", Retention={}, BypassGovernanceRetention=True)
        except (NotAllowedError, GoneError, UnreachableError):
            raise
        except MoveoutError:
            soon = {"Mode": "GOVERNANCE", "RetainUntilDate": self.now() + timedelta(seconds=2)}
            self._of(version, "put_object_retention", Retention=soon, BypassGovernanceRetention=True)

    def set_legal(self, version: FileVersion, *, on: bool) -> None:
        """See ``ObjectLock.set_legal``."""
        self._of(version, "put_object_legal_hold", LegalHold={"Status": "ON" if on else "OFF"})

    def remove(self, version: FileVersion) -> None:
        """See ``ObjectLock.remove``. What is gone already is gone."""
        try:
            self._of(version, "delete_object")
        except GoneError:
            return

    def _of(self, version: FileVersion, operation: str, **parameters: Any) -> Any:
        named = {"VersionId": version.id} if version.id else {}
        key = self._prefix + version.key
        return self._call(version.key, operation, Bucket=self._bucket, Key=key, **named, **parameters)

    def _call(self, key: str, operation: str, **request: Any) -> Any:
        return self._retry.run(lambda: self._once(key, operation, **request))

    def _once(self, key: str, operation: str, **request: Any) -> Any:
        try:
            response = getattr(self._client, operation)(**request)
        except (boto_errors.BotoCoreError, boto_errors.ClientError, OSError) as exc:
            code = (
                exc.response.get("Error", {}).get("Code") if isinstance(exc, boto_errors.ClientError) else ""
            )
            if code in _NO_LOCK or (code == "InvalidRequest" and operation in _LOOKS):
                raise _NoLockError(str(exc)) from exc
            if code in {"InvalidRequest", "ObjectLocked"}:
                translated_error = translate(exc, f"s3://{self._bucket}/{self._prefix}{key}")
                raise NotAllowedError(str(translated_error), next_step=_HELD) from exc
            raise translate(exc, f"s3://{self._bucket}/{self._prefix}{key}") from exc
        if operation in _LOOKS:
            not_empty(response, f"s3://{self._bucket}/{self._prefix}{key}")
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        self._server = headers.get("server", "")
        self._look_at_clock(headers.get("date"))
        return response

    def _look_at_clock(self, date: str | None) -> None:
        """Note how far the server's clock is ahead of ours: nothing where they agree; its dates are whole seconds."""
        self._ahead = timedelta()
        with contextlib.suppress(ValueError, TypeError):
            ahead = parsedate_to_datetime(date or "") - datetime.now(UTC)
            self._ahead = timedelta() if abs(ahead) < _AGREES else ahead


class _NoLockError(NotAllowedError):
    """There is no lock to read."""
