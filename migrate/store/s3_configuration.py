"""The settings of a bucket, as JSON: read what can be read, write what the target takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import botocore.exceptions as boto_errors

from migrate.errors import NotAllowedError, UnreachableError
from migrate.store.retry import patiently
from migrate.store.s3_client import translate

READERS = {
    "location": "get_bucket_location",
    "versioning": "get_bucket_versioning",
    "policy": "get_bucket_policy",
    "cors": "get_bucket_cors",
    "lifecycle": "get_bucket_lifecycle_configuration",
    "encryption": "get_bucket_encryption",
    "tagging": "get_bucket_tagging",
    "object-lock": "get_object_lock_configuration",
    "notification": "get_bucket_notification_configuration",
    "website": "get_bucket_website",
    "acl": "get_bucket_acl",
    "ownership": "get_bucket_ownership_controls",
    "public-access-block": "get_public_access_block",
    "logging": "get_bucket_logging",
    "replication": "get_bucket_replication",
    "request-payment": "get_bucket_request_payment",
    "accelerate": "get_bucket_accelerate_configuration",
}
"""Names in the bundle, and the calls that read them."""


WRITERS = {
    "versioning": ("put_bucket_versioning", "VersioningConfiguration", None),
    "policy": ("put_bucket_policy", "Policy", "Policy"),
    "cors": ("put_bucket_cors", "CORSConfiguration", None),
    "lifecycle": ("put_bucket_lifecycle_configuration", "LifecycleConfiguration", None),
    "encryption": (
        "put_bucket_encryption",
        "ServerSideEncryptionConfiguration",
        "ServerSideEncryptionConfiguration",
    ),
    "tagging": ("put_bucket_tagging", "Tagging", None),
    "website": ("put_bucket_website", "WebsiteConfiguration", None),
    "public-access-block": (
        "put_public_access_block",
        "PublicAccessBlockConfiguration",
        "PublicAccessBlockConfiguration",
    ),
}
"""Names, the calls that write them, the argument, and the field of what was read that is its value (None:
all).
"""


def read_configuration(client: Any, bucket: str) -> dict[str, Any]:
    """Return the bucket's settings by name. What is not set or not known to the server is left out; what
    these credentials may not read is listed under ``denied``. Raises ``UnreachableError``.
    """
    found: dict[str, Any] = {}
    denied = []
    for name, call in READERS.items():
        try:
            value = patiently(lambda call=call: _read(client, call, bucket))  # type: ignore[misc]
        except NotAllowedError:
            denied.append(name)
            continue
        if value:
            found[name] = value
    return found | ({"denied": denied} if denied else {})


def _read(client: Any, call: str, bucket: str) -> Mapping[str, Any]:
    try:
        answer = getattr(client, call)(Bucket=bucket)
    except (boto_errors.ClientError, boto_errors.BotoCoreError, OSError) as exc:
        error = translate(exc, f"{bucket}: {call}")
        if isinstance(error, NotAllowedError | UnreachableError) and not _unknown(exc):
            raise error from exc
        return {}
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def _unknown(exc: Exception) -> bool:
    """Tell whether the server has no such setting at all."""
    if not isinstance(exc, boto_errors.ClientError):
        return False
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in {405, 501} or exc.response.get("Error", {}).get("Code") == "NotImplemented"


def write_setting(client: Any, bucket: str, name: str, value: Mapping[str, Any]) -> bool:
    """Write one setting as ``read_configuration`` gives it; return whether there is a way to. Raises
    ``MoveoutError``.
    """
    if name not in WRITERS:
        return False
    call, argument, inner = WRITERS[name]
    given = value[inner] if inner else dict(value)
    try:
        getattr(client, call)(Bucket=bucket, **{argument: given})
    except (boto_errors.ClientError, boto_errors.BotoCoreError, OSError) as exc:
        raise translate(exc, f"{bucket}: {name}") from exc
    return True
