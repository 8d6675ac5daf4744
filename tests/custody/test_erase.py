"""Erasure: only when nothing speaks against it, finished by the same command, and certified."""

import os
import re
import shutil
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import pytest

from migrate.bundle import layout, lease
from migrate.bundle.findings import Finding
from migrate.custody import documents, erase, location_files, receipt
from migrate.custody.erasure_objections import check_holds, check_releases, objections, removable
from migrate.custody.log import custody_log
from migrate.custody.log.entry import CustodyEvent
from migrate.custody.log.events import record, record_seal, record_transfer
from migrate.custody.obligations import rulebook
from migrate.custody.signing import allowed_signers
from migrate.custody.signing.bundle_signatures import root_of, sign_bundle, signature_key
from migrate.custody.tree.bundle_tree import store_tree
from migrate.errors import BusyError, DamageError, GoneError, NotAllowedError, UnreachableError
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location, open_object_lock
from migrate.transfer.run import transfer
from tests.cli.conftest import call
from tests.custody.conftest import against_bundle
from tests.custody.test_hold import Broken, Removing
from tests.custody.tools import speaks_against
from tests.export.sources import Numbers
from tests.tools.clients import boto_client


@pytest.fixture
def kept(location, provider):
    """A signed bundle with its log."""
    sign_bundle(location, provider)
    store_tree(location, [provider])
    record_seal(location, provider, [provider])
    return location


def sign_receipt(location, provider, customer, findings=(), level="full"):
    """Sign it for a copy elsewhere, and have it acknowledged."""
    checked = receipt.Checked(level, 3, 100, findings)
    document = of_a_copy(receipt.write(location, checked))
    return document, receipt.acknowledge(
        location, document, documents.signatures_of(document, [customer]), provider
    )


def of_a_copy(document):
    return documents.make("receipt", "", {**document.value, "location": "file:///received"})


def answers(url) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == HTTPStatus.OK
    except OSError:
        return False


def is_begun(store) -> bool:
    return erase.begun_here(store, custody_log.read(store)) is not None


def do(store, object_lock, signer, **more):
    return erase.erase(store, object_lock, signer, workers=2, progress=Silent(), **more)


def test_without_a_receipt_it_is_refused_and_an_override_stays_in_the_log(kept, provider):
    object_lock = open_object_lock(kept.location)
    reasons = speaks_against(kept, removable(object_lock), [], [provider.public])
    assert reasons == ["nobody has signed a receipt for it"]
    with pytest.raises(NotAllowedError, match="nobody has signed"):
        do(kept, object_lock, provider, reasons=reasons)
    done = do(kept, object_lock, provider, reasons=reasons, override="a court said so")
    assert done.value["override"] == "a court said so"
    assert done.value["against"] == reasons
    assert custody_log.read(kept).find("erasing")[0].what.details["override"] == "a court said so"


def test_a_receipt_of_another_root_or_of_a_damaged_bundle_is_none(kept, provider, customer):
    object_lock = open_object_lock(kept.location)
    sign_receipt(kept, provider, customer, [Finding("data/a", "is missing")])
    assert speaks_against(kept, removable(object_lock), [], [provider.public]) == [
        "its receipt names damage: 1 findings"
    ]
    other = CustodyEvent("received", "b", "0" * 64, kept.location, {"findings": 0})
    custody_log.append(kept, provider, lambda _: [other])
    assert speaks_against(kept, removable(object_lock), [], [provider.public]) == [
        "its receipt names damage: 1 findings"
    ]
    sign_receipt(kept, provider, customer)
    assert speaks_against(kept, removable(object_lock), [], [provider.public]) == []


@pytest.mark.parametrize("level", ["quick", "complete"])
def test_a_receipt_for_which_not_every_byte_was_read_is_none(kept, provider, customer, level):
    """Names and sizes may be right and the bytes wrong: what is erased is then the only whole copy."""
    versions = removable(open_object_lock(kept.location))
    sign_receipt(kept, provider, customer, level=level)
    (reason,) = speaks_against(kept, versions, [], [provider.public])
    assert f"is of level {level}" in reason
    assert "moveout receive LOCATION --level full" in reason
    sign_receipt(kept, provider, customer)
    assert speaks_against(kept, versions, [], [provider.public]) == []
    sign_receipt(kept, provider, customer, level="quick")
    assert speaks_against(kept, versions, [], [provider.public]) == []


def test_of_receipts_for_one_location_the_newest_counts(kept, provider, customer, ticking, tmp_path):
    """A copy may be damaged after it was received, and be mended after that."""
    versions, damage = removable(open_object_lock(kept.location)), [Finding("data/a", "is missing")]
    copy = open_location(str(shutil.copytree(kept.location.removeprefix("file://"), tmp_path / "copy")))
    refused = ["its receipt names damage: 1 findings"]
    for findings, reasons in (([], []), (damage, refused), ([], []), (damage, refused)):
        checked = receipt.Checked("full", 3, 100, findings)
        document = receipt.receive(copy, checked, [customer])
        assert receipt.receive(copy, checked, [customer]).data == document.data
        receipt.acknowledge(kept, document, documents.signatures_of(document, [customer]), provider)
        assert speaks_against(kept, versions, [], [provider.public]) == reasons
    sign_receipt(kept, provider, customer)  # of another location
    assert speaks_against(kept, versions, [], [provider.public]) == []


def test_a_clock_that_was_set_back_at_the_receiver_hides_no_damage(
    kept, provider, customer, tmp_path, monkeypatch
):
    """Its receipt is dated before the one that says that all was well; the log there was longer."""
    versions, damage = removable(open_object_lock(kept.location)), [Finding("data/a", "is missing")]
    copy = open_location(str(shutil.copytree(kept.location.removeprefix("file://"), tmp_path / "copy")))
    now, make = datetime.now(UTC), documents.make
    for findings, days, reasons in (
        ([], 0, []),
        (damage, 900, ["its receipt names damage: 1 findings"]),
        ([], 899, []),  # it was mended after that
    ):
        at = now - timedelta(days=days)
        monkeypatch.setattr(documents, "make", lambda *words, at=at: make(*words, now=at))
        document = receipt.receive(copy, receipt.Checked("full", 3, 100, findings), [customer])
        receipt.acknowledge(kept, document, documents.signatures_of(document, [customer]), provider)
        assert speaks_against(kept, versions, [], [provider.public]) == reasons


def test_a_receipt_for_what_is_erased_shows_no_other_copy(kept, provider, customer):
    """Who only read it at the provider's has nothing in hand."""
    versions = removable(open_object_lock(kept.location))
    receipt.receive(kept, receipt.Checked("full", 3, 100, []), [customer])
    (reason,) = speaks_against(kept, versions, [], [provider.public])
    assert f"its receipt is for {kept.location} itself, and shows no other copy" in reason
    sign_receipt(kept, provider, customer)
    assert speaks_against(kept, versions, [], [provider.public]) == []


@pytest.mark.parametrize("keyed", [True, False], ids=["in the log", "without keys"])
def test_two_machines_that_have_the_bundle_under_one_path_are_two_copies(
    kept, provider, customer, tmp_path, keyed
):
    """The second machine's copy is received while it lies under the path that the first one's has."""
    here, aside, there = Path(kept.location.removeprefix("file://")), tmp_path / "aside", tmp_path / "there"
    transfer(kept, open_location(str(there)), workers=2, progress=Silent())
    here.rename(aside)
    there.rename(here)
    first = open_location(str(aside))
    record_transfer(first, kept, customer if keyed else None, {})
    document = receipt.receive(kept, receipt.Checked("full", 3, 100, []), [customer])
    here.rename(there)
    aside.rename(here)
    receipt.acknowledge(kept, document, documents.signatures_of(document, [customer]), provider)
    assert document.value["location"] == kept.location
    assert speaks_against(kept, removable(open_object_lock(kept.location)), [], [provider.public]) == []
    verified = call("custody", "verify", kept.location)
    assert verified.code == 0, verified.out


def test_one_copy_under_two_names_is_one_copy(kept, provider, customer, make_key, tmp_path):
    """A mount, a symbolic link, another name of a server: by its URL the receipt is of another location."""
    (tmp_path / "mount").symlink_to(kept.location.removeprefix("file://"))
    mounted, versions = (
        open_location(str(tmp_path / "mount")),
        removable(open_object_lock(kept.location)),
    )
    words = ("receive", mounted.location, "--key", make_key.path_of("customer"))
    assert call(*words, "--to", tmp_path / "mail").code == 0
    (file,) = (tmp_path / "mail").glob("receipt-*.json")
    assert call("acknowledge", kept.location, file, "--key", make_key.path_of("provider")).code == 0
    (document,) = documents.read_all(kept, "receipt")[0]
    assert document.value["location"] == mounted.location != kept.location
    (reason,) = speaks_against(kept, versions, [], [provider.public])
    assert f"its receipt is for {kept.location} itself" in reason
    later = open_location(str(tmp_path / "later"))
    transfer(mounted, later, workers=2, progress=Silent())
    record_transfer(mounted, later, provider, {})  # there the receipt is for another copy
    assert speaks_against(later, removable(open_object_lock(later.location)), [], [provider.public]) == []


def test_who_could_only_read_shows_no_copy_by_another_name(kept, provider, customer):
    """Whether a copy that was read is the one that is erased, nobody can tell."""
    versions = removable(open_object_lock(kept.location))
    damage = [Finding("data/a", "is missing")]
    for findings, words in (([], "could only read"), (damage, "names damage"), ([], "names damage")):
        checked = receipt.Checked("full", 3, 100, findings)
        read_only = of_a_copy(receipt.write(kept, checked, stored=False))
        receipt.acknowledge(kept, read_only, documents.signatures_of(read_only, [customer]), provider)
        (reason,) = speaks_against(kept, versions, [], [provider.public])
        assert words in reason
    sign_receipt(kept, provider, customer)
    assert speaks_against(kept, versions, [], [provider.public]) == []


def test_ones_own_receipt_is_none(kept, provider, customer):
    receipt.receive(kept, receipt.Checked("full", 3, 100, []), [provider])
    versions = removable(open_object_lock(kept.location))
    assert speaks_against(kept, versions, [], [provider.public]) == [
        "nobody but you has signed a receipt for it"
    ]
    assert speaks_against(kept, versions, [], [customer.public]) != []
    sign_receipt(kept, provider, customer)
    assert speaks_against(kept, versions, [], [provider.public]) == []


def test_a_second_key_of_who_erases_is_no_other_party(kept, provider, customer, make_key, tmp_path):
    """Named for the erasure, in one receipt with the first one, or listed under the same name."""
    spare, versions = make_key("spare"), removable(open_object_lock(kept.location))
    receipt.receive(kept, receipt.Checked("full", 3, 100, []), [provider, spare])
    unlisted = ["nobody but you has signed a receipt for it"]
    assert speaks_against(kept, versions, [], [provider.public, spare.public]) == unlisted
    allowed = tmp_path / "allowed"
    allowed.write_text(f"host {provider.public.line}\nhost {spare.public.line}\n")
    trust = allowed_signers.load(allowed)
    listed = [f"nobody in {allowed} but you has signed a receipt for it"]
    assert speaks_against(kept, versions, [], [provider.public], trust) == listed
    sign_receipt(kept, provider, customer)
    assert speaks_against(kept, versions, [], [provider.public, spare.public]) == []
    assert speaks_against(kept, versions, [], [provider.public], trust) == listed
    allowed.write_text(f"{allowed.read_text()}acme {customer.public.line}\n")
    assert speaks_against(kept, versions, [], [provider.public], allowed_signers.load(allowed)) == []


@pytest.mark.parametrize("also", ["acme", "host", "legal,host"])
def test_a_key_that_the_list_has_under_two_names_is_no_other_party(kept, provider, make_key, tmp_path, also):
    """Whichever of them comes first. A name that is written in another way is refused: ``test_party_names``."""
    spare, versions = make_key("spare"), removable(open_object_lock(kept.location))
    sign_receipt(kept, provider, spare)
    allowed = tmp_path / "allowed"
    names = ("acme", "host") if also == "acme" else (also,)
    lines = [f"host {provider.public.line}", *(f"{name} {spare.public.line}" for name in names)]
    allowed.write_text("\n".join(lines))
    (reason,) = speaks_against(kept, versions, [], [provider.public], allowed_signers.load(allowed))
    assert reason == f"nobody in {allowed} but you has signed a receipt for it"


def test_a_key_that_the_list_has_not_is_nobodys_and_asks_for_no_receipt_of_another(
    kept, provider, make_key, tmp_path
):
    """The receipt is by the list's key of the same party: to whom the erasing one belongs, nobody can say."""
    new, file = make_key("new"), tmp_path / "signers"
    sign_receipt(kept, new, provider)
    file.write_text(f"host {provider.public.line}\n")
    versions = removable(open_object_lock(kept.location))
    (reason,) = speaks_against(kept, versions, [], [new.public], allowed_signers.load(file))
    assert reason.startswith(f"your key {new.public.fingerprint} is none that {file} counts now")
    sign_receipt(kept, provider, new)
    file.write_text(f'host valid-before="20200101Z" {provider.public.line}\nacme {new.public.line}\n')
    (reason,) = speaks_against(kept, versions, [], [provider.public], allowed_signers.load(file))
    assert "its certificate is worth nothing" in reason


def test_what_comes_back_and_is_erased_again_is_certified_again(kept, provider, tmp_path, ticking):
    copy = open_location(str(shutil.copytree(kept.location.removeprefix("file://"), tmp_path / "copy")))
    certificates = []
    for _ in range(2):
        certificates.append(do(kept, open_object_lock(kept.location), provider).key)
        transfer(copy, kept, workers=2, progress=Silent())
        (finding,) = against_bundle(kept)
        assert "says that the bundle was erased" in str(finding)
        for _ in range(2):  # the same command again adds nothing
            record_transfer(copy, kept, provider, {"files": 3})
    assert len(set(certificates)) == 2
    assert len(custody_log.read(kept).find("transferred")) == 2
    assert len(custody_log.read(kept).find("erased")) == 2
    assert documents.read_all(kept)[1] == custody_log.read(kept).findings == []
    assert against_bundle(kept) == []
    kept.delete(signature_key(layout.TAG_MANIFEST, provider.public))
    assert "lacks the signature" in str(against_bundle(kept))  # it is a bundle again


def test_a_receipt_by_another_key_of_ones_own_or_of_a_stranger_is_none(
    kept, provider, customer, make_key, tmp_path
):
    counsel = make_key("counsel")
    versions = removable(open_object_lock(kept.location))
    receipt.receive(kept, receipt.Checked("full", 3, 100, []), [counsel, provider])
    own = [provider.public, counsel.public]
    assert speaks_against(kept, versions, [], own) == ["nobody but you has signed a receipt for it"]
    file = tmp_path / "signers"
    file.write_text(f"acme {customer.public.line}\nhost {provider.public.line}\nhost {counsel.public.line}\n")
    trust = allowed_signers.load(file)
    reason = f"nobody in {file} but you has signed a receipt for it"
    assert speaks_against(kept, versions, [], own[:1], trust) == [reason]
    document, _ = sign_receipt(kept, provider, customer)
    assert speaks_against(kept, versions, [], own, trust) == []
    kept.delete(document.key)  # an entry alone is none
    assert speaks_against(kept, versions, [], own, trust) == [reason]


@pytest.mark.parametrize("left", [layout.TAG_MANIFEST, layout.CATALOG])
def test_an_erasure_that_is_only_claimed_is_found(kept, provider, left):
    """A certificate and an entry are there, and so is a file."""
    data = kept.read(left)
    do(kept, open_object_lock(kept.location), provider)
    assert call("custody", "verify", kept.location).code == 0
    kept.put(left, data)
    verified = call("custody", "verify", kept.location)
    assert (verified.code, f"{left}: is " in verified.out) == (6, True), verified.out
    assert "says that the bundle was erased" in verified.out


def test_older_versions_that_an_erasure_left_are_found(kept, locked, provider):
    client, bucket, url = locked
    store, object_lock = open_location(url), open_object_lock(url)
    transfer(kept, store, workers=2, progress=Silent())
    record_transfer(kept, store, provider, {})
    do(store, object_lock, provider)
    client.put_object(Bucket=bucket, Key=f"bundle/{layout.CATALOG}", Body=b"rows")
    client.delete_object(Bucket=bucket, Key=f"bundle/{layout.CATALOG}")
    assert against_bundle(store) == []
    assert {one.key for one in against_bundle(store, object_lock)} == {layout.CATALOG}


def test_a_hold_that_only_the_log_still_has_speaks_against_it(kept, provider):
    """Somebody lifted its locks at the server, and asked none of the keys."""
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    record(kept, provider, "held", {"until": until, "legal": False})
    now = datetime.now(UTC)
    (reason,) = check_releases(custody_log.read(kept), kept.location, now)
    assert "was not released" in reason
    assert check_releases(custody_log.read(kept), kept.location, now + timedelta(days=2)) == []
    do(kept, open_object_lock(kept.location), provider)
    (finding,) = against_bundle(kept)
    assert "was erased while the hold of entry 4 stood" in str(finding)


def test_what_is_left_is_the_record(kept, provider, customer):
    sign_receipt(kept, provider, customer)
    assert speaks_against(kept, removable(open_object_lock(kept.location)), [], [provider.public]) == []
    done = do(kept, open_object_lock(kept.location), provider)
    left = [info.key for info in kept.list()]
    assert all(
        key.startswith(("sig/custody", "sig/receipt-", "sig/erasure-", "sig/checkpoint")) for key in left
    )
    assert done.value["versions"] > 10
    documents_left, findings = documents.read_all(kept)
    assert [(one.kind, len(one.signers)) for one in documents_left] == [("erasure", 1), ("receipt", 2)]
    assert findings == []
    assert against_bundle(kept) == []
    kept.delete(done.key)
    assert "is missing" in str(against_bundle(kept))


def test_no_override_lifts_a_hold_and_nothing_is_begun(kept, locked, provider, make_key):
    """The beginning of an erasure would be an event that the clock counts."""
    url = locked[2]
    store, object_lock = open_location(url), open_object_lock(url)
    transfer(kept, store, workers=2, progress=Silent())
    record_seal(store, provider, [provider])
    (tags,) = [version for version in object_lock.versions() if version.key == layout.TAG_MANIFEST]
    object_lock.set_legal(tags, on=True)
    words = ["erase", url, "--key", make_key.path_of("provider"), "--override", "a test", "--yes"]
    refused = call(*words)
    assert (refused.code, "1 of them by a legal hold" in refused.err) == (4, True), refused.err
    assert custody_log.read(store).find("erasing") == []
    object_lock.set_legal(tags, on=False)
    assert call(*words).code == 0


@pytest.mark.parametrize("left", [11, *(pytest.param(left, marks=pytest.mark.torture) for left in (0, 1, 4))])
def test_a_dead_run_is_finished_by_the_same_command(kept, locked, provider, customer, left):
    """On a bucket with versions, an older one and a delete marker among them."""
    url = locked[2]
    store, object_lock = open_location(url), open_object_lock(url)
    transfer(kept, store, workers=2, progress=Silent())
    record_transfer(kept, store, provider, {})
    sign_receipt(store, provider, customer)
    store.put(layout.RECONCILIATION, store.read(layout.RECONCILIATION))
    store.put("data/stray", b"x")
    store.delete("data/stray")
    upload = store.begin("data/large")
    store.put_part("data/large", upload, 1, b"x")
    with pytest.raises(UnreachableError):
        do(store, Broken(object_lock, left), provider)
    is_whole = any(one.key == layout.TAG_MANIFEST for one in object_lock.versions())
    assert is_begun(store) != is_whole  # as long as nothing is gone all is asked again
    assert is_whole or left > 1
    done = do(store, object_lock, provider)
    assert not [one for one in object_lock.versions() if not one.key.startswith("sig/")]
    assert kept.location in done.value["not_verified"][0]
    assert list(store.uploads()) == []
    assert done.value["versions"] > 10
    assert do(store, object_lock, provider).key == done.key  # again: nothing more is written
    assert len(custody_log.read(store).find("erased")) == 1
    store.put("data/new", b"x")
    assert not is_begun(store)


def test_what_dead_writers_left_in_a_directory_goes_too(kept, provider):
    root = Path(kept.location.removeprefix("file://"))
    upload = kept.begin("data/large")
    kept.put_part("data/large", upload, 1, b"rows")
    (root / "_work" / ".uploads" / upload / "meta.json").unlink()  # as of one that was dropped half-way
    (root / "_work" / ".tmp").mkdir(exist_ok=True)
    (root / "_work" / ".tmp" / "torn").write_bytes(b"rows")
    (root / "data" / "link").symlink_to(root / "bagit.txt")
    do(kept, open_object_lock(kept.location), provider)
    left = [path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()]
    assert all(name.startswith("sig/") for name in left), left


@pytest.mark.parametrize(
    ("name", "most_bytes"),
    [
        ("receipt-all-rows.parquet", 2**20),
        ("receipt-0123456789abcdef.json", 2**20),
        ("receipt-0123456789abcdef.json.0123456789abcdef.sig", 4096),
        ("checkpoint", 16_384),
    ],
)
def test_what_is_only_named_like_the_record_goes_too(kept, provider, name, most_bytes):
    kept.put(f"sig/{name}", b"x" * (most_bytes + 1))
    do(kept, open_object_lock(kept.location), provider)
    assert f"sig/{name}" not in {info.key for info in kept.list()}


def test_an_erasure_that_began_elsewhere_or_before_the_bundle_came_back_has_not_begun_here(
    kept, provider, tmp_path
):
    """Nor is anything erased without a question because of it."""
    copy = open_location(str(shutil.copytree(kept.location.removeprefix("file://"), tmp_path / "copy")))
    with pytest.raises(UnreachableError):
        do(kept, Broken(open_object_lock(kept.location), 3), provider)
    assert is_begun(kept)
    transfer(copy, kept, workers=2, progress=Silent())
    assert not is_begun(kept)
    with pytest.raises(NotAllowedError, match="nobody"):
        do(kept, open_object_lock(kept.location), provider, reasons=["nobody has signed a receipt for it"])
    elsewhere = open_location(str(tmp_path / "elsewhere"))
    transfer(kept, elsewhere, workers=2, progress=Silent())
    custody_log.carry(kept, elsewhere)
    elsewhere.delete(layout.TAG_MANIFEST)
    assert custody_log.read(elsewhere).find("erasing")
    assert not is_begun(elsewhere)


def test_a_directory_that_is_renamed_between_two_runs_is_erased_only_if_somebody_says_why(
    kept, provider, make_key, tmp_path
):
    """It may be a damaged copy. The certificate counts what the first run removed, too."""
    old, new, key = (
        Path(kept.location.removeprefix("file://")),
        tmp_path / "new",
        make_key.path_of("provider"),
    )
    count = len(removable(open_object_lock(kept.location)))
    with pytest.raises(UnreachableError):
        do(kept, Broken(open_object_lock(kept.location), 3), provider, override="a court said so")
    old.rename(new)
    refused = call("erase", new, "--key", key, "--yes")
    assert (refused.code, f"begun at {kept.location}" in refused.err) == (4, True), refused.err
    new.rename(old)
    assert is_begun(kept)
    old.rename(new)
    done = call("erase", new, "--key", key, "--yes", "--override", "it was renamed", "--json")
    assert (done.code, done.json["result"]["versions"]) == (0, count), done.err
    assert all(info.key.startswith("sig/") for info in open_location(str(new)).list())
    verified = call("custody", "verify", new)
    assert verified.code == 0, verified.out


def test_a_directory_that_is_renamed_under_a_run_is_not_certified_away(kept, provider, tmp_path):
    """Where it was nothing is left, and its bytes lie elsewhere."""
    old, new = Path(kept.location.removeprefix("file://")), tmp_path / "new"

    class Renaming(Broken):
        def __getattr__(self, name):
            self._left -= name == "remove"
            if name == "remove" and self._left == 0:
                old.rename(new)
            return getattr(self._inner, name)

    with pytest.raises(DamageError, match="by which this erasure began") as refused:
        do(kept, Renaming(open_object_lock(kept.location), 4), provider)
    assert "put it back" in refused.value.next_step
    assert documents.read_all(open_location(str(new)), "erasure")[0] == []
    new.rename(old)  # nothing was made in its place
    assert do(kept, open_object_lock(kept.location), provider).value["versions"] > 10


def half_erased(kept, provider):
    """Leave an erasure half-way."""
    with pytest.raises(UnreachableError):
        do(kept, Broken(open_object_lock(kept.location), 5), provider)


def test_what_finishes_an_erasure_is_said_by_transfer_and_status_and_works_from_anywhere(
    kept, locked, minio, provider, make_key, tmp_path
):
    """On another machine the profile has another name, and the key is another one. The URL has to be quoted."""
    url = locked[2]
    store = open_location(url)
    transfer(kept, store, workers=2, progress=Silent())
    record_transfer(kept, store, provider, {})
    half_erased(store, provider)
    command = f"moveout erase '{store.location}' --key FILE"
    refused = call("transfer", kept.location, url)
    assert (refused.code, f"→ {command} finishes it" in refused.err) == (5, True), refused.err
    (tmp_path / "case.toml").write_text(
        f'[bundle]\nlocation = "{kept.location}"\n[transfer]\nlocation = "{url}"\n'
    )
    for words in ((url,), ("-c", tmp_path / "case.toml")):
        status = call("status", *words)
        assert (status.code, "an erasure was begun at" in status.out, command in status.out) == (
            0,
            True,
            True,
        ), status
    for words in (("hold", "place", url, "--until", "1d", "--reason", "x"), ("receive", url), ("sign", url)):
        answer = call(*words, "--key", make_key.path_of("provider"))
        assert (answer.code != 0, "says what happened to the bundle" in answer.err) == (True, True), (
            answer.err
        )
    there = {}
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        there[variable] = str(tmp_path / variable)
        profiles = Path(os.environ[variable]).read_text()
        (tmp_path / variable).write_text(re.sub(rf"\b{minio.profile}\]", "there]", profiles))
    elsewhere = url.replace(f"profile={minio.profile}", "profile=there")
    words = ["erase", elsewhere, "--key", make_key.path_of("spare"), "--yes"]
    for _ in range(2):
        done = call(*words, env=there)
        assert done.code == 0, done.err
    again = call("erase", url, "--key", make_key.path_of("provider"), "--yes")
    assert again.code == 0, again.err
    assert len(custody_log.read(store).find("erased")) == 1
    assert against_bundle(store) == []
    assert call("transfer", kept.location, url).code == 0


@pytest.mark.parametrize("state", [layout.EXPORT_STATE, layout.TRANSFER_STATE])
def test_an_erasure_that_died_before_it_removed_anything_is_not_finished_upon_another_bundle(
    kept, provider, state
):
    """An export or a transfer has begun there since. Its files are nobody's rest."""
    with pytest.raises(UnreachableError):
        do(kept, Broken(open_object_lock(kept.location), 0), provider)
    kept.put(state, b"{}")
    kept.delete(layout.TAG_MANIFEST)  # as who continues a bundle does first
    assert not is_begun(kept)
    assert erase.count_begun(kept, None) == 1
    count = len(list(kept.list()))
    with pytest.raises(GoneError, match="only its record"):
        do(kept, open_object_lock(kept.location), provider)
    assert len(list(kept.list())) == count


@pytest.mark.parametrize(
    "left", [0, 3, *(pytest.param(left, marks=pytest.mark.torture) for left in (1, 2, 4, 5))]
)
def test_a_bundle_that_an_export_would_continue_is_erased_at_any_step(kept, provider, left):
    """What says that an export may go on goes first: so nothing does."""
    kept.put(layout.EXPORT_STATE, b"{}")
    object_lock = open_object_lock(kept.location)
    with pytest.raises(UnreachableError):
        erase.erase(kept, Broken(object_lock, left), provider, workers=1, progress=Silent())
    assert is_begun(kept) == (left > 1)
    do(kept, object_lock, provider)
    assert all(info.key.startswith("sig/") for info in kept.list())
    assert against_bundle(kept) == []


def test_older_versions_of_the_tag_manifest_are_never_the_bundle(kept, locked, provider):
    """They go first: a run that dies leaves the newest one, or none."""
    url = locked[2]
    store, object_lock = open_location(url), open_object_lock(url)
    transfer(kept, store, workers=2, progress=Silent())
    record_transfer(kept, store, provider, {})
    data = store.read(layout.TAG_MANIFEST)
    for older in (b"older", b"old", data):
        store.put(layout.TAG_MANIFEST, older)
    for left in range(5):
        with pytest.raises(UnreachableError):
            erase.erase(store, Broken(object_lock, left), provider, workers=1, progress=Silent())
        left_there = [one for one in object_lock.versions() if one.key == layout.TAG_MANIFEST]
        assert not left_there or store.read(layout.TAG_MANIFEST) == data
    count = custody_log.read(store).find("erasing")[0].what.details["versions"]
    assert (
        do(store, object_lock, provider).value["versions"] == count
    )  # also those that went before the first run died
    assert len(custody_log.read(store).find("erasing")) == 1


def test_a_hold_that_was_placed_since_an_erasure_began_speaks_against_its_end(kept, provider, make_key):
    """And is found where the certificate says nothing of it. Nothing was removed when the first run died."""
    with pytest.raises(UnreachableError):
        do(kept, Broken(open_object_lock(kept.location), 0), provider)
    record(kept, provider, "held", {"until": "2099-01-01T00:00:00+00:00", "legal": False})
    kept.delete(layout.TAG_MANIFEST)  # by another program, for which the log is nothing
    words = ("erase", kept.location, "--key", make_key.path_of("provider"), "--yes")
    for more in ((), ("--override", " ")):
        refused = call(*words, *more)
        assert (refused.code, "the hold of entry 5 was not released" in refused.err) == (4, True), refused.err
    log = {key: kept.read(key) for key in (layout.CUSTODY_LOG, layout.CUSTODY_HEAD)}
    do(kept, open_object_lock(kept.location), provider)
    (finding,) = against_bundle(kept)
    assert "says at entry 6 that the bundle was erased while the hold of entry 5 stood" in str(finding)
    for info in list(kept.list("sig/erasure-")):
        kept.delete(info.key)
    for key, data in log.items():
        kept.put(key, data)
    assert call(*words, "--override", "a court said so").code == 0
    assert against_bundle(kept) == []


@pytest.mark.parametrize("manifest", [True, False])
def test_what_came_there_since_an_erasure_died_is_not_erased_along(kept, provider, make_key, manifest):
    """Somebody put it among the files of the bundle. A reason is signed, as where it had been there before."""
    half_erased(kept, provider)
    if not manifest:
        for info in list(kept.list("data/")):
            kept.delete(info.key)
        kept.delete(layout.MANIFEST)
    kept.put("data/mine", b"mine")
    words = ("erase", kept.location, "--key", make_key.path_of("provider"), "--yes")
    refused = call(*words)
    assert (refused.code, "1 file that the bundle does not name would go" in refused.err) == (4, True), (
        refused.err
    )
    assert kept.read("data/mine") == b"mine"
    half = call(*words, "--dry-run")
    assert "speaks against it: 1 file" in half.out, half
    assert call(*words, "--override", "it is nothing").code == 0
    ((certificate,), findings) = documents.read_all(kept, "erasure")
    assert (certificate.value["override"], findings) == ("it is nothing", [])
    assert certificate.value["versions"] > 10
    assert against_bundle(kept) == []


def test_who_waited_long_with_the_answer_is_not_asked_for_the_first_time(
    kept, provider, customer, make_key, monkeypatch
):
    """Somebody has placed a hold meanwhile."""
    sign_receipt(kept, provider, customer)
    rules = Path(kept.location.removeprefix("file://")).parent / "rules.toml"
    rules.write_text('version = 1\nid = "x"\ntitle = "x"\nsource = "x"\napplies = "x"\nrule = []\n')

    def confirm(*_):
        record(kept, provider, "held", {"until": "2099-01-01T00:00:00+00:00", "legal": False})
        return True

    monkeypatch.setattr("migrate.cli.common.session.Session.confirm", confirm)
    refused = call("erase", kept.location, "--key", make_key.path_of("provider"), "--rules", rules)
    assert (refused.code, "was not released" in refused.err) == (4, True), refused.err
    assert custody_log.read(kept).find("erasing") == []


def test_a_grant_of_a_bundle_that_was_erased_opens_no_other_one(kept, provider, customer, make_key, tmp_path):
    """The reader of the former bundle would read the next customer's. The same bundle may come back. That the grant was
    revoked is not taken from a stranger.
    """
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    record(kept, provider, "granted", {"to": "acme", "access_key": "mo1", "expires": until})
    same = shutil.copytree(kept.location.removeprefix("file://"), tmp_path / "same")
    other = tmp_path / "other"
    export([Numbers(count=16)], open_location(str(other)), workers=1, progress=Silent())
    do(kept, open_object_lock(kept.location), provider)
    refused = call("transfer", other, kept.location)
    assert (refused.code, f"moveout grant revoke {kept.location} --to acme" in refused.err) == (4, True), (
        refused.err
    )
    assert "is open until" in refused.err
    (event,) = [one.what for one in custody_log.read(kept).find("granted")]
    revoked = CustodyEvent(
        "revoked", event.bundle, event.root, event.location, {"to": "acme", "access_key": "mo1"}
    )
    assert call("transfer", same, kept.location).code == 0
    do(kept, open_object_lock(kept.location), provider)
    came = CustodyEvent(
        "transferred", "b", event.root, f"{event.location}?profile=x", {"from": event.location}
    )
    custody_log.append(kept, make_key("stranger"), lambda _: [revoked, came])
    case = tmp_path / "case.toml"
    case.write_text(f'[bundle]\nlocation = "{other}"\n[transfer]\nlocation = "{kept.location}"\n')
    (tmp_path / "signers").write_text(f"host {provider.public.line}\n")
    with case.open("a") as file:
        file.write('[custody]\nsigners = "signers"\n')
    assert call("transfer", "-c", case).code == 4
    custody_log.append(kept, provider, lambda _: [revoked])
    assert call("transfer", "-c", case).code == 0
    assert call("transfer", other, kept.location).code == 0


def test_an_erasure_is_not_ended_by_the_word_of_a_stranger_in_status_either(
    kept, provider, make_key, tmp_path
):
    """A stranger's entry of a transfer makes it the erasure of another location, but for a case with signers."""
    half_erased(kept, provider)
    (event,) = [entry.what for entry in custody_log.read(kept).find("erasing")]
    came = CustodyEvent(
        "transferred", "b", event.root, f"{event.location}?profile=x", {"from": event.location}
    )
    custody_log.append(kept, make_key("stranger"), lambda _: [came])
    case = tmp_path / "case.toml"
    case.write_text(f'[bundle]\nlocation = "{kept.location}"\n')
    (tmp_path / "signers").write_text(f"host {provider.public.line}\n")
    assert "an erasure was begun at" not in call("status", "-c", case).out
    with case.open("a") as file:
        file.write('[custody]\nsigners = "signers"\n')
    assert "an erasure was begun at" in call("status", "-c", case).out


class Paused(Broken):
    """Lets some removals pass, and waits at the next one."""

    def __init__(self, inner, left) -> None:
        super().__init__(inner, left)
        self.waits, self.may_go_on = threading.Event(), threading.Event()

    def __getattr__(self, name):
        self._left -= name == "remove"
        if name == "remove" and self._left == 0:
            self.waits.set()
            assert self.may_go_on.wait(60)
        return getattr(self._inner, name)


def test_a_transfer_to_where_an_erasure_is_at_work_is_refused(kept, provider, tmp_path):
    """It would count as there what is removed in the next moment, and seal what is left."""
    copy = shutil.copytree(kept.location.removeprefix("file://"), tmp_path / "copy")
    object_lock = Paused(open_object_lock(kept.location), 8)
    with ThreadPoolExecutor(1) as threads:
        erasure = threads.submit(do, kept, object_lock, provider)
        assert object_lock.waits.wait(60)
        refused = call("transfer", copy, kept.location)
        object_lock.may_go_on.set()
        erasure.result()
    assert (refused.code, "an erasure was begun at" in refused.err) == (5, True), refused.err
    assert call("transfer", copy, kept.location).code == 0
    assert call("verify", kept.location, "--level", "complete").code == 0


def test_a_transfer_during_which_an_erasure_begins_is_not_whole(kept, provider, tmp_path, monkeypatch):
    copy = shutil.copytree(kept.location.removeprefix("file://"), tmp_path / "copy")

    def erased_meanwhile(*args, **more):
        outcome = transfer(*args, **more)
        for _ in range(9):  # the command that transfers may write its progress once more
            with suppress(DamageError):
                do(kept, open_object_lock(kept.location), provider)
                break
        return outcome

    monkeypatch.setattr("migrate.cli.transfer.transfer", erased_meanwhile)
    refused = call("transfer", copy, kept.location)
    assert (refused.code, "begun at" in refused.err, refused.out) == (5, True, ""), refused


def test_an_acknowledgement_that_a_wrong_clock_dated_back_speaks_against_it(
    kept, provider, customer, make_key
):
    """The time to keep the bundle, which begins with it, seems to be over."""
    document = of_a_copy(receipt.write(kept, receipt.Checked("full", 3, 100, [])))
    documents.copy_all(kept, document, documents.signatures_of(document, [customer]))
    events = [
        receipt.happened(document, event, kept.location, [customer.public])
        for event in ("received", "acknowledged")
    ]
    back = datetime.now(UTC) - timedelta(days=900)
    custody_log.append(kept, provider, lambda _: events, clock=lambda: back)
    refused = call("erase", kept.location, "--key", make_key.path_of("provider"), "--yes")
    assert (refused.code, "is dated before the receipt" in refused.err) == (4, True), refused.err


def test_a_log_that_was_put_back_and_lacks_a_hold_speaks_against_it(kept, provider, customer, make_key):
    """A receipt that was given there names an entry that the log has no more."""
    before = {key: kept.read(key) for key in (layout.CUSTODY_LOG, layout.CUSTODY_HEAD)}
    record(kept, provider, "held", {"until": "2099-01-01T00:00:00+00:00", "legal": False})
    receipt.receive(kept, receipt.Checked("full", 3, 100, []), [customer])
    for key, data in before.items():
        kept.put(key, data)
    sign_receipt(kept, provider, customer)
    refused = call("erase", kept.location, "--key", make_key.path_of("provider"), "--yes")
    assert (refused.code, "its entry 4 is another or missing" in refused.err) == (4, True), refused.err
    assert "was not released" not in refused.err


@pytest.mark.parametrize("override", ["", "a court said so"])
def test_two_erasures_at_once_are_one(kept, provider, customer, override):
    """The second one has listed the bundle when the first one begins, or has ended."""
    ended = []

    class Listed(Broken):
        def __getattr__(self, name):
            if name == "versions" and not ended:
                listed = list(self._inner.versions())
                ended.append(do(kept, open_object_lock(kept.location), customer))
                return lambda: iter(listed)
            return getattr(self._inner, name)

    second = do(kept, Listed(open_object_lock(kept.location), 0), provider, override=override)
    assert second.key == ended[0].key
    log = custody_log.read(kept)
    assert [entry.what.event for entry in log.entries][3:] == ["erasing", "erased"]
    ((certificate,), findings) = documents.read_all(kept, "erasure")
    assert (set(certificate.signers), findings) == ({provider.public, customer.public}, [])
    assert against_bundle(kept) == []


def test_what_others_keep_below_the_location_speaks_against_it(kept, provider, customer):
    sign_receipt(kept, provider, customer)
    kept.put("other/bundle/bagit.txt", b"x")
    (reason,) = speaks_against(kept, removable(open_object_lock(kept.location)), [], [provider.public])
    assert reason == "1 file that the bundle does not name would go with it, such as 'other/bundle/bagit.txt'"


@pytest.mark.parametrize("name", ["data/mine/notes.txt", "meta/mine.json", "data/mount"])
def test_what_others_keep_among_the_files_of_the_bundle_speaks_against_it(kept, provider, customer, name):
    """A file, and a symbolic link, which is not followed."""
    sign_receipt(kept, provider, customer)
    root, outside = Path(kept.location.removeprefix("file://")), open_location(kept.location)
    if name == "data/mount":
        (root / name).symlink_to("/")
    else:
        outside.put(name, b"mine")
    reason, *_ = speaks_against(kept, removable(open_object_lock(kept.location)), [], [provider.public])
    assert reason == f"1 file that the bundle does not name would go with it, such as {name!r}"


def test_the_certificate_of_another_copy_is_not_taken_for_ones_own(kept, provider, customer, tmp_path):
    """Both sides erase their copies, and the customer has added the provider's certificate before."""
    copy = open_location(str(shutil.copytree(kept.location.removeprefix("file://"), tmp_path / "copy")))
    first = do(kept, open_object_lock(kept.location), provider)
    documents.copy_all(copy, first, documents.signatures_of(first, [provider]))
    lie = documents.make("erasure", "", {**first.value, "location": copy.location, "versions": 1})
    documents.keep(copy, lie, [provider])  # who does not erase there
    done = do(copy, open_object_lock(copy.location), customer)
    assert (done.value["location"], done.signers) == (copy.location, ())
    assert done.value["versions"] > 10
    assert do(copy, open_object_lock(copy.location), customer).key == done.key
    assert against_bundle(copy) == []


def test_a_strangers_text_is_not_signed_for_a_certificate(kept, provider, customer, make_key):
    """He writes that he has begun the erasure, too, and puts there what he wants the host to have said."""
    sign_receipt(kept, provider, customer)
    stranger, root = make_key("stranger"), root_of(kept)
    record(kept, stranger, "erasing", {})
    bundle = custody_log.read(kept).last.what.bundle
    value = {"bundle": bundle, "root": root, "location": kept.location, "versions": 0, "size_bytes": 0}
    documents.keep(kept, documents.make("erasure", "Nothing was handed over", value), [stranger])
    certificate = do(kept, open_object_lock(kept.location), provider)
    assert certificate.about.startswith("Certificate of erasure")
    for uploads in ("none was handed over", None):
        forged = documents.make("erasure", certificate.about, {**certificate.value, "uploads": uploads})
        documents.keep(kept, forged, [stranger])
    for _ in range(2):
        assert do(kept, open_object_lock(kept.location), provider).key == certificate.key
    kept_documents = documents.read_all(kept, "erasure")[0]
    assert [one.key for one in kept_documents if provider.public in one.signers] == [certificate.key]


def test_a_file_whose_bytes_lie_elsewhere_speaks_against_it(kept, provider, customer, tmp_path):
    """Its name would go, and a certificate would say that all is gone."""
    sign_receipt(kept, provider, customer)
    (file, *_) = Path(kept.location.removeprefix("file://")).glob("data/**/*.parquet")
    file.rename(tmp_path / file.name)
    file.symlink_to(tmp_path / file.name)
    (reason,) = speaks_against(kept, removable(open_object_lock(kept.location)), [], [provider.public])
    assert f"1 file may lie elsewhere, and stay there: 'data/{file.name}' is a symbolic link" == reason


def test_who_finishes_an_erasure_with_another_key_signs_the_certificate_too(kept, provider, customer):
    """The run before had signed it, and died at what it signs after that: its last entry."""

    class Agent:
        public, left = provider.public, 3

        def sign(self, data):
            self.left -= 1
            if self.left < 0:
                raise UnreachableError("died")
            return provider.sign(data)

    with pytest.raises(UnreachableError):
        do(kept, open_object_lock(kept.location), Agent())
    done = do(kept, open_object_lock(kept.location), customer)
    ((certificate,), findings) = documents.read_all(kept, "erasure")
    assert (certificate.key, findings) == (done.key, [])
    assert set(certificate.signers) == {provider.public, customer.public}
    assert against_bundle(kept) == []


def test_nothing_is_removed_where_the_log_cannot_go_on(kept, provider):
    with pytest.raises(UnreachableError):
        do(kept, Broken(open_object_lock(kept.location), 5), provider)
    left = {info.key for info in kept.list()}
    kept.put(layout.CUSTODY_LOG, kept.read(layout.CUSTODY_LOG)[:-9])
    with pytest.raises(DamageError, match=layout.CUSTODY_LOG):
        do(kept, open_object_lock(kept.location), provider)
    assert {info.key for info in kept.list()} == left


def test_nothing_is_erased_under_the_hands_of_another_run(kept, provider):
    with lease.Lease(kept, "transfer"), pytest.raises(BusyError, match="transfer"):
        do(kept, open_object_lock(kept.location), provider)
    assert custody_log.read(kept).find("erasing") == []


def test_an_upload_that_somebody_begins_meanwhile_is_not_certified_away(kept, provider):
    class Writing(Broken):
        def __getattr__(self, name):
            self._left -= name == "remove"
            if name == "remove" and self._left == 0:
                kept.begin("data/more")
            return getattr(self._inner, name)

    with pytest.raises(DamageError, match=r"_work/\.uploads"):
        do(kept, Writing(open_object_lock(kept.location), 3), provider)
    assert documents.read_all(kept, "erasure")[0] == []
    assert do(kept, open_object_lock(kept.location), provider).value["uploads"] == 1


def test_an_upload_that_a_server_has_forgotten_to_list_goes_too(kept, provider, servers):
    """A MinIO that was started again lists those from before by their whole names only."""
    minio = servers.minio("forgetful")
    boto_client(minio.profile).create_bucket(Bucket="forgetful")
    url = f"s3://forgetful/b?profile={minio.profile}"
    store = open_location(url)
    transfer(kept, store, workers=2, progress=Silent())
    store.put_part(layout.CATALOG, upload := store.begin(layout.CATALOG), 1, b"rows")
    minio.child.start_again(lambda: answers(f"{minio.endpoint}/minio/health/cluster"))
    assert list(store.uploads()) == []
    assert do(store, open_object_lock(url), provider).value["uploads"] == 1
    with pytest.raises(GoneError):
        store.parts(layout.CATALOG, upload)


@pytest.mark.parametrize("server", ["minio", pytest.param("versitygw", marks=pytest.mark.torture)])
def test_a_bucket_without_object_lock_holds_nothing_back(
    kept, provider, customer, request, make_bucket, server
):
    s3 = request.getfixturevalue(server)
    url = f"s3://{make_bucket(s3)}/b?profile={s3.profile}"
    store, object_lock = open_location(url), open_object_lock(url)
    transfer(kept, store, workers=2, progress=Silent())
    record_seal(store, provider, [provider])
    sign_receipt(store, provider, customer)
    boto_client(s3.profile).put_object(
        Bucket=url.split("/")[2], Key="b/", Body=b""
    )  # as some consoles make folders
    versions = removable(object_lock)
    assert (
        check_holds(object_lock, versions, workers=4),
        speaks_against(store, versions, [], [provider.public]),
    ) == ([], [])
    do(store, object_lock, provider)
    assert all(one.key.startswith("sig/") for one in object_lock.versions())


def test_the_commands(kept, make_key, tmp_path):
    bundle, key = kept.location.removeprefix("file://"), make_key.path_of("provider")
    copy = shutil.copytree(bundle, tmp_path / "copy")
    refused = call("erase", bundle, "--key", key, "--yes")
    assert (refused.code, "nobody has signed a receipt" in refused.err) == (4, True)
    received = call(
        "receive", bundle, "--key", make_key.path_of("customer"), "--to", tmp_path / "mail", "--json"
    )
    assert received.code == 0, received.err
    refused = call("erase", bundle, "--key", key, "--yes")
    assert (refused.code, "Article 25(2)(g)" in refused.err) == (4, True), refused.err
    assert call("erase", bundle, "--key", key, "--override", "test").code == 2  # nobody to ask
    month = (datetime.now(UTC) + timedelta(days=31)).isoformat()
    later = call("clock", bundle, "--at", month, "--json")
    assert {one["article"]: one["state"] for one in later.json["result"]["rules"]}[
        "Article 25(2)(g)"
    ] == "met"
    words = ("erase", bundle, "--key", key, "--yes", "--override", "a test")
    done = call(*words)
    assert (done.code, "Not verified" in done.out) == (0, True), done.err
    again = call(*words, "--to", tmp_path / "certificate", "--json")  # also when it was erased before
    assert sorted(again.json["result"]["written"]) == sorted(map(str, (tmp_path / "certificate").iterdir()))
    assert call("custody", "add", copy, *(tmp_path / "certificate").glob("*.json")).code == 0
    assert call("custody", "verify", copy).code == 0
    assert call("clock", bundle).code == 9
    assert call("custody", "verify", bundle).code == 0
    status = call("status", bundle)
    certificate = next((tmp_path / "certificate").glob("*.json")).name
    assert (status.code, f"the certificate: sig/{certificate}" in status.err) == (7, True), status.err
    for words in (("verify",), ("ls",), ("hold", "status")):
        gone = call(*words, bundle)
        assert (gone.code, "any more, only its record" in gone.err) == (7, True), gone
        assert "it may be erased" in gone.err


def test_a_release_by_too_few_keys_speaks_against_an_erasure(kept, provider, customer):
    """One of two owners has lifted the locks at the server, and written an entry by hand."""
    sign_receipt(kept, provider, customer)
    keys = [provider.public.fingerprint, customer.public.fingerprint]
    record(kept, provider, "held", {"legal": True, "release_keys": keys, "release_quorum": 2})
    value = {"root": root_of(kept), "location": kept.location}
    document = documents.make("release", "Release", value)
    documents.keep(kept, document, [provider])
    record(kept, provider, "released", document.named)
    object_lock = open_object_lock(kept.location)

    def reasons():
        return objections(kept, object_lock, [provider.public], [], None, workers=1)[1]

    (reason,) = reasons()
    assert f"{document.key}: released the bundle at entry 7, though the hold of entry 6" in reason
    documents.keep(kept, document, [customer])
    assert reasons() == []


def test_the_entry_of_a_stranger_meets_no_rule(kept, provider, customer, make_key, tmp_path):
    """What a list of signers does not name says nothing of a consent; nor does a key that is replaced by now."""
    file, allowed = tmp_path / "rules.toml", tmp_path / "allowed"
    file.write_text(
        'version = 1\nid = "c"\ntitle = "c"\nsource = "c"\napplies = "c"\n[[rule]]\nid = "consent"\narticle = "9"\n'
        'says = "x"\nkind = "requires"\nstart = ["noted:consent"]\nevent = ["erasing"]\n'
    )
    sign_receipt(kept, provider, customer)
    allowed.write_text(f"host {provider.public.line}\nacme {customer.public.line}\n")
    trust, rules, lock = (
        allowed_signers.load(allowed),
        rulebook.load(str(file)),
        open_object_lock(kept.location),
    )

    def reasons(trust):
        return objections(kept, lock, [provider.public], [rules], trust, workers=1)[1]

    record(kept, make_key("stranger"), "noted", {"what": "consent", "at": "2020-01-01"})
    assert (reasons(None), len(reasons(trust))) == ([], 1)
    record(kept, customer, "noted", {"what": "consent", "at": "2020-01-01"})
    assert reasons(trust) == []


def test_a_period_that_somebody_has_extended_lasts_whoever_is_listed(
    kept, provider, customer, make_key, tmp_path
):
    """The key of who noted it may be missing from the list, or gone from it."""
    sign_receipt(kept, provider, customer)
    allowed, lock = tmp_path / "allowed", open_object_lock(kept.location)
    allowed.write_text(f"host {provider.public.line}\nacme {customer.public.line}\n")
    trust, rules = allowed_signers.load(allowed), rulebook.load("eu-data-act")
    record(kept, make_key("former"), "noted", {"what": "extension", "at": "2999-01-01"})
    for list_ in (None, trust):
        (reason,) = objections(kept, lock, [provider.public], [rules], list_, workers=1)[1]
        assert "not before 2999-02-01" in reason


def test_an_erasure_that_a_stranger_has_begun_is_not_finished_without_a_question(
    kept, provider, customer, make_key, tmp_path
):
    """He hides the tag manifest and writes an entry: then no receipt would be asked for."""
    allowed, lock = tmp_path / "allowed", open_object_lock(kept.location)
    allowed.write_text(f"host {provider.public.line}\nacme {customer.public.line}\n")
    trust = allowed_signers.load(allowed)
    record(kept, make_key("stranger"), "erasing", {"override": "because"})
    kept.delete(layout.TAG_MANIFEST)
    assert is_begun(kept)
    reasons = objections(kept, lock, [provider.public], [], trust, workers=1)[1]
    assert reasons == [f"its erasure was begun (entry 4) by nobody in {allowed}"]
    with pytest.raises(NotAllowedError, match="by nobody in"):
        do(kept, lock, provider, reasons=reasons)
    do(kept, lock, provider, reasons=reasons, override="a court said so")


def test_what_goes_by_a_manifest_that_cannot_be_read_is_nobody_elses(kept):
    """Nobody can say then whose it is. Unfinished uploads of all that a bundle names are asked for."""
    names = location_files.names(kept)
    assert {layout.BAG_INFO, "data/app/numbers/00000000.txt"} <= names
    assert location_files.unknown_payload(kept, [*names, "data/x"]) == ["data/x"]
    kept.put(layout.MANIFEST, b"no manifest")
    assert location_files.unknown_payload(kept, [*names, "data/x"]) == []
    kept.delete(layout.MANIFEST)
    assert location_files.unknown_payload(kept, [*names, "data/x"]) == []
    assert layout.BAG_INFO in location_files.names(kept)
    assert location_files.unknown_files(kept, ["data/x", layout.BAG_INFO]) == []


def test_whoever_looks_never_sees_an_older_bundle_again(kept, locked, provider):
    """Older versions of what says that there is a bundle go first, the manifest and delete markers last."""
    url = locked[2]
    store, lock = open_location(url), open_object_lock(url)
    transfer(kept, store, workers=2, progress=Silent())
    record_seal(store, provider, [provider])
    store.put(layout.TAG_MANIFEST, store.read(layout.TAG_MANIFEST))
    store.put("data/stray", b"x")
    store.delete("data/stray")
    removed = []

    def remove(version):
        removed.append(version)
        lock.remove(version)

    erase.erase(store, Removing(lock, remove), provider, workers=1, progress=Silent())
    keys = [version.key for version in removed]
    first, *others = [at for at, key in enumerate(keys) if key == layout.TAG_MANIFEST]
    assert (any(one.is_latest for one in removed[: first + 1]), len(others)) == (False, 1)
    assert not any(key.startswith("data/") for key in keys[: others[0]])
    assert keys.index(layout.MANIFEST) > max(
        at for at, one in enumerate(removed) if one.key.startswith("data/") and not one.is_marker
    )
    assert removed[-1].is_marker


def test_what_is_left_is_named_by_its_version(kept, provider):
    """In a directory there is only one."""
    with pytest.raises(DamageError) as refused:
        do(kept, Removing(open_object_lock(kept.location), lambda _: None), provider)
    assert "(version only) and " in refused.value.found


def test_an_entry_of_a_transfer_takes_no_hold_away_in_silence(kept, provider):
    """Whoever writes that the bundle came from a location of the same name makes its holds those of there."""
    former = f"{kept.location}?profile=old"
    root, until = custody_log.read(kept).last.what.root, datetime.now(UTC) + timedelta(days=1)
    held = CustodyEvent("held", "b", root, former, {"until": until.isoformat(), "legal": False})
    (hold,) = custody_log.append(kept, provider, lambda _: [held])
    now = datetime.now(UTC)
    assert check_releases(custody_log.read(kept), kept.location, now) == [
        f"the hold of entry {hold.number} was not released (moveout hold release)"
    ]
    record(kept, provider, "transferred", {"from": former})
    (reason,) = check_releases(custody_log.read(kept), kept.location, now)
    assert f"the hold of entry {hold.number} was not released" in reason
    assert "another location's of the same name" in reason
    assert check_releases(custody_log.read(kept), kept.location, now + timedelta(days=2)) == []


def test_an_erasure_that_has_ended_elsewhere_is_not_finished_here(kept, provider):
    """Its log came along, and what lies here is no rest of it."""
    root = custody_log.read(kept).last.what.root
    events = [CustodyEvent(event, "b", root, "s3://elsewhere/b") for event in ("erasing", "erased")]
    custody_log.append(kept, provider, lambda _: events[:1])
    versions = removable(open_object_lock(kept.location))
    kept.delete(layout.TAG_MANIFEST)
    (reason,) = speaks_against(kept, versions, [], [provider.public])
    assert "was begun at s3://elsewhere/b, and not here" in reason
    custody_log.append(kept, provider, lambda _: events[1:])
    with pytest.raises(GoneError, match="only its record"):
        speaks_against(kept, versions, [], [provider.public])
