"""Accounts of a MinIO server: narrow ones, with an end, made by the owner of a wider one (through MinIO's own SDK); and
policies of its users. A bucket's own policy binds nobody there who has an account (MinIO applies it to anonymous
requests only): what users may do is decided by the policies that are attached to them.
"""

from __future__ import annotations

import functools
import http
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import Enum
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import urllib3
import urllib3.exceptions as http_errors
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException, MinioException

from exporters.structs import WithSecrets
from migrate.errors import GoneError, MoveoutError, NotAllowedError, UnreachableError, UsageError
from migrate.runtime.crash_points import durable
from migrate.storage.retry import FIRST_CONTACT_SECONDS, RetryPolicy, RetryTimeout
from migrate.storage.s3 import client

T = TypeVar("T")
_SECONDS = 30.0
_UNCHANGED = "XMinioAdminPolicyChangeAlreadyApplied"


class _UnchangedError(UsageError):
    """The server has what was asked for already."""


class _Command(Enum):
    """What MinIO's SDK has no method for."""

    REVOKE = "revoke-tokens/builtin"


class Account(WithSecrets, frozen=True):
    """A narrow account. ``expires`` is None for one without an end."""

    SECRETS: ClassVar[frozenset[str]] = frozenset({"secret_key"})

    access_key: str
    name: str
    expires: datetime | None
    is_enabled: bool
    secret_key: str = ""


class Accounts:
    """The accounts that belong to the user by whose credentials a location is opened."""

    def __init__(self, s3_location: client.S3Location) -> None:
        boto = client.client(s3_location)
        credentials = client.session(s3_location).get_credentials().get_frozen_credentials()
        self.endpoint = str(boto.meta.endpoint_url)
        self.region = str(boto.meta.region_name)
        address = urlsplit(self.endpoint)
        self.user = str(credentials.access_key)
        self._retry = RetryPolicy(RetryTimeout(first_contact_seconds=FIRST_CONTACT_SECONDS))
        self.admin = MinioAdmin(
            endpoint=address.netloc,
            credentials=StaticProvider(credentials.access_key, credentials.secret_key, credentials.token),
            region=self.region,
            secure=address.scheme == "https",
            http_client=urllib3.PoolManager(timeout=_SECONDS, retries=False),
        )

    def add(self, name: str, policy: Mapping[str, Any], expires: datetime, purpose: str = "") -> Account:
        """Make an account that may do what the policy says, until it expires. It is found by its purpose again."""
        access, secret = f"mo{secrets.token_hex(9)}", secrets.token_urlsafe(30)
        until = expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with durable("grant.account.add"), _translated(self.endpoint):
            self.admin.add_service_account(
                access_key=access,
                secret_key=secret,
                name=name[:32],
                description=purpose[:256],
                policy=dict(policy),
                expiration=until,
            )
        return Account(access, name, expires, is_enabled=True, secret_key=secret)

    def find(self, access_key: str) -> Account | None:
        """Return an account, None where there is none (any more)."""
        try:
            response = self.ask(lambda: self.admin.get_service_account(access_key))
        except GoneError:
            return None
        return _account(access_key, json.loads(response))

    def of(self, purpose: str) -> list[str]:
        """Return the access keys of accounts with this purpose."""
        accounts = (
            json.loads(self.ask(lambda: self.admin.list_service_account(self.user))).get("accounts") or ()
        )
        return [
            str(account.get("accessKey")) for account in accounts if account.get("description") == purpose
        ]

    def remove(self, access_key: str) -> None:
        """Remove an account; nothing happens where there is none."""
        with durable("grant.account.remove"), suppress(GoneError):
            self.ask(lambda: self.admin.delete_service_account(access_key))

    def end_sessions(self, name: str) -> None:
        """End the sessions of this account (``user``) that were begun with this revocation type (MinIO's admin call
        ``revoke-tokens``). Raises ``MoveoutError`` where the server does not support it.
        """
        admin: Any = self.admin
        query = {"tokenRevokeType": name}
        call = functools.partial(admin._url_open, method="POST", command=_Command.REVOKE, query_params=query)  # noqa: SLF001
        if self.ask(call).status != http.HTTPStatus.NO_CONTENT:
            raise UsageError(f"{self.endpoint} does not answer as MinIO does")

    def ask(self, call: Callable[[], T]) -> T:
        """Return what a call of the SDK returns; tried again after passing faults, its errors translated."""

        def once() -> T:
            with _translated(self.endpoint):
                return call()

        return self._retry.run(once)


def _account(access_key: str, value: Mapping[str, Any]) -> Account:
    until = str(value.get("expiration") or "")
    expires = datetime.fromisoformat(until) if until and not until.startswith(("0001", "1970")) else None
    return Account(
        access_key, str(value.get("name", "")), expires, value.get("accountStatus") in {"on", "enabled"}
    )


@contextmanager
def _translated(endpoint: str) -> Iterator[None]:
    try:
        yield
    except MinioAdminException as exc:
        raise _translate(endpoint, exc) from exc
    except (MinioException, ValueError) as exc:
        raise UsageError(
            f"{endpoint} does not answer as MinIO does: {exc}",
            next_step="only a MinIO server makes such accounts",
        ) from exc
    except (http_errors.HTTPError, OSError) as exc:
        raise UnreachableError(str(exc), about=endpoint, next_step="run the same command again") from exc


def _translate(endpoint: str, exc: MinioAdminException) -> MoveoutError:
    code, text = str(exc._code), str(exc._body)  # noqa: SLF001 - it offers no other way to them
    try:
        error = json.loads(text)
        name, message = str(error.get("Code", "")), str(error.get("Message", ""))
    except (ValueError, AttributeError):
        name, message = "", text[:200]
    if name == _UNCHANGED:
        return _UnchangedError(f"{endpoint}: {message}")
    if "NoSuch" in name or "does not exist" in message or "not found" in message:
        return GoneError(message, about=endpoint)
    if code in {"401", "403"} or "Denied" in name:
        return NotAllowedError(
            message or code,
            about=endpoint,
            next_step="making grants needs the right to manage service accounts",
        )
    if code.startswith("5") or code == "429":
        return UnreachableError(message or code, about=endpoint, next_step="run the same command again")
    return UsageError(
        f"{endpoint} refuses: {message or code}", next_step="only a MinIO server makes such accounts"
    )


class Policies:
    """The users of the server at which a location is opened, and their policies. Raises ``NotAllowedError`` for
    anybody but an administrator.
    """

    def __init__(self, s3_location: client.S3Location) -> None:
        self._accounts = Accounts(s3_location)
        self._admin = self._accounts.admin

    def users(self) -> Mapping[str, Sequence[str]]:
        """Return the policies of every user of the server's own, by name; the administrator that the server was started
        with is none of them. Slow: the answer is encrypted.
        """
        users = json.loads(self._accounts.ask(self._admin.user_list))
        return {name: _names(user.get("policyName", "")) for name, user in users.items()}

    def has(self, user: str, policy: str) -> bool | None:
        """Tell whether a user has a policy attached; None where there is no such user."""
        try:
            user_info = json.loads(self._accounts.ask(lambda: self._admin.user_info(user)))
        except GoneError:
            return None
        return policy in _names(user_info.get("policyName", ""))

    def attach(self, user: str, policy: str) -> None:
        """Attach a policy to a user; nothing happens where it is attached, as by somebody who holds the bucket, too."""
        with suppress(_UnchangedError):
            self._accounts.ask(lambda: self._admin.attach_policy([policy], user=user))

    def detach(self, user: str, policy: str) -> None:
        """Take a policy from a user; nothing happens where it is not attached."""
        with suppress(_UnchangedError):
            self._accounts.ask(lambda: self._admin.detach_policy([policy], user=user))

    def find(self, policy: str) -> Mapping[str, Any] | None:
        """Return a policy, None where there is none of the name."""
        try:
            policy_info = json.loads(self._accounts.ask(lambda: self._admin.policy_info(policy)))
        except GoneError:
            return None
        value: Mapping[str, Any] = policy_info.get("Policy", policy_info)
        return value

    def put(self, policy: str, value: Mapping[str, Any]) -> None:
        """Make a policy, or replace it."""
        self._accounts.ask(lambda: self._admin.policy_add(policy, policy=dict(value)))

    def remove(self, policy: str) -> None:
        """Remove a policy that no user has; nothing happens where there is none."""
        try:
            self._accounts.ask(lambda: self._admin.policy_remove(policy))
        except GoneError:
            return


def _names(text: str) -> Sequence[str]:
    return sorted(name for name in text.split(",") if name)
