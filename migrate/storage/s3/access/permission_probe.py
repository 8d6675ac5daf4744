"""What a narrow credential must not be able to do, as attempts that do no harm where they succeed. They concern names
that do not exist, or bring settings that no server takes.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.exceptions as boto_errors
from msgspec import Struct

from migrate.errors import SlowDownError
from migrate.storage.retry import RetryPolicy, RetryTimeout
from migrate.storage.s3 import client as s3_client
from migrate.storage.s3.errors import translate

_REFUSED = {"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "InvalidTokenId", "ExpiredToken", "InvalidToken",
            "SignatureDoesNotMatch", "AllAccessDisabled", "MethodNotAllowed"}  # fmt: skip
_BUSY_SECONDS = 60.0
NO_VERSION = "00000000-0000-4000-8000-000000000000"
"""The id of a version that no file has."""


class Attempt(Struct, frozen=True):
    """One forbidden operation. ``run`` returns ``refused``, or what the server did instead; raises only errors of
    ``migrate.errors``.
    """

    what: str
    run: Callable[[], str]


def forbidden(s3_location: s3_client.S3Location, *, known: str = "") -> list[Attempt]:
    """Return attempts at everything but reading and listing below the location. ``known``: a key that exists elsewhere
    in the bucket, to be read.
    """
    client = s3_client.client(s3_location)
    calls = _Calls(
        s3_location.bucket, s3_location.folder, f"moveout-grant-test-{secrets.token_hex(8)}", known
    )
    return [
        Attempt(what, lambda call=call, request=request: _run(client, call, request))  # type: ignore[misc]
        for what, call, request in calls.all()
    ]


class _Calls(Struct, frozen=True):
    bucket: str
    prefix: str
    name: str
    known: str

    def all(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield (in words, operation of boto3's, request)."""
        inside = {"Bucket": self.bucket, "Key": self.prefix + self.name}
        bag_declaration = {"Bucket": self.bucket, "Key": f"{self.prefix}bagit.txt"}
        outside = {"Bucket": self.bucket, "Key": self.name}
        yield "write a file into the bundle", "put_object", {**inside, "Body": b""}
        yield "begin an upload", "create_multipart_upload", inside
        yield "send a part", "upload_part", {**inside, "UploadId": self.name, "PartNumber": 1, "Body": b""}
        yield "abort an upload", "abort_multipart_upload", {**inside, "UploadId": self.name}
        yield "copy a file", "copy_object", {**inside, "CopySource": {**inside}}
        yield "delete a file", "delete_object", inside
        yield (
            "delete a version",
            "delete_object",
            {**inside, "VersionId": NO_VERSION},
        )
        yield "delete several files", "delete_objects", {
            "Bucket": self.bucket, "Delete": {"Objects": [{"Key": inside["Key"]}]},
        }  # fmt: skip
        yield "read a version by its id", "get_object", {**bag_declaration, "VersionId": NO_VERSION}
        yield "set tags", "put_object_tagging", {**inside, "Tagging": {"TagSet": []}}
        # MinIO looks for the object before it looks at who asks, so this concerns one that exists; without the right
        # to bypass, which is not asked for, no lock can be shortened by it.
        yield (
            "shorten a retention",
            "put_object_retention",
            {**bag_declaration, "Retention": {"Mode": "GOVERNANCE"}},
        )
        yield "lift a legal hold", "put_object_legal_hold", {**inside, "LegalHold": {"Status": "OFF"}}
        yield "write next to the bundle", "put_object", {**outside, "Body": b""}
        yield "delete next to the bundle", "delete_object", outside
        if self.prefix:
            yield "read next to the bundle", "get_object", {**outside, "Key": self.known or self.name}
            yield "list the whole bucket", "list_objects_v2", {"Bucket": self.bucket}
            yield "list next to the bundle", "list_objects_v2", {"Bucket": self.bucket, "Prefix": self.name}
        yield "list unfinished uploads", "list_multipart_uploads", {"Bucket": self.bucket}
        yield "read the bucket's policy", "get_bucket_policy", {"Bucket": self.bucket}
        yield "change the bucket's policy", "put_bucket_policy", {"Bucket": self.bucket, "Policy": "{}"}
        yield "change the bucket's versioning", "put_bucket_versioning", {
            "Bucket": self.bucket, "VersioningConfiguration": {"Status": "Enabled"},
        }  # fmt: skip
        yield "change the bucket's lifecycle", "put_bucket_lifecycle_configuration", {
            "Bucket": self.bucket, "LifecycleConfiguration": {"Rules": []},
        }  # fmt: skip
        yield "delete the bucket", "delete_bucket", {"Bucket": self.bucket}
        yield "read another bucket", "list_objects_v2", {"Bucket": self.name}


def _run(client: Any, operation: str, request: dict[str, Any]) -> str:
    """Try it, and again where a busy server has not looked at it."""
    return RetryPolicy(RetryTimeout(_BUSY_SECONDS)).run(lambda: _once(client, operation, request))


def _once(client: Any, operation: str, request: dict[str, Any]) -> str:
    if "Retention" in request:  # until a moment that is to come when it is tried: a past one is malformed
        soon = {"RetainUntilDate": datetime.now(UTC) + timedelta(seconds=10)}
        request = {**request, "Retention": {**request["Retention"], **soon}}
    try:
        response = getattr(client, operation)(**request)
    except boto_errors.ClientError as exc:
        busy = translate(exc, operation)
        if isinstance(busy, SlowDownError):
            raise busy from exc
        error = exc.response.get("Error", {})
        return judged(str(error.get("Code", "")), str(error.get("Message", "")))
    except (boto_errors.BotoCoreError, OSError) as exc:
        raise translate(exc, operation) from exc
    if operation == "delete_objects" and response.get("Errors"):
        return judged(str(response["Errors"][0].get("Code", "")), "")
    _undo(client, operation, request, response)
    return "done"


def judged(code: str, message: str) -> str:
    """Return ``refused`` where an error means that, else its code. A bucket without Object Lock says so before it looks
    at who asks, and one with a lock that it holds.
    """
    return "refused" if code in _REFUSED or "ObjectLock" in message or "WORM protected" in message else code


def _undo(client: Any, operation: str, request: dict[str, Any], response: dict[str, Any]) -> None:
    """Take back what should not have been possible."""
    named = {"Bucket": request["Bucket"], "Key": request.get("Key")}
    with contextlib.suppress(boto_errors.BotoCoreError, boto_errors.ClientError, OSError):
        if operation == "put_object":
            version = {"VersionId": response["VersionId"]} if "VersionId" in response else {}
            client.delete_object(**named, **version)
        elif operation == "create_multipart_upload":
            client.abort_multipart_upload(**named, UploadId=response["UploadId"])
