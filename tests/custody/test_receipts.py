"""Receipts: their first line says whether all was well; a counter-signature is given twice, never forged."""

import hashlib
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from exporters.api import Gap
from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.custody import cross_checks, documents, receipt
from migrate.custody.erasure_objections import removable
from migrate.custody.log import custody_log
from migrate.custody.log.events import record, record_seal, record_transfer
from migrate.custody.signing import allowed_signers
from migrate.custody.signing.bundle_signatures import sign_bundle
from migrate.custody.tree.bundle_tree import store_tree
from migrate.errors import DamageError, UsageError
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location, open_object_lock
from migrate.transfer.run import transfer
from tests.cli.conftest import call
from tests.custody.conftest import flat, mailed
from tests.custody.tools import speaks_against
from tests.export.sources import Numbers

GOOD = receipt.Checked("full", 3, 100, [])


def signature(document, signer):
    return documents.signatures_of(document, [signer])


@pytest.fixture
def incomplete(tmp_path, provider):
    """A bundle that lacks two items by its own account."""
    store = open_location(str(tmp_path / "incomplete"))
    gaps = {number: Gap(f"number {number}", "failed", "gone") for number in (3, 4)}
    export([Numbers(count=15, gaps=gaps)], store, workers=1, progress=Silent())
    record_seal(store, provider, [provider])
    return store


def test_the_first_line_says_what_is_wrong(location, incomplete):
    def first(document):
        return document.data.decode().splitlines()[1]

    assert '"about": "Receipt for the bundle' in first(receipt.write(location, GOOD))
    assert "RECEIPT FOR AN INCOMPLETE BUNDLE" in first(receipt.write(incomplete, GOOD))
    assert "2 items missing" in first(receipt.write(incomplete, GOOD))
    damaged = receipt.Checked("full", 3, 100, [Finding("data/a", "is missing")])
    assert "RECEIPT FOR A DAMAGED BUNDLE" in first(receipt.write(location, damaged))


def test_an_acknowledgement_that_was_lost_is_asked_for_again(location, provider, customer):
    document = receipt.write(location, GOOD)
    for _ in range(2):
        assert receipt.acknowledge(location, document, signature(document, customer), provider) == [
            customer.public
        ]
    log = custody_log.read(location)
    assert [one.what.event for one in log.entries] == ["received", "acknowledged"]
    (kept,), findings = documents.read_all(location)
    assert (set(kept.signers), findings) == ({customer.public, provider.public}, [])


def test_a_receipt_that_was_written_and_not_signed_is_taken_up_again(location, customer, monkeypatch):
    record_seal(location, customer, [customer])
    begun = receipt.write(location, GOOD)
    location.put(begun.key, begun.data)
    later = datetime.now(UTC) + timedelta(hours=2)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return later

    monkeypatch.setattr("migrate.custody.documents.datetime", Later)
    assert receipt.write(location, GOOD).key == begun.key
    assert receipt.write(location, receipt.Checked("quick", 3, 100, [])).key != begun.key
    facts = {name: value for name, value in begun.value.items() if name != "time"}
    old = documents.make("receipt", "", facts, now=datetime.now(UTC) - timedelta(days=9))
    location.delete(begun.key)
    location.put(old.key, old.data)  # somebody else's, from before the log's last entry
    assert receipt.write(location, GOOD).key != old.key


def test_what_is_not_signed_by_the_customer_or_not_for_this_bundle_is_refused(
    location, incomplete, provider, customer
):
    document = receipt.write(location, GOOD)
    with pytest.raises(UsageError, match="only you"):
        receipt.acknowledge(location, document, {}, provider)
    with pytest.raises(UsageError, match="only you"):
        receipt.acknowledge(location, document, signature(document, provider), provider)
    with pytest.raises(UsageError, match="is for the root"):
        receipt.acknowledge(incomplete, document, signature(document, customer), provider)
    about = document.about.replace(document.value["bundle"], "another")
    forged = documents.make("receipt", "", {**document.value, "bundle": "another", "about": about})
    with pytest.raises(UsageError, match="names the bundle another"):
        receipt.acknowledge(location, forged, signature(forged, customer), provider)
    other = receipt.write(location, receipt.Checked("quick", 3, 100, []))
    with pytest.raises(DamageError, match="one of something else"):
        receipt.acknowledge(location, document, signature(other, customer), provider)
    with pytest.raises(DamageError, match="it was changed"):
        documents.parse(document.data.replace(b"full", b"fool"), document.key)
    assert custody_log.read(location).entries == []


@pytest.mark.parametrize(
    "changes",
    [
        {"findings_total": {"deep": [1]}},
        {"findings_total": -1},
        {"findings_total": 2},
        {"findings_total": True},
        {"complete": False},
        {"complete": "yes"},
        {"files": "many"},
        {"location": ["here"]},
        {"time": "soon"},
        {"about": "RECEIPT FOR A DAMAGED BUNDLE"},
        {"about": "Receipt for the bundle, of which half was missing"},
        {"remark": "half of it was missing"},
        {"level": "full, but half of it was missing"},
        {"custody": {"entries": 1, "hash": "", "remark": "half of it was missing"}},
        {"findings_total": 10**12},
    ],
)
def test_a_receipt_that_says_two_things_is_not_counter_signed(location, provider, customer, changes):
    """A customer may write what he likes; who signs below it stands for it."""
    value = {**receipt.write(location, GOOD).value, **changes}
    if "level" in changes:
        value["about"] = value["about"].replace("level full", f"level {value['level']}")
    forged = documents.make("receipt", value["about"], value)
    with pytest.raises(UsageError, match="says one thing"):
        receipt.acknowledge(location, forged, signature(forged, customer), provider)
    assert [info.key for info in location.list("sig/")] == []


@pytest.mark.parametrize(
    "written",
    [
        lambda data: data.replace(b'  "findings_total"', b'  "findings_total": 7,\n  "findings_total"'),
        lambda data: data.replace(b'"gaps": 0', b'"gaps": 0,\n  "x": NaN'),
        lambda data: data.decode().encode("utf-16"),
        lambda data: data.replace(b'"kind"', b'"\\u006bind"'),
    ],
    ids=["a member twice", "no number", "another encoding", "an escape that nobody needs"],
)
def test_a_receipt_that_two_readers_read_as_two_things_is_refused(
    location, provider, customer, make_key, tmp_path, written
):
    data = written(receipt.write(location, GOOD).data)
    key = f"sig/receipt-{hashlib.sha256(data).hexdigest()[:16]}.json"
    forged = documents.Document(key, "receipt", {}, data)
    for name, content in {key: data, **signature(forged, customer)}.items():
        (tmp_path / name[4:]).write_bytes(content)
    words = ("acknowledge", location.location, tmp_path / key[4:], "--key", make_key.path_of("provider"))
    refused = call(*words)
    assert (refused.code, "two readers" in refused.err) == (6, True), refused.err
    for name, content in {key: data, **signature(forged, customer)}.items():
        location.put(name, content)
    assert [finding.key for finding in documents.read_all(location)[1]] == [key]


def test_what_a_customer_sends_is_read_only_as_far_as_a_receipt_may_go(
    location, provider, make_key, tmp_path, customer
):
    """No pipe is waited for, no endless file is read, and no receipt is taken that the location could not keep."""
    words = ("acknowledge", location.location, "--key", make_key.path_of("provider"))
    large = documents.make(
        "receipt", "", {**receipt.write(location, GOOD).value, "x": "x" * documents.MAX_BYTES}
    )
    (tmp_path / large.key[4:]).write_bytes(large.data)
    pipe, device = tmp_path / "receipt-0123456789abcdef.json", tmp_path / "receipt-0123456789abcde0.json"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path, said in (
        (tmp_path / large.key[4:], "at most"),
        (pipe, "regular file"),
        (device, "regular file"),
    ):
        refused = call(*words, path)
        assert (refused.code != 0, said in refused.err) == (True, True), refused.err
    good = receipt.write(location, GOOD)
    (tmp_path / good.key[4:]).write_bytes(good.data)
    os.mkfifo(tmp_path / f"{good.key[4:]}.{customer.public.id}.sig")
    assert "regular file" in call(*words, tmp_path / good.key[4:]).err


def test_a_pipe_in_a_bundle_is_not_waited_for(location, provider):
    record_seal(location, provider, [provider])
    head = Path(location.location.removeprefix("file://")) / layout.CUSTODY_HEAD
    head.unlink()
    os.mkfifo(head)
    assert "custody-head.json: is missing" in call("custody", "show", location.location).out


def test_a_receipt_of_tomorrow_is_not_counter_signed(location, provider, customer):
    """It would stay the newest whatever is received after it."""
    value = receipt.write(location, GOOD).value
    for minutes, is_refused in ((20, True), (10, False)):
        moment = datetime.now(UTC) + timedelta(minutes=minutes)
        document = documents.make("receipt", "", {**value, "time": moment.isoformat()})
        if is_refused:
            with pytest.raises(UsageError, match="dated in the future"):
                receipt.acknowledge(location, document, signature(document, customer), provider)
        else:
            receipt.acknowledge(location, document, signature(document, customer), provider)


def test_a_key_that_counts_no_more_signs_no_receipt_of_last_year(
    location, provider, customer, make_key, tmp_path
):
    """Whoever stole it may write any time. What the log named while it counted still counts."""
    now, allowed = datetime.now(UTC), tmp_path / "allowed"
    value = {**receipt.write(location, GOOD).value, "location": "file:///received"}
    document = documents.make("receipt", "", {**value, "time": (now - timedelta(days=365)).isoformat()})
    file, own = mailed(tmp_path, document, customer), make_key.path_of("provider")
    words = ("acknowledge", location.location, file, "--key", own, "--signers", allowed)

    def until(moment):
        allowed.write_text(
            f'host {provider.public.line}\nacme valid-before="{moment:%Y%m%d%H%M%SZ}" {customer.public.line}\n'
        )

    until(now - timedelta(days=1))
    refused = call(*words)
    assert (refused.code, "whose key counts now" in refused.err) == (4, True), refused.err
    assert call(*words[:5]).code == 0  # without a list
    versions, by = removable(open_object_lock(location.location)), [provider.public]
    trusted = ("custody", "verify", location.location, "--signers", allowed)
    assert speaks_against(location, versions, [], by, allowed_signers.load(allowed)) != []
    named = call(*trusted)
    assert (named.code, f"{document.key}: is signed by nobody" in named.out) == (6, True), named.out
    until(datetime.now(UTC) + timedelta(seconds=1))  # it was replaced after that
    assert call(*words).code == 0
    assert speaks_against(location, versions, [], by, allowed_signers.load(allowed)) == []
    assert call(*trusted).code == 0


def test_a_clock_that_dates_an_acknowledgement_back_or_ahead_is_noted(location, provider, customer):
    """A period that begins with it would be over too soon."""
    document = receipt.write(location, GOOD)
    documents.keep(location, document, [customer])
    event = receipt.happened(document, "acknowledged", location.location, [customer.public])
    now = datetime.now(UTC)
    for days, words in ((-90, "is dated before the receipt"), (90, "is dated in the future"), (0, "")):
        location.delete(layout.CUSTODY_LOG)
        location.delete(layout.CUSTODY_HEAD)
        custody_log.append(
            location, provider, lambda _: [event], clock=lambda days=days: now + timedelta(days=days)
        )
        notes = cross_checks.clock_notes(custody_log.read(location), [document], now)
        assert (len(notes), words in "".join(notes)) == (bool(words), True)


def test_a_receipt_of_the_first_day_of_all_and_a_text_that_is_no_character_are_shown(
    location, provider, customer, make_key
):
    """Whoever signs a receipt, or an entry, may write what he likes."""
    value = {**receipt.write(location, GOOD).value, "time": "0001-01-01T00:00:00+00:00"}
    document = documents.make("receipt", "", value)
    receipt.acknowledge(location, document, signature(document, customer), provider)
    assert call("custody", "verify", location.location).code == 0
    record(location, provider, "noted", {"what": "\ud800"})
    shown = call("custody", "show", location.location, "--json")
    assert shown.json["result"]["entries"][-1]["details"] == {"what": "\ud800"}, shown.err


def test_a_log_that_was_put_back_contradicts_a_receipt(location, provider, make_key):
    """With its head, so that only what somebody else has can tell."""
    sign_bundle(location, provider)
    record_seal(location, provider, [provider])
    kept = {key: location.read(key) for key in (layout.CUSTODY_LOG, layout.CUSTODY_HEAD)}
    record(location, provider, "verified", {"level": "full"})
    assert call("receive", location.location, "--key", make_key.path_of("customer")).code == 0
    assert call("custody", "verify", location.location).code == 0
    for key, data in kept.items():
        location.put(key, data)
    assert custody_log.read(location).findings == []
    result = call("custody", "verify", location.location)
    assert (result.code, "is not the one that sig/receipt-" in result.out) == (6, True), result.out
    (document,) = documents.read_all(location, "receipt")[0]
    other = replace(document, value={**document.value, "location": f"{location.location}?profile=x"})
    findings, notes = cross_checks.against_receipts(custody_log.read(location), location.location, [other])
    assert (findings, len(notes)) == ([], 1)


@pytest.mark.parametrize("words", [("receive",), ("audit",)])
def test_whoever_reads_every_byte_keeps_to_the_limit(location, make_key, monkeypatch, words):
    key, limits = make_key.path_of("customer"), []
    assert call("sign", location.location, "--key", key).code == 0

    def opened(url, *, rate_limiter, **more):
        limits.append(rate_limiter)
        return open_location(url, rate_limiter=rate_limiter, **more)

    monkeypatch.setattr("migrate.cli.common.session.open_location", opened)
    assert call(*words, location.location, "--key", key, "--bwlimit", "100M").code == 0
    (limit,) = limits
    assert limit is not None


def test_the_commands_end_with_what_was_found(location, incomplete, make_key, tmp_path):
    key = make_key.path_of("customer")
    whole = call("receive", location.location, "--key", key, "--to", tmp_path / "mail", "--json")
    assert whole.code == 0, whole.err
    assert sorted(whole.json["result"]["written"]) == sorted(map(str, (tmp_path / "mail").iterdir()))
    again = call("receive", location.location, "--key", key)
    assert re.search(r"Signed: \S+ of \d{4}-\d\d-\d\d \d\d:\d\d UTC, for the root", again.out), again
    short = call("receive", incomplete.location, "--key", key)
    assert (short.code, short.out.startswith("RECEIPT FOR AN INCOMPLETE BUNDLE")) == (3, True), short.err
    verified = call("verify", incomplete.location, "--level", "quick")
    assert (verified.code, "! It was sealed INCOMPLETE" in verified.out) == (3, True), verified
    assert "INCOMPLETE" not in call("verify", location.location, "--level", "quick").out
    bundle = Path(location.location.removeprefix("file://"))
    (bundle / "data" / "catalog.parquet").write_bytes(b"")
    damaged = call("receive", location.location, "--key", key)
    assert (damaged.code, damaged.out.startswith("RECEIPT FOR A DAMAGED BUNDLE")) == (6, True), damaged.err


def test_a_receipt_for_the_same_is_given_once_and_another_for_something_else(
    location, provider, customer, ticking
):
    record_seal(location, provider, [provider])
    first = receipt.receive(location, GOOD, [customer])
    assert receipt.receive(location, GOOD, [customer]).data == first.data
    others = [
        receipt.receive(location, GOOD, [provider]),
        receipt.receive(location, receipt.Checked("quick", 3, 100, []), [customer]),
        receipt.receive(
            location, receipt.Checked("full", 3, 100, [Finding("data/a", "is missing")]), [customer]
        ),
    ]
    assert len({first.key, *(one.key for one in others)}) == 4
    assert documents.read_all(location)[1] == []


def test_what_both_sides_have_signed_outlives_the_next_export(incomplete, provider, customer, tmp_path):
    """The bundle gets another id and root. What was received of the one before stays evidence, at both locations."""
    copy = open_location(str(tmp_path / "copy"))
    transfer(incomplete, copy, workers=1, progress=Silent())
    record_transfer(incomplete, copy, customer, {})
    document = receipt.receive(copy, GOOD, [customer])
    receipt.acknowledge(incomplete, document, signature(document, customer), provider)
    documents.copy_all(copy, document, signature(document, provider))
    for gaps in ({3: Gap("number 3", "failed", "gone")}, {}):
        export([Numbers(count=15, gaps=gaps)], incomplete, workers=1, progress=Silent())
        record_seal(incomplete, provider, [])
        transfer(incomplete, copy, workers=1, progress=Silent())
        record_transfer(incomplete, copy, customer, {})
        for store in (incomplete, copy):
            (kept,), findings = documents.read_all(store)
            assert (kept.key, set(kept.signers), findings) == (
                document.key,
                {customer.public, provider.public},
                [],
            )
            verified = call("custody", "verify", store.location)
            assert verified.code == 0, verified.out
    versions = removable(open_object_lock(incomplete.location))
    assert speaks_against(incomplete, versions, [], [provider.public]) == [
        "nobody has signed a receipt for it"
    ]


def test_bagit_still_validates_a_bundle_with_all_that(location, provider, customer):
    sign_bundle(location, provider)
    store_tree(location, [provider])
    document = receipt.write(location, GOOD)
    receipt.acknowledge(location, document, signature(document, customer), provider)
    assert json.loads(document.data)["complete"]
    bagit = Path(sys.executable).parent / "bagit.py"
    bundle = location.location.removeprefix("file://")
    subprocess.run([sys.executable, bagit, "--validate", bundle], check=True, capture_output=True)
    subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", "tagmanifest-sha256.txt", "manifest-sha256.txt"],
        cwd=bundle, check=True,
    )  # fmt: skip


def test_ones_own_signature_from_before_does_not_make_a_stranger_known(
    location, provider, customer, make_key, tmp_path
):
    allowed, document = tmp_path / "allowed", receipt.write(location, GOOD)
    allowed.write_text(f"host {provider.public.line}\n")
    file = mailed(tmp_path, document, customer)
    words = ("acknowledge", location.location, file, "--key", make_key.path_of("provider"))
    assert call(*words, "--signers", allowed).code == 4
    assert call(*words).code == 0
    assert call(*words, "--signers", allowed).code == 4


def test_a_strangers_signature_does_not_come_in_with_a_receipt(
    location, provider, customer, make_key, tmp_path
):
    """The entry would name him among those who have received the bundle, for ever."""
    stranger, allowed = make_key("stranger"), tmp_path / "allowed"
    allowed.write_text(f"host {provider.public.line}\nacme {customer.public.line}\n")
    document = receipt.write(location, GOOD)
    file = mailed(tmp_path, document, customer, stranger)
    words = ("acknowledge", location.location, file, "--signers", allowed)
    ended = call(*words, "--key", make_key.path_of("provider"), "--json")
    assert (ended.code, ended.json["result"]["signed_by"]) == (0, [customer.public.fingerprint]), ended.err
    assert ended.json["result"]["left_out"] == [stranger.public.fingerprint]
    (received,) = custody_log.read(location).find("received")
    assert received.what.details["by"] == customer.public.fingerprint
    assert set(documents.read_all(location)[0][0].signers) == {customer.public, provider.public}
    (tmp_path / f"{document.key[4:]}.{customer.public.id}.sig").unlink()
    assert call(*words, "--key", make_key.path_of("provider")).code == 4


def test_a_receipt_by_a_stolen_key_counts_no_more_by_an_entry_that_was_dated_back(
    location, provider, customer, make_key, tmp_path
):
    year_ago, allowed = datetime.now(UTC) - timedelta(days=365), tmp_path / "allowed"
    record_seal(location, provider, [provider])
    value = {
        **receipt.write(location, GOOD).value,
        "location": "file:///received",
        "time": year_ago.isoformat(),
    }
    document = documents.make("receipt", "", value)
    documents.keep(location, document, [customer])
    received = receipt.happened(document, "received", location.location, [customer.public])
    before = f"{year_ago + timedelta(days=1):%Y%m%d}"
    allowed.write_text(f'host {provider.public.line}\nacme valid-before="{before}" {customer.public.line}\n')
    versions = removable(open_object_lock(location.location))
    for thief in (make_key("stranger"), customer):
        custody_log.append(location, thief, lambda _: [received], clock=lambda: year_ago)
        trust = allowed_signers.load(allowed)
        assert speaks_against(location, versions, [], [provider.public], trust) != []
    verified = call("custody", "verify", location.location, "--signers", allowed)
    assert (verified.code, f"{document.key}: is signed by nobody" in flat(verified.out)) == (6, True), (
        verified.out
    )
    assert "acme" not in call("custody", "show", location.location, "--signers", allowed).out


def test_who_has_signed_is_named_to_the_sender(location, provider, customer, make_key, tmp_path):
    value = {**receipt.write(location, GOOD).value, "location": "file:///received"}
    file, allowed = mailed(tmp_path, documents.make("receipt", "", value), customer), tmp_path / "allowed"
    allowed.write_text(f"host {provider.public.line}\nacme {customer.public.line}\n")
    words = ("acknowledge", location.location, file, "--key", make_key.path_of("provider"))
    done = call(*words, "--signers", allowed)
    assert done.code == 0, done.err
    assert f"signed by acme ({customer.public.fingerprint}) and by you (provider)" in flat(done.out)
    assert f"custody add LOCATION {file.name}" in flat(done.out)
