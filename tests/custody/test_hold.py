"""Holds on a real bucket with Object Lock: version by version, read back, never half and called whole."""

import random
import secrets
import time
from datetime import UTC, datetime

import botocore.exceptions
import pytest

from migrate.bundle import bundle_json, layout
from migrate.custody import bundle_hold, documents, erase, hold_release, receipt
from migrate.custody.bundle_hold import Terms
from migrate.custody.log import custody_log
from migrate.custody.log.entry import NOBODY, CustodyEvent, LogEntry
from migrate.custody.log.events import record
from migrate.custody.signing import allowed_signers
from migrate.custody.signing.bundle_signatures import root_of
from migrate.errors import (
    BusyError,
    DamageError,
    GoneError,
    MoveoutError,
    NotAllowedError,
    UnreachableError,
    UsageError,
)
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location, open_object_lock
from tests.cli.conftest import call
from tests.custody.conftest import (
    against_bundle,
    flat,
    put_files,
    put_hold,
    release_hold,
    signers_file,
    soon,
)
from tests.tools.clients import boto_client


def test_every_version_is_locked_and_nobody_deletes_one(there, locked, provider):
    client, bucket, _ = locked
    store, object_lock = there
    assert not bundle_hold.survey(store, object_lock, workers=4).is_held
    store.put(layout.BAG_INFO, store.read(layout.BAG_INFO))  # an older version beneath
    until = soon(days=1)
    outcome = put_hold(there, provider, Terms(until, "GOVERNANCE", legal=True), reason="asked")
    assert (outcome.is_held, outcome.until, outcome.findings) == (True, until, [])
    versions = [one for one in object_lock.versions() if not one.key.startswith((layout.WORK, "sig/custody"))]
    assert outcome.versions == len(versions)
    assert [one.what.event for one in custody_log.read(store).entries][-1] == "held"
    for one in versions[:5]:
        with pytest.raises(botocore.exceptions.ClientError):
            client.delete_object(Bucket=bucket, Key=f"bundle/{one.key}", VersionId=one.id)
        with pytest.raises(NotAllowedError):
            object_lock.retain(one, soon(minutes=1), "GOVERNANCE")  # shorter
    assert bundle_hold.survey(store, object_lock, workers=4).is_held


def test_what_is_unprotected_hidden_or_new_is_named(there, provider):
    store, object_lock = there
    terms = Terms(soon(days=1), "GOVERNANCE", legal=True)
    assert put_hold(there, provider, terms).is_held
    store.put(layout.RECONCILIATION, store.read(layout.RECONCILIATION))
    store.delete(layout.BAG_INFO)
    outcome = bundle_hold.survey(store, object_lock, workers=4)
    assert not outcome.is_held
    problems = {one.key: one.what for one in outcome.findings}
    assert problems == {
        layout.RECONCILIATION: "is not protected",
        layout.BAG_INFO: "is hidden behind a delete marker",
    }


def test_a_bundle_that_delete_markers_hide_whole_is_not_said_to_be_gone(there, locked, provider):
    store, _ = there
    assert put_hold(there, provider, Terms(soon(days=1), "GOVERNANCE", legal=True)).is_held
    for info in list(store.list()):
        store.delete(info.key)
    status = call("hold", "status", locked[2])
    assert (status.code, "is hidden behind a delete marker" in flat(status.out)) == (3, True), status.err


class Broken:
    """An object lock that dies at the n-th lock."""

    def __init__(self, inner, left: int) -> None:
        self._inner, self._left = inner, left

    def __getattr__(self, name):
        if name in {"retain", "set_legal", "remove"}:
            self._left -= 1
            if self._left < 0:
                raise UnreachableError("died")
        return getattr(self._inner, name)


class Removing:
    """An object lock that removes in a way of its own."""

    def __init__(self, inner, remove) -> None:
        self._inner, self.remove = inner, remove

    def __getattr__(self, name):
        return getattr(self._inner, name)


def test_a_hold_that_broke_off_is_never_called_one_and_the_same_command_finishes_it(there, provider):
    store, object_lock = there
    terms = Terms(soon(days=1), "GOVERNANCE", legal=True)
    for left in (0, 5):
        with pytest.raises(UnreachableError):
            bundle_hold.place(
                store,
                Broken(object_lock, left),
                terms,
                workers=1,
                progress=Silent(),
                details={},
                signer=provider,
            )
        assert not bundle_hold.survey(store, object_lock, workers=4).is_held
        assert custody_log.read(store).find("held") == []
    assert put_hold(there, provider, terms).is_held


def test_a_release_needs_the_keys_that_the_hold_names(there, provider, customer, make_key):
    store, object_lock = there
    keys = [provider.public.fingerprint, customer.public.fingerprint]
    terms = Terms(soon(days=1), "GOVERNANCE", legal=True)
    assert put_hold(there, provider, terms, release_keys=keys, release_quorum=2).is_held
    for signers in ([provider], [provider, provider], [provider, make_key("stranger")]):
        done = release_hold(store, object_lock, "done", signers, workers=4)
        (missing,) = done.missing
        assert (done.protection, "2 of these keys" in missing) == (None, True)
        assert missing.endswith(f"1 of them signed; not signed: {keys[1]}")
    assert bundle_hold.survey(store, object_lock, workers=4).is_held
    assert custody_log.read(store).find("released") == []
    with pytest.raises(UnreachableError):
        release_hold(store, Broken(object_lock, 7), "done", [customer], workers=1)
    done = release_hold(store, object_lock, "done", [customer], workers=4)
    assert (done.missing, done.protection.protected, done.protection.legal) == ([], 0, 0)
    kept, findings = documents.read_all(store, "release")
    assert [(one.key, len(one.signers)) for one in kept] == [(done.document.key, 3)]
    assert findings == []
    assert custody_log.read(store).entries[-1].what.event == "released"


def test_what_a_server_says_it_released_is_read_back(there, provider):
    store, object_lock = there
    assert put_hold(there, provider, Terms(soon(days=1), "GOVERNANCE", legal=True)).is_held

    class Deaf(Broken):
        def __getattr__(self, name):
            return (lambda *_, **__: None) if name == self._left else getattr(self._inner, name)

    for deaf in ("set_legal", "retain"):
        with pytest.raises(DamageError, match=r"a legal hold|a retention until"):
            release_hold(store, Deaf(object_lock, deaf), "done", [provider], workers=1)
        assert custody_log.read(store).find("released") == []
    outcome = release_hold(store, object_lock, "done", [provider], workers=4).protection
    assert (outcome.protected, outcome.legal) == (0, 0)


def test_a_release_that_somebody_else_has_written_is_not_signed(there, provider, customer):
    """It lies there with the same root and reason, and says more, or is of another location."""
    store = there[0]
    assert put_hold(there, provider, Terms(soon(days=1), "GOVERNANCE", legal=True)).is_held
    value = {"bundle": bundle_json.read_sealed(store).id, "root": root_of(store), "reason": "done"}
    about = f"Release of the bundle {value['bundle']} from its hold"
    for other in ({"location": "s3://other/b"}, {"location": store.location, "also": "all others"}):
        documents.keep(store, documents.make("release", about, {**value, **other}), [customer])
    released = release_hold(*there, "done", [provider], workers=4).document
    assert set(released.value) == {
        "about",
        "kind",
        "version",
        "time",
        "bundle",
        "root",
        "location",
        "reason",
        "holds",
    }
    assert released.value["location"] == store.location
    assert against_bundle(store) == []


def test_a_release_that_too_few_keys_signed_is_found(there, provider, customer):
    """Who may write the log and lift locks at the server needs nobody else's key for it, only for the document."""
    store, _ = there
    keys = [provider.public.fingerprint, customer.public.fingerprint]
    record(store, provider, "held", {"legal": True, "release_keys": keys, "release_quorum": 2})
    root = custody_log.read(store).entries[-1].what.root
    document = documents.make("release", "Release", {"root": root, "location": store.location})
    documents.keep(store, document, [provider])
    record(store, provider, "released", {"file": document.key, "sha256": document.sha256})
    (finding,) = against_bundle(store)
    assert (finding.key, "1 of them signed" in finding.what) == (document.key, True)
    documents.keep(store, document, [customer])
    assert against_bundle(store) == []
    record(store, provider, "held", {"legal": True, "release_keys": keys, "release_quorum": 2, "again": 1})
    again = {"file": document.key, "sha256": document.sha256}  # which released the first hold
    record(store, provider, "released", again)
    (finding,) = against_bundle(store)
    assert "released the bundle at entry 7, though the hold of entry 6" in finding.what


def test_two_keys_of_one_owner_are_no_quorum_of_two(there, locked, provider, customer, make_key, tmp_path):
    """By what the hold says, by the list at its release, and by the list of whoever verifies it."""
    spare, store = make_key("spare"), there[0]
    listed = signers_file(tmp_path / "signers", host=(provider, spare), counsel=(customer,))
    names = [one.public.fingerprint for one in (provider, spare, customer)]
    case = tmp_path / "case.toml"
    case.write_text(
        f'[custody]\nsigners = "signers"\nrelease_keys = {names}\nrelease_quorum = 2\n'.replace("'", '"')
    )
    own, both = ["--key", make_key.path_of("provider")], ["--key", make_key.path_of("spare")]
    words = (locked[2], "-c", case, "--reason", "x", *own)
    assert call("hold", "place", *words, "--until", "1d", "--legal").code == 0
    hold = custody_log.read(store).entries[-1]
    assert hold.what.details["release_owners"] == dict(
        zip(names, (["host"], ["host"], ["counsel"]), strict=True)
    )
    for file in (case, tmp_path / "none.toml"):
        file.write_text(case.read_text() if file == case else "[custody]\n")
        refused = call("hold", "release", locked[2], "-c", file, "--reason", "x", *own, *both)
        assert (refused.code, "2 of them signed, all of 1 owner" in flat(refused.out)) == (3, True), (
            refused.out
        )
        assert f"not signed: {names[2]} (counsel)" in flat(refused.out)
    assert bundle_hold.survey(*there, workers=4).is_held
    old = record(store, provider, "held", {"legal": True, "release_keys": names, "release_quorum": 2})[0]
    trust = allowed_signers.load(listed)
    assert hold_release.lacking_keys(old, names[:2], trust=None) == ""  # nothing says whose these keys are
    assert "all of 1 owner" in hold_release.lacking_keys(old, names[:2], trust)
    assert hold_release.lacking_keys(old, names[1:], trust) == ""
    document = documents.make("release", "Release", {"root": root_of(store), "location": store.location})
    documents.keep(store, document, [provider, spare])
    record(store, provider, "released", {"file": document.key, "sha256": document.sha256})
    assert len(against_bundle(store)) == 1  # of the hold that names the owners
    verified = call("custody", "verify", locked[2], "--signers", listed)
    assert (verified.code, verified.out.count("all of 1 owner")) == (6, 2), verified.out


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("host", "have 1 owner (host): the hold could never end"),
        ("", "no list says whose the release keys are"),
    ],
)
def test_no_hold_is_placed_whose_keys_are_of_too_few_owners(
    there, locked, provider, make_key, tmp_path, listed, said
):
    spare, case = make_key("spare"), tmp_path / "case.toml"
    signers_file(tmp_path / "signers", host=(provider, spare))
    keys = f'["{provider.public.fingerprint}", "{spare.public.fingerprint}"]'
    signers = 'signers = "signers"\n' if listed else ""
    case.write_text(f"[custody]\n{signers}release_keys = {keys}\nrelease_quorum = 2\n")
    words = ["hold", "place", locked[2], "-c", case, "--key", make_key.path_of("provider"), "--legal"]
    refused = call(*words, "--until", "1d", "--reason", "x")
    assert (refused.code, said in refused.err) == (2, True), refused.err
    assert bundle_hold.survey(*there, workers=4).legal == 0
    case.write_text(case.read_text().replace("quorum = 2", "quorum = 1"))
    assert call(*words, "--until", "1d", "--reason", "x").code == 0


def test_a_hold_that_is_placed_during_a_release_does_not_end_with_it(there, provider, customer):
    """Its keys were not asked. Its locks may be gone: whoever placed it has to place it again."""
    store, object_lock = there
    terms, keys = Terms(soon(days=1), "GOVERNANCE", legal=True), [customer.public.fingerprint]
    assert put_hold(there, provider, terms).is_held

    class Meanwhile(Broken):
        def __getattr__(self, name):
            self._left -= name == "lock"
            if name == "lock" and self._left == 0:
                put_hold(there, customer, terms, release_keys=keys, release_quorum=1)
            return getattr(self._inner, name)

    with pytest.raises(BusyError, match=r"was placed at .* meanwhile"):
        release_hold(store, Meanwhile(object_lock, 3), "done", [provider], workers=1)
    log = custody_log.read(store)
    assert [one.what.event for one in log.entries][-2:] == ["held", "held"]
    assert len(bundle_hold.standing(log, store.location)) == 2
    assert against_bundle(store) == []


def test_a_hold_and_an_erasure_at_once_have_one_winner(there, provider):
    """Both begin at the tag manifest: what is held is whole, and what is not whole is not held."""
    store, object_lock = there
    terms = Terms(soon(days=1), "GOVERNANCE", legal=True)

    class Held(Broken):
        def __getattr__(self, name):
            if name == "remove" and self._left:
                self._left = 0
                with pytest.raises(UnreachableError):
                    put_hold((store, Broken(object_lock, 2)), provider, terms)  # which has got no further
            return getattr(self._inner, name)

    count = len(list(object_lock.versions()))
    with pytest.raises(NotAllowedError):
        erase.erase(store, Held(object_lock, 1), provider, workers=1, progress=Silent())
    assert len(list(object_lock.versions())) >= count
    assert put_hold(there, provider, terms).is_held
    release_hold(store, object_lock, "done", [provider], workers=4)

    class Erased(Broken):
        def __getattr__(self, name):
            if name == "lock" and self._left:
                self._left = 0
                with pytest.raises(UnreachableError):
                    erase.erase(store, Broken(object_lock, 1), provider, workers=1, progress=Silent())
            return getattr(self._inner, name)

    with pytest.raises(MoveoutError):
        put_hold((store, Erased(object_lock, 1)), provider, Terms(soon(days=2), "GOVERNANCE", legal=True))
    assert not any(object_lock.lock(one).legal for one in object_lock.versions() if not one.is_marker)
    erase.erase(store, object_lock, provider, workers=4, progress=Silent())


def test_no_lock_is_lifted_by_a_log_that_was_tampered_with(there, provider, customer):
    """The entry that names the keys may be the one that is missing."""
    store, object_lock = there
    terms = Terms(soon(days=1), "GOVERNANCE", legal=True)
    put_hold(there, provider, terms)
    put_hold(there, provider, terms, release_keys=[customer.public.fingerprint], release_quorum=1)
    lines = store.read(layout.CUSTODY_LOG).splitlines(keepends=True)
    store.put(layout.CUSTODY_LOG, b"".join(lines[:-1]))
    with pytest.raises(DamageError, match="cut short"):
        release_hold(store, object_lock, "done", [provider], workers=4)
    assert bundle_hold.survey(store, object_lock, workers=4).is_held


@pytest.mark.torture
def test_a_hold_without_keys_does_not_end_one_that_names_some(there, provider, customer):
    store, _ = there
    terms = Terms(soon(days=1), "GOVERNANCE", legal=True)
    keys = [customer.public.fingerprint]
    elsewhere = CustodyEvent(
        "held", "b", "0" * 64, "s3://elsewhere/b", {"release_keys": ["x"], "release_quorum": 1}
    )
    custody_log.append(store, provider, lambda _: [elsewhere])
    assert put_hold(there, provider, terms, release_keys=keys, release_quorum=1).is_held
    assert put_hold(there, provider, terms, release_keys=[], release_quorum=0).is_held
    assert "1 of these keys" in release_hold(*there, "done", [provider], workers=4).missing[0]
    outcome = release_hold(*there, "done", [provider, customer], workers=4).protection
    assert outcome.legal == 0
    assert put_hold(there, provider, terms).is_held  # what was released is over
    release_hold(*there, "again", [provider], workers=4)


def test_a_hold_that_is_placed_again_is_released_again_and_both_are_on_record(there, provider, ticking):
    terms, events = Terms(soon(days=1), "GOVERNANCE", legal=True), []
    for _ in range(2):
        for _ in range(2):  # the second time each changes nothing
            assert put_hold(there, provider, terms, reason="asked").is_held
        for _ in range(2):
            release_hold(*there, "done", [provider], workers=4)
        events += ["held", "released"]
    entries = [one.what for one in custody_log.read(there[0]).entries if one.what.event in events]
    assert [one.event for one in entries] == events
    assert len({one.details["file"] for one in entries if one.event == "released"}) == 2


@pytest.mark.torture
def test_a_server_that_is_not_minio_holds_and_releases(location, versitygw, provider):
    name = f"locked-{secrets.token_hex(5)}"
    client = boto_client(versitygw.profile)
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    url = f"s3://{name}/bundle?profile={versitygw.profile}"
    store, object_lock = open_location(url), open_object_lock(url)
    put_files(location, store)
    assert put_hold((store, object_lock), provider, Terms(soon(days=1), "GOVERNANCE", legal=True)).is_held
    first = next(one for one in object_lock.versions() if one.key == layout.TAG_MANIFEST)
    with pytest.raises(NotAllowedError):
        object_lock.remove(first)
    outcome = release_hold(store, object_lock, "done", [provider], workers=2).protection
    assert (outcome.legal, outcome.until is None or outcome.until < soon(seconds=5)) == (0, True)
    end = object_lock.lock(first).until or datetime.now(UTC)
    time.sleep(max(0, (end - datetime.now(UTC)).total_seconds()) + 0.5)
    object_lock.remove(first)


def test_a_hold_becomes_firmer_and_none_weaker(there, provider):
    store, object_lock = there
    until = soon(minutes=90)
    assert put_hold(there, provider, Terms(until, "GOVERNANCE", legal=True)).is_held
    outcome = put_hold(there, provider, Terms(soon(minutes=30), "COMPLIANCE", legal=False))
    assert (outcome.is_held, outcome.until) == (True, until)
    assert {object_lock.lock(one).mode for one in object_lock.versions() if one.key.startswith("data/")} == {
        "COMPLIANCE"
    }
    put_hold(there, provider, Terms(soon(minutes=60), "GOVERNANCE", legal=True))
    assert bundle_hold.survey(
        store, object_lock, workers=4, terms=Terms(until, "COMPLIANCE", legal=True)
    ).is_held


def test_a_bucket_or_bundle_that_is_not_there_is_said_so(locked, minio, make_key):
    key = make_key.path_of("provider")
    for url in (f"s3://no-such-bucket/b?profile={minio.profile}", locked[2]):
        words = ("--until", "1d", "--legal", "--reason", "x", "--key", key)
        ended = call("hold", "place", url, *words)
        assert ended.code == (2 if url == locked[2] else 7), ended.err
        assert "no Object Lock" not in ended.err


@pytest.mark.torture
def test_compliance_ends_for_nobody_before_its_time(there, provider):
    store, object_lock = there
    until = soon(minutes=60)
    assert put_hold(there, provider, Terms(until, "COMPLIANCE", legal=True)).is_held
    outcome = release_hold(store, object_lock, "try", [provider], workers=4).protection
    assert (outcome.is_held, outcome.legal, outcome.until) == (True, 0, until)
    first = next(one for one in object_lock.versions() if one.key == layout.TAG_MANIFEST)
    with pytest.raises(NotAllowedError):
        object_lock.remove(first)


@pytest.mark.parametrize("server", ["local", "minio"])
def test_without_object_lock_it_is_not_called_a_hold(location, provider, request, make_bucket, server):
    url = location.location
    if server == "minio":
        s3 = request.getfixturevalue("minio")
        url = f"s3://{make_bucket(s3)}/b?profile={s3.profile}"
        put_files(location, open_location(url))
    terms = Terms(soon(days=1), "GOVERNANCE", legal=False)
    with pytest.raises(NotAllowedError, match=r"no Object Lock|is a directory"):
        put_hold((open_location(url), open_object_lock(url)), provider, terms)
    if server == "minio":
        status = call("hold", "status", url)
        assert (status.code, "made with Object Lock" in status.out) == (3, True), status.out
        assert "create-bucket --bucket NAME --object-lock-enabled-for-bucket" in " ".join(status.out.split())
        assert "hold place" not in status.out
        assert "came later" not in status.out
        with pytest.raises(GoneError, match="there is no bucket 'no-such-bucket' at") as caught:
            open_object_lock(f"s3://no-such-bucket/b?profile={s3.profile}").check_lock()
        assert "create-bucket --bucket no-such-bucket --object-lock-enabled" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "said"), [("SHA256:COUNSEL", "is no fingerprint"), ("stranger", "is of no key in")]
)
def test_no_hold_is_placed_that_nobody_could_end(there, locked, make_key, provider, tmp_path, name, said):
    """As with the words of the guide that were left in the case file."""
    (tmp_path / "signers").write_text(f"provider {provider.public.line}\n")
    fingerprint = name if ":" in name else make_key(name).public.fingerprint
    names = f'["{provider.public.fingerprint}", "{fingerprint}"]'
    case = tmp_path / "case.toml"
    case.write_text(f'[custody]\nsigners = "signers"\nrelease_keys = {names}\nrelease_quorum = 2\n')
    words = ["hold", "place", locked[2], "-c", case, "--key", make_key.path_of("provider"), "--legal"]
    refused = call(*words, "--until", "1d", "--reason", "x")
    assert (refused.code, said in refused.err) == (2, True), refused.err
    assert bundle_hold.survey(*there, workers=4).legal == 0


def test_the_commands(location, locked, make_key):
    key = make_key.path_of("provider")
    assert call("sign", location.location, "--key", key).code == 0
    assert call("transfer", location.location, locked[2], "-q").code == 0
    free = call("hold", "status", locked[2])
    assert (free.code, "finding" in free.out, "→ moveout hold place" in free.out) == (3, False, True), (
        free.out
    )
    held = call(
        "hold",
        "place",
        locked[2],
        "--until",
        "1d",
        "--legal",
        "--reason",
        "the customer leaves",
        "--key",
        key,
    )
    assert (held.code, held.out[:5]) == (0, "HELD:"), held.err
    status_shown = call("hold", "status", locked[2], "--json").json["result"]
    assert (status_shown["held"], status_shown["until"][10]) == (True, "T")  # a moment as ISO 8601 has it
    extended = call("hold", "extend", locked[2], "--until", "3d", "--key", key, "--json")
    assert (extended.code, extended.json["result"]["held"]) == (0, True), extended.err
    assert call("hold", "extend", locked[2], "--until", "2d", "--key", key).code == 2  # sooner
    assert call("hold", "place", locked[2], "--until", "2020-01-01", "--reason", "x", "--key", key).code == 2
    assert call("hold", "release", locked[2], "--reason", "received", "--key", key).code == 0
    free = call("hold", "status", locked[2])
    assert (free.code, "finding" in free.out, "→ moveout hold place" in free.out) == (3, False, True), (
        free.out
    )
    again = call("hold", "extend", locked[2], "--until", "4d", "--key", key)
    assert (again.code, "was released on " in again.err, "(received)" in again.err) == (2, True, True)
    assert "→ moveout hold place " in again.err
    assert not call("hold", "status", locked[2], "--json").json["result"]["held"]
    assert call("custody", "verify", locked[2]).code == 0


def test_a_server_that_takes_locks_and_removes_what_is_locked_holds_nothing(there, provider):
    """It names each lock when asked. Only whoever tries to remove something finds out."""
    store, object_lock = there

    def unlock_and_remove(version):
        object_lock.set_legal(version, on=False)
        object_lock.retain(version, None, "GOVERNANCE")
        object_lock.remove(version)

    lax = Removing(object_lock, unlock_and_remove)
    terms, log = Terms(soon(days=1), "GOVERNANCE", legal=True), custody_log.read(store)
    with pytest.raises(NotAllowedError, match="removes what is locked all the same"):
        put_hold((store, lax), provider, terms)
    assert custody_log.read(store) == log  # it says nothing of a hold, and lacks nothing
    for key in (layout.CUSTODY_LOG, layout.CUSTODY_HEAD):
        for version in [version for version in object_lock.versions() if version.key == key]:
            unlock_and_remove(version)
    with pytest.raises(NotAllowedError, match="removes what is locked all the same"):
        put_hold((store, lax), provider, terms)  # without a log, too
    assert put_hold(there, provider, terms).is_held


@pytest.mark.parametrize("error", [UsageError("no such method"), NotAllowedError("locked")])
def test_a_server_that_refuses_to_remove_what_is_locked_holds_in_whatever_words(there, provider, error):
    def refuse(_):
        raise error

    terms = Terms(soon(days=1), "GOVERNANCE", legal=True)
    assert put_hold((there[0], Removing(there[1], refuse)), provider, terms).is_held


def test_a_log_that_was_put_back_lifts_no_lock(there, locked, provider, customer, make_key):
    """A receipt that was given there names an entry that it lacks: it may lack a hold, too."""
    store, _ = there
    terms = Terms(soon(days=1), "GOVERNANCE", legal=True)
    assert put_hold(there, provider, terms).is_held
    older = {key: store.read(key) for key in (layout.CUSTODY_LOG, layout.CUSTODY_HEAD)}
    put_hold(there, provider, terms, release_keys=[customer.public.fingerprint], release_quorum=1)
    receipt.receive(store, receipt.Checked("full", 3, 100, []), [customer])
    for key, data in older.items():
        store.put(key, data)
    words = ("hold", "release", locked[2], "--reason", "x", "--key", make_key.path_of("provider"))
    refused = call(*words)
    assert (refused.code, "put an older log there" in flat(refused.err)) == (6, True), refused.err
    assert bundle_hold.survey(*there, workers=4).is_held


def test_a_file_of_which_no_version_is_left_is_named(there, provider):
    """Of the payload, too, which only the manifest names. What is not protected is named by its version."""
    store, object_lock = there
    gone = next(one for one in object_lock.versions() if one.key.startswith("data/app/"))
    object_lock.remove(gone)
    outcome = put_hold(there, provider, Terms(soon(days=1), "GOVERNANCE", legal=True))
    assert (outcome.is_held, [(one.key, one.what) for one in outcome.findings]) == (
        False,
        [(gone.key, "is missing")],
    )
    store.put(layout.BAG_INFO, store.read(layout.BAG_INFO))
    (latest,) = [one for one in object_lock.versions() if one.key == layout.BAG_INFO and one.is_latest]
    finding = next(
        one
        for one in bundle_hold.survey(store, object_lock, workers=4).findings
        if one.key == layout.BAG_INFO
    )
    assert finding.found == f"version {latest.id}: no retention, no legal hold"


def test_a_hold_of_a_stranger_says_who_can_lift_its_locks(location, provider, make_key, tmp_path):
    """No signature ends it that the list counts."""
    trust = allowed_signers.load(signers_file(tmp_path / "signers", acme=(provider,)))
    for keys, is_ours in (([provider], True), ([make_key("stranger")], False)):
        details = {"legal": True, "release_keys": [k.public.fingerprint for k in keys], "release_quorum": 1}
        (hold,) = record(location, provider, "held", details)
        sentence = hold_release.lacking_keys(hold, [], trust)
        assert ("the administrator of the bucket" in sentence) is not is_ours


def test_one_key_of_a_hold_is_asked_for_in_fewer_words(location, provider, customer):
    keys = [provider.public.fingerprint, customer.public.fingerprint]
    for quorum, words in (
        (1, f"1 of these keys: {keys[0]}"),
        (2, f"2 of these keys, each of another owner: {keys[0]}"),
    ):
        details = {"legal": True, "release_keys": keys, "release_quorum": quorum}
        (hold,) = record(location, provider, "held", details)
        assert words in hold_release.lacking_keys(hold, [], trust=None)
    assert hold_release.lacking_keys(hold, keys, trust=None) == ""


def test_which_holds_stood_before_an_entry_is_as_if_the_log_ended_there(make_key):
    """Also where transfers between namesakes make entries another location's, in logs of any order."""
    by, at, names = make_key("provider").public, "2026-11-30T00:00:00+00:00", random.Random(7)
    events = ("held", "released", "transferred", "noted")
    for _ in range(200):
        entries = []
        for number in range(1, 12):
            origin, location = names.choices(("a", "a?profile=x", "b"), k=2)
            what = CustodyEvent(names.choice(events), "id", "root", location, {"from": origin})
            entries.append(LogEntry(number, NOBODY, at, what, "name", by, b"%d" % number))
        log = custody_log.Log(entries, [], [])
        assert list(bundle_hold.standing_before(log, {"released", "noted"})) == [
            (entry, bundle_hold.standing(log.before(entry), entry.what.location))
            for entry in entries
            if entry.what.event in {"released", "noted"}
        ]
