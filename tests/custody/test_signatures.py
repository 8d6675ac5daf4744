"""Signatures of bundles: made by us and checked by ssh-keygen, and the other way round; every change is found."""

import os
import random
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from migrate.bundle import layout
from migrate.custody.log import custody_log
from migrate.custody.log.entry import CustodyEvent
from migrate.custody.log.events import record_seal
from migrate.custody.signing import allowed_signers, keys, ssh_signatures
from migrate.custody.signing.bundle_signatures import root_of, sign_bundle, signature_key, signatures
from migrate.errors import DamageError, NotAllowedError, UsageError
from scripts.shelf import shelf
from tests.cli.conftest import call
from tests.custody.conftest import in_memory, ssh_verify


def test_ssh_keygen_checks_our_signature_and_no_other_file(location, provider, tmp_path):
    signed = sign_bundle(location, provider)
    allowed = tmp_path / "allowed"
    allowed.write_text(f"acme {provider.public.line}\n")
    manifest = location.read(layout.TAG_MANIFEST)
    signature = location.read(signed.key)
    assert ssh_verify(allowed, "acme", ssh_signatures.BUNDLE, signature, manifest)
    assert not ssh_verify(allowed, "acme", ssh_signatures.BUNDLE, signature, manifest + b"\n")
    assert not ssh_verify(allowed, "acme", ssh_signatures.DOCUMENT, signature, manifest)


def test_we_check_what_ssh_keygen_signed_with_our_key(location, make_key, provider, tmp_path):
    file = tmp_path / "manifest"
    file.write_bytes(location.read(layout.TAG_MANIFEST))
    argv = [
        "ssh-keygen",
        "-q",
        "-Y",
        "sign",
        "-f",
        make_key.path_of("provider"),
        "-n",
        ssh_signatures.BUNDLE,
        file,
    ]
    subprocess.run(argv, check=True, capture_output=True)
    signature = (tmp_path / "manifest.sig").read_bytes()
    location.put(f"sig/tagmanifest-sha256.txt.{provider.public.id}.sig", signature)
    signed = signatures(location)
    assert (signed.of(layout.TAG_MANIFEST), signed.findings) == ([provider.public], [])
    assert signature == ssh_signatures.sign(provider, ssh_signatures.BUNDLE, [file.read_bytes()])


def test_several_keys_sign_and_a_second_time_changes_nothing(location, provider, customer):
    sign_bundle(location, provider)
    sign_bundle(location, customer)
    before = {info.key: info.etag for info in location.list("sig/")}
    sign_bundle(location, provider)
    assert {info.key: info.etag for info in location.list("sig/")} == before
    assert set(signatures(location).of(layout.TAG_MANIFEST)) == {provider.public, customer.public}


def test_changed_bytes_of_a_signature_are_found_with_its_name(location, provider):
    key = sign_bundle(location, provider).key
    there = in_memory(location)
    data = there.read(key)
    draw = random.Random(6)
    for at in range(0, len(data), 3):
        there.files[key] = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        signed = signatures(there)
        assert [finding.key for finding in signed.findings] == [key], at
        assert not signed.good
    for spoilt in (b"", data[:-1], data + b"\n", data * 50):
        there.files[key] = spoilt
        assert [finding.key for finding in signatures(there).findings] == [key]


def test_another_bundle_or_anothers_name_is_found(location, provider, customer):
    key = sign_bundle(location, provider).key
    signature = location.read(key)
    stolen = f"sig/tagmanifest-sha256.txt.{customer.public.id}.sig"
    location.put(stolen, signature)
    assert "another key" in str(signatures(location).findings[0])
    location.delete(stolen)
    location.put(layout.TAG_MANIFEST, location.read(layout.TAG_MANIFEST).replace(b"a", b"b", 1))
    assert "does not hold for tagmanifest-sha256.txt" in str(signatures(location).findings[0])


def test_a_key_is_private_and_may_have_a_passphrase(tmp_path):
    path = tmp_path / "keys" / "mine"
    made = keys.create(path, "Acme  Hosting", "open sesame")
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.load(path, lambda: "open sesame").public == made.public
    assert keys.load(path, lambda: "open sesame").public.name == "Acme Hosting"
    with pytest.raises(UsageError, match="has a passphrase"):
        keys.load(path, lambda: None)
    with pytest.raises(NotAllowedError, match="does not open"):
        keys.load(path, lambda: "wrong")
    with pytest.raises(UsageError, match="already"):
        keys.create(path, "again", None)
    line = subprocess.run(
        ["ssh-keygen", "-y", "-P", "open sesame", "-f", path], capture_output=True, check=True, text=True
    )
    assert line.stdout.split()[1] == made.public.line.split()[1]
    path.chmod(0o640)
    with pytest.raises(NotAllowedError, match="others may read"):
        keys.load(path, lambda: "open sesame")


@pytest.mark.parametrize(
    "data", [b"", b"-----BEGIN OPENSSH PRIVATE KEY-----\n", os.urandom(99)], ids=["empty", "cut", "noise"]
)
def test_what_is_no_key_is_said_so(tmp_path, data):
    path = tmp_path / "key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="no private key"):
        keys.load(path, lambda: None)


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ("", True),
        ('namespaces="moveout-*,git"', True),
        ('namespaces="file,git"', False),
        ('valid-after="20200101",valid-before="20990101"', True),
        ('valid-before="20200101"', False),
        ('valid-after="209901010000Z",namespaces="moveout-*"', False),
    ],
)
def test_a_signer_counts_as_for_ssh_keygen(location, provider, tmp_path, options, counts):
    signed = sign_bundle(location, provider)
    allowed = tmp_path / "allowed"
    allowed.write_text(f"acme {options} {provider.public.line}\n".replace("  ", " "))
    manifest, signature = location.read(layout.TAG_MANIFEST), location.read(signed.key)
    assert ssh_verify(allowed, "acme", ssh_signatures.BUNDLE, signature, manifest) == counts
    assert (allowed_signers.load(allowed).name(provider.public) == "acme") == counts


def test_what_was_signed_while_a_key_counted_counts_for_ever(location, provider, make_key, tmp_path):
    """As for ``ssh-keygen -Overify-time``: the entries of the log and the bundle, by their own times."""
    path, bundle = make_key.path_of("provider"), location.location.removeprefix("file://")
    assert call("sign", bundle, "--key", path).code == 0
    time.sleep(1.1)
    allowed = tmp_path / "allowed"
    before = datetime.now(UTC).strftime("%Y%m%d%H%M%SZ")
    time.sleep(1.1)
    for options, code in (
        (f'valid-before="{before}"', 0),
        ('valid-before="20200101"', 6),
        (f'valid-after="{before}"', 6),
    ):
        allowed.write_text(f"acme {options} {provider.public.line}\n")
        for command in (["custody", "verify"], ["verify"]):
            ended = call(*command, bundle, "--signers", allowed)
            assert (ended.code, "is signed by nobody" in ended.out + ended.err) == (code, code != 0), ended
    allowed.write_text(f'acme valid-before="{before}" {provider.public.line}\n')
    assert call("custody", "note", bundle, "late", "--key", path).code == 0
    ended = call("custody", "verify", bundle, "--signers", allowed, "--json")
    (finding,) = ended.json["result"]["findings"]
    assert "is signed by nobody" in str(finding)


def test_a_proof_counts_by_the_time_that_the_log_names(provider, make_key, tmp_path):
    """A key that is replaced by now has signed what it has signed; without the log nobody can say when."""
    bundle, allowed = shelf(str(tmp_path / "b"), 3).location, tmp_path / "allowed"
    assert call("sign", bundle, "--key", make_key.path_of("provider")).code == 0
    proved = call("prove", bundle, "photos/0000001.jpg", "--to", tmp_path, "--json")
    words = ["check-proof", proved.json["result"]["proofs"][0]["file"], "--signers", allowed]
    time.sleep(1.1)
    before = datetime.now(UTC).strftime("%Y%m%d%H%M%SZ")
    time.sleep(1.1)
    allowed.write_text(f'acme valid-before="{before}" {provider.public.line}\n')
    unknown = call(*words)
    assert (unknown.code, "does not say when it was signed" in unknown.out) == (6, True), unknown.out
    assert "nobody" not in unknown.out
    judged = call(*words, bundle)
    assert (judged.code, "acme (by the custody log, at " in judged.out) == (0, True), judged.err
    allowed.write_text(f'acme valid-before="20200101Z" {provider.public.line}\n')
    late = call(*words, bundle)
    assert (late.code, "by acme, whose key counts until 2020-01-01" in late.out) == (6, True), late.out
    Path(bundle.removeprefix("file://"), layout.CUSTODY_LOG).write_bytes(b"")
    assert call(*words, bundle).code == 6


@pytest.mark.parametrize(
    "options",
    [
        "cert-authority",
        'namespaces="moveout-bundle"',
        'valid-before="soon"',
        "valid-after",
        'verify-required="x"',
    ],
)
def test_an_option_of_a_signer_that_cannot_be_kept_is_refused(provider, tmp_path, options):
    allowed = tmp_path / "allowed"
    allowed.write_text(f"acme {options} {provider.public.line}\n")
    with pytest.raises(UsageError, match="line 1"):
        allowed_signers.load(allowed)


@pytest.mark.parametrize("name", ["mine", "mine.pub"])
def test_a_key_that_cannot_be_made_whole_leaves_nothing(tmp_path, name):
    (tmp_path / "mine.pub").write_text("somebody's")
    with pytest.raises(UsageError):
        keys.create(tmp_path / name, "me", None)
    assert [one.name for one in tmp_path.iterdir()] == ["mine.pub"]


def test_the_commands(location, tmp_path):
    """Keys are made, a bundle is signed, and a list of signers decides whose signature counts."""
    bundle = location.location.removeprefix("file://")
    mine, other = tmp_path / "mine", tmp_path / "other"
    env = {"MOVEOUT_PASSPHRASE": "open sesame"}
    made = call("keys", "init", mine, "--name", "Acme Hosting", env=env)
    assert made.code == 0, made.err
    assert "open sesame" not in made.out + made.err
    assert call("keys", "init", other, "--name", "other").code == 0
    assert call("sign", bundle, "--key", mine).code == 2
    signed = call("sign", bundle, "--key", mine, env=env)
    assert signed.code == 0, signed.err
    allowed = tmp_path / "allowed"
    allowed.write_text(call("keys", "show", "--key", mine, env=env).out)
    verified = call("verify", bundle, "--signers", allowed)
    assert verified.code == 0, verified.err
    assert "known as Acme-Hosting" in verified.out
    allowed.write_text(call("keys", "show", "--key", other).out)
    refused = call("verify", bundle, "--signers", allowed, "--json")
    assert refused.code == 6
    assert "signed by nobody" in refused.out
    assert call("sign", bundle, "--key", mine, "--passphrase", "open sesame").code == 2
    assert call("sign", bundle).code == 2


def test_an_entry_that_was_dated_back_makes_no_key_count(location, provider, customer, make_key, tmp_path):
    """Whoever stole a key that was replaced signs with it today, and writes into the log that it was a year ago: by a
    stranger's entry, or by one of that very key behind entries that are newer.
    """
    year_ago, allowed = datetime.now(UTC) - timedelta(days=365), tmp_path / "allowed"
    sign_bundle(location, provider)
    record_seal(location, provider, [provider])
    location.delete(signature_key(layout.TAG_MANIFEST, provider.public))
    sign_bundle(location, customer)
    root = root_of(location)
    signed = CustodyEvent("signed", "b", root, location.location, {"by": customer.public.fingerprint})
    valid = f'acme valid-before="{year_ago + timedelta(days=1):%Y%m%d}" {customer.public.line}\n'
    for thief in (make_key("stranger"), customer):
        custody_log.append(location, thief, lambda _: [signed], clock=lambda: year_ago)
        for others in ("", f"host {provider.public.line}\n"):
            allowed.write_text(valid + others)
            ended = call("verify", location.location, "--signers", allowed)
            is_first_of_list = (
                thief is customer and not others
            )  # then nothing shows that the clock was set back
            assert ended.code == (0 if is_first_of_list else 6), (thief.public.name, others, ended.out)
    verified = call("custody", "verify", location.location, "--signers", allowed)
    assert (verified.code, verified.out.count("is signed by nobody in")) == (6, 2), verified.out
    shown = call("custody", "show", location.location, "--signers", allowed, "--json").json["result"]
    assert [one["known_as"] for one in shown["entries"]] == ["host"] * 3 + [None] * 2
    assert "acme" not in call("custody", "show", location.location, "--signers", allowed).out


def test_a_bundle_that_is_not_as_it_was_sealed_is_not_signed(location, provider):
    location.put(layout.BAG_INFO, location.read(layout.BAG_INFO) + b"Contact-Name: somebody\n")
    with pytest.raises(DamageError, match=layout.BAG_INFO):
        sign_bundle(location, provider)
    assert signatures(location).good == []


def test_the_public_half_of_a_key_is_for_all_to_read_and_of_one_kind(tmp_path):
    public = keys.create(tmp_path / "mine", "me", None).public
    old = os.umask(0)
    try:
        keys.create(tmp_path / "other", "me", None)
    finally:
        os.umask(old)
    assert (tmp_path / "other.pub").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o600
    assert keys.parse_line(public.line) == public
    for kind in ("ecdsa-sha2-nistp256", "ssh-rsa", "zzz"):
        assert keys.parse_line(public.line.replace(keys.TYPE, kind, 1)) is None
