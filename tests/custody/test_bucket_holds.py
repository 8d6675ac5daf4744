"""Holds on buckets, on the real servers: what is in force is read back and tried; killed anywhere it is finished or
undone, and what somebody else changed is left alone.
"""

import json
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from migrate.custody.source_holds import bucket, source_hold, undo_file
from migrate.errors import UsageError
from migrate.storage.s3.access.minio_accounts import Policies
from migrate.storage.s3.client import parse
from migrate.storage.s3.metadata.bucket_configuration import renamed, suspended_rule
from tests.cli.conftest import call, make_file
from tests.custody.holding import SECRET, allowing, killed_everywhere, ordinary_user, place, take_back
from tests.tools.clients import boto_client

LIFECYCLE = {
    "Rules": [
        {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 1}},
        {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 2}},
    ]
}


@dataclass
class Shop:
    """A bucket with settings of its own, and an ordinary account that may do anything with its objects."""

    name: str
    url: str
    admin: Any
    user: Any
    user_profile: str


@contextmanager
def profile(server, name, access, secret, servers, monkeypatch, tmp_path):
    path = tmp_path / "aws-config"
    text = Path(servers.environment["AWS_CONFIG_FILE"]).read_text()
    path.write_text(
        f"{text}[profile {name}]\nregion = us-east-1\nendpoint_url = {server.endpoint}\naws_access_key_id = {access}\n"
        f"aws_secret_access_key = {secret}\ns3 =\n    addressing_style = path\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    yield


@pytest.fixture
def minio_shop(minio, make_bucket, servers, monkeypatch, tmp_path):
    """On a MinIO, where a bucket's policy binds no account: the users' policies have to."""
    name = make_bucket(minio)
    url = f"s3://{name}?profile={minio.profile}"
    admin = boto_client(minio.profile)
    policies = Policies(parse(url))
    user, word = f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(20)
    policies._admin.user_add(user, word)
    policies._admin.attach_policy(["readwrite"], user=user)
    with profile(minio, user, user, word, servers, monkeypatch, tmp_path):
        yield Shop(name, url, admin, boto_client(user), user)
    policies._admin.user_remove(user)


def test_each_source_that_is_named_is_asked(minio, make_bucket, tmp_path):
    """A bucket's URL alone is a location; next to a source, or to another bucket, it is a source."""
    file = tmp_path / "shop.db"
    make_file(file)
    urls = [f"s3://{make_bucket(minio)}?profile={minio.profile}" for _ in range(2)]
    for words in ([urls[0], file], [file, urls[0]], urls):
        sources = call("hold", "status", *words, "--json").json["result"]["sources"]
        assert [one["held"] for one in sources] == [False, False]


def write_versions(shop):
    shop.admin.put_object(Bucket=shop.name, Key="kept", Body=b"one")
    return shop.admin.put_object(Bucket=shop.name, Key="kept", Body=b"two").get("VersionId")


def reading(shop, what):
    """A policy by which everybody may read some of the bucket."""
    resource = f"arn:aws:s3:::{shop.name}/{what}"
    allowed = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [allowed]}


def test_a_bucket_that_was_exported_under_a_hold_gets_its_lifecycle_rules_as_they_were(
    minio, make_bucket, tmp_path
):
    old, new, client = make_bucket(minio), make_bucket(minio), boto_client(minio.profile)
    urls = [f"s3://{name}?profile={minio.profile}" for name in (old, new)]
    longest = {"ID": 255 * "a", "Status": "Enabled", "Filter": {"Prefix": "y/"}, "Expiration": {"Days": 1}}
    rules_set = {"Rules": [*LIFECYCLE["Rules"], longest]}
    client.put_bucket_lifecycle_configuration(Bucket=old, LifecycleConfiguration=rules_set)
    client.put_object(Bucket=old, Key="kept", Body=b"one")
    path, one = tmp_path / "undo.json", bucket.BucketHold(urls[0], try_as="", secrets=None)
    place(path, {"media": one})
    assert call("export", f"media={urls[0]}", "--to", tmp_path / "bundle").code == 0
    restored = call("restore", tmp_path / "bundle", f"media={urls[1]}")
    assert restored.code == 0, restored

    def rules(name):
        response = client.get_bucket_lifecycle_configuration(Bucket=name)
        return {rule["ID"][:20]: rule["Status"] for rule in response["Rules"]}

    held = {"moveout-hold:old": "Disabled", "off": "Disabled", "moveout-hold:aaaaaaa": "Disabled"}
    assert rules(old) == held
    assert rules(new) == {"old": "Enabled", "off": "Disabled", 20 * "a": "Enabled"}
    take_back(path, {"media": one})
    assert rules(old) == rules(new)


def test_a_rule_that_is_held_again_is_marked_once():
    rule = {"ID": "old", "Status": "Enabled"}
    again = {**suspended_rule(rule), "Status": "Enabled"}  # by somebody, under the hold
    assert suspended_rule(again) == suspended_rule(rule)
    assert renamed("lifecycle", {"Rules": [suspended_rule(again)]}, "a", "b") == {"Rules": [rule]}


def test_a_bucket_of_a_minio_is_held_against_its_users(minio_shop, tmp_path):
    shop, path = minio_shop, tmp_path / "undo.json"
    shop.admin.put_bucket_lifecycle_configuration(Bucket=shop.name, LifecycleConfiguration=LIFECYCLE)
    before = shop.admin.get_bucket_lifecycle_configuration(Bucket=shop.name)["Rules"]
    one = bucket.BucketHold(shop.url, try_as=shop.user_profile, secrets=None)
    assert [way.what for way in one.open_write_paths(None)] == ["may delete versions all the same"]
    (standing,) = place(path, {"media": one})
    assert standing.findings == []
    assert path.stat().st_mode & 0o777 == 0o600
    version = write_versions(shop)
    for attempt in (
        lambda: shop.user.delete_object(Bucket=shop.name, Key="kept"),
        lambda: shop.user.delete_object(Bucket=shop.name, Key="kept", VersionId=version),
        lambda: shop.user.delete_bucket(Bucket=shop.name),
        lambda: shop.user.put_bucket_versioning(
            Bucket=shop.name, VersioningConfiguration={"Status": "Suspended"}
        ),
        lambda: shop.user.put_bucket_lifecycle_configuration(
            Bucket=shop.name, LifecycleConfiguration=LIFECYCLE
        ),
    ):
        with pytest.raises(botocore.exceptions.ClientError):
            attempt()
    assert shop.user.get_object(Bucket=shop.name, Key="kept")["Body"].read() == b"two"
    rules = shop.admin.get_bucket_lifecycle_configuration(Bucket=shop.name)["Rules"]
    assert {rule["Status"] for rule in rules} == {"Disabled"}
    take_back(path, {"media": one})
    assert not path.exists()
    assert shop.admin.get_bucket_lifecycle_configuration(Bucket=shop.name)["Rules"] == before
    assert shop.admin.get_bucket_versioning(Bucket=shop.name)["Status"] == "Suspended"
    with pytest.raises(botocore.exceptions.ClientError, match="NoSuchBucketPolicy"):
        shop.admin.get_bucket_policy(Bucket=shop.name)
    policies = Policies(parse(shop.url))
    assert policies.find(f"moveout-hold-{shop.name}") is None
    assert policies.users()[shop.user_profile] == ["readwrite"]
    policies.attach(shop.user_profile, "readwrite")  # which somebody else has just done
    policies.detach(shop.user_profile, "readonly")
    shop.user.delete_object(Bucket=shop.name, Key="kept", VersionId=version)


@pytest.mark.torture
@pytest.mark.parametrize("late", [False, True])
def test_a_hold_of_a_bucket_that_was_killed_anywhere_is_finished_or_undone(minio_shop, tmp_path, late):
    shop = minio_shop
    own = reading(shop, "p/*")
    shop.admin.put_bucket_policy(Bucket=shop.name, Policy=json.dumps(own))
    shop.admin.put_bucket_versioning(Bucket=shop.name, VersioningConfiguration={"Status": "Suspended"})
    shop.admin.put_bucket_lifecycle_configuration(Bucket=shop.name, LifecycleConfiguration=LIFECYCLE)
    before = shop.admin.get_bucket_policy(Bucket=shop.name)["Policy"]
    killed_everywhere(tmp_path / "undo.json", bucket.BucketHold(shop.url, try_as="", secrets=None), late=late)
    assert shop.admin.get_bucket_policy(Bucket=shop.name)["Policy"] == before


def test_what_somebody_else_changed_is_left_alone_unless_told(minio_shop, tmp_path):
    shop, path = minio_shop, tmp_path / "undo.json"
    one = bucket.BucketHold(shop.url, try_as="", secrets=None)
    place(path, {"media": one})
    shop.admin.put_bucket_lifecycle_configuration(Bucket=shop.name, LifecycleConfiguration=LIFECYCLE)
    other = reading(shop, "*")
    shop.admin.put_bucket_policy(Bucket=shop.name, Policy=json.dumps(other))
    (standing,) = source_hold.survey({"media": one}, undo_file.read(path))
    assert {finding.key for finding in standing.findings} == {"media: lifecycle", "media: policy"}
    for attempt in (place, take_back):
        with pytest.raises(UsageError, match="policy was changed since by somebody else"):
            attempt(path, {"media": one})
    assert (
        json.loads(shop.admin.get_bucket_policy(Bucket=shop.name)["Policy"])["Statement"][0]["Effect"]
        == "Allow"
    )
    take_back(path, {"media": one}, force=True)
    with pytest.raises(botocore.exceptions.ClientError, match="NoSuchBucketPolicy"):
        shop.admin.get_bucket_policy(Bucket=shop.name)


def test_where_nobody_shows_that_a_policy_binds_it_is_not_called_a_hold(versitygw, tmp_path):
    """On a server that is not MinIO, by its administrator, whom no policy binds."""
    client = boto_client(versitygw.profile)
    name = f"bucket-{secrets.token_hex(5)}"
    client.create_bucket(Bucket=name)
    url, path = f"s3://{name}?profile={versitygw.profile}", tmp_path / "undo.json"
    ended = call("hold", "source", f"media={url}", "--reason", "asked", "--undo", path, "--yes")
    assert (ended.code, "NOT HELD: media" in ended.out) == (3, True), ended.err
    assert "this account" in ended.out
    assert json.loads(client.get_bucket_policy(Bucket=name)["Policy"])["Statement"][0]["Effect"] == "Deny"
    assert call("hold", "undo", path, "--yes").code == 0
    with pytest.raises(botocore.exceptions.ClientError, match="NoSuchBucketPolicy"):
        client.get_bucket_policy(Bucket=name)


def test_where_policies_bind_accounts_an_ordinary_one_shows_it(versitygw, servers, monkeypatch, tmp_path):
    root = boto_client(versitygw.profile)
    name, user = f"bucket-{secrets.token_hex(5)}", ordinary_user(versitygw)
    root.create_bucket(Bucket=name)
    root.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    arn = f"arn:aws:s3:::{name}"
    own = json.dumps(allowing(user, "s3:*", [arn, f"{arn}/*"]))
    root.put_bucket_policy(Bucket=name, Policy=own)
    version = root.put_object(Bucket=name, Key="kept", Body=b"one")["VersionId"]
    url, path = f"s3://{name}?profile={versitygw.profile}", tmp_path / "undo.json"
    with profile(versitygw, user, user, SECRET, servers, monkeypatch, tmp_path):
        theirs = boto_client(user)
        words = ("hold", "source", f"media={url}", "--reason", "asked", "--undo", path, "--yes")
        held = call(*words, "--try-as", user)
        assert (held.code, "HELD: media" in held.out) == (0, True), held.out + held.err
        for attempt in ({"Key": "kept"}, {"Key": "kept", "VersionId": version}):
            with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
                theirs.delete_object(Bucket=name, **attempt)
        assert call("hold", "status", path).code == 3  # by the administrator alone nothing is shown
        assert call("hold", "status", path, "--try-as", user).code == 0
        undone = call("hold", "undo", path, "--yes")
        assert undone.code == 0, undone.err
        theirs.delete_object(Bucket=name, Key="kept", VersionId=version)
    assert json.loads(root.get_bucket_policy(Bucket=name)["Policy"]) == json.loads(own)
