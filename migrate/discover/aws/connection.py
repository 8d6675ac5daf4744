"""Calls of AWS in any region: clients, pages, and why a call brought nothing."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from textwrap import shorten
from typing import Any

import botocore.config
import botocore.exceptions as boto_errors
import jmespath
from botocore.discovery import EndpointDiscoveryException
from botocore.parsers import ResponseParserError
from msgspec import Struct

from exporters.errors import SourceNotAllowedError, SourceUnreachableError, SourceUsageError
from migrate.case.secrets import hide_url_passwords
from migrate.discover.aws.services import ACCOUNT, REGIONS, Call

WORKERS = 16
DEFAULT_REGION = "us-east-1"
_ATTEMPTS = 5
"""With botocore's standard mode, which waits longer each time: a throttled call is tried for about 15 seconds."""
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_BAD_CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"}
_DENIED_ACTION = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
"""What IAM says of a denied call ("Troubleshoot access denied error messages", IAM user guide)."""
_NEVER_USED = re.compile(r"Only existing Timestream for LiveAnalytics customers")
"""Timestream refuses accounts that have not used it before June 2025 ("Timestream for LiveAnalytics availability
change", Timestream developer guide).
"""
_TOKENS = {"nexttoken", "nextpagetoken"}
"""What calls without a paginator in botocore name the place of the next page, in the request and in the answer."""
_NO_ENDPOINT = (boto_errors.EndpointConnectionError, EndpointDiscoveryException)
_AMAZON = ".amazonaws.com"
_LONGEST = 300
_ORGANIZATION = "service control policy"


class Failure(Struct, frozen=True):
    """Why a call failed. ``reason`` ends a sentence. ``not_offered``: the region lacks the service, or the
    service has never been used, so nothing can be there.
    """

    reason: str
    is_denied: bool = False
    not_offered: bool = False


class CallFailedError(Exception):
    """A call had no usable answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class AwsConnection:
    """Calls on behalf of one account. Thread-safe. ``name`` is what the user calls the account. ``region`` is that of
    the profile; services without regions answer in ``global_region``. Raises ``SourceUsageError`` for a region that AWS
    does not have.
    """

    def __init__(self, session: Any, name: str) -> None:
        self.name = name
        self.region = session.get_config_variable("region") or DEFAULT_REGION
        try:
            partition = session.get_partition_for_region(self.region)
        except boto_errors.UnknownRegionError as exc:
            raise SourceUsageError(
                f"AWS has no region {self.region!r}",
                about=name,
                next_step="correct the region of the profile",
            ) from exc
        self.global_region = DEFAULT_REGION if partition == "aws" else self.region
        self._session = session
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()  # making clients of one session is not thread-safe (boto3's guide)

    def account_id(self) -> str:
        """Return the number of the account. Raises ``SourceError`` where AWS does not know these credentials."""
        next_step = "check the profile, or the AWS_* variables: `aws sts get-caller-identity` has to succeed"
        try:
            return str(self.client(ACCOUNT.client, self.region).get_caller_identity()["Account"])
        except boto_errors.ClientError as exc:
            raise SourceNotAllowedError(_words(exc), about=self.name, next_step=next_step) from exc
        except (boto_errors.ConnectionError, boto_errors.HTTPClientError) as exc:
            next_step = "check the network, then run the same command again"
            raise SourceUnreachableError(
                hide_url_passwords(str(exc)), about=self.name, next_step=next_step
            ) from exc
        except (
            boto_errors.BotoCoreError
        ) as exc:  # no credentials, half of them, or a session of SSO that is over
            raise SourceNotAllowedError(
                hide_url_passwords(str(exc)), about=self.name, next_step=next_step
            ) from exc

    def regions(self) -> list[str]:
        """Return the regions that the account has enabled. Raises ``CallFailedError``."""
        return sorted(self.items(REGIONS, self.region))

    def items(self, call: Call, region: str, **arguments: Any) -> list[Any]:
        """Return all that a call lists in a region. Raises ``CallFailedError``."""
        items = jmespath.compile(call.items)
        try:
            return [
                item for page in self._pages(call, region, arguments) for item in items.search(page) or ()
            ]
        except (boto_errors.ClientError, boto_errors.BotoCoreError, ResponseParserError, OSError) as exc:
            raise CallFailedError(self._failure(exc, call, region)) from exc

    def client(self, name: str, region: str) -> Any:
        """Return the client of a service in a region."""
        with self._lock:
            if (name, region) not in self._clients:
                self._clients[name, region] = self._make_client(name, region)
            return self._clients[name, region]

    def _make_client(self, name: str, region: str) -> Any:
        config = botocore.config.Config(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=WORKERS,
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
        )
        client = self._session.create_client(name, region_name=region, config=config)
        endpoint = client.meta.endpoint_url
        if client.meta.service_model.endpoint_discovery_operation and _AMAZON not in endpoint:
            # Timestream's servers name the endpoint for the next call. botocore ignores that only where the endpoint
            # is given here, not where it stands in the profile.
            return self._session.create_client(name, region_name=region, endpoint_url=endpoint, config=config)
        return client

    def _pages(self, call: Call, region: str, arguments: dict[str, Any]) -> Iterator[Any]:
        client = self.client(call.client, region)
        request = {**call.arguments, **arguments}
        if client.can_paginate(call.operation):
            yield from client.get_paginator(call.operation).paginate(**request)
            return
        operation = client.meta.service_model.operation_model(
            client.meta.method_to_api_mapping[call.operation]
        )
        token = next((name for name in operation.output_shape.members if name.lower() in _TOKENS), "")
        while True:
            page = getattr(client, call.operation)(**request)
            yield page
            if not page.get(token):
                return
            request[token] = page[token]

    def _failure(self, exc: Exception, call: Call, region: str) -> Failure:
        if isinstance(exc, boto_errors.ClientError):
            return _refusal(exc, call)
        offered = self._session.get_available_regions(
            call.client, self._session.get_partition_for_region(region)
        )
        not_offered = isinstance(exc, _NO_ENDPOINT) and region not in offered
        return Failure(
            f"{call.permissions[0]} brought no answer: {_one_line(hide_url_passwords(str(exc)))}",
            not_offered=not_offered,
        )


def _refusal(exc: boto_errors.ClientError, call: Call) -> Failure:
    error = exc.response.get("Error", {})
    code, message = str(error.get("Code", "")), str(error.get("Message", ""))
    if _NEVER_USED.search(message):
        return Failure("the account has never used it", not_offered=True)
    if code in _BAD_CREDENTIALS:
        return Failure(f"the credentials are not accepted there: {_words(exc)}")
    named = _DENIED_ACTION.search(message)
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in _DENIED or named or (status == 403 and not code):
        action = named[1] if named else call.permissions[0]
        by = " by a service control policy" if _ORGANIZATION in message else ""
        return Failure(f"{action} is denied{by}", is_denied=True)
    return Failure(f"{call.permissions[0]} failed: {_words(exc)}")


def _words(exc: boto_errors.ClientError) -> str:
    error = exc.response.get("Error", {})
    return _one_line(f"{error.get('Code', '')} {error.get('Message', '')}")


def _one_line(text: str) -> str:
    return shorten(text, _LONGEST, placeholder=" …")
