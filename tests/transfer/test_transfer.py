"""A sealed bundle arrives whole, or says what is wrong."""

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from migrate.bundle import layout
from migrate.cli.transfer import Transferred
from migrate.errors import DamageError, GoneError, NoSpaceError, NotEmptyError, UnreachableError, UsageError
from migrate.runtime.progress import Silent
from migrate.runtime.worker_pool import ThreadWorkerPool
from migrate.storage import retry
from migrate.storage.api import MultipartStore, StoreWrapper
from migrate.storage.concurrency_limit import ConcurrencyLimiter
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import open_location
from migrate.storage.retry import Retrying, RetryPolicy
from migrate.transfer import run
from migrate.transfer.counters import TransferOutcome
from migrate.transfer.destination import transfer_status
from migrate.transfer.plan import SealedFile
from migrate.transfer.run import FileMoves, transfer
from tests.faults import Fault, FaultPlan, Faulty, fail, flip_bit, lose_answer, lose_file, truncate
from tests.tools.profiles import extra_profile
from tests.tools.terminal import console_in_memory
from tests.transfer.bags import MIB, contents, noise, seal, sha256, some_payload
from tests.transfer.conftest import EVERYWHERE

LARGE = "data/app/packs/pack-000000.tar"
SMALL = "data/app/tables/1/part-000007.parquet"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A sealed bundle that no test changes."""
    root = tmp_path_factory.mktemp("origin")
    return root, seal(LocalStore(root), some_payload())


@pytest.fixture(scope="module")
def unspoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller sealed bundle."""
    root = tmp_path_factory.mktemp("unspoilt")
    packs = {"app/packs/pack-000000.tar": noise(13 * MIB, 1), "app/packs/pack-000001.tar": noise(6 * MIB, 2)}
    tables = {f"app/tables/1/part-{number:06}.parquet": noise(500, number) for number in range(9)}
    seal(LocalStore(root), packs | tables)
    return root


@pytest.fixture
def origin(unspoilt: Path, tmp_path: Path) -> MultipartStore:
    """A copy to be spoilt."""
    shutil.copytree(unspoilt, tmp_path / "origin")
    return open_location(str(tmp_path / "origin"))


class Sums(Silent):
    """Adds up what a user is shown."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int, int]] = []
        self.items_done = self.bytes_done = self.bytes_skipped = self.bytes_grown = self.ended = 0
        self._lock = threading.Lock()

    def begin(self, what: str, *, items: int, size_bytes: int, of: object = None) -> None:
        self.begun.append((what, items, size_bytes))

    def grow(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self.bytes_grown += size_bytes

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        with self._lock:
            self.items_done += items
            self.bytes_done += size_bytes

    def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self.advance(items=items, size_bytes=size_bytes)
        with self._lock:
            self.bytes_skipped += size_bytes

    def end(self, *, stopped: bool = False) -> None:
        self.ended += 1


def move(
    origin: MultipartStore, destination: MultipartStore, *, workers=4, progress=None, **options
) -> TransferOutcome:
    return transfer(origin, destination, workers=workers, progress=progress or Silent(), **options)


def spoil(store: MultipartStore, key: str) -> None:
    data = bytearray(store.read(key))
    data[100] ^= 4
    store.put(key, bytes(data))


@EVERYWHERE
def test_everything_arrives_and_nothing_else(sealed, destination):
    root, files = sealed
    outcome = move(open_location(str(root)), destination)
    assert contents(destination) == files
    assert list(destination.uploads()) == []
    size = sum(map(len, files.values()))
    assert (outcome.files, outcome.files_moved, outcome.files_skipped) == (len(files), len(files), 0)
    assert (outcome.size_bytes, outcome.bytes_moved, outcome.bytes_skipped) == (size, size, 0)
    assert (outcome.findings, outcome.exit_code) == ([], 0)
    assert 0 < outcome.seconds < 3600
    assert transfer_status(destination) is None
    if destination.keeps_sha256:
        assert all(destination.stat(key).sha256 == sha256(data) for key, data in files.items())


def test_a_bundle_is_not_said_to_be_copied_onto_itself(origin):
    with pytest.raises(UsageError, match="no copy of it was made"):
        move(origin, origin)


@pytest.mark.parametrize("way", ["symbolic link", "profile"])
def test_another_way_to_the_same_location_is_no_copy(sealed, tmp_path, monkeypatch, request, way):
    if way == "profile":
        server, location = request.getfixturevalue("minio"), request.getfixturevalue("s3_location")
        profile = extra_profile(monkeypatch, tmp_path, server)
        other = open_location(location.location.replace(f"profile={server.profile}", f"profile={profile}"))
    else:
        location = open_location(str(tmp_path / "bundle"))
        (tmp_path / "link").symlink_to(tmp_path / "bundle")
        other = open_location(str(tmp_path / "link"))
    move(open_location(str(sealed[0])), location)
    before = {info.key: info.etag for info in location.list()}
    with pytest.raises(UsageError, match="no copy of it was made"):
        move(location, other)
    assert {info.key: info.etag for info in location.list()} == before


@EVERYWHERE
def test_a_second_run_moves_nothing(sealed, destination):
    root, files = sealed
    move(open_location(str(root)), destination)
    etags = {info.key: info.etag for info in destination.list()}
    outcome = move(open_location(str(root)), destination)
    assert (outcome.bytes_moved, outcome.files_moved) == (0, 0)
    assert outcome.bytes_skipped == sum(map(len, files.values()))
    assert {info.key: info.etag for info in destination.list()} == etags


def test_one_worker_brings_a_bundle_to_a_bucket_and_back_to_a_directory(s3_location, sealed, tmp_path):
    move(open_location(str(sealed[0])), s3_location, workers=1)
    move(s3_location, open_location(str(tmp_path / "back")), workers=1)
    assert contents(LocalStore(tmp_path / "back")) == sealed[1]


@pytest.mark.parametrize("key", [SMALL, LARGE])
def test_damage_at_the_origin_is_named_and_the_rest_goes_on(origin, destination, key):
    promised = sha256(origin.read(key))
    spoil(origin, key)
    outcome = move(origin, destination)
    (finding,) = outcome.findings
    assert finding.key == key
    assert promised in finding.expected
    assert not outcome.is_whole
    assert sha256(origin.read(key)) in finding.found
    assert outcome.exit_code == 6
    arrived = contents(destination)
    assert key not in arrived
    assert {name for name in contents(origin) if name.startswith("data/")} - {key} == {
        name for name in arrived if name.startswith("data/")
    }
    assert layout.TAG_MANIFEST not in arrived
    assert layout.BAGIT not in arrived
    assert list(destination.uploads()) == []


def test_damage_in_the_payload_and_in_a_tag_file_is_named_by_one_run(origin, destination):
    other_digest = sha256(b"other").encode()
    manifest = origin.read(layout.MANIFEST).replace(sha256(origin.read(SMALL)).encode(), other_digest)
    origin.put(layout.MANIFEST, manifest)
    origin.put(layout.BAGIT, origin.read(layout.BAGIT).replace(b"1.0", b"0.9"))
    outcome = move(origin, destination)
    found = {finding.key: finding.found.removeprefix("SHA-256 ") for finding in outcome.findings}
    assert found == {key: sha256(origin.read(key)) for key in (layout.BAGIT, SMALL, layout.MANIFEST)}
    assert len(outcome.findings) == len(found)
    assert layout.BAGIT not in contents(destination)


@EVERYWHERE
def test_uploads_that_an_earlier_run_left_are_gone_at_the_end(origin, destination):
    """Of a file that is moved, of one that is no more, and of a small one."""
    for key in (LARGE, "data/app/packs/gone.tar", SMALL):
        destination.put_part(key, destination.begin(key, part_bytes=5 * MIB), 1, b"of an earlier run")
    move(origin, destination)
    assert contents(destination) == contents(origin)
    assert list(destination.uploads()) == []


def test_a_repaired_origin_goes_on_where_it_stopped(origin, destination):
    spoil(origin, LARGE)
    first = move(origin, destination)
    spoil(origin, LARGE)
    second = move(origin, destination)
    assert (len(first.findings), second.findings) == (1, [])
    assert second.files_moved == 1 + sum(not key.startswith("data/") for key in contents(origin))
    assert contents(destination) == contents(origin)


@EVERYWHERE
def test_a_transfer_whose_own_state_is_damaged_says_what_to_remove_and_goes_on(origin, destination):
    spoil(origin, LARGE)
    move(origin, destination)
    spoil(origin, LARGE)
    destination.put(layout.TRANSFER_STATE, b"")
    with pytest.raises(DamageError) as raised:
        move(origin, destination)
    assert raised.value.next_step.startswith(f"remove {layout.TRANSFER_STATE} at {destination.location},")
    destination.delete(layout.TRANSFER_STATE)
    assert move(origin, destination).findings == []
    assert contents(destination) == contents(origin)


def test_a_file_missing_at_the_origin_is_named(origin, destination):
    origin.delete(LARGE)
    outcome = move(origin, destination)
    assert [finding.key for finding in outcome.findings] == [LARGE]
    assert outcome.exit_code == 6
    assert layout.BAGIT not in contents(destination)


def test_a_file_added_at_the_origin_is_named_and_left_behind(origin, destination):
    origin.put("data/app/tables/1/stray.parquet", b"who am I")
    outcome = move(origin, destination)
    assert [finding.key for finding in outcome.findings] == ["data/app/tables/1/stray.parquet"]
    assert (outcome.exit_code, outcome.is_whole) == (6, True)
    assert "data/app/tables/1/stray.parquet" not in contents(destination)
    assert layout.BAGIT in contents(destination)


def test_two_swapped_files_are_named(origin, destination):
    other = "data/app/tables/1/part-000008.parquet"
    one, two = origin.read(SMALL), origin.read(other)
    origin.put(SMALL, two)
    origin.put(other, one)
    assert [finding.key for finding in move(origin, destination).findings] == [SMALL, other]


def test_a_file_cut_short_at_the_origin_is_named(origin, destination):
    origin.put(LARGE, origin.read(LARGE, 0, 12 * MIB))
    assert [finding.key for finding in move(origin, destination).findings] == [LARGE]


def test_a_changed_manifest_is_named(origin, destination):
    """Whether its digest is a lower or a higher number than that in the tag manifest."""
    text = origin.read(layout.MANIFEST)
    digits = b"0123456789abcdef".replace(text[:1], b"")
    changed = sorted((bytes([digit]) + text[1:] for digit in digits), key=sha256)
    assert sha256(changed[0]) < sha256(text) < sha256(changed[-1])
    for manifest in (changed[0], changed[-1]):
        origin.put(layout.MANIFEST, manifest)
        found = [
            str(finding) for finding in move(origin, destination).findings if finding.key == layout.MANIFEST
        ]
        assert any("differs from the tag manifest" in finding for finding in found)
        assert layout.BAGIT not in contents(destination)


def test_a_tag_manifest_that_does_not_name_the_manifest_is_named(origin, tmp_path):
    lines = origin.read(layout.TAG_MANIFEST).splitlines(keepends=True)
    kept = [line for line in lines if not line.endswith(f" {layout.MANIFEST}\n".encode())]
    assert len(kept) == len(lines) - 1
    origin.put(layout.TAG_MANIFEST, b"".join(kept))
    outcome = move(origin, open_location(str(tmp_path / "b")))
    (found,) = [str(finding) for finding in outcome.findings if finding.key == layout.TAG_MANIFEST]
    assert f"does not name {layout.MANIFEST}" in found


@pytest.mark.parametrize(
    "identity",
    [b"{", b"[]", b"{}", b'{"id": ""}', b'{"id": 5}', pytest.param(b"[" * 200_000, id="deep"), None],
)
def test_an_origin_without_an_identity_is_refused(origin, tmp_path, identity):
    if identity is None:
        origin.delete(layout.BUNDLE_META)
    else:
        origin.put(layout.BUNDLE_META, identity)
    with pytest.raises(DamageError, match=r"meta/bundle\.json"):
        move(origin, open_location(str(tmp_path / "b")))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["../x", "data/../../x", "/etc/passwd", "data/A b"])
def test_a_hostile_name_in_the_manifest_is_refused(origin, destination, name):
    origin.put(layout.MANIFEST, f"{'0' * 64}  {name}\n".encode())
    with pytest.raises(DamageError, match=r"manifest-sha256\.txt line 1"):
        move(origin, destination)
    assert contents(destination) == {}


def test_bytes_that_were_wrong_only_once_are_read_again(origin, destination):
    plan = FaultPlan(
        Fault("read", flip_bit(9), prefix=SMALL), Fault("read", flip_bit(9), nth=2, prefix=LARGE)
    )
    progress = Sums()
    outcome = move(Faulty(origin, plan), destination, progress=progress)
    plan.assert_all_fired()
    assert outcome.findings == []
    assert contents(destination) == contents(origin)
    assert outcome.bytes_moved == outcome.size_bytes + 5 * MIB  # the wrong part, and the right one
    assert outcome.bytes_skipped == progress.bytes_skipped == 0
    assert (progress.bytes_done, progress.bytes_grown) == (outcome.size_bytes + 13 * MIB, 13 * MIB)


@EVERYWHERE
def test_parts_of_which_the_destination_makes_something_else_are_all_sent_anew(origin, destination):
    damage = DamageError(LARGE, expected="the checksum that was sent", found="another one")
    plan = FaultPlan(Fault("complete", fail(damage), prefix=LARGE))
    begun: list[str] = []
    store = Faulty(destination, plan)
    begin = store.begin
    store.begin = lambda key, **words: begun.append(key) or begin(key, **words)
    assert move(origin, store).findings == []
    plan.assert_all_fired()
    assert begun.count(LARGE) == 2
    assert contents(destination) == contents(origin)
    assert list(destination.uploads()) == []


def test_a_file_of_which_the_destination_makes_something_else_twice_is_named(origin, destination):
    damage = DamageError(LARGE, expected="the checksum that was sent", found="another one")
    plan = FaultPlan(Fault("complete", fail(damage), prefix=LARGE, times=2))
    (finding,) = move(origin, Faulty(destination, plan)).findings
    plan.assert_all_fired()
    assert (finding.key, finding.what) == (LARGE, "did not arrive at the destination as it was sent")
    assert list(destination.uploads()) == []
    assert {LARGE, layout.BAGIT}.isdisjoint(contents(destination))


def test_an_answer_cut_short_once_is_not_taken_for_the_file(origin, destination):
    plan = FaultPlan(Fault("read", truncate(100), prefix=SMALL))
    assert move(Faulty(origin, plan), destination).findings == []
    plan.assert_all_fired()
    assert destination.read(SMALL) == origin.read(SMALL)


@EVERYWHERE
def test_passing_faults_of_the_destination_are_survived(origin, destination, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    gone = UnreachableError("gone for a moment")
    plan = FaultPlan(
        Fault("put", fail(gone), nth=2),
        Fault("put", lose_answer(), nth=4),
        Fault("begin", lose_answer()),
        Fault("put_part", fail(gone), nth=2, times=2),
        Fault("put_part", lose_answer(), nth=5),
        Fault("complete", lose_answer()),
        Fault("delete", fail(gone)),
    )
    faulty = Retrying(Faulty(destination._store, plan), RetryPolicy())
    assert move(origin, faulty).findings == []
    plan.assert_all_fired()
    assert contents(destination) == contents(origin)
    assert list(destination.uploads()) == []


def test_an_unreachable_destination_ends_the_run_and_the_next_one_goes_on(origin, destination):
    plan = FaultPlan(Fault("put_part", fail(UnreachableError("the network is down")), nth=3, times=99))
    with pytest.raises(UnreachableError, match="the network is down"):
        move(origin, Faulty(destination, plan))
    status = transfer_status(destination)
    assert status is not None
    assert 0 < status.bytes_done < status.bytes_done + status.bytes_left
    progress = Sums()
    outcome = move(origin, destination, progress=progress)
    assert outcome.bytes_skipped == progress.bytes_skipped == status.bytes_done
    assert outcome.bytes_skipped + outcome.bytes_moved == outcome.size_bytes
    assert (progress.begun, progress.ended) == ([("transfer", outcome.files, outcome.size_bytes)], 1)
    assert (progress.items_done, progress.bytes_done) == (outcome.files, outcome.size_bytes)
    assert contents(destination) == contents(origin)
    assert list(destination.uploads()) == []


def test_others_move_the_payload_the_largest_files_first_and_it_is_announced_before(origin, destination):
    moved: list[SealedFile] = []

    def open_pool(moves: FileMoves) -> ThreadWorkerPool[SealedFile, None]:
        def carry(file: SealedFile) -> None:
            moved.append(file)
            assert transfer_status(destination) is not None
            destination.put(file.key, origin.read(file.key))
            moves.counters.move_file(file)

        assert not moves.recheck
        return ThreadWorkerPool(carry, 1, name="others")

    outcome = move(origin, destination, open_pool=open_pool)
    assert (outcome.files_moved, outcome.findings) == (outcome.files, [])
    assert contents(destination) == contents(origin)
    sizes = [file.size_bytes for file in moved]
    assert (len(sizes), sizes[:2], sizes) == (11, [13 * MIB, 6 * MIB], sorted(sizes, reverse=True))


def test_files_that_vanish_on_the_way_are_named(origin, destination):
    """After they were listed: a small one, and a large one after its first part."""
    gone = fail(GoneError("no such file"))
    plan = FaultPlan(Fault("read", gone, prefix=SMALL), Fault("read", gone, nth=2, prefix=LARGE))
    outcome = move(Faulty(origin, plan), destination)
    plan.assert_all_fired()
    assert sorted(finding.key for finding in outcome.findings) == [LARGE, SMALL]
    assert all("is gone now" in str(finding) for finding in outcome.findings)
    assert list(destination.uploads()) == []
    assert set(contents(destination)).isdisjoint({LARGE, SMALL, layout.BAGIT})


def test_an_origin_that_vanishes_on_the_way_ends_the_run(origin, destination):
    def vanish(_call):
        origin.delete(layout.BAGIT)
        raise GoneError("no such file")

    with pytest.raises(GoneError, match="in the middle of the transfer"):
        move(Faulty(origin, FaultPlan(Fault("read", vanish, prefix=SMALL))), destination)


class Struggling(StoreWrapper):
    """A store that takes a share of the usual requests, and counts how many reads of payload are under way."""

    def __init__(self, store: MultipartStore, share: float) -> None:
        super().__init__(store)
        self._limiter = ConcurrencyLimiter()
        self._limiter.share = share
        self._lock = threading.Lock()
        self._under_way = self.most = 0

    @property
    def limiter(self) -> ConcurrencyLimiter:
        return self._limiter

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if not key.startswith(layout.DATA):
            return super().read(key, start, length)
        with self._lock:
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        try:
            time.sleep(0.02)
            return super().read(key, start, length)
        finally:
            with self._lock:
                self._under_way -= 1


@pytest.mark.parametrize(("share", "few"), [(0.25, [1]), (0.5, [1, 2]), (1.0, [2, 3, 4])])
def test_less_is_under_way_while_a_location_struggles(origin, destination, share, few):
    store = Struggling(origin, share)
    assert move(store, destination, workers=4).findings == []
    assert store.most in few


@pytest.mark.parametrize(
    ("state", "message", "next_step"),
    [
        ("", "no sealed bundle", "fetch the missing file again"),
        (layout.EXPORT_STATE, "not sealed yet", "moveout seal"),
        (layout.TRANSFER_STATE, "has not ended", "run the same transfer again"),
    ],
)
def test_an_unsealed_origin_is_refused(origin, destination, state, message, next_step):
    origin.delete(layout.TAG_MANIFEST)
    if state:
        origin.put(state, b"x")
    with pytest.raises(UsageError, match=message) as error:
        move(origin, destination)
    assert next_step in error.value.next_step
    assert contents(destination) == {}


def test_an_empty_origin_is_gone(destination, tmp_path):
    with pytest.raises(GoneError, match="nowhere"):
        move(open_location(str(tmp_path / "nowhere")), destination)


@EVERYWHERE
@pytest.mark.parametrize("bundle_id", ["bundle-0", "bundle-2"])
def test_another_bundle_at_the_destination_is_left_alone(origin, destination, bundle_id):
    other = seal(destination, {"app/x": b"x"}, bundle_id=bundle_id)
    with pytest.raises(NotEmptyError, match=bundle_id):
        move(origin, destination)
    assert contents(destination) == other


@pytest.mark.parametrize("bundle_id", ["bundle-0", "bundle-9"])
def test_another_transfer_s_destination_is_left_alone(origin, destination, bundle_id):
    destination.put(
        layout.TRANSFER_STATE,
        json.dumps(
            {"version": 1, "id": bundle_id, "origin": "file:///o", "files": 1, "size_bytes": 1}
        ).encode(),
    )
    with pytest.raises(NotEmptyError, match=bundle_id):
        move(origin, destination)


def test_a_strange_file_at_the_destination_is_named_and_left_alone(origin, destination):
    destination.put("holiday.jpg", b"sea")
    with pytest.raises(NotEmptyError, match=r"holiday\.jpg"):
        move(origin, destination)
    assert contents(destination) == {"holiday.jpg": b"sea"}


@EVERYWHERE
def test_damage_at_the_destination_is_replaced_by_a_recheck(origin, destination):
    move(origin, destination)
    spoil(destination, SMALL)
    spoil(destination, LARGE)
    outcome = move(origin, destination, recheck=True)
    assert (outcome.files_moved, outcome.findings) == (2, [])
    assert contents(destination) == contents(origin)


def test_files_of_a_directory_are_hashed_only_by_a_recheck(origin, tmp_path):
    directory = open_location(str(tmp_path / "b"))
    move(origin, directory)
    spoil(directory, SMALL)
    assert move(origin, directory).files_moved == 0
    assert move(origin, directory, recheck=True).files_moved == 1


def test_a_bucket_that_has_other_bytes_gets_the_right_ones(origin, s3_location):
    """Whether their digest, which the bucket keeps, is a lower or a higher number."""
    move(origin, s3_location)
    others = sorted((noise(500, seed) for seed in range(50, 60)), key=sha256)
    assert sha256(others[0]) < sha256(origin.read(SMALL)) < sha256(others[-1])
    for data in (others[0], others[-1]):
        s3_location.put(SMALL, data, sha256=sha256(data))
        assert move(origin, s3_location).files_moved == 1
        assert s3_location.read(SMALL) == origin.read(SMALL)


@pytest.mark.parametrize("changed", [b'{"id": "bundle-7"}', b"{"])
def test_a_bundle_whose_identity_was_changed_is_recognized_by_its_manifest(origin, tmp_path, changed):
    directory = open_location(str(tmp_path / "b"))
    move(origin, directory)
    identity = directory.read(layout.BUNDLE_META)
    directory.put(layout.BUNDLE_META, changed)
    assert move(origin, directory).files_moved == 1
    assert directory.read(layout.BUNDLE_META) == identity


def test_a_bundle_without_identity_and_manifest_is_left_alone(origin, tmp_path):
    directory = open_location(str(tmp_path / "b"))
    move(origin, directory)
    directory.put(layout.BUNDLE_META, b"{")
    directory.put(layout.MANIFEST, b"")
    before = contents(directory)
    with pytest.raises(DamageError, match="a JSON object"):
        move(origin, directory)
    assert contents(directory) == before


@pytest.mark.parametrize("key", [SMALL, LARGE])
def test_a_file_that_vanishes_while_it_is_hashed_is_brought_again(origin, tmp_path, key):
    directory = open_location(str(tmp_path / "b"))
    move(origin, directory)
    plan = FaultPlan(Fault("read", fail(GoneError("no such file")), prefix=key))
    assert move(origin, Faulty(directory, plan), recheck=True).files_moved == 1
    plan.assert_all_fired()


def test_a_file_lost_at_the_destination_is_brought_again(origin, destination):
    move(origin, destination)
    destination.delete(LARGE)
    assert move(origin, destination).files_moved == 1
    assert contents(destination) == contents(origin)


@pytest.mark.parametrize("key", [SMALL, LARGE, layout.MANIFEST, layout.BAGIT, layout.TAG_MANIFEST])
def test_a_file_that_the_destination_takes_and_loses_is_named_and_brought_again(origin, destination, key):
    plan = FaultPlan(Fault("complete" if key == LARGE else "put", lose_file(destination, key), prefix=key))
    with pytest.raises(DamageError, match="as the location took them, found no such file") as lost:
        move(origin, Faulty(destination, plan))
    plan.assert_all_fired()
    assert key in str(lost.value)
    assert layout.TAG_MANIFEST not in contents(destination)
    assert move(origin, destination).is_whole
    assert contents(destination) == contents(origin)


def test_a_listing_that_is_late_is_not_believed(origin, destination, monkeypatch):
    """The files themselves are asked."""
    monkeypatch.setattr(run, "list_sizes", lambda store: {})
    assert move(origin, destination).is_whole
    assert contents(destination) == contents(origin)


def test_signatures_travel_too_and_again_when_they_grow(origin, destination):
    origin.put("sig/custody.log", b"one\n")
    move(origin, destination)
    origin.put("sig/custody.log", b"one\ntwo\n")
    outcome = move(origin, destination)
    assert (outcome.files_moved, outcome.findings) == (1, [])
    assert destination.read("sig/custody.log") == b"one\ntwo\n"


def test_a_signature_that_changed_and_kept_its_size_travels_again(origin, destination):
    for texts in (b"one two", b"two one"):  # of two changes one makes a greater digest, one a smaller
        for number, text in enumerate(texts.split()):
            origin.put(f"sig/{number}.sig", text)
        move(origin, destination)
        assert [destination.read(f"sig/{number}.sig") for number in range(2)] == texts.split()


def test_a_full_disk_ends_the_run_with_its_name(origin, tiny_disk):
    with pytest.raises(NoSpaceError, match="tiny"):
        move(origin, open_location(str(tiny_disk / "destination")))


@pytest.mark.parametrize(("rechecked", "is_hashed"), [(False, False), (True, True)])
def test_what_was_taken_by_its_size_is_not_called_hashed(rechecked: bool, is_hashed: bool) -> None:
    console, written = console_in_memory(200)
    Transferred("from", "to", TransferOutcome(2, 20, 1, 1, 10, 10, 1.0), rechecked=rechecked).draw(console)
    text = written.getvalue()
    assert ("every file was hashed" in text) is is_hashed
    assert ("by its size (--recheck hashes it)" in text) is not is_hashed
