"""Hold, release, erasure and acknowledgement are killed at each step, and answers are lost: the same command finishes
them, and a bundle that is held by half never reports held.
"""

from datetime import UTC, datetime, timedelta

import pytest

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.custody import bundle_hold, documents, erase, receipt
from migrate.custody.bundle_hold import Terms
from migrate.custody.erasure_objections import check_holds, removable
from migrate.custody.log import custody_log
from migrate.custody.log.events import record_seal
from migrate.custody.signing.bundle_signatures import sign_bundle
from migrate.errors import NotAllowedError, UnreachableError
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_object_lock
from tests.custody.conftest import against_bundle, release_hold
from tests.custody.tools import speaks_against

STEPS = frozenset({"retain", "set_legal", "remove", "put", "create", "replace", "delete", "abort"})
GOOD = receipt.Checked("full", 3, 100, [])


class Steps:
    """Lets ``left`` steps pass in store and locks together, then dies; with ``late`` one more is done, and its answer
    lost.
    """

    def __init__(self, left: int, *, late: bool) -> None:
        self.left, self.late = left, late

    def over(self, inner):
        return _Watched(inner, self)


class _Watched:
    def __init__(self, inner, steps: Steps) -> None:
        self._inner, self._steps = inner, steps

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        return found if name not in STEPS else lambda *args, **more: self._step(found, *args, **more)

    def _step(self, step, *args, **more):
        self._steps.left -= 1
        try:
            if self._steps.left >= 0:
                return step(*args, **more)
            if self._steps.late and self._steps.left == -1:
                step(*args, **more)
        except NotAllowedError:  # nothing was done
            self._steps.left += 1
            raise
        raise UnreachableError("killed")


def killed_at_each_step(run, look, *, late: bool) -> int:
    """Run with one more step each time until it ends by itself; ``look`` is asked after each kill. Return the kills."""
    for kills in range(200):
        steps = Steps(0 if late else 1, late=late)
        try:
            run(steps)
        except UnreachableError:
            look()
        else:
            return kills
    raise AssertionError("it never ends")


def sign(store, provider, customer):
    """Sign a receipt for a copy elsewhere."""
    document = documents.make(
        "receipt", "", {**receipt.write(store, GOOD).value, "location": "file:///received"}
    )
    return receipt.acknowledge(store, document, documents.signatures_of(document, [customer]), provider)


@pytest.mark.torture
@pytest.mark.parametrize("late", [False, True])
def test_from_hold_to_erasure_every_step_is_the_last_of_some_run(there, provider, customer, late):
    store, object_lock = there
    terms = Terms((datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0), "GOVERNANCE", legal=True)
    keys = [provider.public.fingerprint, customer.public.fingerprint]
    details = {"reason": "asked", "release_keys": keys, "release_quorum": 2}

    def place_it(steps):
        return bundle_hold.place(
            steps.over(store),
            steps.over(object_lock),
            terms,
            workers=1,
            progress=Silent(),
            details=details,
            signer=provider,
        )

    def looks_as_it_is():
        locks = [
            object_lock.lock(one)
            for one in object_lock.versions()
            if not bundle_hold._is_loose(one) and one.key[:6] != "_work/"
        ]
        whole = all(lock.legal and lock.until == terms.until for lock in locks)
        assert bundle_hold.survey(store, object_lock, workers=4, terms=terms).is_held == whole
        assert whole or not custody_log.read(store).find("held")
        assert custody_log.read(store).findings == []

    assert killed_at_each_step(place_it, looks_as_it_is, late=late) > 20
    assert bundle_hold.survey(store, object_lock, workers=4, terms=terms).is_held
    assert len(custody_log.read(store).find("held")) == 1

    def release_it(steps):
        both = [provider, customer]
        return release_hold(steps.over(store), steps.over(object_lock), "received", both, workers=1)

    sign(store, provider, customer)
    held = bundle_hold.survey(store, object_lock, workers=4).versions

    def half_is_not_held():
        outcome = bundle_hold.survey(store, object_lock, workers=4)
        assert outcome.is_held == (outcome.protected == held)
        assert not custody_log.read(store).find("released") or (outcome.protected, outcome.legal) == (0, 0)

    assert killed_at_each_step(release_it, half_is_not_held, late=late) > 20
    kept, findings = documents.read_all(store, "release")
    assert ([len(one.signers) for one in kept], findings) == ([2], [])
    assert len(custody_log.read(store).find("released")) == 1
    assert speaks_against(store, removable(object_lock), [], [provider.public]) == []

    def erase_it(steps):
        return erase.erase(steps.over(store), steps.over(object_lock), provider, workers=1, progress=Silent())

    def no_bundle_any_more():
        begun = custody_log.read(store).find("erasing")
        gone = not any(one.key == layout.TAG_MANIFEST and not one.is_marker for one in object_lock.versions())
        assert gone or len([one for one in object_lock.versions() if not one.key.startswith("sig/")]) > 5
        assert len(begun) <= 1

    assert killed_at_each_step(erase_it, no_bundle_any_more, late=late) > 15
    assert not [one for one in object_lock.versions() if not one.key.startswith("sig/")]
    assert len(custody_log.read(store).find("erased")) == 1
    (certificate,), findings = documents.read_all(store, "erasure")
    assert (certificate.value["versions"] > 10, findings) == (True, [])
    assert against_bundle(store) == []


@pytest.mark.parametrize("late", [False, True])
def test_an_acknowledgement_that_died_anywhere_is_given_once(location, provider, customer, late):
    document = receipt.write(location, GOOD)
    signature = documents.signatures_of(document, [customer])

    def acknowledge(steps):
        return receipt.acknowledge(steps.over(location), document, signature, provider)

    def nothing_is_claimed_that_is_not_there():
        if custody_log.read(location).find("acknowledged"):
            (kept,), findings = documents.read_all(location)
            assert (set(kept.signers), findings) == ({customer.public, provider.public}, [])

    assert killed_at_each_step(acknowledge, nothing_is_claimed_that_is_not_there, late=late) >= 3
    assert [one.what.event for one in custody_log.read(location).entries] == ["received", "acknowledged"]
    assert custody_log.read(location).findings == []


@pytest.mark.parametrize("late", [False, True])
def test_a_receipt_that_died_anywhere_is_given_once(location, provider, customer, late, ticking):
    record_seal(location, provider, [provider])
    keys = []

    def receive(steps):
        keys.append(receipt.receive(steps.over(location), GOOD, [customer]).key)

    def what_is_signed_is_in_the_log():
        signed, _ = documents.read_all(location)
        recorded = [one.what.details["sha256"] for one in custody_log.read(location).find("received")]
        assert [one.sha256 for one in signed if one.sha256 not in recorded] == []

    assert killed_at_each_step(receive, what_is_signed_is_in_the_log, late=late) >= 3
    receive(Steps(99, late=late))  # and once more, after all is done
    assert len(set(keys)) == 1
    assert [info.key for info in location.list("sig/receipt-")] == [
        keys[0], f"{keys[0]}.{customer.public.id}.sig"
    ]  # fmt: skip
    assert [one.what.event for one in custody_log.read(location).entries].count("received") == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_receipt_that_died_anywhere_and_is_acknowledged_shows_no_other_copy(
    location, provider, customer, late
):
    """It is for the very copy that would be erased: its log says so before anybody can take the receipt from there."""
    record_seal(location, provider, [provider])
    versions = removable(open_object_lock(location.location))

    def receive(steps):
        receipt.receive(steps.over(location), GOOD, [customer])

    def it_allows_no_erasure():
        for document in documents.read_all(location, "receipt")[0]:
            receipt.acknowledge(location, document, documents.signatures_of(document, [customer]), provider)
        assert speaks_against(location, versions, [], [provider.public]) != []

    assert killed_at_each_step(receive, it_allows_no_erasure, late=late) >= 3


def test_what_a_dead_run_has_recorded_is_signed_though_another_receipt_follows(location, provider, customer):
    """The copy was damaged meanwhile. The log names what was received before, and it is there."""
    sign_bundle(location, provider)
    record_seal(location, provider, [provider])
    begun = receipt.write(location, GOOD, [customer.public])
    documents.keep(location, begun, [])
    event = receipt.happened(begun, "received", location.location, [customer.public])
    custody_log.append(location, customer, lambda _: [event])
    damaged = receipt.Checked("full", 3, 100, [Finding("data/a", "is missing")])
    document = receipt.receive(location, damaged, [customer])
    assert {one.key for one in documents.read_all(location)[0]} == {begun.key, document.key}
    assert against_bundle(location) == documents.read_all(location)[1] == []


def test_a_hold_ends_by_the_clock_of_the_location(there, provider, monkeypatch):
    """Our own clock is ten minutes off, which is less than a server refuses a signature for."""
    store, object_lock = there
    until = (datetime.now(UTC) + timedelta(minutes=3)).replace(microsecond=0)
    terms = Terms(until, "COMPLIANCE", legal=False)
    bundle_hold.place(store, object_lock, terms, workers=4, progress=Silent(), details={}, signer=provider)

    class Fast(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(minutes=10)

    monkeypatch.setattr("migrate.storage.s3.object_lock.datetime", Fast)
    fast = open_object_lock(store.location)
    assert abs(fast.now() - datetime.now(UTC)) < timedelta(seconds=3)
    assert bundle_hold.survey(store, fast, workers=4).is_held
    assert any("are held until" in one for one in check_holds(fast, removable(fast), workers=4))


def test_a_clock_that_was_set_back_is_noted_and_breaks_nothing(location, provider):
    record_seal(location, provider, [provider])
    first = custody_log.read(location).entries[-1].what
    back = datetime.now(UTC) - timedelta(days=400)
    custody_log.append(location, provider, lambda _: [first], clock=lambda: back)
    log = custody_log.read(location)
    assert (log.findings, len(log.notes)) == ([], 1)
    assert "a clock was set back" in log.notes[0]
