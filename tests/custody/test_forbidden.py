"""What each kind of grant must not be able to do: while it is open, after its end, after it was taken back; and that
nothing the customer does shortens a hold.
"""

import contextlib
import json
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore.exceptions
import pytest
import urllib3

from migrate.custody import bundle_hold, grants
from migrate.custody.bundle_hold import Terms
from migrate.custody.log import custody_log
from migrate.custody.log.events import record, record_seal
from migrate.custody.signing import allowed_signers
from migrate.custody.signing.bundle_signatures import sign_bundle
from migrate.errors import NotAllowedError
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location, open_object_lock
from migrate.storage.s3 import client as s3_client
from migrate.storage.s3.access import permission_probe, presigned_urls
from migrate.storage.s3.access.minio_accounts import Accounts
from migrate.storage.s3.access.sts_sessions import TokenService
from migrate.verify.run import Level, verify
from tests.cli.conftest import call
from tests.custody.conftest import put_files
from tests.custody.holding import SECRET, allowing, ordinary_user
from tests.export.sources import Numbers
from tests.tools.clients import boto_client


@dataclass
class Kept:
    """A held bundle in a bucket with something else beside it."""

    client: object
    bucket: str
    url: str
    store: object
    signer: object

    def account(self, expires) -> dict[str, str]:
        """The credential of an account with a policy of its own."""
        rules = grants.policy(self.bucket, "acme/bundle/", expires)
        made = grants.create(self.store, self.accounts, "account", rules, expires, signer=self.signer)
        return {"access_key_id": made.access_key, "secret_access_key": made.secret_key}

    def session(self, expires) -> dict[str, str]:
        """The credential of a session."""
        rules, service = grants.policy(self.bucket, "acme/bundle/", expires), TokenService(self.s3_location)
        made = grants.begin(
            self.store,
            service,
            "session",
            rules,
            expires,
            account=self.accounts.user,
            role="",
            signer=self.signer,
        )
        return {
            "access_key_id": made.access_key, "secret_access_key": made.secret_key, "session_token": made.token,
        }  # fmt: skip

    @property
    def s3_location(self):
        return s3_client.parse(self.url)

    @property
    def accounts(self):
        return Accounts(self.s3_location)

    def refused(self, credential) -> list[str]:
        """What is tried with a credential and refused; nothing else may come of it."""
        tried = permission_probe.forbidden(
            s3_client.parse(self.url, secrets=credential), known="acme/bundle-2"
        )
        answers = {one.what: one.run() for one in tried}
        assert set(answers.values()) == {"refused"}, answers
        return list(answers)


KINDS = ["session", pytest.param("account", marks=pytest.mark.torture)]
"""Both kinds of a grant. The default run tries one where what is tried does not depend on it."""


@pytest.fixture(scope="module")
def kept(minio, make_key, tmp_path_factory) -> Kept:
    signer = make_key("provider")
    location = open_location(str(tmp_path_factory.mktemp("kept") / "bundle"))
    export([Numbers(count=15)], location, workers=1, progress=Silent())
    sign_bundle(location, signer)
    client = boto_client(minio.profile)
    bucket = f"granted-{secrets.token_hex(5)}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    client.put_object(Bucket=bucket, Key="acme/bundle-2", Body=b"other")
    url = f"s3://{bucket}/acme/bundle?profile={minio.profile}"
    store = open_location(url)
    put_files(location, store)
    record_seal(store, signer, [signer])
    terms = Terms((datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0), "GOVERNANCE", legal=True)
    held = bundle_hold.place(
        store, open_object_lock(url), terms, workers=4, progress=Silent(), details={}, signer=signer
    )
    assert held.is_held
    return Kept(client, bucket, url, store, signer)


@pytest.mark.parametrize("kind", KINDS)
def test_an_open_grant_reads_all_and_twenty_other_operations_are_refused(kept, kind):
    credential = getattr(kept, kind)(datetime.now(UTC) + timedelta(hours=1))
    assert len(kept.refused(credential)) >= 20
    narrow = open_location(kept.url, secrets=credential)
    assert verify(narrow, Level.FULL, workers=2, progress=Silent()).findings == []
    problems = grants.probe(narrow, [], workers=4, progress=Silent())
    assert (problems.findings, problems.files > 5) == ([], True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_deleted_or_written_over_is_not_granted_along(kept, kind):
    """On MinIO who may read a key may read each version of it that he knows, and list them."""
    client, there = kept.client, {"Bucket": kept.bucket, "Key": "acme/bundle/data/former"}
    former = client.put_object(**there, Body=b"another's rows")["VersionId"]
    client.delete_object(**there)
    try:
        credential = getattr(kept, kind)(datetime.now(UTC) + timedelta(hours=1))
        narrow = s3_client.client(s3_client.parse(kept.url, secrets=credential))
        with pytest.raises(botocore.exceptions.ClientError, match=r"AccessDenied|403"):
            narrow.get_object(**there, VersionId=former)
        assert b"BagIt" in narrow.get_object(Bucket=kept.bucket, Key="acme/bundle/bagit.txt")["Body"].read()
    finally:
        versions = client.list_object_versions(Bucket=kept.bucket, Prefix=there["Key"])
        for one in (*versions["Versions"], *versions["DeleteMarkers"]):
            client.delete_object(**there, VersionId=one["VersionId"])


@pytest.mark.parametrize("kind", KINDS)
def test_after_its_end_everything_is_refused(kept, kind):
    expires = datetime.now(UTC) + timedelta(seconds=4)
    credential = getattr(kept, kind)(expires)
    time.sleep(max(0, (expires - datetime.now(UTC)).total_seconds()) + 0.5)
    assert len(kept.refused(credential)) >= 20
    with pytest.raises(NotAllowedError):
        open_location(kept.url, secrets=credential).read("bagit.txt")


@pytest.mark.parametrize("kind", KINDS)
def test_after_revocation_everything_is_refused(kept, kind):
    credential = getattr(kept, kind)(datetime.now(UTC) + timedelta(hours=1))
    other = kept.session(datetime.now(UTC) + timedelta(hours=1)) if kind == "account" else None
    assert open_location(kept.url, secrets=credential).read("bagit.txt")
    done = grants.revoke(kept.store, kept.accounts, kind, kept.signer, trust=None)
    assert credential["access_key_id"] in done.keys
    assert (done.still_open, done.why) == ([], "")
    assert len(kept.refused(credential)) >= 20
    with pytest.raises(NotAllowedError):
        open_location(kept.url, secrets=credential).read("bagit.txt")
    if other:  # one grant was taken back, not all of them
        assert open_location(kept.url, secrets=other).read("bagit.txt")
    states = {one.access_key: one.state for one in grants.listed(kept.store, kept.accounts, trust=None)}
    assert states[credential["access_key_id"]] in {"revoked", "expired"}


def test_a_session_that_another_account_began_is_not_called_ended(kept):
    credential = kept.session(datetime.now(UTC) + timedelta(hours=1))
    accounts = kept.accounts
    accounts.user = "somebody-else"
    done = grants.revoke(kept.store, accounts, "session", kept.signer, trust=None)
    assert credential["access_key_id"] in {one.access_key for one in done.still_open}
    assert "ended by the account that began them" in done.why
    assert open_location(kept.url, secrets=credential).read("bagit.txt")
    revoked = {one.what.details["access_key"] for one in custody_log.read(kept.store).find("revoked")}
    assert credential["access_key_id"] not in revoked


def test_a_grant_is_not_over_by_the_word_of_a_stranger(kept, make_key, tmp_path):
    """He writes that it was revoked: the list and the revocation would say that nobody reads the bundle any more."""
    credential = kept.session(datetime.now(UTC) + timedelta(hours=1))
    key = credential["access_key_id"]
    record(kept.store, make_key("stranger"), "revoked", {"to": "session", "access_key": key})
    allowed = tmp_path / "allowed"
    allowed.write_text(f"host {kept.signer.public.line}\n")
    trust, accounts = allowed_signers.load(allowed), kept.accounts
    states = {one.access_key: one.state for one in grants.listed(kept.store, accounts, trust=trust)}
    assert states[key] == "open"
    accounts.user = "somebody-else"
    for list_, is_named in ((None, False), (trust, True)):
        done = grants.revoke(kept.store, accounts, "session", kept.signer, list_)
        assert (key in {one.access_key for one in done.still_open}) == is_named


def test_a_link_reads_one_file_and_twenty_other_requests_are_refused(kept):
    link = dict(presigned_urls.links(kept.s3_location, ["bagit.txt"], timedelta(hours=1)))["bagit.txt"]
    brief = dict(presigned_urls.links(kept.s3_location, ["bagit.txt"], timedelta(seconds=1)))["bagit.txt"]
    pool = urllib3.PoolManager()
    assert pool.request("GET", link).status == 200
    for one in (*_requests(link), *_requests(brief)):
        assert pool.request(*one).status in {400, 403, 405, 501}, one
    time.sleep(2.1)
    assert pool.request("GET", brief).status == 403
    for one in _requests(brief):
        assert pool.request(*one).status in {400, 403, 405, 501}, one
    assert len(list(_requests(link))) >= 20


def _requests(link):
    """Other uses of a link: other methods, other files, other operations."""
    address, _, query = link.partition("?")
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        yield method, link
    for name in ("manifest-sha256.txt", "../bundle-2", "", "bagit.txt/x"):
        yield "GET", f"{address.removesuffix('bagit.txt')}{name}?{query}"
    for more in (
        "acl", "tagging", "retention", "legal-hold", "uploads", "uploadId=1", "versionId=1", "attributes", "torrent",
        "restore", "select", "partNumber=1",
    ):  # fmt: skip
        yield "GET", f"{link}&{more}"
    yield "PUT", f"{link}&retention"
    yield "PUT", f"{link}&legal-hold"
    yield "DELETE", f"{link}&versionId=null"
    bucket = address.split("/acme/")[0]
    yield "GET", f"{bucket}?{query}&list-type=2"
    yield "DELETE", f"{bucket}?{query}"


def forbidden_to_shorten(bucket, version):
    """What a customer may try against a hold."""
    here, of_bucket = {"Bucket": bucket, "Key": "acme/bundle/bagit.txt"}, {"Bucket": bucket}
    this = {**here, "VersionId": version}
    soon = datetime.now(UTC) + timedelta(seconds=1)
    shorter = {"Retention": {"Mode": "GOVERNANCE", "RetainUntilDate": soon}}
    bypass = {"BypassGovernanceRetention": True}
    rule = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    default = {
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
    }
    return [
        ("put_object_retention", {**this, **shorter}),
        ("put_object_retention", {**this, **shorter, **bypass}),
        ("put_object_retention", {**this, "Retention": {}, **bypass}),
        ("put_object_legal_hold", {**this, "LegalHold": {"Status": "OFF"}}),
        ("delete_object", this),
        ("delete_object", {**this, **bypass}),
        ("delete_object", here),
        ("copy_object", {**here, "CopySource": here, "MetadataDirective": "REPLACE"}),
        ("put_object", {**here, "Body": b"", "ObjectLockLegalHoldStatus": "OFF"}),
        ("put_bucket_versioning", {**of_bucket, "VersioningConfiguration": {"Status": "Suspended"}}),
        ("put_bucket_lifecycle_configuration", {**of_bucket, "LifecycleConfiguration": {"Rules": [rule]}}),
        ("put_object_lock_configuration", {**of_bucket, "ObjectLockConfiguration": default}),
        ("delete_bucket", of_bucket),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_no_operation_of_the_customer_shortens_a_hold(kept, kind):
    """MinIO lets any account take a GOVERNANCE retention away, so it is the legal hold that counts there."""
    credential = getattr(kept, kind)(datetime.now(UTC) + timedelta(hours=1))
    client = s3_client.client(s3_client.parse(kept.url, secrets=credential))
    before = bundle_hold.survey(kept.store, open_object_lock(kept.url), workers=4)
    version = kept.client.head_object(Bucket=kept.bucket, Key="acme/bundle/bagit.txt")["VersionId"]
    for operation, request in forbidden_to_shorten(kept.bucket, version):
        if request.get("Retention") == {}:
            continue
        with pytest.raises(botocore.exceptions.ClientError):
            pytest.fail(f"{operation} {request}: {getattr(client, operation)(**request)}")
    assert bundle_hold.survey(kept.store, open_object_lock(kept.url), workers=4) == before
    here = {"Bucket": kept.bucket, "Key": "acme/bundle/bagit.txt", "VersionId": version}
    with contextlib.suppress(botocore.exceptions.ClientError):
        client.put_object_retention(**here, Retention={}, BypassGovernanceRetention=True)
    after = bundle_hold.survey(kept.store, open_object_lock(kept.url), workers=4)
    assert (after.is_held, after.protected) == (True, before.versions)
    for who in (client, kept.client):
        with pytest.raises(botocore.exceptions.ClientError):
            who.delete_object(**here)


def test_a_hold_by_compliance_is_as_it_was_whatever_the_customer_does(kept):
    bucket = f"firm-{secrets.token_hex(5)}"
    kept.client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    until = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    here = {"Bucket": bucket, "Key": "acme/bundle/bagit.txt"}
    version = kept.client.put_object(**here, Body=b"x")["VersionId"]
    retention = {"Mode": "COMPLIANCE", "RetainUntilDate": until}
    kept.client.put_object_retention(**here, VersionId=version, Retention=retention)
    rules = grants.policy(bucket, "acme/bundle/", until)
    made = kept.accounts.add("firm", rules, until, "a test")
    secret = {"access_key_id": made.access_key, "secret_access_key": made.secret_key}
    client = s3_client.client(s3_client.parse(kept.url, secrets=secret))
    for operation, request in forbidden_to_shorten(bucket, version):
        with pytest.raises(botocore.exceptions.ClientError):
            pytest.fail(f"{operation} {request}: {getattr(client, operation)(**request)}")
    found = kept.client.get_object_retention(**here, VersionId=version)["Retention"]
    assert (found["Mode"], found["RetainUntilDate"]) == ("COMPLIANCE", until)


def test_on_another_server_a_retention_is_firm(versitygw):
    bucket, user = f"firm-{secrets.token_hex(5)}", ordinary_user(versitygw)
    root = boto_client(versitygw.profile)
    root.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    arn = f"arn:aws:s3:::{bucket}"
    root.put_bucket_policy(Bucket=bucket, Policy=json.dumps(allowing(user, "s3:GetObject", f"{arn}/*")))
    until = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    here = {"Bucket": bucket, "Key": "acme/bundle/bagit.txt"}
    version = root.put_object(**here, Body=b"x")["VersionId"]
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
    root.put_object_retention(**here, VersionId=version, Retention=retention)
    url = f"s3://{bucket}/acme/bundle?profile={versitygw.profile}"
    secret = {"access_key_id": user, "secret_access_key": SECRET}
    client = s3_client.client(s3_client.parse(url, secrets=secret))
    assert client.get_object(**here)["Body"].read() == b"x"
    for operation, request in forbidden_to_shorten(bucket, version):
        with pytest.raises(botocore.exceptions.ClientError):
            pytest.fail(f"{operation} {request}: {getattr(client, operation)(**request)}")
    found = root.get_object_retention(**here, VersionId=version)["Retention"]
    assert (found["Mode"], found["RetainUntilDate"]) == ("GOVERNANCE", until)
    assert open_object_lock(url).is_firm("GOVERNANCE")


def test_where_anybody_may_lift_a_retention_it_is_not_called_a_hold(kept):
    terms = Terms((datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0), "GOVERNANCE", legal=False)
    store, object_lock = kept.store, open_object_lock(kept.url)
    with pytest.raises(NotAllowedError, match="lets every account lift"):
        bundle_hold.place(
            store, object_lock, terms, workers=4, progress=Silent(), details={}, signer=kept.signer
        )


def test_the_commands(kept, make_key, tmp_path, servers):
    key, file, url = make_key.path_of("provider"), tmp_path / "grant.ini", kept.url
    made = call(
        "grant", "session", url, "--to", "visit", "--expires", "1h", "--file", file, "--key", key, "--json"
    )
    assert made.code == 0, made.err
    assert file.stat().st_mode & 0o777 == 0o600
    hidden = [
        line.split(" = ")[1] for line in file.read_text().splitlines() if "secret" in line or "token" in line
    ]
    assert len(hidden) == 2
    assert not any(
        one in made.out + made.err + kept.store.read("sig/custody.jsonl").decode() for one in hidden
    )
    config = tmp_path / "config"
    config.write_text(Path(servers.environment["AWS_CONFIG_FILE"]).read_text() + file.read_text())
    env, granted = {"AWS_CONFIG_FILE": str(config)}, url.replace("profile=minio", "profile=visit")
    tested = call("grant", "test", granted, "--outside", "acme/bundle-2", env=env)
    assert tested.code == 0, tested.out + tested.err
    assert re.search(r"visit +open .* until \d{4}-\d\d-\d\d \d\d:\d\d UTC ", call("grant", "list", url).out)
    revoked = call("grant", "revoke", url, "--to", "visit", "--key", key)
    assert (revoked.code, "may not read the bundle any more" in revoked.out) == (0, True), revoked.err
    assert call("verify", granted, env=env).code == 4
    again = call(
        "grant", "session", url, "--to", "visit", "--expires", "9000d", "--key", key, "--file", tmp_path / "x"
    )
    assert (again.code, (tmp_path / "x").exists()) == (2, False), again.err


def test_links_that_cannot_be_taken_back_are_named(kept, make_key, tmp_path):
    key, script = make_key.path_of("provider"), tmp_path / "fetch.sh"
    assert (
        call(
            "grant", "links", kept.url, "--to", "linked", "--expires", "1h", "--file", script, "--key", key
        ).code
        == 0
    )
    revoked = call("grant", "revoke", kept.url, "--to", "linked", "--key", key)
    assert (revoked.code, "MAY STILL READ" in revoked.out) == (3, True), revoked.err
