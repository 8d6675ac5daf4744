"""Timestamps: asked of a real authority (openssl's), checked by openssl, and by us as far as one can."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from migrate.bundle import layout
from migrate.bundle.reader import hash_file
from migrate.custody.log import custody_log
from migrate.custody.log.events import record, record_stamp
from migrate.custody.signing import timestamps
from migrate.errors import NotAllowedError, UnreachableError, UsageError
from scripts.shelf import shelf
from scripts.timestamp_authority import Authority, serving
from tests.cli.conftest import call
from tests.custody.conftest import against_bundle, in_memory

KINDS = (("rsa", "sha256"), ("P-384", "sha512"))
"""Kinds of keys and of hashes. What is not of a signature itself is tried with the first one as a rule."""
EACH_KIND = pytest.mark.parametrize("authority", KINDS, ids=["rsa", "ec"], indirect=True, scope="module")


@pytest.fixture(
    scope="module", params=[KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.torture)], ids=["rsa", "ec"]
)
def authority(request, tmp_path_factory):
    with serving(Authority(tmp_path_factory.mktemp("authority"), *request.param)) as running:
        yield running


@EACH_KIND
def test_openssl_checks_the_token_that_was_asked_for(location, authority):
    key, stamp = timestamps.stamp(location, authority.url)
    assert abs(stamp.moment - datetime.now(UTC)) < timedelta(minutes=1)
    assert stamp.authority == "CN=Timestamps"
    manifest = location.read(layout.TAG_MANIFEST)
    assert authority.verifies(location.read(key), manifest)
    assert not authority.verifies(location.read(key), manifest + b"\n")
    assert timestamps.stamps(location) == ([(key, stamp)], [])


def test_a_second_time_asks_nobody(location, authority, provider):
    assert len(record_stamp(location, provider, authority.url)) == 1
    before = authority.answers
    assert record_stamp(location, provider, authority.url) == []
    assert authority.answers == before


def test_a_token_that_somebody_has_put_there_is_not_recorded_as_the_authoritys(
    location, authority, provider, make_key, tmp_path
):
    """Whoever may write there can make one, of any authority's name and any time."""
    with serving(Authority(tmp_path / "forger")) as forger:
        key, stamp = timestamps.stamp(location, forger.url)
        details = {"file": key, "sha256": hash_file(location, key), "at": "2001-01-01", "by": stamp.authority}
        record(location, make_key("stranger"), "timestamped", details)
    before = authority.answers
    (entry,) = record_stamp(location, provider, authority.url)
    assert authority.answers == before + 1
    assert authority.verifies(location.read(entry.what.details["file"]), location.read(layout.TAG_MANIFEST))


def test_tokens_of_one_second_do_not_replace_each_other(location, authority):
    tokens = dict(timestamps.stamp(location, authority.url) for _ in range(8))
    assert dict(timestamps.stamps(location)[0]) == tokens
    assert len(tokens) == 8


def test_a_token_for_another_manifest_is_found(location, authority):
    key, _ = timestamps.stamp(location, authority.url)
    location.put(layout.TAG_MANIFEST, location.read(layout.TAG_MANIFEST) + b"\n")
    good, findings = timestamps.stamps(location)
    assert (good, [one.key for one in findings]) == ([], [key])


@EACH_KIND
def test_changed_tokens_are_found_by_the_signature_or_by_the_log(location, authority, provider):
    for _ in range(2):  # the second time changes nothing
        record_stamp(location, provider, authority.url)
    assert len(custody_log.read(location).find("timestamped")) == 1
    there = in_memory(location)
    (key,) = [info.key for info in there.list("sig/") if info.key.endswith(".tsr")]
    data = there.read(key)
    draw = random.Random(7)
    alone = 0
    for _ in range(150):
        at = draw.randrange(len(data))
        there.files[key] = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        alone += bool(timestamps.stamps(there)[1])
        assert key in str(against_bundle(there)), at
    assert alone > 50
    del there.files[key]
    assert "is missing" in str(against_bundle(there))


def test_what_is_no_authority_is_said_so(location, authority):
    with pytest.raises(UsageError, match="did not answer with a timestamp"):
        timestamps.stamp(location, authority.url.replace("/tsa", "/else"))
    with pytest.raises(NotAllowedError, match="answered 403"):
        timestamps.stamp(location, authority.url.replace("/tsa", "/denied"))
    for code in (429, 500, 503):
        with pytest.raises(UnreachableError, match=f"answered {code}"):
            timestamps.stamp(location, authority.url.replace("/tsa", f"/{code}"))
    with pytest.raises(UnreachableError):
        timestamps.stamp(location, "http://127.0.0.1:9/tsa")
    with pytest.raises(UsageError, match="is not a URL"):
        timestamps.stamp(location, "file:///etc/passwd")
    with pytest.raises(UsageError, match=r"has a secret in it: https://tsa.example/\?token=…\."):
        timestamps.stamp(location, "https://tsa.example/?token=abcd")
    assert timestamps.stamps(location) == ([], [])


def test_the_commands(location, authority, make_key):
    bundle, key = location.location.removeprefix("file://"), make_key.path_of("provider")
    assert call("sign", bundle, "--key", key, "--timestamp", authority.url).code == 0
    verified = call("verify", bundle)
    assert (verified.code, "says CN=Timestamps" in verified.out) == (0, True), verified.out
    assert "timestamped" in call("custody", "show", bundle).out


def test_named_roots_decide_whom_to_trust(location, tmp_path, make_key):
    """An authority whose token has no root certificate is checked only with the root at hand."""
    bundle, key = location.location.removeprefix("file://"), make_key.path_of("provider")
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
    with serving(Authority(tmp_path / "mine", "P-256", sends_root=False)) as authority:
        assert call("sign", bundle, "--key", key, "--timestamp", authority.url).code == 0
    other = Authority(tmp_path / "other", "P-256")
    other.settings.write_text(other.settings.read_text().replace("digests = sha256", "digests = sha512"))
    with serving(other), pytest.raises(UsageError, match=r"refused \(rejection\)"):
        timestamps.stamp(shelf(str(tmp_path / "b"), 5), other.url)
    alone = call("verify", bundle)
    assert (alone.code, "NOT CHECKED" in alone.out) == (0, True), alone.out
    trusted = call("verify", bundle, "--timestamp-ca", tmp_path / "mine/ca.pem")
    assert (trusted.code, "its certificate is trusted" in trusted.out) == (0, True), trusted.out
    assert call("verify", bundle, "--timestamp-ca", tmp_path / "other/ca.pem").code == 6
    wrong = call("verify", bundle, "--timestamp-ca", tmp_path / "mine/openssl.cnf")
    assert (wrong.code, "no certificates in PEM format" in wrong.err) == (2, True), wrong.err


@pytest.mark.parametrize("url", ["http://me:hunter2@127.0.0.1:9/tsa", "https://127.0.0.1:9/a b"])
def test_a_url_that_no_authority_can_have_is_an_error_without_the_password(location, url):
    with pytest.raises((UsageError, UnreachableError)) as error:
        timestamps.stamp(location, url)
    assert "hunter2" not in str(error.value)
