"""The settings of a bucket, as JSON: read what can be read, write what the destination takes."""

from __future__ import annotations

import hashlib
import json
import re
import secrets as random_names
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any, TypeVar
from xml.etree import ElementTree as ET

import botocore.exceptions as boto_errors
import botocore.parsers
from msgspec.structs import replace

from migrate.errors import MoveoutError, NotAllowedError, UnreachableError, UsageError
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.retry import FIRST_CONTACT_SECONDS, RetryPolicy, RetryTimeout
from migrate.storage.s3 import client as s3_client
from migrate.storage.s3.access.permission_probe import NO_VERSION, judged
from migrate.storage.s3.errors import translate
from migrate.storage.s3.http.client import HttpClient
from migrate.storage.s3.http.messages import Request, Response, client_error
from migrate.storage.s3.metadata.acl import canned, grants

Value = TypeVar("Value")
READERS = {
    "location": "GetBucketLocation",
    "versioning": "GetBucketVersioning",
    "policy": "GetBucketPolicy",
    "cors": "GetBucketCors",
    "lifecycle": "GetBucketLifecycleConfiguration",
    "encryption": "GetBucketEncryption",
    "tagging": "GetBucketTagging",
    "object-lock": "GetObjectLockConfiguration",
    "notification": "GetBucketNotificationConfiguration",
    "website": "GetBucketWebsite",
    "acl": "GetBucketAcl",
    "ownership": "GetBucketOwnershipControls",
    "public-access-block": "GetPublicAccessBlock",
    "logging": "GetBucketLogging",
    "replication": "GetBucketReplication",
    "request-payment": "GetBucketRequestPayment",
    "accelerate": "GetBucketAccelerateConfiguration",
    "analytics": "ListBucketAnalyticsConfigurations",
    "inventory": "ListBucketInventoryConfigurations",
    "metrics": "ListBucketMetricsConfigurations",
    "intelligent-tiering": "ListBucketIntelligentTieringConfigurations",
}
"""Names in the bundle, and the operations that read them. botocore describes these, and does not send them: a request
of its own takes 2 ms of processor time.
"""
_PARSER = botocore.parsers.create_parser("rest-xml")
_AT_ONCE = 21
"""Settings that are read at once: each takes one round trip."""
_WRITE_SECONDS = 5.0
_ENCRYPTION = "ServerSideEncryptionConfiguration"
_DEFAULT_ENCRYPTION, _MASTER_KEY = "ApplyServerSideEncryptionByDefault", "KMSMasterKeyID"
HOLD_SID = "MoveoutHold"
"""What the ids of statements begin with by which a hold on a source denies deletion."""
_HOLD_RULE = "moveout-hold:"
"""What the ids of lifecycle rules begin with that a hold on a source has switched off."""
_MARKED_ID_BYTES = 255 - len(_HOLD_RULE)
"""Ids of rules have 255 characters at most (Amazon S3 API reference, "LifecycleRule"); MinIO counts bytes."""
_ACCOUNTS_KEY = re.compile(
    r"arn:[\w-]+:kms:[^:]+:\d{12}:|(?:mrk-)?[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\Z"
)
"""A KMS key of an AWS account, by its ARN or id (AWS KMS developer guide, "Key identifiers"). Those of
a MinIO are names.
"""
LISTING, BEGINNING_BYTES = b"<ListBucketResult", 200
_UNREADABLE = (ET.ParseError, UnicodeDecodeError, botocore.parsers.ResponseParserError)
_FAILING_SECONDS = 2.0
_UNSET_STATUS = (404, 405, 501)
"""Not set: S3 answers 404 with a code of the setting's own, such as NoSuchLifecycleConfiguration. Or not known."""
NO_SUCH_CALL = (
    "NotImplemented",
    "XNotImplemented",
    "MethodNotAllowed",
    "UnsupportedOperation",
    "UnsupportedArgument",
)
"""Codes of servers that do not have a setting, or another call; some send them with the status 400 or 403."""
_TOP_LEVEL = ("TransitionDefaultMinimumObjectSize",)
"""What is read as a field of a setting (of lifecycle) and written as an argument of its own."""


OF_THE_HOST = {
    "location": "where the bucket is kept is the new host's affair",
    "acl": "it names accounts of the old host",
    "ownership": "it is about accounts of the old host",
    "logging": "it writes to another bucket of the old host",
    "replication": "it copies to another bucket, under a role of the old host",
    "notification": "it sends to queues, topics or functions of the old host",
    "request-payment": "who pays is agreed with the new host",
    "accelerate": "it is a service of the old host",
    "analytics": "it writes to another bucket of the old host",
    "inventory": "it writes to another bucket of the old host",
    "metrics": "it is a service of the old host",
}
"""Settings that are never written to a destination, and why. They would fail there, or act on what is not meant."""

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
    "object-lock": (
        "put_object_lock_configuration",
        "ObjectLockConfiguration",
        "ObjectLockConfiguration",
    ),
    "public-access-block": (
        "put_public_access_block",
        "PublicAccessBlockConfiguration",
        "PublicAccessBlockConfiguration",
    ),
}
"""Names, the calls that write them, the argument, and the field of what was read that is its value (None:
all).
"""


def read_configuration(http: HttpClient, cancellation: CancellationToken) -> dict[str, Any]:
    """Return the bucket's settings by name. What is not set or not supported by the server is left out. What these
    credentials may not read is listed under ``denied``; what the server fails at, or refuses to say, under ``failing``.
    Raises ``UnreachableError``, of a server that does not answer after minutes, or once the run is cancelled.
    """
    configuration: dict[str, Any] = {}
    denied, failing = [], []
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="moveout-settings") as threads:
        futures = {name: threads.submit(read_setting, http, name, cancellation) for name in READERS}
        for name, future in futures.items():
            try:
                value = future.result()
            except NotAllowedError:
                denied.append(name)
                continue
            except UnreachableError:
                for other in futures.values():
                    other.cancel()
                raise
            except MoveoutError:
                failing.append(name)
                continue
            if value:
                configuration[name] = value
    return configuration | ({"denied": denied} if denied else {}) | ({"failing": failing} if failing else {})


def read_setting(http: HttpClient, name: str, cancellation: CancellationToken) -> Mapping[str, Any]:
    """Return one setting, empty where it is not set or not supported. Raises like ``unless_it_fails``, and
    ``MoveoutError`` where the server refuses to say it.
    """
    return unless_it_fails(lambda: _read(http, name), cancellation)


def unless_it_fails(call: Callable[[], Value], cancellation: CancellationToken) -> Value:
    """Return what a call returns, retried for a while. Raises ``NotAllowedError``, ``UnreachableError``, and
    ``MoveoutError`` where the server fails at it, and only at it as far as is known, for two seconds: some answer 500
    to what they do not support.
    """
    try:
        return RetryPolicy(RetryTimeout(_FAILING_SECONDS), cancellation=cancellation).run(call)
    except UnreachableError as exc:
        if _fails(exc.__cause__):
            raise MoveoutError(str(exc)) from exc
        return RetryPolicy(cancellation=cancellation).run(call)


def _fails(cause: BaseException | None) -> bool:
    """Tell whether the server has answered, with an error of its own or what cannot be read."""
    if isinstance(cause, _UNREADABLE):
        return True
    if not isinstance(cause, boto_errors.ClientError):
        return False
    return bool(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 500)


def _read(http: HttpClient, name: str) -> Mapping[str, Any]:
    operation = http.service.operation_model(READERS[name])
    request = Request(operation.name, "GET", query={operation.http["requestUri"].partition("?")[2]: ""})
    what = f"{http.bucket}: {operation.name}"
    try:
        response = http.ask(request)
    except (boto_errors.BotoCoreError, OSError) as exc:
        raise translate(exc, what) from exc
    if (error := _refusal(request, response)) is not None:
        if _is_unset(error):
            return {}
        raise translate(error, what) from error
    if LISTING in response.body[:BEGINNING_BYTES]:
        return {}  # a server without such a setting may answer with its listing, odd keys included
    try:
        fields = _fields(operation, response)
    except _UNREADABLE as exc:
        raise translate(exc, what) from exc
    setting = {field: value for field, value in fields.items() if field != "ResponseMetadata" and value}
    lock = setting.get("ObjectLockConfiguration", {})
    if lock.get("Rule", None) == {}:  # versitygw's way to say that there is none
        del lock["Rule"]
    if name == "policy" and not _is_json(setting.get("Policy", "")):
        return {}
    return setting


def _refusal(request: Request, response: Response) -> boto_errors.ClientError | None:
    """Return the error that a response is. One that comes with the status 200 is taken as one with 500."""
    error = client_error(request, replace(response, status=500) if response.is_success else response)
    is_said = error.response["Error"]["Code"] != "500"
    return error if is_said or not response.is_success else None


def _fields(operation: Any, response: Response) -> Mapping[str, Any]:
    """Return a setting as botocore reads it."""
    if operation.name == READERS["location"]:  # no shape describes it
        return {"LocationConstraint": ET.fromstring(response.body).text}  # noqa: S314 - see client_error
    answer = {"status_code": response.status, "headers": response.headers, "body": response.body}
    fields: Mapping[str, Any] = _PARSER.parse(answer, operation.output_shape)
    return fields


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_unset(exc: Exception) -> bool:
    """Tell whether a setting is not set, or the server has no such setting at all. Any other refusal says nothing."""
    if not isinstance(exc, boto_errors.ClientError):
        return False
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in _UNSET_STATUS or exc.response.get("Error", {}).get("Code") in NO_SUCH_CALL


def write_setting(client: Any, bucket: str, name: str, value: Mapping[str, Any]) -> bool:
    """Write one setting as ``read_configuration`` gives it; return whether there is a way to. Raises
    ``MoveoutError``; ``UnreachableError`` only where there was no answer: a setting that a server fails at is one that
    it does not take.
    """
    request = _request(name, value)
    if request is None:
        return False
    _change(client, bucket, name, *request)
    return True


def _change(client: Any, bucket: str, name: str, call: str, arguments: Mapping[str, Any]) -> None:
    def change() -> None:
        try:
            getattr(client, call)(Bucket=bucket, **arguments)
        except (boto_errors.ClientError, boto_errors.BotoCoreError, OSError) as exc:
            raise translate(exc, f"{bucket}: {name}") from exc

    try:
        RetryPolicy(RetryTimeout(_WRITE_SECONDS)).run(change)
    except UnreachableError as exc:
        if isinstance(exc.__cause__, boto_errors.ClientError):
            raise MoveoutError(str(exc)) from exc
        raise


def _request(name: str, value: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the call that writes a setting, with its arguments; None where there is none."""
    if name == "acl":
        canned_acl = canned(value)
        return ("put_bucket_acl", {"ACL": canned_acl}) if canned_acl else None
    if name not in WRITERS:
        return None
    call, argument, inner = WRITERS[name]
    fields = value[inner] if inner else dict(value)
    top_level = {field: fields.pop(field) for field in _TOP_LEVEL if not inner and field in fields}
    return call, {argument: fields, **top_level}


REMOVERS = {
    "policy": "delete_bucket_policy",
    "cors": "delete_bucket_cors",
    "lifecycle": "delete_bucket_lifecycle",
    "encryption": "delete_bucket_encryption",
    "tagging": "delete_bucket_tagging",
    "website": "delete_bucket_website",
    "public-access-block": "delete_public_access_block",
}
"""Names of settings that can be taken away again, and the calls that do it."""


def remove_setting(client: Any, bucket: str, name: str) -> bool:
    """Take a setting away; return whether there is a way to. Raises ``MoveoutError``."""
    if name not in REMOVERS:
        return False
    _change(client, bucket, name, REMOVERS[name], {})
    return True


def renamed(name: str, value: Mapping[str, Any], old_bucket: str, new_bucket: str) -> Mapping[str, Any]:
    """Return a setting as it must be in a bucket of another name: a policy names its bucket. What a hold on the old one
    denies is not denied in the new one; empty where nothing else is left. Lifecycle rules that it has switched off are
    on again. A bucket encrypts by a key of its new account: the other one may end with the old account.
    """
    if name == "encryption" and accounts_keys(value):
        configuration = value[_ENCRYPTION]
        rules = [_without_accounts_key(rule) for rule in configuration["Rules"]]
        return {**value, _ENCRYPTION: {**configuration, "Rules": rules}}
    if name == "lifecycle" and "Rules" in value:
        return {**value, "Rules": [_resumed_rule(rule) for rule in value["Rules"]]}
    if name != "policy" or "Policy" not in value:
        return value
    policy = json.loads(value["Policy"])
    kept = [statement for statement in statements(policy) if not _is_of_hold(statement)]
    if len(kept) == len(statements(policy)) and old_bucket == new_bucket:
        return value
    if not kept:
        return {}
    old, new = f"arn:aws:s3:::{old_bucket}", f"arn:aws:s3:::{new_bucket}"
    for statement in kept:
        for field in ("Resource", "NotResource"):
            if field in statement:
                named = statement[field]
                renamed_names = [
                    new + resource.removeprefix(old) if _is_of(resource, old) else resource
                    for resource in _listed(named)
                ]
                statement[field] = renamed_names[0] if isinstance(named, str) else renamed_names
    return {**value, "Policy": json.dumps({**policy, "Statement": kept})}


def accounts_keys(encryption: Mapping[str, Any]) -> list[str]:
    """Return the KMS keys of an AWS account by which a bucket encrypts."""
    rules = encryption.get(_ENCRYPTION, {}).get("Rules", ())
    keys = (str(rule.get(_DEFAULT_ENCRYPTION, {}).get(_MASTER_KEY, "")) for rule in rules)
    return [key for key in keys if _ACCOUNTS_KEY.match(key)]


def _without_accounts_key(rule: Mapping[str, Any]) -> dict[str, Any]:
    default = rule.get(_DEFAULT_ENCRYPTION, {})
    kept = {name: value for name, value in default.items() if name != _MASTER_KEY}
    is_accounts = _ACCOUNTS_KEY.match(str(default.get(_MASTER_KEY, "")))
    return {**rule, _DEFAULT_ENCRYPTION: kept} if is_accounts else dict(rule)


def suspended_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a lifecycle rule as a hold leaves it: switched off, and marked where it was on before. An id that leaves
    no room for the mark is cut, so a rule that a restore switches on has that.
    """
    if rule.get("Status") == "Disabled":
        return dict(rule)
    name = str(rule.get("ID", "")).removeprefix(_HOLD_RULE)
    whole = name.encode()
    if len(whole) > _MARKED_ID_BYTES:
        digest = hashlib.sha256(whole).hexdigest()[:16]  # two ids may differ at their ends alone
        name = whole[: _MARKED_ID_BYTES - len(digest)].decode(errors="ignore") + digest
    return {**rule, "Status": "Disabled", "ID": _HOLD_RULE + name}


def _resumed_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rule as it was before a hold."""
    name = str(rule.get("ID", ""))
    if not name.startswith(_HOLD_RULE):
        return dict(rule)
    before = {key: value for key, value in rule.items() if key != "ID"} | {"Status": "Enabled"}
    return before | ({"ID": own} if (own := name.removeprefix(_HOLD_RULE)) else {})


def is_held(policy: Mapping[str, Any]) -> bool:
    """Tell whether a bucket's policy has what a hold denies."""
    return any(map(_is_of_hold, statements(json.loads(policy.get("Policy", "{}")))))


def statements(policy: Mapping[str, Any]) -> list[Any]:
    """Return the statements of a policy's JSON, where one may stand without a list."""
    return _listed(policy.get("Statement", []))


def _is_of_hold(statement: Mapping[str, Any]) -> bool:
    return str(statement.get("Sid", "")).startswith(HOLD_SID)


def _is_of(resource: str, arn: str) -> bool:
    return resource in {arn, arn + "*"} or resource.startswith(arn + "/")


def same_setting(name: str, left: Any, right: Any) -> bool:
    """Tell whether two values of a setting mean the same: servers write policies in other orders."""
    return bool(_comparable(name, left) == _comparable(name, right))


def _comparable(name: str, value: Any) -> Any:
    if not value:
        return None
    plain = json.loads(json.dumps(value, default=str))
    if name == "acl":
        return sorted(grants(plain))  # who the owner is, is the host's affair
    if name == "policy":
        plain = json.loads(plain.get("Policy", "{}"))
        for statement in statements(plain):
            if statement.get("Principal") == "*":  # which servers write as the same in more words
                statement["Principal"] = {"AWS": "*"}
    return _ordered(plain)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _ordered(value: Any) -> Any:
    """Return a value with lists in one order, and lists of one as that one: policies mean the same by both."""
    if isinstance(value, dict):
        return {name: _ordered(item) for name, item in value.items()}
    if isinstance(value, list):
        listed = sorted((_ordered(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
        return listed[0] if len(listed) == 1 else listed
    return value


class BucketSettings:
    """A bucket and prefix, by its URL. Raises errors of ``migrate.errors``."""

    def __init__(self, url: str, *, secrets: Mapping[str, str] | None = None) -> None:
        self.s3_location = s3_client.parse(url, secrets=secrets)
        self.bucket, self.url = self.s3_location.bucket, self.s3_location.url
        self.prefix = self.s3_location.folder
        self._http = HttpClient.of(self.s3_location)
        self._client = self._http.boto
        self._retry = RetryPolicy(RetryTimeout(first_contact_seconds=FIRST_CONTACT_SECONDS))

    def server(self) -> str:
        """Return what the server calls itself, "" where it does not. Raises ``GoneError`` where there is no bucket."""
        response = self._call("head_bucket", Bucket=self.bucket)
        return str(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("server", ""))

    def read(self, name: str) -> dict[str, Any]:
        """Return a setting as plain JSON, empty where it is not set. Raises ``NotAllowedError``."""
        setting = read_setting(self._http, name, self._retry.cancellation)
        plain: dict[str, Any] = json.loads(json.dumps(dict(setting), default=_plain))
        return plain

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Set it as ``read`` gives it; an empty one is removed."""
        if value:
            write_setting(self._client, self.bucket, name, value)
        elif not remove_setting(self._client, self.bucket, name):
            raise UsageError(f"{self.url}: {name} can be changed and not removed")

    def may_delete(self) -> bool:
        """Tell whether these credentials may delete a version here. A version that does not exist is tried, which
        leaves nothing behind.
        """
        key = f"{self.prefix}moveout-hold-test-{random_names.token_hex(8)}"
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
                raise translate(exc, self.url) from exc

        return self._retry.run(once)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)
