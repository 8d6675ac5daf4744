"""Sessions at a security token service: credentials that end by themselves and can do what their policy says, at most
(AWS STS API reference, "AssumeRole"). MinIO speaks it too: there the session is of the account itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlsplit

import botocore.config
import botocore.exceptions as boto_errors
import botocore.parsers

from exporters.structs import WithSecrets
from migrate.errors import MoveoutError, NotAllowedError, UsageError
from migrate.storage.retry import RetryPolicy
from migrate.storage.s3 import client
from migrate.storage.s3.errors import translate

SHORTEST = timedelta(minutes=15)
_ANY_ROLE = "arn:aws:iam:::role/of-the-account-itself"
"""MinIO wants a role to be named and does not look at it."""
_REFUSED = {"ValidationError", "InvalidParameterValue", "MalformedPolicyDocument", "PackedPolicyTooLarge"}
_MAX_NAME = 64


class SessionKey(WithSecrets, frozen=True):
    """The credential of a session; all three parts are needed. ``expires`` is when the server ends it."""

    SECRETS: ClassVar[frozenset[str]] = frozenset({"secret_key", "token"})

    access_key: str
    expires: datetime
    secret_key: str
    token: str


class TokenService:
    """The token service of the account by whose credentials a location is opened."""

    def __init__(self, s3_location: client.S3Location) -> None:
        session = client.session(s3_location)
        if session.get_credentials() is None:
            raise NotAllowedError(
                f"no credentials for {s3_location.url}", next_step="name a profile: s3://bucket?profile=NAME"
            )
        config = botocore.config.Config(
            retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=60
        )
        region = client.region_of(session) or "us-east-1"
        self._client = session.create_client("sts", config=config, region_name=region)
        self.endpoint = str(self._client.meta.endpoint_url)
        self.region = region

    @property
    def is_aws(self) -> bool:
        """Whether it is Amazon's own."""
        return (urlsplit(self.endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))

    def begin(
        self, name: str, policy: Mapping[str, Any], lasts: timedelta, *, role: str = "", revocation: str = ""
    ) -> SessionKey:
        """Begin a session that may do what its policy and its role both allow. A shorter one than ``SHORTEST`` lasts so
        long: its policy must end it sooner. ``revocation`` is the name by which MinIO can end it.

        Raises ``UsageError`` (no role where one is needed, longer than the role allows), ``NotAllowedError``.
        """
        if self.is_aws and not role:
            raise UsageError(
                "a session at AWS is one of a role", next_step="name it: --role arn:aws:iam::…:role/…"
            )
        request = {
            "RoleArn": role or _ANY_ROLE,
            "RoleSessionName": name[:_MAX_NAME],
            "Policy": json.dumps(policy, separators=(",", ":")),
            "DurationSeconds": math.ceil(max(lasts, SHORTEST).total_seconds()),
        }
        self._client.meta.events.register(
            "before-call.sts.AssumeRole", self._mark(revocation), unique_id="mark"
        )
        credentials = RetryPolicy().run(lambda: self._once(request))["Credentials"]
        return SessionKey(
            credentials["AccessKeyId"],
            credentials["Expiration"],
            credentials["SecretAccessKey"],
            credentials["SessionToken"],
        )

    def _mark(self, revocation: str) -> Any:
        """Return a hook that names a session to MinIO, so that it can be ended by that name (``revoke-tokens``)."""

        def mark(params: dict[str, Any], **_: Any) -> None:
            if revocation and not self.is_aws:
                params["body"]["TokenRevokeType"] = revocation

        return mark

    def _once(self, request: Mapping[str, Any]) -> Any:
        try:
            return self._client.assume_role(**request)
        except (
            botocore.parsers.ResponseParserError,
            KeyError,
        ) as exc:  # botocore misses a word that it expects
            raise UsageError(
                f"{self.endpoint} is not a token service", next_step="moveout grant create, or links"
            ) from exc
        except boto_errors.ClientError as exc:
            error = exc.response.get("Error", {})
            if error.get("Code") in _REFUSED:
                raise UsageError(
                    f"{self.endpoint}: {error.get('Message')}",
                    next_step="name an earlier end, or another --role",
                ) from exc
            raise _translated(exc, self.endpoint) from exc
        except (boto_errors.BotoCoreError, OSError) as exc:
            raise translate(exc, self.endpoint) from exc


def _translated(exc: boto_errors.ClientError, endpoint: str) -> MoveoutError:
    translated_error = translate(exc, endpoint)
    if type(translated_error) is MoveoutError:
        return UsageError(f"{endpoint} gives no sessions: {exc}", next_step="moveout grant create, or links")
    return translated_error
