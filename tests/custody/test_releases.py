"""A hold whose owners sit at several machines: each signs the release where they are, and nothing else ends it."""

import os
import pty
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from migrate.bundle import canonical_json
from migrate.cli.common.terminal import Console
from migrate.cli.custody.hold import Released, _shell_word
from migrate.custody import bundle_hold, cross_checks, documents, hold_release
from migrate.custody.bundle_hold import Terms
from migrate.custody.log import custody_log
from migrate.custody.log.events import new_event, record
from migrate.custody.signing import allowed_signers
from migrate.errors import BusyError, DamageError, UsageError
from migrate.runtime.progress import Silent
from tests.cli.conftest import call, run
from tests.custody.conftest import against_bundle, flat, mailed, put_hold, release_hold, signers_file, soon

TERMS = Terms(soon(days=1), "GOVERNANCE", legal=True)


@dataclass
class Held:
    """A bundle under a hold of two owners, and the machines of both."""

    store: object
    object_lock: object
    url: str
    host: object
    counsel: object
    case: Path
    exchange: Path

    @property
    def keys(self):
        return [self.host.public.fingerprint, self.counsel.public.fingerprint]

    def hold(self, **details):
        """Hold the bundle by both owners' keys."""
        names = dict(zip(self.keys, (["host"], ["counsel"]), strict=True))
        more = {"release_keys": self.keys, "release_quorum": 2, "release_owners": names, **details}
        assert put_hold((self.store, self.object_lock), self.host, TERMS, **more).is_held

    def is_held(self) -> bool:
        return bundle_hold.survey(self.store, self.object_lock, workers=4, terms=TERMS).is_held

    def signed(self, reason, *signers):
        """Return a release of today's holds as it comes by mail, with the signatures of these."""
        document = hold_release.prepare(self.store, reason, trust=None)
        return document, documents.signatures_of(document, signers)

    def carry_out(self, document, signers, trust=None):
        return hold_release.release(
            self.store, self.object_lock, document, signers, workers=4, progress=Silent(), trust=trust
        )


@pytest.fixture
def held(there, locked, make_key, provider, tmp_path):
    host, counsel = make_key("host"), make_key("counsel")
    signers_file(tmp_path / "signers", host=(host,), counsel=(counsel,), provider=(provider,))
    case = tmp_path / "case.toml"
    quorum = (
        f'release_keys = ["{host.public.fingerprint}", "{counsel.public.fingerprint}"]\nrelease_quorum = 2\n'
    )
    case.write_text(f'[custody]\nkey = "{make_key.path_of("host")}"\nsigners = "signers"\n{quorum}')
    bundle = Held(*there, locked[2], host, counsel, case, tmp_path / "exchange")
    bundle.hold()
    return bundle


def test_an_owner_without_access_signs_a_file_and_the_release_is_carried_out(held, make_key):
    words = ("hold", "release", held.url, "-c", held.case)
    begun = call(*words, "--reason", "received by them", "--to", held.exchange)
    output = flat(begun.out)
    assert (begun.code, "NOT RELEASED" in output) == (3, True), begun.err
    assert f"not signed: {held.keys[1]} (counsel)" in output
    (file,) = held.exchange.glob("release-*.json")
    assert f"    moveout custody sign {file} --key KEY\n" in begun.out
    assert f"    moveout hold release '{held.store.location}' {file} -c {held.case}\n" in begun.out
    assert held.is_held()
    for _ in range(2):
        signed = call("custody", "sign", file, "--key", make_key.path_of("counsel"), "--yes")
        assert (signed.code, "'received by them'" in signed.err) == (0, True), signed.err
    assert len(list(held.exchange.glob("*.sig"))) == 2
    for _ in range(2):
        released = call(*words, file, "--json")
        assert (released.code, released.json["result"]["released"]) == (0, True), released.err
        assert "for the reason 'received by them'" in released.err  # what comes by mail is signed here, too
    assert sorted(released.json["result"]["signed_by"]) == sorted(held.keys)
    assert not bundle_hold.survey(held.store, held.object_lock, workers=4).protected
    (entry,) = custody_log.read(held.store).find("released")
    assert entry.what.details["reason"] == "received by them"
    assert call("custody", "verify", held.url, "--signers", held.case.with_name("signers")).code == 0


def test_owners_with_access_give_the_same_command_each(held, make_key):
    """The profile in the URL is each one's own."""
    first = call("hold", "release", held.url, "-c", held.case, "--reason", "done", "--json")
    assert (first.code, first.json["result"]["signed_by"]) == (3, held.keys[:1])
    other = call("hold", "release", held.url, "--reason", "too", "--key", make_key.path_of("counsel"))
    assert (other.code, "for the reason 'done'" in flat(other.out)) == (3, True), other.out
    held.store.location = held.store.location.replace("?profile=", "?profile=x-")
    assert release_hold(held.store, held.object_lock, "done", [held.counsel], workers=4).missing == []
    assert against_bundle(held.store) == []


def test_two_owners_who_begin_at_once_agree_at_the_next_command(held, ticking, capsys):
    both = [hold_release.prepare(held.store, "done", trust=None) for _ in range(2)]
    assert both[0].key != both[1].key
    for document, owner in zip(both, (held.host, held.counsel), strict=True):
        done = held.carry_out(document, [owner])
        assert done.missing
    Released(held.url, done).draw(Console())
    assert f"another release waits there, for the reason 'done' ({both[0].key})" in capsys.readouterr().out
    done = release_hold(held.store, held.object_lock, "done", [held.host], workers=4)
    done = (
        release_hold(held.store, held.object_lock, "done", [held.counsel], workers=4)
        if done.missing
        else done
    )
    assert done.missing == []


def test_whoever_holds_no_key_prepares_a_release_and_carries_it_out(held, provider):
    document = hold_release.prepare(held.store, "done", trust=None)
    assert "0 of them signed" in held.carry_out(document, [provider]).missing[0]
    signatures = documents.signatures_of(document, (held.host, held.counsel))
    assert (
        held.carry_out(
            hold_release.accept(held.store, document, signatures, trust=None)[0], [provider]
        ).missing
        == []
    )
    assert against_bundle(held.store) == []


def test_a_signature_of_another_release_does_not_count(held):
    """Neither by mail nor where somebody has put it at the location, under the name of a signature of this one."""
    other, signatures = held.signed("something else", held.counsel)
    document = hold_release.prepare(held.store, "done", trust=None)
    with pytest.raises(DamageError, match="one of something else"):
        hold_release.accept(held.store, document, signatures, trust=None)
    held.carry_out(document, [held.host])
    (name, armored) = next(iter(signatures.items()))
    held.store.put(name.replace(other.key, document.key), armored)
    assert "1 of them signed" in held.carry_out(document, [held.host]).missing[0]
    assert held.is_held()
    held.store.put(
        name.replace(other.key, document.key), *documents.signatures_of(document, [held.counsel]).values()
    )
    assert held.carry_out(document, [held.host]).missing == []


OF_SOMETHING_ELSE = [
    ({"bundle": "0b6b3a5e-0000-4000-8000-000000000000"}, "says|no release as|releases the bundle"),
    ({"root": "0" * 64}, "releases the bundle"),
    ({"location": "s3://elsewhere/bundle"}, "is for s3://elsewhere/bundle"),
    ({"holds": ["0" * 64]}, "is not for the holds that stand now"),
    ({"holds": []}, "no release as moveout makes it"),
    ({"reason": None}, "no release as moveout makes it"),
    ({"also": "all other bundles"}, "no release as moveout makes it"),
]


def test_a_release_of_something_else_is_refused(held):
    """One hold stands against all of them: to make it takes longer than to refuse a release."""
    true, both = dict(held.signed("done")[0].value), [held.host, held.counsel]
    for change, message in OF_SOMETHING_ELSE:
        value = true | change
        about = f"Release of the bundle {value['bundle']} from its hold"
        document = documents.make(
            "release",
            about,
            {name: value[name] for name in value if name not in {"about", "kind", "version", "time"}},
        )
        with pytest.raises(UsageError, match=message):
            hold_release.accept(held.store, document, documents.signatures_of(document, both), trust=None)
        documents.keep(held.store, document, both)  # by somebody who may write there
        done = release_hold(held.store, held.object_lock, "done", [held.host], workers=4)
        assert ("1 of them signed" in done.missing[0], held.is_held()) == (True, True), change


def test_what_is_no_release_of_moveouts_is_not_signed(held, make_key):
    held.exchange.mkdir()
    forged = documents.make("release", "A receipt", {**held.signed("done")[0].value, "about": "A receipt"})
    receipt = documents.make("receipt", "Receipt", {"bundle": "b", "root": "0" * 64})
    for document in (forged, receipt):
        file = held.exchange / document.key.rpartition("/")[2]
        file.write_bytes(document.data)
        refused = call("custody", "sign", file, "--key", make_key.path_of("counsel"))
        assert (refused.code, "moveout hold release --to DIR" in flat(refused.err)) == (2, True), refused.err
    assert not list(held.exchange.glob("*.sig"))


def test_an_old_release_does_not_end_a_newer_hold(held):
    """Signed for a hold and never carried out, or carried out and sent again."""
    old, signatures = held.signed("done", held.host, held.counsel)
    held.hold(reason="and again")
    with pytest.raises(UsageError, match="not for the holds that stand now"):
        hold_release.accept(held.store, old, signatures, trust=None)
    documents.keep(held.store, old, [held.host, held.counsel])
    with pytest.raises(BusyError, match="have changed meanwhile"):
        held.carry_out(old, [held.host])
    done = release_hold(held.store, held.object_lock, "done", [held.host], workers=4)
    assert (len(done.missing), done.document.key != old.key, held.is_held()) == (2, True, True)
    assert release_hold(held.store, held.object_lock, "done", [held.counsel], workers=4).missing == []
    held.hold(reason="once more")
    with pytest.raises(UsageError, match="not for the holds that stand now"):
        hold_release.accept(held.store, done.document, {}, trust=None)
    assert len(release_hold(held.store, held.object_lock, "done", [held.host], workers=4).missing) == 1
    record(held.store, held.host, "released", {"file": old.key, "sha256": old.sha256})
    assert any("does not name the hold of entry" in str(finding) for finding in against_bundle(held.store))


def test_one_owner_does_not_sign_twice_and_a_removed_one_does_not_count(held, make_key, tmp_path):
    spare = make_key("spare")
    names = dict(zip([*held.keys, spare.public.fingerprint], (["host"], ["counsel"], ["host"]), strict=True))
    held.hold(release_keys=list(names), release_owners=names)
    document = hold_release.prepare(held.store, "done", trust=None)
    done = held.carry_out(document, [held.host, spare])
    assert "2 of them signed, all of 1 owner" in done.missing[1]
    trust = allowed_signers.load(signers_file(tmp_path / "fewer", host=(held.host, spare)))
    done = held.carry_out(document, [held.counsel], trust)
    assert f"not in {trust.source} any more: {held.keys[1]} (counsel)" in done.missing[0]
    assert held.is_held()
    replaced = (
        tmp_path / "replaced"
    )  # the guide: the old line stays, and a hold ends by the keys that it names
    line = f'counsel valid-before="20200101Z" {held.counsel.public.line}\n'
    replaced.write_text(line + "".join(f"host {key.public.line}\n" for key in (held.host, spare)))
    assert held.carry_out(document, [held.host], allowed_signers.load(replaced)).missing == []


def test_a_file_that_was_edited_or_cut_short_releases_nothing(held, make_key):
    call("hold", "release", held.url, "-c", held.case, "--reason", "done", "--to", held.exchange)
    (file,) = held.exchange.glob("release-*.json")
    call("custody", "sign", file, "--key", make_key.path_of("counsel"), "--yes")
    words = ("hold", "release", held.url, "-c", held.case, file)
    whole = {path: path.read_bytes() for path in held.exchange.iterdir()}
    for path, data in whole.items():
        for cut in (b"", data[: len(data) // 2], data[:-1], data.replace(b"done", b"gone") + b"\n"):
            path.write_bytes(cut)
            refused = call(*words)
            assert (refused.code, path.name in flat(refused.err)) == (6, True), (path, refused.err)
        path.write_bytes(data)
    value = dict(canonical_json.decode(file.read_bytes(), "")) | {"reason": "another"}
    edited = documents.make("release", value.pop("about"), value)  # with a name that fits
    for path, data in whole.items():
        path.with_name(path.name.replace(file.name, edited.key[4:])).write_bytes(data)
    (held.exchange / edited.key[4:]).write_bytes(edited.data)
    refused = call(*words[:-1], held.exchange / edited.key[4:])
    assert (refused.code, "one of something else" in flat(refused.err)) == (6, True), refused.err
    assert held.is_held()
    assert call(*words).code == 0


def test_a_release_and_a_reason_exclude_each_other_and_one_is_needed(held):
    files = [f"release-{digit * 16}.json" for digit in "01"]
    for more, words in (
        ((), "either the reason"),
        (("--reason", "done", files[0]), "either the reason"),
        (files, "takes one release; 2 given"),
    ):
        refused = call("hold", "release", held.url, "-c", held.case, *more)
        assert (refused.code, words in flat(refused.err)) == (2, True), refused.err


def test_a_reason_makes_no_line_of_its_own(held):
    ended = call("hold", "release", held.url, "-c", held.case, "--reason", "done\nReleased: all of it")
    lines = ended.out.splitlines()
    assert (ended.code, [line for line in lines if line.startswith("Released")]) == (3, []), ended.out


def test_the_command_that_is_printed_has_the_very_reason(held):
    """Another one would begin another release, for all owners to sign again."""
    reason = "it's done:\n\tthe copy\u00a0is \\whole\x1b, says \u202eOlé"
    begun = call("hold", "release", held.url, "-c", held.case, "--reason", reason)
    status = call("hold", "status", held.url, "-c", held.case)
    for out in (begun.out, status.out):
        (line,) = (line for line in out.splitlines() if " --reason " in line)
        assert line.isprintable()
        word = line.partition(" --reason ")[2].partition(" --key ")[0]
        shell = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
        assert shell.stdout.decode() == reason
    assert _shell_word("it's") == shlex.quote("it's")


def test_a_release_that_is_repeated_lifts_no_locks_of_a_hold_that_is_being_placed(held):
    document, _ = held.signed("received", held.host)
    assert not held.carry_out(document, [held.host, held.counsel]).missing
    for version in [version for version in held.object_lock.versions() if not version.is_marker]:
        held.object_lock.retain(version, TERMS.until, TERMS.mode)
        held.object_lock.set_legal(version, on=True)
    assert held.is_held()
    held.carry_out(document, [held.host])
    assert held.is_held()


def test_an_entry_that_says_a_hold_has_ended_keeps_no_owner_from_ending_it(held, make_key):
    """Whoever may write there can write it: the locks would stay for ever, and no error would say why."""
    record(held.store, make_key("stranger"), "released", {"file": "sig/release-0123456789abcdef.json"})
    words = ("hold", "release", held.url, "-c", held.case, "--reason", "done", "--key")
    assert call(*words, make_key.path_of("host")).code == 3
    ended = call(*words, make_key.path_of("counsel"))
    assert (ended.code, "Locked as before" in ended.out) == (0, False), ended.out
    survey = bundle_hold.survey(held.store, held.object_lock, workers=4)
    assert (survey.protected, survey.legal) == (0, 0)


def test_nobody_who_is_not_listed_says_that_a_hold_without_keys_has_ended(
    there, locked, provider, make_key, tmp_path
):
    trust = allowed_signers.load(signers_file(tmp_path / "allowed", host=(provider,)))
    assert put_hold(there, provider, TERMS).is_held
    stranger = make_key("stranger")
    document = hold_release.prepare(there[0], "mine now", trust=None)
    documents.keep(there[0], document, [stranger])
    record(there[0], stranger, "released", document.named)
    log, kept = custody_log.read(there[0]), documents.read_all(there[0])[0]
    (finding,) = cross_checks.releases(log, log.find("released"), kept, trust)
    assert f"nobody in {trust.source} says so" in str(finding)
    assert list(cross_checks.releases(log, log.find("released"), kept, None)) == []
    assert release_hold(*there, "done", [provider], workers=4, trust=trust).missing == []
    assert bundle_hold.survey(*there, workers=4).protected == 0


def test_a_stranger_who_ends_a_hold_and_places_another_spares_no_owner_the_signature(held, make_key):
    """The locks of the hold were lifted by whoever may end the other: one owner, of two."""
    stranger = make_key("stranger")
    terms = {"until": TERMS.until.isoformat(), "legal": True, "mode": "GOVERNANCE"}
    record(held.store, stranger, "released", {"file": "sig/release-0123456789abcdef.json"})
    record(held.store, stranger, "held", terms)
    assert call("hold", "extend", held.url, "--until", "2d", "-c", held.case).code == 0
    words = ("hold", "release", held.url, "-c", held.case, "--reason", "done", "--key")
    assert call(*words, make_key.path_of("host")).code == 3
    assert held.is_held()
    ended = call(*words, make_key.path_of("counsel"))
    assert (ended.code, held.is_held()) == (0, False), ended.err


def test_a_stranger_makes_no_hold_another_locations_to_spare_owners_their_signatures(held, make_key):
    """An entry of a transfer between two URLs of one location had made it so."""
    url = held.store.location.replace("profile=minio", "profile=another")
    terms = {"until": TERMS.until.isoformat(), "legal": True, "mode": "GOVERNANCE"}
    came = new_event(held.store, "transferred", {"from": held.store.location})
    events = [replace(event, location=url) for event in (came, new_event(held.store, "held", terms))]
    custody_log.append(held.store, make_key("stranger"), lambda _: events)
    words = ("hold", "release", held.url, "-c", held.case, "--reason", "done", "--key")
    assert call(*words, make_key.path_of("host")).code == 3
    assert held.is_held()
    document = hold_release.prepare(held.store, "done, whatever the list says", trust=None)
    documents.keep(held.store, document, [held.host])
    record(held.store, held.host, "released", document.named)
    log, kept = custody_log.read(held.store), documents.read_all(held.store)[0]
    trust = allowed_signers.load(held.case.with_name("signers"))
    findings = list(map(str, cross_checks.releases(log, log.find("released"), kept, trust)))
    assert any("does not name the hold" in finding for finding in findings), findings


def test_a_hold_is_not_extended_on_the_terms_of_a_stranger(held, make_key):
    """The host would sign that it ends by his key. Nor is it over by his word."""
    stranger = make_key("stranger")
    terms = {"until": TERMS.until.isoformat(), "legal": True, "mode": "GOVERNANCE"}
    keys = {"release_keys": [stranger.public.fingerprint], "release_quorum": 1}
    record(held.store, stranger, "held", {**terms, **keys})
    extended = call("hold", "extend", held.url, "--until", "2d", "-c", held.case)
    assert extended.code == 0, extended.err
    assert custody_log.read(held.store).find("held")[-1].what.details["release_keys"] == held.keys
    record(held.store, stranger, "released")
    assert call("hold", "extend", held.url, "--until", "3d", "-c", held.case).code == 0
    record(held.store, held.host, "released")
    extended = call("hold", "extend", held.url, "--until", "4d", "-c", held.case)
    assert (extended.code, "was released on" in flat(extended.err)) == (2, True), extended.err


def test_a_hold_that_was_released_twice_is_still_known_as_released(there, locked, provider, make_key):
    assert put_hold(there, provider, TERMS).is_held
    for reason in ("done", "done, and said again", "once more"):
        assert release_hold(*there, reason, [provider], workers=4).missing == []
    extended = call("hold", "extend", locked[2], "--until", "2d", "--key", make_key.path_of("provider"))
    assert (extended.code, "was released on" in flat(extended.err)) == (2, True), extended.err


def test_a_hold_that_comes_between_the_release_and_its_end_is_not_ended(held):
    document = hold_release.prepare(held.store, "done", trust=None)
    put_hold((held.store, held.object_lock), held.host, TERMS, reason="without keys")
    with pytest.raises(BusyError, match="have changed meanwhile"):
        held.carry_out(document, [held.host, held.counsel])
    assert held.is_held()


def test_signatures_of_strangers_on_a_release_that_comes_by_mail_are_left_out(held, make_key, provider):
    stranger = make_key("stranger")
    document = hold_release.prepare(held.store, "done", trust=None)
    file = mailed(held.exchange, document, held.counsel, stranger, provider)
    words = ("hold", "release", held.url, "-c", held.case, file)
    released = call(*words)
    assert released.code == 0, released.err
    assert f"Left out: a signature by {stranger.public.fingerprint}" in flat(released.out)
    (kept,) = documents.read_all(held.store, "release")[0]
    signers = {held.host.public, held.counsel.public, provider.public}  # the list has the last one
    assert set(kept.signers) == signers
    assert call("custody", "verify", held.url, "--signers", held.case.with_name("signers")).code == 0


def test_a_release_that_strangers_have_signed_is_not_preferred(held, make_key, ticking):
    """Else whoever may write there keeps the owners' signatures apart."""
    document, other = (hold_release.prepare(held.store, "done", trust=None) for _ in range(2))
    held.carry_out(document, [held.host])
    documents.keep(held.store, other, [make_key("stranger"), make_key("another")])
    assert hold_release.prepare(held.store, "done", trust=None).key == document.key


def test_status_shows_a_release_that_waits_for_an_owner(held, make_key):
    words = ("hold", "status", held.url, "-c", held.case)
    status = call(*words, "--json").json["result"]
    assert status["waiting"] == []
    begun = call("hold", "release", held.url, "-c", held.case, "--reason", "received\nby them", "--json")
    status = call(*words)
    output = flat(status.out)
    assert status.code == 0, status.err
    (release,) = documents.read_all(held.store, "release")[0]
    assert f"A release waits for signatures, for the reason 'received\\nby them' ({release.key}, " in output
    assert f"signed by {held.keys[0]} (host)" in output
    assert f"not signed: {held.keys[1]} (counsel)" in output
    assert "without it the hold has no end of its own" in output
    assert f"moveout hold release '{held.store.location}' -c {held.case} --reason" in output
    (waiting,) = call(*words, "--json").json["result"]["waiting"]
    assert (waiting["release"], waiting["signed_by"], waiting["until"]) == (
        begun.json["result"]["release"],
        held.keys[:1],
        None,
    )
    assert waiting["missing"] == begun.json["result"]["missing"]
    documents.keep(held.store, release, [held.counsel])  # and its run was killed
    output = flat(call(*words).out)
    assert "A release has all its signatures, and was not carried out, for the reason" in output
    assert "not signed" not in output
    assert held.carry_out(release, [held.host]).missing == []
    assert "A release" not in call(*words).out


def test_status_says_when_a_hold_without_a_legal_hold_ends(held):
    until = soon(days=3)
    held.carry_out(hold_release.prepare(held.store, "done", trust=None), [held.host, held.counsel])
    assert hold_release.waiting(held.store, trust=None) == []
    terms = {"release_keys": held.keys, "release_quorum": 2}
    details = {"until": until.isoformat(), "legal": False, "mode": "COMPLIANCE", **terms}
    record(held.store, held.host, "held", details)
    held.carry_out(hold_release.prepare(held.store, "done", trust=None), [held.host])
    (waiting,) = hold_release.waiting(held.store, trust=None)
    assert waiting.until == until
    held.carry_out(hold_release.prepare(held.store, "done", trust=None), [held.counsel])
    record(held.store, held.host, "held", {**details, "until": soon(days=-1).isoformat()})
    held.carry_out(hold_release.prepare(held.store, "done", trust=None), [held.host])
    assert hold_release.waiting(held.store, trust=None) == []  # it has ended by itself


def test_an_owner_sees_what_is_signed_before_it_is(held, make_key):
    """At a terminal they are asked; in a script --yes is their answer."""
    call("hold", "release", held.url, "-c", held.case, "--reason", "received by them", "--to", held.exchange)
    (file,) = held.exchange.glob("release-*.json")
    words, count = (
        ("custody", "sign", file, "--key", make_key.path_of("counsel")),
        len(list(held.exchange.iterdir())),
    )
    hold = custody_log.read(held.store).find("held")[0]
    for more, code in (((), 2), (("--yes",), 0)):
        ended = call(*words, *more)
        shown = flat(ended.err)
        assert (ended.code, "'received by them'" in shown, held.store.location in shown) == (
            code,
            True,
            True,
        ), shown
        assert f"it ends 1 hold: {hold.hash[:16]}" in shown
        assert len(list(held.exchange.iterdir())) == count + (code == 0)
    assert "add --yes to confirm" in call(*words).err
    main, terminal = pty.openpty()
    with os.fdopen(main, "r+b", 0) as keyboard, os.fdopen(terminal, "rb", 0) as stdin:
        for answer, code in ((b"n\n", 2), (b"y\n", 0)):
            keyboard.write(answer)
            assert run(*words, stdin=stdin).code == code
