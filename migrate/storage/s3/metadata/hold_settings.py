"""The settings of a bucket that a hold changes, and the trial whether something may be deleted there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import date
from typing import Any

import botocore.exceptions as boto_errors

from migrate.errors import MoveoutError, UnreachableError, UsageError
from migrate.storage.retry import FIRST_CONTACT_SECONDS, RetryPolicy
from migrate.storage.s3 import client
from migrate.storage.s3.access.permission_probe import NO_VERSION, judged
from migrate.storage.s3.metadata import bucket_configuration


class BucketSettings:
    """A bucket and prefix, by its URL. Raises errors of ``migrate.errors``."""

    def __init__(self, url: str, *, secrets: Mapping[str, str] | None = None) -> None:
        self.s3_location = client.parse(url, secrets=secrets)
        self.bucket, self.url = self.s3_location.bucket, self.s3_location.url
        self.prefix = self.s3_location.folder
        self._client = client.client(self.s3_location)
        self._retry = RetryPolicy(first_contact_seconds=FIRST_CONTACT_SECONDS)

    def server(self) -> str:
        """Return what the server calls itself, "" where it does not. Raises ``GoneError`` where there is no bucket."""
        answer = self._call("head_bucket", Bucket=self.bucket)
        return str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("server", ""))

    def read(self, name: str) -> dict[str, Any]:
        """Return a setting as plain JSON, empty where it is not set. Raises ``NotAllowedError``."""
        found = bucket_configuration.read_setting(self._client, self.bucket, name)
        plain: dict[str, Any] = json.loads(json.dumps(dict(found), default=_plain))
        return plain

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Set it as ``read`` gives it; an empty one is removed."""
        if value:
            bucket_configuration.write_setting(self._client, self.bucket, name, value)
        elif not bucket_configuration.remove_setting(self._client, self.bucket, name):
            raise UsageError(f"{self.url}: {name} can be changed and not removed")

    def may_delete(self) -> bool:
        """Tell whether these credentials may delete a version here. A version that does not exist is tried, which
        leaves nothing behind.
        """
        key = f"{self.prefix}moveout-hold-test-{secrets.token_hex(8)}"
        try:
            self._call("delete_object", Bucket=self.bucket, Key=key, VersionId=NO_VERSION)
        except UnreachableError:
            raise
        except MoveoutError as exc:
            error = getattr(exc.__cause__, "response", {}).get("Error", {})
            return judged(str(error.get("Code", "")), str(error.get("Message", ""))) != "refused"
        return True

    def _call(self, operation: str, **request: Any) -> Any:
        def once() -> Any:
            try:
                return getattr(self._client, operation)(**request)
            except (boto_errors.ClientError, boto_errors.BotoCoreError, OSError) as exc:
                raise client.translate(exc, self.url) from exc

        return self._retry.run(once)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)
