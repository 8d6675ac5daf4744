"""A bundle that was sealed with gaps, moved, continued and sealed again takes the place of its predecessor."""

import hashlib
from contextlib import suppress
from pathlib import Path

import pytest

from migrate.bundle import layout
from migrate.errors import NotEmptyError, UnreachableError
from migrate.runtime.progress import Silent
from migrate.storage.api import MultipartStore
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import open_location
from migrate.transfer.counters import TransferOutcome
from migrate.transfer.destination import read_state
from migrate.transfer.run import transfer
from tests.faults import Fault, FaultPlan, Faulty, fail
from tests.transfer.bags import MIB, contents, noise, seal
from tests.transfer.conftest import EVERYWHERE

OLD = {
    "app/same.parquet": noise(5000, 1),
    "app/other.parquet": noise(5000, 2),
    "app/gone.parquet": noise(400, 3),
    "app/packs/same.tar": noise(6 * MIB, 4),
    "app/packs/other.tar": noise(6 * MIB, 5),
}
NEW = (
    OLD | {"app/other.parquet": noise(5000, 6), "app/packs/other.tar": noise(6 * MIB, 7), "app/new": b"new"}
) | {}
del NEW["app/gone.parquet"]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("old")
    store = LocalStore(root)
    store.put("sig/custody.log", b"of the old one")
    store.put("sig/old-only", b"of the old one")
    seal(store, OLD, bundle_id="old")
    return root


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("new")
    store = LocalStore(root)
    store.put("sig/custody.log", b"of the new one")
    seal(store, NEW, bundle_id="new", continues=["older", "old"])
    return root


class Notes(Silent):
    """Keeps what a user is shown."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def note(self, message: str) -> None:
        self.all.append(message)


def move(origin: Path, destination: MultipartStore, progress: Silent | None = None) -> TransferOutcome:
    return transfer(open_location(str(origin)), destination, workers=3, progress=progress or Silent())


def is_whole_or_unsealed(files: dict[str, bytes]) -> bool:
    """Whoever finds a tag manifest finds all that it promises, and nothing else."""
    if layout.TAG_MANIFEST not in files:
        return True
    promised = dict(
        reversed(line.split("  "))
        for name in (layout.TAG_MANIFEST, layout.MANIFEST)
        for line in files[name].decode().splitlines()
    )
    there = {key for key in files if not key.startswith(("_work/", "sig/"))} - {
        layout.TAG_MANIFEST,
        layout.BAGIT,
    }
    return promised.keys() - {layout.BAGIT} == there and all(
        hashlib.sha256(files[key]).hexdigest() == digest for key, digest in promised.items()
    )


@EVERYWHERE
def test_it_takes_the_place_and_what_is_the_same_is_not_sent_again(old, new, destination):
    move(old, destination)
    notes = Notes()
    outcome = move(new, destination, notes)
    assert notes.all == ["bundle old, which this one continues, makes room for it"]
    assert contents(destination) == contents(LocalStore(new))
    tags = sum(len(data) for key, data in contents(LocalStore(new)).items() if not key.startswith("data/"))
    assert outcome.bytes_moved == 5000 + 6 * MIB + 3 + tags
    assert list(destination.uploads()) == []


def test_it_takes_the_place_of_a_half_transferred_one(old, new, destination):
    plan = FaultPlan(Fault("put", fail(UnreachableError("cut")), prefix=layout.MANIFEST, times=99))
    with pytest.raises(UnreachableError):
        move(old, Faulty(destination, plan))
    outcome = move(new, destination)
    assert contents(destination) == contents(LocalStore(new))
    assert outcome.bytes_moved < 7 * MIB


def test_a_receipt_for_the_predecessor_stays(old, new, tmp_path):
    destination, receipt = open_location(str(tmp_path / "b")), "sig/receipt-0123456789abcdef.json"
    move(old, destination)
    destination.put(receipt, b"for the old one")
    move(new, destination)
    assert contents(destination) == contents(LocalStore(new)) | {receipt: b"for the old one"}


def test_before_anything_is_removed_it_is_recorded_for_which_bundle(old, new, tmp_path):
    destination, states = open_location(str(tmp_path / "b")), []
    move(old, destination)

    def look(call):
        states.append(read_state(destination))
        return call()

    move(new, Faulty(destination, FaultPlan(Fault("delete", look))))
    (state,) = states
    assert (state.id, state.replaces) == ("new", "old")


@pytest.mark.parametrize("what", ["put", "delete"])
def test_broken_off_anywhere_it_never_looks_sealed_and_goes_on(old, new, tmp_path, what):
    for number in (1, 2, 3, 4, 6, 9, 12):
        destination = open_location(str(tmp_path / f"{what}-{number}"))
        move(old, destination)
        plan = FaultPlan(Fault(what, fail(UnreachableError("cut")), nth=number, times=99))
        with suppress(UnreachableError):
            move(new, Faulty(destination, plan))
        destination.delete(layout.LEASE)  # of a run that could not even give that back
        assert is_whole_or_unsealed(contents(destination))
        assert move(new, destination).findings == []
        assert contents(destination) == contents(LocalStore(new))


def test_the_predecessor_does_not_come_back(old, new, destination):
    move(new, destination)
    with pytest.raises(NotEmptyError, match="another bundle"):
        move(old, destination)
    assert contents(destination) == contents(LocalStore(new))


def test_a_stranger_s_file_beside_the_predecessor_is_left_alone(old, new, destination):
    move(old, destination)
    destination.put("data/app/holiday.jpg", b"sea")
    before = contents(destination)
    with pytest.raises(NotEmptyError, match="holiday"):
        move(new, destination)
    assert contents(destination) == before
