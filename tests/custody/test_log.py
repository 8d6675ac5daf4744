"""The custody log: what is added stays, in order, by whoever signed it; everything else is found and named."""

import json
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from migrate.bundle import canonical_json, layout
from migrate.custody import bundle_hold, cross_checks, documents
from migrate.custody.log import custody_log, entry
from migrate.custody.log.entry import CustodyEvent
from migrate.custody.log.events import record, record_seal, record_transfer
from migrate.custody.signing import allowed_signers, ssh_signatures
from migrate.custody.signing.bundle_signatures import sign_bundle, signature_key
from migrate.errors import DamageError, UnreachableError, UsageError
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.transfer.run import transfer
from tests.cli.conftest import call
from tests.custody.conftest import against_bundle, flat, in_memory, mailed, signers_file


@pytest.fixture
def kept(location, provider, customer):
    """A bundle with five entries by two hands."""
    sign_bundle(location, provider)
    record_seal(location, provider, [provider])
    record(location, customer, "verified", {"level": "full"})
    record(location, provider, "verified", {"level": "quick"})
    return location


def lines(location) -> list[bytes]:
    return location.read(layout.CUSTODY_LOG).splitlines(keepends=True)


def named(location) -> str:
    return "\n".join(str(finding) for finding in custody_log.read(location).findings)


def compared(one, other):
    """The findings and notes of a comparison of the logs of two locations."""
    return cross_checks.compare(custody_log.read(one), one.location, custody_log.read(other), other.location)


def test_entries_follow_each_other_and_say_who_did_what(kept, provider, customer):
    log = custody_log.read(kept)
    assert [one.what.event for one in log.entries] == [
        "created",
        "sealed",
        "signed",
        "verified",
        "verified",
    ]
    assert [one.public for one in log.entries][3:] == [customer.public, provider.public]
    assert [one.number for one in log.entries] == [1, 2, 3, 4, 5]
    assert (log.findings, log.notes) == ([], [])
    assert len({one.what.root for one in log.entries}) == 1


def test_the_same_again_adds_nothing(kept, provider):
    before = kept.read(layout.CUSTODY_LOG)
    record_seal(kept, provider, [provider])
    assert kept.read(layout.CUSTODY_LOG) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:-1], "was cut short: it has 4 entries, its head says 5"),
        (lambda rows: rows[:1], "was cut short"),
        (lambda rows: [], "was cut short: it is gone, its head says 5"),
        (lambda rows: [*rows[:4], rows[4][:-1]], "cut short"),
        (lambda rows: [*rows[:4], rows[4][:-20]], "line 5"),
        (lambda rows: [*rows[:2], rows[3], rows[2], rows[4]], "line 3: is entry 4, and what it follows is missing"),
        (lambda rows: rows[1:], "line 1: is entry 2, and what it follows is missing"),
        (lambda rows: [*rows[:2], *rows[3:]], "line 3: is entry 4"),
        (lambda rows: [*rows, rows[4]], "line 6: repeats line 5"),
        (lambda rows: [rows[0], rows[0], *rows[1:]], "line 2: repeats line 1"),
        (lambda rows: [*rows[:3], rows[3].replace(b'"full"', b'"fool"'), rows[4]], "line 4: was changed after it"),
        (lambda rows: [*rows, b"{}\n"], "line 6: is not an entry"),
        (lambda rows: [*rows, b"\n"], "line 6: is not an entry"),
        (lambda rows: [*rows[:3], rows[3].replace(b",", b", ", 1), rows[4]], "line 4: is not written as"),
    ],
)  # fmt: skip
def test_what_is_done_to_a_log_is_named(kept, provider, change, said):
    data = b"".join(change(lines(kept)))
    kept.put(layout.CUSTODY_LOG, data) if data else kept.delete(layout.CUSTODY_LOG)
    assert said in named(kept)
    with pytest.raises(DamageError):
        record(kept, provider, "verified")


def test_a_second_branch_is_named_in_one_log_and_between_two(kept, provider, tmp_path):
    rows = lines(kept)
    two = entry.read(rows[1][:-1])
    other = (
        entry.write(provider, CustodyEvent("verified", "x", "", kept.location), two, datetime.now(UTC)).line
        + b"\n"
    )
    kept.put(layout.CUSTODY_LOG, b"".join([*rows, other]))
    assert "line 6: begins a second branch after line 2" in named(kept)
    # a whole other branch, with the head that belongs to it
    kept.put(layout.CUSTODY_LOG, b"".join([*rows[:2], other]))
    assert "its head says 5" in named(kept)
    kept.delete(layout.CUSTODY_HEAD)
    assert "custody-head.json: is missing" in named(kept)
    copy = open_location(str(tmp_path / "copy"))
    copy.put(layout.CUSTODY_LOG, b"".join(rows))
    findings, _ = compared(kept, copy)
    branch = (
        f"entry 3 is another than in sig/custody.jsonl at {copy.location}: there is a second branch after 2"
    )
    assert branch in str(findings)
    kept.put(layout.CUSTODY_LOG, b"".join(rows[:2]))
    findings, _ = compared(kept, copy)
    cut = f"has 2 entries, and sig/custody.jsonl at {copy.location} has 5: it was cut short"
    assert cut in str(findings)


def test_a_line_by_another_hand_does_not_pass_for_the_first(kept, provider, customer):
    """Somebody who has a key of his own can write entries, but not under another's name."""
    rows = lines(kept)
    value = json.loads(rows[4])
    value["key"] = customer.public.fingerprint
    kept.put(
        layout.CUSTODY_LOG,
        b"".join([*rows[:4], json.dumps(value, sort_keys=True, separators=(",", ":")).encode(), b"\n"]),
    )
    assert "line 5: was changed after it was signed" in named(kept)


def test_random_changes_to_log_and_head_are_all_found(kept):
    draw, there = random.Random(4), in_memory(kept)
    for key in (layout.CUSTODY_LOG, layout.CUSTODY_HEAD):
        data = there.read(key)
        for _ in range(60):
            at = draw.randrange(len(data))
            there.files[key] = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
            assert "sig/custody" in named(there), at
        there.files[key] = data
    assert named(there) == ""


def test_bits_of_a_signature_that_its_bytes_do_not_need_are_seen_too(kept):
    """The last letter before ``=`` carries two more bits than the signature has."""
    head = kept.read(layout.CUSTODY_HEAD)
    at = head.index(b'="')
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spare = letters[letters.index(head[at - 1 : at]) | 3]
    kept.put(layout.CUSTODY_HEAD, head[: at - 1] + bytes([spare]) + head[at:])
    assert "custody-head.json" in named(kept)


def test_writers_at_once_make_one_chain(kept, provider, customer):
    def write(signer, number):
        for turn in range(5):
            record(kept, signer, "verified", {"writer": number, "turn": turn})

    threads = [
        threading.Thread(target=write, args=(signer, n)) for n, signer in enumerate([provider, customer] * 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = custody_log.read(kept)
    assert (len(log.entries), log.findings) == (25, [])


class DyingStore:
    """A store that breaks down at the n-th write."""

    def __init__(self, inner, writes: int) -> None:
        self._inner, self._left = inner, writes

    def __getattr__(self, name):
        if name in {"put", "create", "replace"}:
            if self._left == 0:
                raise UnreachableError("died")
            self._left -= 1
        return getattr(self._inner, name)


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 4, 5])
def test_a_writer_that_dies_leaves_a_log_in_order(location, provider, writes):
    try:
        record_seal(DyingStore(location, writes), provider, [provider])
        record(DyingStore(location, writes), provider, "verified")
    except UnreachableError:
        pass
    assert named(location) == ""
    record_seal(location, provider, [provider])
    record(location, provider, "verified")
    assert named(location) == ""


def test_a_clock_that_was_set_back_is_noted_and_no_damage(kept, provider):
    now = datetime.now(UTC) - timedelta(days=400)
    happened = CustodyEvent("verified", "x", "", kept.location)
    custody_log.append(kept, provider, lambda _: [happened], clock=lambda: now)
    log = custody_log.read(kept)
    assert log.findings == []
    assert "entry 6" in log.notes[0]


def test_the_log_travels_and_then_each_location_has_its_own(kept, provider, customer, tmp_path):
    destination = open_location(str(tmp_path / "destination"))
    move = lambda: transfer(kept, destination, workers=1, progress=Silent())  # noqa: E731
    assert move().findings == []
    assert record_transfer(kept, destination, customer, {}) == ""
    assert custody_log.read(destination).entries[-1].what.event == "transferred"
    record(destination, customer, "verified")
    record(kept, provider, "verified")
    before = destination.read(layout.CUSTODY_LOG)
    assert move().files_moved == 0
    assert "is its own" in record_transfer(kept, destination, customer, {})
    assert destination.read(layout.CUSTODY_LOG) == before
    findings, notes = compared(kept, destination)
    assert (findings, notes) == ([], ["the logs part after entry 5: each location has its own from there"])


def rewrite(location, provider, entries, *further):
    """Do what whoever has the key can do: put an older log there with a head that fits, and write on."""
    for key in (layout.CUSTODY_LOG, layout.CUSTODY_HEAD):
        location.delete(key)
    if entries:
        location.put(layout.CUSTODY_LOG, b"".join(one.line + b"\n" for one in entries))
        custody_log._write_head(location, provider, entries)
    if further:
        custody_log.append(location, provider, lambda _: further)


@pytest.mark.parametrize("kept_entries", [5, 4, 3, 1, 0])
@pytest.mark.parametrize("profile", ["", "?profile=other"])
def test_a_sender_who_shortens_or_rewrites_the_log_is_found_from_either_side(
    kept, provider, customer, tmp_path, kept_entries, profile
):
    """The receiver's copy has what the sender's own log lacks, whether that ends there or goes on otherwise."""
    record(kept, provider, "held", {"legal": True})
    copy = open_location(str(tmp_path / "copy"))
    transfer(kept, copy, workers=1, progress=Silent())
    assert record_transfer(kept, copy, customer, {}) == ""
    assert compared(kept, copy) == compared(copy, kept) == ([], [])
    entries = custody_log.read(kept).entries[:kept_entries]
    other = CustodyEvent("verified", "b", entries[-1].what.root if entries else "", kept.location + profile)
    for further in ([], [other]):
        rewrite(kept, provider, entries, *further)
        assert custody_log.read(kept).findings == []
        words = "there is a second branch after" if further else "it was cut short"
        for findings, _ in (compared(kept, copy), compared(copy, kept)):
            assert words in str(findings), (kept_entries, further)
            assert "sig/custody.jsonl" in findings[0].key
    said = call("custody", "verify", copy.location, "--with", kept.location)
    assert (said.code, "there is a second branch" in said.out) == (6, True), said.out


def test_a_log_that_goes_on_at_a_location_of_the_same_name_was_not_rewritten(
    kept, provider, customer, tmp_path
):
    """Two servers may have a bucket of one name, reached by two profiles."""
    copy = open_location(str(tmp_path / "copy"))
    here, there = "s3://b/x?profile=a", "s3://b/x?profile=b"
    root = custody_log.read(kept).entries[-1].what.root
    for event in (CustodyEvent("held", "b", root, here), CustodyEvent("granted", "b", root, here)):
        custody_log.append(kept, provider, lambda _, event=event: [event])
    custody_log.carry(kept, copy)
    custody_log.append(kept, provider, lambda _: [CustodyEvent("revoked", "b", root, here)])
    for event in (
        CustodyEvent("transferred", "b", root, there, {"from": here}),
        CustodyEvent("held", "b", root, there),
    ):
        custody_log.append(copy, customer, lambda _, event=event: [event])
    log, other = custody_log.read(kept), custody_log.read(copy)
    findings, notes = cross_checks.compare(other, there, log, here)
    assert (findings, len(notes)) == ([], 2)
    rewrite(kept, provider, log.entries[:6])
    findings, _ = cross_checks.compare(other, there, custody_log.read(kept), here)
    assert [one.key for one in findings] == [f"{layout.CUSTODY_LOG} at {here}"]


def test_a_copy_that_is_damaged_or_missing_is_said_so(kept, provider, tmp_path):
    copy = open_location(str(tmp_path / "copy"))
    assert compared(kept, copy) == ([], [f"there is no custody log at {copy.location} to compare with"])
    custody_log.carry(kept, copy)
    copy.delete(layout.CUSTODY_HEAD)
    findings, _ = compared(kept, copy)
    assert [one.key for one in findings] == [f"{layout.CUSTODY_HEAD} at {copy.location}"]


def test_the_log_of_another_bundle_is_named(kept, provider, tmp_path):
    """Also where it has no entry of a seal."""
    event = CustodyEvent("verified", "another", "0" * 64, kept.location)
    rewrite(kept, provider, [], event)
    (finding,) = against_bundle(kept)
    assert "is not the one that entry 1 of the custody log is about" in str(finding)


def test_a_log_that_is_gone_with_its_head_is_missed(location, provider):
    """Nothing follows anything there. But whoever signed has written a log."""
    sign_bundle(location, provider)
    record_seal(location, provider, [provider])
    assert call("custody", "verify", location.location).code == 0
    for key in (layout.CUSTODY_LOG, layout.CUSTODY_HEAD):
        location.delete(key)
    verified = call("custody", "verify", location.location)
    assert (verified.code, "is missing with its head" in verified.out) == (6, True), verified.out


def test_a_transfer_from_a_location_of_the_same_name_is_noted(kept, provider):
    """Whoever writes such an entry makes holds before it those of another server."""
    former = f"{kept.location}?profile=old"
    details = {"until": "2099-01-01T00:00:00+00:00", "legal": True}
    held = CustodyEvent("held", "b", custody_log.read(kept).last.what.root, former, details)
    custody_log.append(kept, provider, lambda _: [held])
    assert len(bundle_hold.standing(custody_log.read(kept), kept.location)) == 1
    record(kept, provider, "transferred", {"from": former})
    assert bundle_hold.standing(custody_log.read(kept), kept.location) == []
    verified = call("custody", "verify", kept.location)
    assert "another location of the same name: holds and grants before it" in verified.out, verified


def test_a_location_without_versions_is_verified_too(kept, monkeypatch):
    """One that an extension has added may have none."""

    def none(*_args, **_more):
        raise UsageError("nothing there can be held")

    monkeypatch.setattr("migrate.cli.custody.log.open_object_lock", none)
    assert call("custody", "verify", kept.location).code == 0


def _events(copy):
    return [entry.what.event for entry in custody_log.read(open_location(str(copy))).entries]


@pytest.mark.parametrize("damaged", [lambda data: data[:-9], lambda data: data + b"x\n", lambda _: b""])
def test_a_damaged_log_of_the_sender_keeps_nobody_from_signing_a_receipt(
    kept, provider, make_key, tmp_path, damaged
):
    """Whoever has received the bundle goes on with the log in order that is there, or with a new one."""
    words, older, new = ("--key", make_key.path_of("customer")), tmp_path / "older", tmp_path / "new"
    assert call("transfer", kept.location, older).code == 0
    record(kept, provider, "verified", {"level": "full"})
    kept.put(layout.CUSTODY_LOG, damaged(kept.read(layout.CUSTODY_LOG)))
    for copy, events in ((older, _events(older)), (new, [])):
        moved = call("transfer", kept.location, copy, *words)
        assert (moved.code, f"{kept.location} is not in order" in " ".join(moved.err.split())) == (0, True), (
            moved.err
        )
        assert call("receive", copy, *words).code == 0
        assert call("custody", "verify", copy).code == 0
        assert _events(copy) == [*events, "transferred", "received"]
    assert call("custody", "verify", older, "--with", kept.location).code == 6


def test_a_log_that_a_stranger_has_cut_is_found_by_who_signed_its_head(kept, provider, make_key, tmp_path):
    """He has no key of the list, and needs none to say how long the log is."""
    allowed = tmp_path / "allowed"
    allowed.write_text(f"acme {provider.public.line}\n")
    record(kept, provider, "verified", {"level": "full"})
    lines = kept.read(layout.CUSTODY_LOG).splitlines(keepends=True)
    kept.put(layout.CUSTODY_LOG, b"".join(lines[:-1]))
    kept.delete(layout.CUSTODY_HEAD)
    kept.put(layout.CUSTODY_LOG, b"".join(lines[:-1]))
    custody_log._write_head(kept, make_key("stranger"), custody_log.read(kept).entries)
    assert call("custody", "verify", kept.location).code == 0
    said = call("custody", "verify", kept.location, "--signers", allowed)
    assert (said.code, f"{layout.CUSTODY_HEAD}: is signed by nobody in" in said.out) == (6, True), said.out


def test_entries_and_documents_of_strangers_are_named(kept, provider, customer, make_key, tmp_path):
    signers = tmp_path / "signers"
    signers.write_text(f"host {provider.public.line}\n")
    words = ("custody", "verify", kept.location, "--signers", signers)
    said = call(*words)
    assert (said.code, "line 4: is signed by nobody in" in said.out) == (6, True), said.out
    rewrite(kept, provider, custody_log.read(kept).entries[:3])
    assert call(*words).code == 0
    document = documents.make("audit", "An audit", {"root": custody_log.read(kept).entries[-1].what.root})
    documents.keep(kept, document, [make_key("stranger")])
    said = call(*words)
    assert (said.code, f"{document.key}: is signed by nobody" in said.out) == (6, True), said.out


def test_a_log_of_any_length_is_not_taken_into_memory(kept, monkeypatch):
    """It may come from anywhere."""
    monkeypatch.setattr(custody_log, "MAX_BYTES", len(kept.read(layout.CUSTODY_LOG)) - 1)
    assert "is too long" in str(custody_log.read(kept).findings[0])
    monkeypatch.setattr(custody_log, "MAX_BYTES", len(kept.read(layout.CUSTODY_LOG)))
    assert custody_log.read(kept).findings == []


def test_who_signs_at_another_location_has_not_sealed_it_there(kept, provider, customer, tmp_path):
    other = open_location(str(tmp_path / "other"))
    transfer(kept, other, workers=2, progress=Silent())
    custody_log.carry(kept, other)
    sign_bundle(other, customer)
    record_seal(other, customer, [provider, customer])
    added = custody_log.read(other).entries[5:]
    assert [(one.what.event, one.what.details["by"]) for one in added] == [
        ("signed", customer.public.fingerprint)
    ]


def test_a_bundle_that_was_sealed_anew_behind_the_logs_back_is_found(kept, provider):
    kept.put(layout.TAG_MANIFEST, kept.read(layout.TAG_MANIFEST).replace(b"a", b"b", 1))
    problems = against_bundle(kept)
    assert "not the one that entry 2 of the custody log sealed" in str(problems[0])


def test_a_signature_that_vanishes_is_found(kept, provider):
    kept.delete(f"sig/tagmanifest-sha256.txt.{provider.public.id}.sig")
    assert "lacks the signature by SHA256:" in str(against_bundle(kept)[0])


def test_the_commands(location, make_key, tmp_path):
    bundle = location.location.removeprefix("file://")
    env = {"MOVEOUT_KEY": str(make_key.path_of("provider"))}
    assert "no custody log" in call("custody", "show", bundle).out
    assert call("sign", bundle, env=env).code == 0
    assert call("verify", bundle, env=env).code == 0
    destination = tmp_path / "destination"
    assert call("transfer", bundle, destination, "--key", make_key.path_of("customer")).code == 0
    shown = call("custody", "show", destination)
    assert [line.split()[2] for line in shown.out.splitlines()] == [
        "created", "sealed", "signed", "verified", "transferred",
    ]  # fmt: skip
    checked = call("custody", "verify", destination, "--with", bundle)
    assert (checked.code, "5 entries" in checked.out) == (0, True), checked.out
    (destination / "sig" / "custody.jsonl").write_bytes(
        (destination / "sig" / "custody.jsonl").read_bytes()[:-100]
    )
    assert call("custody", "verify", destination, "--json").code == 6


@pytest.mark.parametrize("details", [{"file": ["a"]}, {"sha256": {}}, {"file": None}])
def test_an_entry_whose_file_is_no_text_is_damage_of_the_log(kept, provider, details):
    last = custody_log.read(kept).last
    value = json.loads(
        entry.write(provider, CustodyEvent("noted", "b", "", kept.location), last, datetime.now(UTC)).line
    )
    del value["signature"]
    line = entry.sign(provider, {**value, "details": details})
    kept.put(layout.CUSTODY_LOG, kept.read(layout.CUSTODY_LOG) + line + b"\n")
    assert "line 6: is not an entry: what it names is no file" in named(kept)
    ended = call("custody", "verify", kept.location.removeprefix("file://"))
    assert (ended.code, "what it names is no file" in ended.out + ended.err) == (6, True), ended.err


@pytest.mark.parametrize("changes", [{"version": True}, {"version": 1.0}, {"number": True}])
def test_a_number_that_is_none_for_another_reader_is_no_number(provider, changes):
    """Python takes ``true`` and ``1.0`` for 1."""
    event = CustodyEvent("noted", "b", "0" * 64, "file:///b")
    line = entry.write(provider, event, None, datetime.now(UTC)).line
    value = {name: part for name, part in json.loads(line).items() if name != "signature"} | changes
    armored = ssh_signatures.sign(provider, ssh_signatures.ENTRY, [canonical_json.encode(value)])
    signed = {**value, "signature": b"".join(armored.splitlines()[1:-1]).decode()}
    with pytest.raises(ValueError, match="is not an entry of version 1"):
        entry.read(canonical_json.encode(signed))


def test_the_signature_of_a_stranger_neither_breaks_a_document_nor_makes_one(
    kept, provider, customer, make_key, tmp_path
):
    """Anybody can sign anything: by mail, or at the location itself."""
    stranger, allowed = make_key("stranger"), tmp_path / "allowed"
    signers_file(allowed, host=(provider,), acme=(customer,))
    document = documents.make("audit", "An audit", {"root": custody_log.read(kept).last.what.root})
    documents.keep(kept, document, [provider, stranger])
    words = ("custody", "verify", kept.location, "--signers", allowed)
    verified = call(*words)
    assert verified.code == 0, verified.out
    note = f"{document.key} has a signature by nobody in {allowed}, which counts for nothing:"
    assert f"{note} {stranger.public.fingerprint}" in flat(verified.out)
    kept.delete(signature_key(document.key, provider.public))
    verified = call(*words)
    assert (verified.code, f"{document.key}: is signed by nobody in {allowed}" in flat(verified.out)) == (
        6,
        True,
    )


def test_signatures_of_strangers_are_not_added(kept, provider, customer, make_key, tmp_path):
    stranger, allowed = make_key("stranger"), tmp_path / "allowed"
    signers_file(allowed, host=(provider,), acme=(customer,))
    document = documents.make("erasure", "Certificate", {"root": custody_log.read(kept).last.what.root})
    words = ("custody", "add", kept.location, mailed(tmp_path / "mail", document, stranger))
    refused = call(*words, "--signers", allowed)
    assert (refused.code, f"is signed by nobody in {allowed}" in flat(refused.err)) == (4, True), refused.err
    assert documents.read_all(kept) == ([], [])
    mailed(tmp_path / "mail", document, provider, stranger)
    added = call(*words, "--signers", allowed)
    assert added.code == 0, added.err
    assert f"Left out: a signature by {stranger.public.fingerprint}" in flat(added.out)
    assert [list(one.signers) for one in documents.read_all(kept)[0]] == [[provider.public]]
    assert call(*words, "--signers", allowed, "--json").json["result"]["left_out"] == [
        stranger.public.fingerprint
    ]
    assert call(*words).code == 0  # without a list nobody can say who is a stranger
    assert call("custody", "verify", kept.location, "--signers", allowed).code == 0


def test_a_document_that_a_killed_command_has_not_signed_breaks_no_log(
    kept, provider, customer, make_key, tmp_path
):
    """The log went on, or a clock was set back, so the same command has made another one."""
    root = custody_log.read(kept).last.what.root
    dead, alive = (documents.make("audit", f"An audit {one}", {"root": root}) for one in "ab")
    documents.keep(kept, dead, [])
    documents.keep(kept, alive, [provider])
    record(kept, provider, "audited", alive.named)
    for command in ("show", "verify"):
        ended = call("custody", command, kept.location)
        assert ended.code == 0, ended.out
        assert f"{dead.key} is signed by nobody, and no entry names it" in flat(ended.out)
    kept.delete(signature_key(alive.key, provider.public))
    ended = call("custody", "verify", kept.location)
    assert (ended.code, f"{alive.key}: is not signed by anybody" in flat(ended.out)) == (6, True), ended.out


def test_an_entry_that_comes_while_the_log_is_carried_cuts_no_copy_short(kept, provider, tmp_path):
    """The head is read before the log: what a copy gets may be behind the log there, and never ahead."""

    class Busy:
        def __init__(self, inner):
            self._inner, self.left = inner, 1

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def read(self, key, *args):
            data = self._inner.read(key, *args)
            if key == layout.CUSTODY_LOG and self.left:
                self.left = 0
                record(self._inner, provider, "verified", {"level": "full"})
            return data

    copy = open_location(str(tmp_path / "copy"))
    assert custody_log.carry(Busy(kept), copy) == ""
    assert custody_log.read(copy).findings == []
    assert custody_log.carry(kept, copy) == ""
    assert custody_log.read(copy).data == custody_log.read(kept).data
    assert copy.read(layout.CUSTODY_HEAD) == kept.read(layout.CUSTODY_HEAD)


@pytest.mark.parametrize("left", [3, 5])
def test_a_transfer_again_does_not_hide_that_the_log_of_a_copy_was_cut_short(
    kept, provider, customer, tmp_path, left
):
    """What is left is a beginning of the log at the origin, whose head says less."""
    copy = open_location(str(tmp_path / "copy"))
    transfer(kept, copy, workers=1, progress=Silent())
    assert record_transfer(kept, copy, provider, {}) == ""
    record(copy, customer, "held", {"legal": True})
    copy.put(layout.CUSTODY_LOG, b"".join(lines(copy)[:left]))
    assert "its head says 7" in named(copy)
    with pytest.raises(DamageError, match="its head says 7"):
        record_transfer(kept, copy, provider, {})
    assert "its head says 7" in named(copy)


def test_a_log_begins_as_the_format_says_and_names_each_signer_of_the_seal(location, provider, customer):
    record_seal(location, provider, [provider, customer])
    log = custody_log.read(location)
    assert log.entries[0].prev == "0" * 64
    by = [one.what.details["by"] for one in log.find("signed")]
    assert by == [provider.public.fingerprint, customer.public.fingerprint]


def test_a_branch_after_a_line_that_cannot_be_read_is_named_by_that_line(kept, provider):
    """Also one that only another version of moveout can read."""
    rows = lines(kept)
    other = rows[4].replace(b'"version":1', b'"version":2')
    first = entry.write(provider, entry.read(rows[3][:-1]).what, None, datetime.now(UTC))
    after = replace(first, number=5, line=other[:-1])
    branch = entry.write(provider, first.what, after, datetime.now(UTC)).line + b"\n"
    kept.put(
        layout.CUSTODY_LOG, b"".join([*rows[:4], other, branch, branch.replace(b"full", b"fool"), branch])
    )
    found = named(kept)
    assert "line 5: was made by another version of the format (2)" in found
    assert "line 8: repeats line 6" in found
    kept.put(layout.CUSTODY_LOG, b"".join([*rows[:4], other, rows[4], branch]))
    assert "line 7: begins a second branch after line 5" in named(kept)


def test_an_error_about_a_log_has_both_values(kept, provider):
    """What its head names, and what is there."""
    rows = lines(kept)
    two = entry.read(rows[1][:-1])
    others = [entry.write(provider, two.what, two, datetime.now(UTC))]
    for _ in range(2):
        others.append(entry.write(provider, two.what, others[-1], datetime.now(UTC)))
    kept.put(layout.CUSTODY_LOG, b"".join([*rows[:2], *(one.line + b"\n" for one in others)]))
    with pytest.raises(DamageError) as refused:
        custody_log.check_order(kept)
    assert (refused.value.expected, refused.value.found) == (entry.read(rows[4][:-1]).hash, others[-1].hash)
    kept.put(layout.CUSTODY_LOG, b"".join(rows[:3]))
    with pytest.raises(DamageError) as refused:
        custody_log.check_order(kept)
    assert refused.value.expected == "a log in order"
    assert refused.value.found == "was cut short: it has 3 entries, its head says 5"


def test_what_is_done_is_said_where_the_log_takes_no_entry_of_it(kept, provider, make_key):
    kept.put(layout.CUSTODY_LOG, kept.read(layout.CUSTODY_LOG)[:-9])
    verified = call("verify", kept.location, "--key", make_key.path_of("provider"))
    assert "not in the custody log: " in flat(verified.out + verified.err)


def test_a_bundle_that_is_gone_without_an_erasure_is_missed(kept):
    kept.delete(layout.TAG_MANIFEST)
    assert "is missing, and no entry says that the bundle was erased" in str(against_bundle(kept)[0])


@pytest.mark.parametrize(("came_from", "count"), [("?profile=a", 1), ("?profile=z", 1), ("?profile=m", 0)])
def test_a_transfer_from_a_namesake_is_noted_whatever_its_profile(kept, provider, came_from, count):
    here = "s3://bucket/bundle"
    details = {"from": f"{here}{came_from}"}
    transferred = CustodyEvent("transferred", "b", "0" * 64, f"{here}?profile=m", details)
    custody_log.append(kept, provider, lambda _: [transferred])
    assert len(cross_checks.namesake_notes(custody_log.read(kept), f"{here}?profile=m")) == count


def test_what_is_added_is_a_document_by_its_name_and_of_its_size(kept, provider, tmp_path):
    root = custody_log.read(kept).last.what.root
    document = documents.make("audit", "a" * 2**19, {"root": root})
    file = mailed(tmp_path / "mail", document, provider)
    assert call("custody", "add", kept.location, file).code == 0
    for name, words in (
        ("audit-x.json", "another file"),
        (file.name.replace("audit", "bill"), "another file"),
    ):
        refused = call("custody", "add", kept.location, file.rename(file.with_name(name)))
        assert (refused.code, words in flat(refused.err)) == (6, True), refused.err
        file = file.with_name(name)
    large = documents.make("audit", "a" * 2**20, {"root": root})
    with pytest.raises(DamageError, match="1,048,576 bytes"):
        documents.parse(large.data, large.key)


def test_a_document_counts_as_of_its_record_and_not_before_its_own_time(
    location, provider, make_key, tmp_path
):
    """A key that is replaced since has signed it. Where nobody has written it down, or a stranger, it counts as of
    now.
    """
    trust = allowed_signers.load(signers_file(tmp_path / "allowed", host=(provider,)))
    made = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    document = documents.make("audit", "An audit", {"root": "r"}, now=made)
    what = CustodyEvent("audited", "b", document.root, location.location, document.named)

    def signed_at():
        return documents.signed_at(document, custody_log.read(location).first_named(trust))

    assert signed_at() is None
    custody_log.append(location, make_key("stranger"), lambda _: [what], clock=lambda: made)
    assert signed_at() is None
    for hours, shown in ((-1, 0), (2, 0)):  # the first entry that shows anything counts
        custody_log.append(
            location, provider, lambda _: [what], clock=lambda hours=hours: made + timedelta(hours=hours)
        )
        assert signed_at() == made + timedelta(hours=shown)
    later = documents.make("audit", "Another", {"root": document.root}, now=made)
    what = CustodyEvent("audited", "b", document.root, location.location, later.named)
    custody_log.append(location, provider, lambda _: [what], clock=lambda: made + timedelta(hours=3))
    assert documents.signed_at(later, custody_log.read(location).first_named(trust)) == made + timedelta(
        hours=3
    )


def test_a_key_that_was_replaced_adds_no_document_of_last_year(kept, provider, customer, make_key, tmp_path):
    """Whoever stole it may write any time. What was added while it counted is no damage when it is replaced."""
    agent = make_key("agent")
    allowed, root = tmp_path / "allowed", custody_log.read(kept).last.what.root
    year_ago = datetime.now(UTC) - timedelta(days=365)
    document = documents.make("erasure", "Certificate", {"root": root}, now=year_ago)
    words = (
        "custody",
        "add",
        kept.location,
        mailed(tmp_path / "mail", document, agent),
        "--signers",
        allowed,
    )

    def until(days):
        moment = datetime.now(UTC) + timedelta(days=days)
        end = f'valid-before="{moment:%Y%m%d%H%M%SZ}"'
        signers_file(allowed, host=(provider,), buyer=(customer,))
        allowed.write_text(f"{allowed.read_text()}acme {end} {agent.public.line}\n")

    until(-1)
    refused = call(*words)
    assert (refused.code, "whose key counts now" in flat(refused.err)) == (4, True), refused.err
    assert documents.read_all(kept) == ([], [])
    until(1)
    assert call(*words).code == 0
    until(-1)
    verified = call("custody", "verify", kept.location, "--signers", allowed, "--json")
    note = f"{document.key} is signed by acme, whose key counts until"
    assert (verified.code, note in verified.out) == (0, True), verified.out
    assert "acme" not in call("custody", "show", kept.location, "--signers", allowed).out


def test_one_clock_that_was_ahead_ends_no_key_sooner(kept, provider, customer, tmp_path):
    """What is written after an entry of 2099 is of today, for a key that counts until next year."""
    end = f"{datetime.now(UTC) + timedelta(days=300):%Y%m%d}"
    allowed = signers_file(tmp_path / "allowed", acme=(customer,))
    allowed.write_text(f'{allowed.read_text()}host valid-before="{end}" {provider.public.line}\n')
    root = custody_log.read(kept).last.what.root
    for signer, ahead in ((customer, 9999), (provider, 0)):
        what = CustodyEvent("noted", "b", root, kept.location, {"what": "end"})
        moment = datetime.now(UTC) + timedelta(days=ahead)
        custody_log.append(kept, signer, lambda _, what=what: [what], clock=lambda moment=moment: moment)
    assert custody_log.read(kept).uncounted(allowed_signers.load(allowed)) == {}
