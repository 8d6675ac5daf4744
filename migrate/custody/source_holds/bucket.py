"""A bucket from which nothing can be deleted: versioning on, lifecycle rules suspended, and a policy that denies it to
everybody (Amazon S3 user guide, "Bucket policies").

On MinIO a bucket's policy binds no account; there the same denial is attached to every user of the server. Whether a
denial works is tried, not assumed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from migrate.bundle.findings import Finding
from migrate.custody.source_holds.contract import Change, HoldRequest, SourceHold
from migrate.errors import GoneError, NotAllowedError, UsageError
from migrate.storage.s3.access.minio_accounts import Policies
from migrate.storage.s3.client import S3Location
from migrate.storage.s3.metadata.bucket_configuration import (
    HOLD_SID,
    BucketSettings,
    same_setting,
    statements,
    suspended_rule,
)

VERSIONING, LIFECYCLE, POLICY = "versioning", "lifecycle", "policy"
_DENIAL, _USER = "the policy for users", "the user "
_OBJECTS = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
_BUCKET = ["s3:DeleteBucket", "s3:PutBucketVersioning", "s3:PutLifecycleConfiguration"]
_MINIO_BUCKET = [*_BUCKET, "s3:ForceDeleteBucket"]


class BucketHold(SourceHold):
    """See ``SourceHold``. ``try_as`` is the AWS profile of an ordinary account with which deletion is tried."""

    def __init__(self, url: str, *, secrets: Mapping[str, str] | None, try_as: str) -> None:
        self._settings = BucketSettings(url, secrets=secrets)
        self.url = self._settings.url
        self._tried_as = _as(self._settings.s3_location, try_as) if try_as else None
        self._policies = self._open_policies()

    def _open_policies(self) -> Policies | None:
        """Return the users' policies of a MinIO that we administer."""
        if self._settings.server() != "MinIO":
            return None
        policies = Policies(self._settings.s3_location)
        try:
            policies.users()
        except (NotAllowedError, UsageError, GoneError):
            return None
        return policies

    def changes(self) -> Sequence[Change]:
        """See ``SourceHold.changes``."""
        changes = [self._versioning(), self._lifecycle(), self._policy(), *self._users()]
        return [change for change in changes if change is not None]

    def _versioning(self) -> Change | None:
        before = self.read(VERSIONING)
        if before.get("Status") == "Enabled":
            return None
        after = {**before, "Status": "Enabled"}
        undo_value = before or {"Status": "Suspended"}
        undo_says = (
            "suspend versioning again"
            if before
            else "suspend versioning (servers cannot go back to never on)"
        )
        return Change(VERSIONING, before, after, undo_value, "keep versions: versioning on", undo_says)

    def _lifecycle(self) -> Change | None:
        before = self.read(LIFECYCLE)
        rules = before.get("Rules", [])
        running = [rule for rule in rules if rule.get("Status") == "Enabled"]
        if not running:
            return None
        after = {**before, "Rules": [suspended_rule(rule) for rule in rules]}
        names = ", ".join(str(rule.get("ID", "unnamed")) for rule in running)
        return Change(
            LIFECYCLE,
            before,
            after,
            before,
            f"suspend the lifecycle rules {names}",
            "put the lifecycle rules back",
        )

    def _policy(self) -> Change | None:
        before = self.read(POLICY)
        policy = json.loads(before.get("Policy", "{}")) or {"Version": "2012-10-17"}
        hold_statements = _statements(self._settings.bucket, self._settings.prefix, _BUCKET)
        other_statements = [
            statement_
            for statement_ in statements(policy)
            if statement_.get("Sid") not in {statement["Sid"] for statement in hold_statements}
        ]
        after = {"Policy": json.dumps({**policy, "Statement": [*other_statements, *hold_statements]})}
        if same_setting(POLICY, before, after):
            return None
        undo_says = "put the bucket's policy back" if before else "remove the bucket's policy"
        description = f"deny {', '.join(_OBJECTS + _BUCKET)} to everybody by the bucket's policy"
        return Change(POLICY, before, after, before, description, undo_says)

    def _users(self) -> Sequence[Change]:
        if self._policies is None:
            return ()
        name = self._denial_name
        hold_statements = _statements(self._settings.bucket, self._settings.prefix, _MINIO_BUCKET)
        value = {
            "Version": "2012-10-17",
            "Statement": [_without_principal(statement) for statement in hold_statements],
        }
        before, changes = self.read(_DENIAL), []
        if not self.same(_DENIAL, before, value):
            changes.append(
                Change(
                    _DENIAL,
                    before,
                    value,
                    before,
                    f"make the policy {name}, which denies deletion",
                    f"remove the policy {name}",
                )
            )
        for user, attached in self._policies.users().items():
            if name not in attached:
                description, undo_says = (
                    f"attach {name} to the user {user}",
                    f"take {name} from the user {user}",
                )
                changes.append(Change(_USER + user, False, True, False, description, undo_says))
        return changes

    @property
    def _denial_name(self) -> str:
        return f"moveout-hold-{self._settings.bucket}{_mark(self._settings.prefix)}"

    def read(self, setting: str) -> Any:
        """See ``SourceHold.read``. Of a user: whether the denial is attached; None where he is gone."""
        if setting == _DENIAL:
            return dict(self._need_policies().find(self._denial_name) or {})
        if setting.startswith(_USER):
            return self._need_policies().has(setting.removeprefix(_USER), self._denial_name)
        if setting not in {VERSIONING, LIFECYCLE, POLICY}:  # from a file that somebody has edited
            raise UsageError(f"{setting!r} is not a setting of a bucket")
        return self._settings.read(setting)

    def write(self, setting: str, value: Any) -> None:
        """See ``SourceHold.write``."""
        name = self._denial_name
        if setting == _DENIAL:
            if value:
                self._need_policies().put(name, value)
            else:
                self._need_policies().remove(name)
        elif setting.startswith(_USER):
            change = self._need_policies().attach if value else self._need_policies().detach
            change(setting.removeprefix(_USER), name)
        else:
            self._settings.write(setting, value)

    def same(self, setting: str, value: Any, other: Any) -> bool:
        """See ``SourceHold.same``. A user who is gone (None) has nothing to be bound or freed."""
        if setting.startswith(_USER):
            return value is None or other is None or bool(value == other)
        if setting == _DENIAL:
            return same_setting(
                POLICY, *({"Policy": json.dumps(policy)} if policy else {} for policy in (value, other))
            )
        return same_setting(setting, value, other)

    def open_write_paths(self, since: str | None) -> Sequence[Finding]:
        """See ``SourceHold.open_write_paths``: a deletion is tried, as the try_as where one is named."""
        del since
        if self._tried_as is not None:
            if not self._tried_as.may_delete():
                return ()
            return [
                Finding(
                    f"the profile {self._tried_as.s3_location.profile}",
                    "may delete versions all the same",
                    "refused",
                )
            ]
        if self._policies is not None or not self._settings.may_delete():
            return ()
        return [
            Finding(
                "this account", "may delete versions all the same: it is an administrator's, or policies bind nobody"
                " here; --try-as PROFILE tries it as an ordinary one", "refused",
            )
        ]  # fmt: skip

    def limits(self) -> Sequence[str]:
        """See ``SourceHold.limits``."""
        texts = [
            "who may change the bucket's policy may lift it; it keeps versions, and new ones may be written"
        ]
        if self._policies is not None:
            texts.append(
                "the server's own administrator may delete all the same, and service accounts of that one; users"
                " that are made later are bound by the same command again, those of LDAP or OpenID not at all"
            )
        return texts

    def _need_policies(self) -> Policies:
        if self._policies is None:
            raise NotAllowedError(
                "this account may not see the server's users",
                about=self.url,
                next_step="use the one that placed the hold",
            )
        return self._policies


def _as(s3_location: S3Location, profile: str) -> BucketSettings:
    return BucketSettings(f"s3://{s3_location.bucket}/{s3_location.prefix}?profile={profile}")


def _statements(bucket: str, prefix: str, of_bucket: Sequence[str]) -> list[dict[str, Any]]:
    arn, everybody = f"arn:aws:s3:::{bucket}", {"AWS": "*"}
    objects = {"Action": _OBJECTS, "Resource": f"{arn}/{prefix}*"}
    itself = {"Action": list(of_bucket), "Resource": arn}
    mark = _mark(prefix)
    return [
        {"Sid": f"{HOLD_SID}{name}{mark}", "Effect": "Deny", "Principal": everybody, **scope}
        for name, scope in (("Objects", objects), ("Bucket", itself))
    ]


def _mark(prefix: str) -> str:
    """Tell holds on parts of one bucket apart, by letters and digits alone."""
    return hashlib.sha256(prefix.encode()).hexdigest()[:8] if prefix else ""


def _without_principal(statement: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in statement.items() if name != "Principal"}


def open_hold(url: str, secrets: Mapping[str, str], request: HoldRequest) -> BucketHold:
    """Open a bucket by its URL."""
    return BucketHold(url, secrets=secrets, try_as=request.try_as)
