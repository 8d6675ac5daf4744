"""Policies of IAM as fixes: the actions that credentials lack, on what, and for which call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from exporters.doctor import Fix
from migrate.errors import MoveoutError
from migrate.storage.s3.client import S3Location
from migrate.storage.s3.http.messages import concerns_bucket

ACTIONS_OF_SETTINGS = {
    "location": "GetBucketLocation",
    "versioning": "GetBucketVersioning",
    "policy": "GetBucketPolicy",
    "cors": "GetBucketCORS",
    "lifecycle": "GetLifecycleConfiguration",
    "encryption": "GetEncryptionConfiguration",
    "tagging": "GetBucketTagging",
    "object-lock": "GetBucketObjectLockConfiguration",
    "notification": "GetBucketNotification",
    "website": "GetBucketWebsite",
    "acl": "GetBucketAcl",
    "ownership": "GetBucketOwnershipControls",
    "public-access-block": "GetBucketPublicAccessBlock",
    "logging": "GetBucketLogging",
    "replication": "GetReplicationConfiguration",
    "request-payment": "GetBucketRequestPayment",
    "accelerate": "GetAccelerateConfiguration",
    "analytics": "GetAnalyticsConfiguration",
    "inventory": "GetInventoryConfiguration",
    "metrics": "GetMetricsConfiguration",
    "intelligent-tiering": "GetIntelligentTieringConfiguration",
}
"""By the names that settings have in a bundle (Service Authorization Reference, "Actions for Amazon S3")."""
_OF_MINIO = {
    "cors": "GetBucketCors",
    **dict.fromkeys(("acl", "website", "logging", "request-payment", "accelerate"), "GetBucketPolicy"),
}
"""What MinIO asks for instead (cmd/dummy-handlers.go and cmd/acl-handlers.go; names of actions in minio/pkg)."""


class PolicyStatement(Struct, frozen=True):
    """Actions on a bucket, or on its objects."""

    actions: tuple[str, ...]
    resource: str

    def as_json(self) -> dict[str, Any]:
        """Return the statement as IAM writes it."""
        actions = [f"s3:{action}" for action in self.actions]
        return {"Effect": "Allow", "Action": actions, "Resource": [f"arn:aws:s3:::{self.resource}"]}


def policy(statements: Iterable[PolicyStatement]) -> str:
    """Return the policy document that allows all of this, each action once for a resource."""
    actions: dict[str, dict[str, None]] = {}
    for statement in statements:
        actions.setdefault(statement.resource, {}).update(dict.fromkeys(statement.actions))
    merged = [PolicyStatement(tuple(names), resource).as_json() for resource, names in actions.items()]
    return json.dumps({"Version": "2012-10-17", "Statement": merged}, indent=2)


def merged(policies: Sequence[str]) -> str:
    """Return one policy document of several."""
    statements = [
        PolicyStatement(
            tuple(action.removeprefix("s3:") for action in item["Action"]),
            resource.removeprefix("arn:aws:s3:::"),
        )
        for text in policies
        for item in json.loads(text)["Statement"]
        for resource in item["Resource"]
    ]
    return policy(statements)


def summary(text: str) -> list[str]:
    """Return what a policy document allows, a line each."""
    return [
        f"allow {', '.join(item['Action'])} on {', '.join(item['Resource'])}"
        for item in json.loads(text)["Statement"]
    ]


def fix_of(error: MoveoutError, rights: Fix) -> Fix:
    """Return what mends that a server refuses: ``rights``; else, where the keys or the clock are wrong, what the error
    says, for no policy helps then.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MoveoutError) and concerns_bucket(cause):
            return Fix("advice", error.next_step)
        cause = cause.__cause__
    return rights


def on_bucket(location: S3Location, server: str, *actions: str) -> Fix:
    """Return the fix that allows actions on a bucket."""
    return Fix("iam", policy([PolicyStatement(actions, location.bucket)]), server)


def on_objects(location: S3Location, server: str, *actions: str) -> Fix:
    """Return the fix that allows actions on the objects of a location."""
    return Fix("iam", policy([PolicyStatement(actions, f"{location.bucket}/{location.folder}*")]), server)


def of_settings(location: S3Location, server: str, settings: Iterable[str], *, is_minio: bool) -> Fix:
    """Return the fix that lets settings of a bucket be read."""
    actions = ACTIONS_OF_SETTINGS | (_OF_MINIO if is_minio else {})
    return on_bucket(location, server, *dict.fromkeys(actions[setting] for setting in settings))
