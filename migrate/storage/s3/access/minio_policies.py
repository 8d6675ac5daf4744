"""Policies of a MinIO server's users. A bucket's own policy binds nobody there who has an account (MinIO applies it to
anonymous requests only): what users may do is decided by the policies that are attached to them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from migrate.errors import GoneError
from migrate.storage.s3 import client
from migrate.storage.s3.access.minio_accounts import Accounts


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
        """Attach a policy to a user."""
        self._accounts.ask(lambda: self._admin.attach_policy([policy], user=user))

    def detach(self, user: str, policy: str) -> None:
        """Take a policy from a user."""
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
