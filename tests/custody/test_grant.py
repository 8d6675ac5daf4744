"""Grants on a real MinIO: the customer reads his bundle and nothing else, until the grant ends."""

import errno
import os
import re
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace

from migrate.bundle import layout
from migrate.cli.custody.grant_links import bundle_files, new_files
from migrate.custody import erase, grants
from migrate.custody.log import custody_log
from migrate.custody.log.entry import CustodyEvent
from migrate.custody.log.events import record, record_seal
from migrate.custody.signing.bundle_signatures import sign_bundle
from migrate.errors import GoneError, NoSpaceError, UnreachableError, UsageError
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location, open_object_lock
from migrate.storage.s3 import client
from migrate.storage.s3.access import permission_probe, presigned_urls
from migrate.storage.s3.access.minio_accounts import Accounts
from migrate.storage.s3.access.sts_sessions import TokenService
from migrate.verify.run import Level, verify
from tests.cli.conftest import call
from tests.custody.conftest import put_files
from tests.tools.clients import boto_client
from tests.tools.pages import assert_harmless, parse


@pytest.fixture
def there(location, minio, bucket, provider):
    """A signed bundle in a bucket that holds something else too: (URL, store)."""
    url = f"s3://{bucket}/acme/bundle?profile={minio.profile}"
    sign_bundle(location, provider)
    store = open_location(url)
    put_files(location, store)
    record_seal(store, provider, [provider])
    boto_client(minio.profile).put_object(Bucket=bucket, Key="acme/bundle-2", Body=b"other")
    return url, store


def granted(url, store, signer, expires) -> tuple[str, dict[str, str]]:
    """Grant it; return (the URL without a profile, the credential)."""
    s3_location = client.parse(url)
    rules = grants.policy(s3_location.bucket, s3_location.prefix + "/", expires)
    made = grants.create(store, Accounts(s3_location), "acme", rules, expires, signer=signer)
    return url, {"access_key_id": made.access_key, "secret_access_key": made.secret_key}


def probe(url, secrets):
    tried = permission_probe.forbidden(client.parse(url, secrets=secrets), known="acme/bundle-2")
    return grants.probe(open_location(url, secrets=secrets), tried, workers=4, progress=Silent())


def test_the_probe_finds_what_a_wide_credential_can_do(there):
    url, _ = there
    answer = probe(url, {})
    assert {"write a file into the bundle", "delete a file", "list the whole bucket"} <= {
        one.key for one in answer.findings
    }
    assert verify(open_location(url), Level.FULL, workers=2, progress=Silent()).findings == []


def test_a_revocation_is_written_once_and_states_are_told(there, provider):
    """What is refused afterwards: ``test_forbidden``."""
    url, _ = granted(*there, provider, datetime.now(UTC) + timedelta(days=1))
    accounts = Accounts(client.parse(url))
    later = datetime.now(UTC) + timedelta(days=2)
    assert [one.state for one in grants.listed(there[1], accounts, trust=None)] == ["open"]
    assert [one.state for one in grants.listed(there[1], accounts, now=later, trust=None)] == ["expired"]
    for _ in range(2):  # again: nothing more is written
        assert len(grants.revoke(there[1], accounts, "acme", provider, trust=None).keys) == 1
    assert [one.state for one in grants.listed(there[1], accounts, trust=None)] == ["revoked"]
    assert len(custody_log.read(there[1]).find("revoked")) == 1
    with pytest.raises(GoneError):
        grants.revoke(there[1], accounts, "nobody", provider, trust=None)


def test_an_account_that_a_log_from_elsewhere_names_is_no_grant_and_stays(there, provider):
    url, store = there
    accounts = Accounts(client.parse(url))
    day = datetime.now(UTC) + timedelta(days=1)
    own = accounts.add("backup", grants.policy("bucket", "x/", day), day, "backups")
    details = {"to": "acme", "access_key": own.access_key, "expires": day.isoformat()}
    for location in (store.location, "s3://elsewhere/bundle?profile=old"):
        what = CustodyEvent("granted", "b", "0" * 64, location, details)
        custody_log.append(store, provider, lambda _, what=what: [what])
    assert [one.state for one in grants.listed(store, accounts, trust=None)] == ["revoked", "elsewhere"]
    done = grants.revoke(store, accounts, "acme", provider, trust=None)
    assert (done.keys, [one.state for one in done.still_open]) == ([], ["open", "elsewhere"])
    assert accounts.find(own.access_key) is not None
    assert custody_log.read(store).find("revoked") == []
    accounts.remove(own.access_key)


def test_a_grant_of_the_bucket_that_the_bundle_came_from_is_not_taken_for_one_of_here(there, provider):
    """Though both buckets and prefixes have the same name: the log came along."""
    url, store = there
    details = {
        "to": "acme",
        "access_key": "mo00",
        "expires": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
    }
    old = store.location.partition("?")[0] + "?profile=old"
    came = [
        CustodyEvent("granted", "b", "0" * 64, old, details),
        CustodyEvent("transferred", "b", "0" * 64, store.location, {"from": old}),
    ]
    custody_log.append(store, provider, lambda _: came)
    accounts = Accounts(client.parse(url))
    assert [one.state for one in grants.listed(store, accounts, trust=None)] == ["elsewhere"]
    granted(url, store, provider, datetime.now(UTC) + timedelta(days=1))
    back = CustodyEvent(
        "transferred", "b", "0" * 64, store.location, {"from": store.location.partition("?")[0]}
    )
    custody_log.append(
        store, provider, lambda _: [back]
    )  # a damaged file came from a third location of the name
    assert [one.state for one in grants.listed(store, accounts, trust=None)] == ["elsewhere", "open"]


@pytest.mark.torture
def test_an_account_whose_maker_died_before_it_was_written_down_is_taken_back(there, provider):
    url, store = there
    accounts, day = Accounts(client.parse(url)), datetime.now(UTC) + timedelta(days=1)
    bundle = custody_log.read(store).last.what.bundle
    rules = grants.policy("bucket", "x/", day)
    lost = accounts.add("acme", rules, day, grants.purpose(store.location, bundle, "acme"))
    other = accounts.add("acme", rules, day, grants.purpose(f"s3://another/{bundle}", bundle, "acme"))
    assert grants.revoke(store, accounts, "acme", provider, trust=None).keys == [lost.access_key]
    assert accounts.find(lost.access_key) is None
    assert accounts.find(other.access_key) is not None
    accounts.remove(other.access_key)
    with pytest.raises(GoneError):
        grants.revoke(store, accounts, "acme", provider, trust=None)


def test_an_erased_bundle_keeps_no_grant_open(there, provider):
    url, store = there
    for _ in range(2):
        granted(url, store, provider, datetime.now(UTC) + timedelta(days=1))
    erase.erase(store, open_object_lock(url), provider, workers=4, progress=Silent())
    done = grants.revoke(store, Accounts(client.parse(url)), "acme", provider, trust=None)
    assert (len(done.keys), done.still_open) == (2, [])


def test_what_others_keep_below_the_location_is_not_granted_along(there, provider):
    url, store = there
    store.put("other/bundle/bagit.txt", b"x")
    with pytest.raises(UsageError, match=r"'other/bundle/bagit\.txt'"):
        granted(url, store, provider, datetime.now(UTC) + timedelta(days=1))
    assert custody_log.read(store).find("granted") == []


def test_no_link_is_in_a_file_before_the_log_knows_of_it(there, make_key, tmp_path, monkeypatch):
    url, key, out = there[0], make_key.path_of("provider"), tmp_path / "out"
    out.mkdir()

    def died(*_):
        assert [one.stat().st_size for one in out.iterdir()] == [0, 0, 0]
        raise UnreachableError("died")

    monkeypatch.setattr("migrate.cli.custody.grant_links.record", died)
    words = ("--to", "acme", "--expires", "1d", "--file", out / "fetch.sh", "--key", key)
    assert (call("grant", "links", url, *words).code, list(out.iterdir())) == (5, [])


def test_a_full_disk_leaves_no_empty_credential_and_is_said_so(tmp_path):
    with pytest.raises(NoSpaceError), new_files(tmp_path / "grant.ini"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_links_that_would_end_with_a_session_are_not_made(there):
    """They say that they last until their own end."""
    s3_location = client.parse(there[0])
    made = TokenService(s3_location).begin(
        "acme", grants.policy("b", "x/", datetime.now(UTC)), timedelta(hours=1)
    )
    secrets = {
        "access_key_id": made.access_key, "secret_access_key": made.secret_key, "session_token": made.token,
    }  # fmt: skip
    with pytest.raises(UsageError, match="the credential is a session's"):
        list(presigned_urls.links(replace(s3_location, secrets=secrets), ["bagit.txt"], timedelta(minutes=1)))


def test_a_name_that_is_none_of_a_bundle_gets_no_link(location):
    """It becomes a path, and a word of a script, with whoever fetches."""
    (Path(location.location.removeprefix("file://")) / "sig").mkdir()
    for name in ("a b", "x\n  out=.bashrc", "custody.jsonl"):
        location.put(f"sig/{name}", b"x")
    assert [key for key, _, _ in bundle_files(location) if key.startswith("sig/")] == ["sig/custody.jsonl"]


@pytest.mark.parametrize("prefix", ["a*/", "a?/", "${aws:username}/"])
def test_a_location_with_a_wildcard_in_its_name_is_not_granted(prefix):
    with pytest.raises(UsageError, match="wildcard"):
        grants.policy("bucket", prefix, datetime.now(UTC))


@pytest.mark.parametrize("kind", ["create", "session", "links"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("grant", kind, "s3://bucket/bundle", "--to", "../acme", "--expires", "1h")
    assert (result.code, "'../acme' cannot name a grant" in result.err) == (2, True), result.err
    assert list(tmp_path.iterdir()) == []


def test_a_grant_that_cannot_be_written_down_is_taken_back(there, provider):
    url, store = there
    admin = Accounts(client.parse(url)).admin
    accounts = lambda: admin.list_service_account(admin._provider.retrieve().access_key).count("accessKey")  # noqa: E731
    before = accounts()
    store.delete("sig/custody-head.json")
    with pytest.raises(Exception, match="custody-head"):
        granted(url, store, provider, datetime.now(UTC) + timedelta(days=1))
    assert accounts() == before


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_links_fetch_the_bundle_with_curl_alone_and_end(there, make_key, tmp_path):
    url, store = there
    key, script = make_key.path_of("provider"), tmp_path / "fetch.sh"
    words = (url, "--to", "acme", "--key", key)
    page = tmp_path / "page.html"
    made = call("grant", "links", *words, "--expires", "1d", "--file", script, "--page", page)
    assert made.code == 0, made.err
    files = [info.key for info in store.list()]
    shown = parse(page.read_bytes())
    assert_harmless(shown)
    assert f"to {len(files)} files, in {script}" in shown.text
    assert "X-Amz-Signature" not in shown.text
    for one in (script, script.with_suffix(".aria2"), script.with_suffix(".html")):
        assert one.stat().st_mode & 0o777 == 0o600
        assert one.read_text().count("X-Amz-Signature=") == len(files)
    listed = re.findall(
        r"  out=(.*)\n  continue=true\n(?:  checksum=sha-256=(\w+))?",
        script.with_suffix(".aria2").read_text(),
    )
    assert sorted(key for key, _ in listed) == files
    assert all(sha256(store.read(key)).hexdigest() == digest for key, digest in listed if digest)
    again = call(
        "grant",
        "links",
        url,
        "--to",
        "acme",
        "--expires",
        "1d",
        "--file",
        tmp_path / "fetch.txt",
        "--key",
        key,
    )
    assert (again.code, "fetch.aria2 cannot be made" in again.err) == (2, True)
    assert not (tmp_path / "fetch.txt").exists()
    (tmp_path / "bin").mkdir()
    curl, seen = tmp_path / "bin/curl", tmp_path / "arguments"
    curl.write_text(f'#!/bin/sh\necho "$@" >> {seen}\nexec {shutil.which("curl")} "$@"\n')
    curl.chmod(0o755)
    env = {**os.environ, "PATH": f"{curl.parent}:{os.environ['PATH']}"}
    for _ in range(2):  # the second time nothing is left to do but to check
        fetched = subprocess.run(
            ["sh", script, tmp_path / "got"], capture_output=True, text=True, check=False, env=env
        )
        assert (fetched.returncode, fetched.stdout) == (0, "the bundle is whole\n"), fetched.stderr
    assert (
        verify(open_location(str(tmp_path / "got")), Level.FULL, workers=1, progress=Silent()).findings == []
    )
    assert (seen.exists(), "X-Amz" in seen.read_text()) == (True, False)
    assert call("grant", "list", url).out.split()[:2] == ["acme", "open"]
    assert "X-Amz-Signature" not in store.read("sig/custody.jsonl").decode() + made.out + made.err
    assert call("grant", "links", url, "--to", "acme", "--expires", "8d", "--key", key).code == 2
    tagged, manifest = store.read(layout.TAG_MANIFEST), store.read(layout.MANIFEST)
    line, *_ = manifest.splitlines(keepends=True)
    store.put(line.split()[1].decode(), b"other")
    store.put(layout.MANIFEST, other := manifest.replace(line[:64], sha256(b"other").hexdigest().encode()))
    digests = [sha256(data).hexdigest().encode() for data in (manifest, other)]
    store.put(layout.TAG_MANIFEST, tagged.replace(*digests))
    fetched = subprocess.run(["sh", script, tmp_path / "other"], capture_output=True, text=True, check=False)
    assert (fetched.returncode != 0, fetched.stdout) == (True, "tagmanifest-sha256.txt: FAILED\n"), fetched
    link = presigned_urls.links(client.parse(url), ["bagit.txt"], timedelta(seconds=1))
    address = dict(link)["bagit.txt"]
    time.sleep(2.1)
    assert subprocess.run(["curl", "-fsS", address], capture_output=True, check=False).returncode == 22


def test_who_may_only_read_has_a_receipt_in_files_and_finishes_it_there(
    there, make_key, tmp_path, servers, ticking
):
    url, store = there
    grantor, key, file = make_key.path_of("provider"), make_key.path_of("customer"), tmp_path / "grant.ini"
    words = ("--to", "acme", "--expires", "1d", "--file", file, "--key", grantor)
    assert call("grant", "create", url, *words).code == 0
    config, mail = tmp_path / "config", tmp_path / "mail"
    config.write_text(Path(servers.environment["AWS_CONFIG_FILE"]).read_text() + file.read_text())
    granted_url = url.replace("minio", "acme")

    def received():
        ended = call("receive", granted_url, "--key", key, "--to", mail, env={"AWS_CONFIG_FILE": str(config)})
        assert ended.code == 0, ended.err
        return {one.name: one.read_bytes() for one in mail.iterdir()}

    first = received()
    document, signature = sorted(first)
    assert (document[-5:], signature[-4:]) == (".json", ".sig")
    assert received() == first
    (mail / signature).unlink()  # as if the run had died before it had signed
    assert received() == first
    acknowledge = ("acknowledge", url, mail / document, "--key", grantor, "--to", tmp_path)
    assert call(*acknowledge, "--page", tmp_path / "page.html").code == 0
    shown = parse((tmp_path / "page.html").read_bytes())
    assert_harmless(shown)
    for text in ("Receipt, acknowledged", "Received and signed by", "Acknowledged by the sender"):
        assert text in shown.text
    session = ("grant", "session", url, "--to", "acme", "--expires", "1h", "--key", grantor)
    begun = call(*session, "--file", tmp_path / "session.ini", "--page", tmp_path / "session.html")
    assert begun.code == 0, begun.err
    shown = parse((tmp_path / "session.html").read_bytes())
    assert "Access key of the session" in shown.text
    secrets = re.findall(
        r"aws_(?:secret_access_key|session_token) *= *(\S+)", (tmp_path / "session.ini").read_text()
    )
    assert len(secrets) == 2
    assert not any(secret in shown.text for secret in secrets)
    assert received() == first
    assert len(custody_log.read(store).find("received")) == 1


def test_the_commands(there, make_key, tmp_path, monkeypatch, servers):
    url, _ = there
    key, file = make_key.path_of("provider"), tmp_path / "grant.ini"
    made = call(
        "grant", "create", url, "--to", "acme", "--expires", "1d", "--file", file, "--key", key, "--json"
    )
    assert made.code == 0, made.err
    assert file.stat().st_mode & 0o777 == 0o600
    secret = next(line.split(" = ")[1] for line in file.read_text().splitlines() if "secret" in line)
    assert secret not in made.out + made.err
    assert call("grant", "list", url).out.split()[:2] == ["acme", "open"]
    config = tmp_path / "config"
    config.write_text(Path(servers.environment["AWS_CONFIG_FILE"]).read_text() + file.read_text())
    env = {"AWS_CONFIG_FILE": str(config)}
    granted_url = url.replace("minio", "acme")
    tested = call("grant", "test", granted_url, "--outside", "acme/bundle-2", env=env)
    assert tested.code == 0, tested.out + tested.err
    assert call("verify", granted_url, env=env).code == 0
    assert call("grant", "revoke", url, "--to", "acme", "--key", key).code == 0
    assert call("verify", granted_url, env=env).code == 4
    assert call("grant", "create", tmp_path, "--to", "acme", "--expires", "1d", "--key", key).code == 2
    assert secret not in there[1].read("sig/custody.jsonl").decode()


def test_of_two_commands_for_one_file_the_second_takes_it_from_nobody(tmp_path):
    """The first has made it, and has its credential still to come; an empty file that nobody has open is taken."""
    path = tmp_path / "grant.ini"
    with new_files(path) as (out,):
        with pytest.raises(UsageError, match="File exists"), new_files(path):
            pass
        out.write(b"first")
    assert path.read_bytes() == b"first"
    path.write_bytes(b"")
    with new_files(path) as (out,):
        out.write(b"second")
    assert path.read_bytes() == b"second"


def test_an_account_of_a_run_that_was_killed_before_it_wrote_it_down_is_taken_back(there, provider):
    """Nobody has its secret. That of another grant stays."""
    url, store = there
    accounts, day = Accounts(client.parse(url)), datetime.now(UTC) + timedelta(days=1)
    (entry, *_) = record(store, provider, "verified", {"level": "full"})
    dead, other = (
        accounts.add(
            name,
            grants.policy("bucket", "x/", day),
            day,
            grants.purpose(store.location, entry.what.bundle, name),
        )
        for name in ("acme", "other")
    )
    assert grants.revoke(store, accounts, "acme", provider, trust=None).keys == [dead.access_key]
    assert accounts.find(dead.access_key) is None
    assert accounts.find(other.access_key) is not None
    accounts.remove(other.access_key)
