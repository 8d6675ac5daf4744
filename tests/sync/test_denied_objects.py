"""A destination that denies access to some keys gets all others. One that denies every write ends the command."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest

from migrate.storage import retry
from migrate.storage.s3 import destination_bucket
from migrate.storage.s3.http import concurrent_requests
from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import MakeShop, Shop, upload
from tests.tools.http_proxy import Answer, Asked, HttpProxy, refusal
from tests.tools.profiles import extra_profile

LARGE = bytes(9 * 2**20)


class Denying(HttpProxy):
    """Denies writes of keys with this word in them; a word is in all keys where it is empty. Answers ``answer`` to
    them. ``parts``: only parts of objects are denied, not what is whole or begins an upload.
    """

    word = "denied"
    answer = refusal(403, "AccessDenied")
    parts = False

    def handle(self, asked: Asked) -> Answer:
        is_write = asked.method == "PUT" or (asked.method == "POST" and "uploads" in asked.query)
        is_write &= not self.parts or "partNumber" in asked.query
        in_bucket = asked.path.strip("/").partition("/")[2]
        is_denied = is_write and in_bucket and ".moveout" not in in_bucket and self.word in in_bucket
        return self.answer if is_denied else super().handle(asked)


def keys_of(shop: Shop) -> list[str]:
    """Return the keys, but for those of a sync's record."""
    keys = shop.keys()
    return [key for key in keys if not key.startswith(".moveout")]


def prepared(command: str, old: Shop, there: str, bundle: Path) -> list[str]:
    """Return the arguments of a sync, or of a restore of a bundle that is exported first."""
    if command == "sync":
        return ["sync", f"shop={old.url}", f"shop={there}"]
    assert call("export", f"shop={old.url}", "--to", bundle).code == 0
    return ["restore", str(bundle), f"shop={there}"]


@pytest.fixture
def old(minio: S3Server, make_shop: MakeShop) -> Shop:
    """A bucket of small objects."""
    shop = make_shop(minio)
    for number in range(5):
        shop.put(f"a/{number}")
        shop.put(f"denied/{number}")
    return shop


@pytest.fixture
def denying(minio: S3Server) -> Iterator[Denying]:
    with Denying(minio.endpoint) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("command", "history"),
    [
        ("sync", True),
        ("restore", False),
        pytest.param("sync", False, marks=pytest.mark.torture),
        pytest.param("restore", True, marks=pytest.mark.torture),
    ],
)
def test_what_is_denied_is_named_and_all_else_arrives(
    command: str,
    history: bool,
    old: Shop,
    denying: Denying,
    minio: S3Server,
    make_shop: MakeShop,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in ("a", "denied"):
        old.put(f"{name}/large", LARGE)
    new = make_shop(minio)
    if history:
        for shop in (old, new):
            shop.boto.put_bucket_versioning(Bucket=shop.name, VersioningConfiguration={"Status": "Enabled"})
        old.put("a/1", b"newer")
        old.put("denied/1", b"newer")
    profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=denying.endpoint)
    words = prepared(command, old, f"s3://{new.name}?profile={profile}", tmp_path / "bundle")
    if history and command == "sync":
        words.append("--history")
    ended = call(*words)
    assert ended.code == 3, ended
    for key in (*(f"denied/{number}" for number in range(5)), "denied/large"):
        assert f"{key}: AccessDenied" in ended.out
    assert keys_of(new) == [*(f"a/{number}" for number in range(5)), "a/large"]
    listing = new.boto.list_object_versions(Bucket=new.name)
    assert "moveout-probe" not in str([*listing["Versions"], *listing.get("DeleteMarkers", ())])
    denying.word = "nothing is denied"
    again = call(*words)
    assert again.code == 0, again
    assert keys_of(new) == old.keys()


SILENT = Answer(200)
"""As a proxy answers that keeps what is sent to it: not S3, which says the ETag."""
ANSWERS = {
    "error": (refusal(500, "InternalError"), "denied/1", False),
    "nothing": (SILENT, "denied/1", False),
    "no upload": (Answer(204), "denied/parts", False),
    "a part without ETag": (SILENT, "denied/parts", True),
}


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("sync", "error"),
        ("restore", "nothing"),
        pytest.param("restore", "error", marks=pytest.mark.torture),
        pytest.param("sync", "no upload", marks=pytest.mark.torture),
        pytest.param("restore", "a part without ETag", marks=pytest.mark.torture),
    ],
)
def test_an_object_that_the_destination_fails_to_take_is_named_and_all_else_arrives(
    command: str,
    kind: str,
    old: Shop,
    denying: Denying,
    minio: S3Server,
    make_shop: MakeShop,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It may never take it: a command that ends at the first such object would never come to the others. An answer
    that is not S3's is not waited for, as a server is that gives none.
    """
    if kind == "error":
        monkeypatch.setattr(concurrent_requests, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    denying.answer, denying.word, denying.parts = ANSWERS[kind]
    denied = denying.word
    upload(old, "denied/parts", bytes(5 * 2**20), b"end")
    new = make_shop(minio)
    profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=denying.endpoint)
    words = prepared(command, old, f"s3://{new.name}?profile={profile}", tmp_path / "bundle")
    ended = call(*words)
    reason = "InternalError" if kind == "error" else f"MinIO answers {denying.answer.status} to "
    assert (ended.code, f"{denied}: {reason}" in ended.out) == (3, True), ended
    assert set(keys_of(new)) == set(old.keys()) - {denied}
    denying.word = "nothing is denied"
    again = call(*words)
    assert again.code == 0, again
    assert keys_of(new) == old.keys()


def test_a_destination_that_denies_every_write_ends_the_command(
    old: Shop,
    denying: Denying,
    minio: S3Server,
    make_shop: MakeShop,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Not with a gap for each object."""
    new = make_shop(minio)
    profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=denying.endpoint)
    assert call("sync", f"shop={old.url}", f"shop=s3://{new.name}?profile={profile}").code == 3
    old.put("a/1", b"changed")
    denying.word = ""
    ended = call("sync", f"shop={old.url}", f"shop=s3://{new.name}?profile={profile}")
    assert (ended.code, "PutObject" in ended.err) == (4, True), ended


def test_removals_that_are_denied_are_named_and_the_others_done(
    old: Shop, minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    new = make_shop(minio)
    assert call("sync", f"shop={old.url}", f"shop={new.url}").code == 0
    for key in ("a/1", "denied/1", "denied/2"):
        old.boto.delete_object(Bucket=old.name, Key=key)
    resource = f"arn:aws:s3:::{new.name}/denied/*"
    statements = [
        {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::*"},
        {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": resource},
    ]
    session = boto3.Session(profile_name=minio.profile)
    credentials = session.client("sts", endpoint_url=minio.endpoint).assume_role(
        RoleArn="arn:aws:iam::123456789012:role/any",
        RoleSessionName="limited",
        Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}),
    )["Credentials"]
    profile = extra_profile(
        monkeypatch,
        tmp_path,
        minio,
        access_key=credentials["AccessKeyId"],
        secret_key=credentials["SecretAccessKey"],
        session_token=credentials["SessionToken"],
    )
    words = ("sync", f"shop={old.url}", f"shop=s3://{new.name}?profile={profile}", "--delete")
    ended = call(*words)
    assert ended.code == 3, ended
    assert "removed at the destination: a/1" in ended.out
    assert "failed: denied/2: the destination does not remove it" in ended.out
    assert {"denied/1", "denied/2"} <= set(keys_of(new))
    old.put("a/new")
    assert call(*words).code == 3
    assert "a/new" in keys_of(new)


def test_a_destination_that_does_not_say_whether_it_has_object_lock_is_tried_out_once_a_day(
    old: Shop, minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It was tried out by each sync, with test objects of every kind. Where the right was given, it is asked anew."""
    new, denied, asked_for = make_shop(minio), ["object-lock"], list[Asked]()

    class Proxy(HttpProxy):
        def handle(self, asked: Asked) -> Answer:
            asked_for.append(asked)
            is_denied = asked.method == "GET" and not asked.query.keys().isdisjoint(denied)
            return refusal(403, "AccessDenied") if is_denied else self.forward(asked)

    with Proxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        trials = []
        for run in range(3):
            asked_for.clear()
            old.put(f"a/new-{run}")
            assert call("sync", f"shop={old.url}", f"shop=s3://{new.name}?profile={profile}").code == 0
            trials.append(any("moveout-probe-" in asked.path for asked in asked_for))
            denied[:] = denied if len(trials) < 2 else []
    assert trials == [True, False, True]


def test_what_a_destination_failed_to_take_for_a_while_is_tried_out_by_the_next_sync(
    old: Shop, minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that had a fault while it was tried out was not sent such keys for a day."""
    monkeypatch.setattr(destination_bucket, "_ATTEMPT_SECONDS", 0.2)
    new, failing = make_shop(minio), [True]
    old.put("folder/", b"")

    class Proxy(HttpProxy):
        def handle(self, asked: Asked) -> Answer:
            is_folder = asked.method == "PUT" and "moveout-probe" in asked.path and asked.path.endswith("/")
            return refusal(500, "InternalError") if failing and is_folder else self.forward(asked)

    with Proxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        words = ("sync", f"shop={old.url}", f"shop=s3://{new.name}?profile={profile}")
        ended = call(*words)
        assert (ended.code, "refuses it" in ended.out) == (3, True), ended
        failing.clear()
        assert call(*words).code == 0
    assert keys_of(new) == old.keys()


def test_where_a_default_retention_may_not_be_read_one_object_stays_and_is_named(
    old: Shop, minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All that was tried out stayed, locked, and nothing said so."""
    name = f"locked-{secrets.token_hex(4)}"
    old.boto.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    old.boto.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )

    class Proxy(HttpProxy):
        def handle(self, asked: Asked) -> Answer:
            is_denied = asked.method == "GET" and "object-lock" in asked.query
            return refusal(403, "AccessDenied") if is_denied else self.forward(asked)

    with Proxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        words = (
            "sync",
            f"shop={old.url}",
            f"shop=s3://{name}?profile={profile}",
            "--record",
            tmp_path / "record",
        )
        ended = call(*words)
    versions = old.boto.list_object_versions(Bucket=name)
    left = {version["Key"] for version in versions["Versions"] if "moveout-probe-" in version["Key"]}
    assert (ended.code, len(left)) == (0, 1), ended
    losses = pq.read_table(tmp_path / "record/losses.parquet").to_pylist()
    [reason] = [loss["reason"] for loss in losses if loss["property"] == "trial of the destination"]
    assert left.pop() in reason
