"""The custody log: what is added stays, in order, by whoever signed it; everything else is found and named."""

import json
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest

from migrate.bundle import layout
from migrate.custody.log import cross_checks, custody_log, entry
from migrate.custody.log.entry import CustodyEvent
from migrate.custody.log.events import record, record_seal, record_transfer
from migrate.custody.signing.bundle_signatures import sign_bundle
from migrate.errors import DamageError, UnreachableError
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.transfer import transfer
from tests.cli.conftest import call
from tests.custody.conftest import in_memory


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
    findings, _ = cross_checks.compare(custody_log.read(kept), custody_log.read(copy), "the copy")
    assert "entry 3 is another than at the copy: there is a second branch after 2" in str(findings[0])
    kept.put(layout.CUSTODY_LOG, b"".join(rows[:2]))
    findings, _ = cross_checks.compare(custody_log.read(kept), custody_log.read(copy), "the copy")
    assert "has 2 entries; the copy has 5: it was cut short" in str(findings[0])


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
    assert record_transfer(kept, destination, customer, {})
    assert custody_log.read(destination).entries[-1].what.event == "transferred"
    record(destination, customer, "verified")
    record(kept, provider, "verified")
    before = destination.read(layout.CUSTODY_LOG)
    assert move().files_moved == 0
    assert not record_transfer(kept, destination, customer, {})
    assert destination.read(layout.CUSTODY_LOG) == before
    findings, notes = cross_checks.compare(
        custody_log.read(kept), custody_log.read(destination), "destination"
    )
    assert (findings, notes) == ([], ["the logs part after entry 5: each location has its own from there"])


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
    problems = cross_checks.against_bundle(custody_log.read(kept), kept)
    assert "not the one that entry 2 of the custody log sealed" in str(problems[0])


def test_a_signature_that_vanishes_is_found(kept, provider):
    kept.delete(f"sig/tagmanifest-sha256.txt.{provider.public.id}.sig")
    assert "lacks the signature by SHA256:" in str(
        cross_checks.against_bundle(custody_log.read(kept), kept)[0]
    )


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
