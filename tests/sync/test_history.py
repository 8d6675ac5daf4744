"""Whole histories from bucket to bucket, on real servers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest

from exporters.selection import Selection
from migrate.errors import UsageError
from migrate.runtime.progress import OF_NO_SOURCE, Silent, SourceTask
from migrate.storage.s3.destination_bucket import DestinationBucket, Written
from migrate.storage.s3.source_bucket import open_bucket
from migrate.sync import execute, run
from migrate.sync.equality_proof import prove
from migrate.sync.record.sync_record import Record
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, Shop
from tests.exporters.objects.histories import make_history, read_history
from tests.exporters.objects.test_history import make_old_shop
from tests.sync.conftest import Move
from tests.sync.test_large import upload
from tests.sync.test_sync import At
from tests.tools.acl_proxy import AclProxy
from tests.tools.busy_proxy import BusyProxy, EveryThird
from tests.tools.http_proxy import Answer, Asked, HttpProxy
from tests.tools.profiles import extra_profile


@pytest.fixture
def old(minio: S3Server, other_minio: S3Server) -> Move:
    """From a bucket with versions and locks to another one."""
    return Move(make_old_shop(minio), make_old_shop(other_minio))


def history(shop: Shop, prefix: str = "") -> dict[str, list[tuple[Any, ...]]]:
    """What each key has been, by a client that is no part of moveout."""
    return read_history(shop.server, shop.name, prefix)


def bodies(shop: Shop, key: str) -> list[Any]:
    return [row[-1] if not row[0] else None for row in history(shop, key).get(key, ())]


def versions(shop: Shop) -> set[tuple[str, str]]:
    listed = open_bucket(shop.url).list_versions()
    return {(one.key, one.version_id) for one in listed if not one.key.startswith(".moveout-sync/")}


def ledger(move: Move) -> list[tuple[str, str]]:
    rows = pq.read_table(io.BytesIO(move.location().read("losses.parquet"))).to_pylist()
    return [(row["item"], row["property"]) for row in rows]


def test_every_version_and_again(old: Move) -> None:
    """Bytes, headers, tags, locks, delete markers; the record maps the ids; again nothing moves."""
    count = make_history(old.source, keys=14, versions=6)
    first = old.run(history=True, cutover=True)
    assert (first.exit_code, first.listed, first.copied) == (0, count, count)
    assert history(old.destination) == history(old.source)
    assert (first.proof.objects, first.proof.history) == (count, True)
    rows = old.record_rows()
    assert {(row["key"], row["version_id"]) for row in rows} == versions(old.source)
    assert {(row["key"], row["destination_version_id"]) for row in rows} == versions(old.destination)
    assert {what for _, what in ledger(old)} == {
        "last modified", "version ids", "keys below the names of objects",
    }  # fmt: skip
    before = versions(old.destination)
    again = old.run(history=True)
    assert (again.same, again.copied, versions(old.destination)) == (count, 0, before)


def test_only_what_is_new_is_added(old: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass by pass; each version once."""
    monkeypatch.setattr(execute, "BATCH_OBJECTS", 3)
    shop = old.source
    for number in range(8):
        for body in (b"one", b"two"):
            shop.put(f"k{number}", body)
    assert old.run(history=True).copied == 16
    shop.put("k1", b"three")
    shop.boto.delete_object(Bucket=shop.name, Key="k2")
    shop.put("new", b"1")
    shop.put("new", b"2")
    delta = old.run(history=True, cutover=True)
    assert (delta.copied, delta.same, delta.exit_code) == (4, 16, 0)
    assert history(old.destination) == history(shop)
    shop.put("k2", b"back")
    assert old.run(history=True, cutover=True).copied == 1
    assert bodies(old.destination, "k2") == [b"one", b"two", None, b"back"]
    rows = old.record_rows()
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    assert {(row["key"], row["destination_version_id"]) for row in rows} == versions(old.destination)


def test_versions_that_were_deleted_at_the_source_since(old: Move) -> None:
    """They stay at the destination unless told, and there is no proof meanwhile; what comes later is still added."""
    shop = old.source
    for key in ("a", "b"):
        for body in (b"one", b"two", b"three"):
            shop.put(key, body)
    old.run(history=True)
    for key, chosen in (("a", slice(1, 2)), ("b", slice(None))):
        for one in [it for it in open_bucket(shop.url).list_versions() if it.key == key][chosen]:
            shop.boto.delete_object(Bucket=shop.name, Key=key, VersionId=one.version_id)
    shop.put("a", b"four")
    found = old.run(history=True, cutover=True)
    assert (found.copied, found.extra, found.deleted, found.exit_code) == (1, 4, 0, 3)
    assert "only at the destination" in found.unproven
    assert bodies(old.destination, "a") == [b"one", b"two", b"three", b"four"]
    outcome = old.run(history=True, cutover=True, delete=True)
    assert (outcome.deleted, outcome.exit_code, outcome.proof.objects) == (4, 0, 3)
    assert history(old.destination) == history(shop)
    assert {(row["key"], row["destination_version_id"]) for row in old.record_rows()} == versions(
        old.destination
    )
    assert all(one.version_id for one in outcome.removed)


def test_a_locked_version_is_not_removed(old: Move) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    made = old.source.boto.put_object(
        Bucket=old.source.name,
        Key="a",
        Body=b"1",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=until,
    )
    old.source.put("b")
    old.run(history=True)
    old.source.boto.delete_object(
        Bucket=old.source.name, Key="a", VersionId=made["VersionId"], BypassGovernanceRetention=True
    )
    done = old.run(history=True, delete=True)
    assert (done.deleted, done.failed, done.exit_code) == (0, 1, 3)
    assert "does not remove it" in done.gaps[0].reason
    assert bodies(old.destination, "a") == [b"1"]


def test_locks_that_have_changed_without_a_history(old: Move) -> None:
    """A copy of what is current locks it as the source does by now; what the destination locks is not unlocked."""
    source, destination = old.source, old.destination
    for key in "abcd":
        source.put(key, key.encode())
    source.boto.put_object_legal_hold(Bucket=source.name, Key="d", LegalHold={"Status": "ON"})
    destination.put("d", b"d")
    assert old.run().exit_code == 0
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    lock = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
    source.boto.put_object_retention(Bucket=source.name, Key="a", Retention=lock)
    source.boto.put_object_legal_hold(Bucket=source.name, Key="b", LegalHold={"Status": "ON"})
    outcome = old.run(recheck=True, cutover=True)
    assert (outcome.amended, outcome.same, outcome.copied, outcome.exit_code) == (2, 2, 0, 0)
    assert history(destination) == history(source)
    assert [row["sha256"] is None for row in old.record_rows()] == [False, False, False, True]
    again = old.run(recheck=True)
    assert (again.amended, again.same, again.exit_code) == (0, 4, 0)
    source.boto.put_object_legal_hold(Bucket=source.name, Key="d", LegalHold={"Status": "OFF"})
    lifted = old.run(recheck=True)
    (gap,) = lifted.gaps
    assert (lifted.exit_code, gap.item) == (3, "d")
    assert "the source has none; a sync lifts no lock" in gap.reason


@pytest.mark.torture
def test_a_run_that_broke_off_goes_on_in_the_middle_of_a_key(
    old: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written and not committed is taken in by its content, and what is missing is added: nothing twice."""
    monkeypatch.setattr(execute, "BATCH_OBJECTS", 10)
    count = make_history(old.source, keys=18, versions=6, seed=3, locks=False)

    class Breaks(Silent):
        count = 0

        def begin(self, what: str, *, items: int, size_bytes: int, of: SourceTask = OF_NO_SOURCE) -> None:
            Breaks.count = 0  # the comparison takes all items at once

        def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
            Breaks.count += items
            if Breaks.count == count // 2:
                raise RuntimeError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(Record, "write_done", _only_if(Record.write_done))
        with pytest.raises(RuntimeError, match="broken off"):
            old.with_progress(Breaks()).run(workers=1, history=True)
    there = len(versions(old.destination))
    assert 0 < there < count
    done = old.run(history=True, cutover=True)
    assert (done.exit_code, done.failed) == (0, 0)
    assert done.adopted > 0
    assert done.copied == count - there
    assert history(old.destination) == history(old.source)


def _only_if(write: Any) -> Any:
    """A killed run commits no part of a batch."""

    def write_done(self: Record, run: str, number: int, rows: Any) -> None:
        if number < 2:
            write(self, run, number, rows)

    return write_done


def test_without_its_record_a_history_is_taken_in(old: Move, tmp_path: Any) -> None:
    count = make_history(old.source, keys=12, versions=5, seed=4)
    old.record = str(tmp_path / "one")
    old.run(history=True)
    old.record = str(tmp_path / "other")
    before = versions(old.destination)
    again = old.run(history=True, cutover=True)
    assert (again.adopted, again.copied, again.exit_code) == (count, 0, 0)
    assert versions(old.destination) == before


def test_histories_of_others_are_left_alone(old: Move) -> None:
    """A key of which the destination has something else is a gap, version by version; --overwrite goes on above it."""
    for body in (b"one", b"two"):
        old.source.put("a", body)
    old.destination.put("a", b"foreign")
    old.source.put("b", b"xxx")
    old.destination.put("b", b"yyy")
    first = old.run(history=True)
    assert (first.copied, first.failed, first.exit_code) == (0, 3, 3)
    assert bodies(old.destination, "a") == [b"foreign"]
    outcome = old.run(history=True, overwrite=True)
    assert outcome.copied == 2
    assert bodies(old.destination, "a") == [b"foreign", b"one", b"two"]
    assert bodies(old.destination, "b") == [b"yyy"]


def test_a_version_that_vanishes_meanwhile(old: Move) -> None:
    """It is excluded by name; those above it are added all the same."""
    for body in (b"one", b"two", b"three"):
        old.source.put("a", body)
    oldest = list(open_bucket(old.source.url).list_versions())[2].version_id
    boto, name = old.source.boto, old.source.name
    gone = At("copy", lambda: boto.delete_object(Bucket=name, Key="a", VersionId=oldest))
    done = old.with_progress(gone).run(history=True)
    assert (done.copied, done.excluded, done.exit_code) == (2, 1, 0)
    assert oldest in done.gaps[0].item
    assert bodies(old.destination, "a") == [b"two", b"three"]
    assert old.run(history=True, cutover=True).proof.objects == 2


def test_where_a_history_cannot_be(minio: S3Server, other_minio: S3Server, make_shop: MakeShop) -> None:
    """Said before anything is touched."""
    move = Move(make_shop(minio), make_shop(other_minio))
    move.source.put("a")
    with pytest.raises(UsageError, match="keeps no versions"):
        move.run(history=True)
    move = Move(make_old_shop(minio), make_shop(other_minio))
    move.source.put("a")
    move.destination.put("mine")
    with pytest.raises(UsageError, match="cannot have a history"):
        move.run(history=True)
    assert move.destination.keys() == ["mine"]
    move.destination.boto.delete_object(Bucket=move.destination.name, Key="mine")
    assert move.run(history=True).copied == 1
    with pytest.raises(UsageError, match="whole histories"):
        move.run()


def test_without_it_the_ledger_says_so(old: Move) -> None:
    old.source.put("a", b"1")
    old.source.put("a", b"2")
    assert old.run().copied == 1
    assert "versions" in {what for _, what in ledger(old)}
    with pytest.raises(UsageError, match="current versions"):
        old.run(history=True)


def test_a_history_of_another_server(versitygw: S3Server, other_minio: S3Server) -> None:
    """versitygw makes several delete markers in a row, MinIO does not: they are in the ledger, also in later passes."""
    move = Move(make_old_shop(versitygw), make_old_shop(other_minio))
    shop = move.source
    for body in (b"one", b"two"):
        shop.put("a", body)
    for _ in range(2):
        shop.boto.delete_object(Bucket=shop.name, Key="a")
    shop.put("a", b"three")
    first = move.run(history=True, cutover=True)
    assert (first.exit_code, first.copied, first.excluded) == (0, 4, 1)
    assert bodies(move.destination, "a") == [b"one", b"two", None, b"three"]
    assert [what for _, what in ledger(move)].count("delete marker") == 1
    shop.put("a", b"four")
    again = move.run(history=True, cutover=True)
    assert (again.exit_code, again.copied, again.excluded, again.unproven) == (0, 1, 1, "")
    assert again.proof.objects == 5


def test_to_another_server(minio: S3Server, versitygw: S3Server) -> None:
    move = Move(make_old_shop(minio), make_old_shop(versitygw))
    count = make_history(move.source, keys=15, versions=5, seed=5)
    done = move.run(history=True, cutover=True)
    assert (done.exit_code, done.copied, done.proof.objects) == (0, count, count)
    assert old_bodies(move.destination) == old_bodies(move.source)


def test_a_version_that_outlives_its_removal(old: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """versitygw keeps one now and then whose neighbour goes at the same moment: what was only tried out goes still."""
    tried: set[str] = set()
    delete_versions = DestinationBucket.delete_versions

    def leave_one(destination: DestinationBucket, which: list[tuple[str, str]]) -> Iterator[Written]:
        if which and which[0][0] not in tried:
            tried.add(which[0][0])
            return delete_versions(destination, which[1:])
        return delete_versions(destination, which)

    monkeypatch.setattr(DestinationBucket, "delete_versions", leave_one)
    old.source.put("a", b"1")
    done = old.run(history=True, cutover=True)
    assert (done.exit_code, done.proof.objects) == (0, 1)
    assert tried
    assert {key for key, _ in versions(old.destination)} == {"a"}


def old_bodies(shop: Shop) -> dict[str, list[bytes | None]]:
    found: dict[str, list[bytes | None]] = {}
    for one in reversed(list(open_bucket(shop.url).list_versions())):
        if not one.key.startswith(".moveout-sync/"):
            location = {"Bucket": shop.name, "Key": one.key, "VersionId": one.version_id}
            body = None if one.is_delete_marker else shop.boto.get_object(**location)["Body"].read()
            found.setdefault(one.key, []).append(body)
    return found


@pytest.mark.torture
def test_large_versions(old: Move) -> None:
    """In parts, between small ones of the same key; one that was whole and not committed is read, and taken in."""
    data = bytes(range(256)) * (36 * 4096)
    old.source.put("a", b"small")
    upload(old.source, "a", data, 12 * 2**20)
    old.source.put("a", data)
    old.source.put("a", b"small again")
    old.destination.put("a", b"small")
    upload(old.destination, "a", data, 12 * 2**20)
    upload(old.destination, "a", data, 18 * 2**20, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT")
    done = old.run(history=True, cutover=True)
    assert (done.exit_code, done.adopted, done.copied) == (0, 3, 1)
    old.source.put("a", data + b"x")
    upload(old.source, "a", data, 18 * 2**20)
    done = old.run(history=True, cutover=True)
    assert (done.exit_code, done.copied, done.proof.objects) == (0, 2, 6)
    assert old_bodies(old.destination) == old_bodies(old.source)


def test_answers_that_are_lost_make_no_second_version(
    old: Move, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        for version in range(3):
            old.source.put(f"k{number}", bytes([number, version]))
        old.source.boto.delete_object(Bucket=old.source.name, Key=f"k{number}")
    lose = EveryThird({"PUT": 0, "DELETE": 0})
    with BusyProxy(old.destination.server.endpoint, lose=lose) as proxy:
        there = extra_profile(monkeypatch, tmp_path, old.destination.server, endpoint=proxy.endpoint)
        here = old.source.server.profile
        through = Move(old.source, old.destination, profiles=(here, there))
        done = through.run(history=True, cutover=True)
    assert proxy.lost >= 6
    assert (done.exit_code, done.copied) == (0, 24)
    assert history(old.destination) == history(old.source)


def test_only_some_keys(old: Move) -> None:
    for key in ("a.jpg", "b.tmp"):
        old.source.put(key, b"1")
        old.source.put(key, b"2")
    done = old.run(history=True, selection=Selection(exclude=("*.tmp",)), cutover=True)
    assert (done.copied, done.excluded, done.proof.objects) == (2, 2, 2)
    assert set(history(old.destination)) == {"a.jpg"}


def change_tags(shop: Shop, key: str, version: str, **tags: str) -> None:
    given = {"TagSet": [{"Key": name, "Value": value} for name, value in tags.items()]}
    shop.boto.put_object_tagging(Bucket=shop.name, Key=key, VersionId=version, Tagging=given)


def ids(shop: Shop, key: str) -> list[str]:
    """The versions of a key, oldest first."""
    listed = list(open_bucket(shop.url).list_versions())
    return [one.version_id for one in reversed(listed) if one.key == key]


def test_tags_and_locks_of_versions_that_have_changed(old: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """No listing shows them; who asks for a look gets them over, each on its very version, and no version is made."""
    monkeypatch.setattr(execute, "BATCH_OBJECTS", 7)
    count = make_history(old.source, keys=12, versions=5, seed=6, locks=False)
    for number in range(3):
        old.source.put("k", b"%d" % number, Tagging=f"n={number}&of=a%20b")
    old.run(history=True)
    before, shop = versions(old.destination), old.source
    oldest, middle, newest = ids(shop, "k")
    change_tags(shop, "k", oldest, n="a+b/c:@=_", more="")
    shop.boto.delete_object_tagging(Bucket=shop.name, Key="k", VersionId=middle)
    lock = {"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)}
    shop.boto.put_object_retention(Bucket=shop.name, Key="k", VersionId=newest, Retention=lock)
    hold = {"Status": "ON"}
    shop.boto.put_object_legal_hold(Bucket=shop.name, Key="k", VersionId=middle, LegalHold=hold)
    assert old.run(history=True).same == count + 3
    planned = old.run(history=True, recheck=True, dry_run=True)
    assert planned.planned["look"]["count"] > 3
    outcome = old.run(history=True, recheck=True, cutover=True)
    assert (outcome.amended, outcome.same, outcome.copied, outcome.exit_code) == (3, count, 0, 0)
    assert outcome.proof.objects == count + 3
    assert history(old.destination) == history(shop)
    assert versions(old.destination) == before
    rows = {row["version_id"]: row for row in old.record_rows() if row["key"] == "k"}
    assert dict(rows[oldest]["tags"])["more"] == ""
    assert (rows[middle]["tags"], rows[middle]["legal_hold"]) == ([], "ON")
    assert all(row["sha256"] for row in rows.values())
    assert [row["version_id"] for row in old.record_rows() if row["key"] == "k"] == [oldest, middle, newest]
    again = old.run(history=True, recheck=True)
    assert (again.amended, again.same) == (0, count + 3)


@pytest.mark.torture
def test_a_look_that_broke_off_goes_on(old: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was brought in step is in the record, in its place and with its digests."""
    monkeypatch.setattr(execute, "BATCH_OBJECTS", 2)
    for number in range(6):
        for version in range(2):
            old.source.put(f"k{number}", bytes([number, version]))
    old.run(history=True)
    order = [row["version_id"] for row in old.record_rows()]
    for number in range(6):
        change_tags(old.source, f"k{number}", ids(old.source, f"k{number}")[0], t="1")

    class Breaks(Silent):
        count = 0

        def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
            Breaks.count += items
            if Breaks.count == 7:
                raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        old.with_progress(Breaks()).run(workers=1, history=True, recheck=True)
    done = old.run(history=True, recheck=True, cutover=True)
    assert 0 < done.amended < 6
    assert (done.amended + done.same, done.proof.objects, done.exit_code) == (12, 12, 0)
    assert history(old.destination) == history(old.source)
    rows = old.record_rows()
    assert [row["version_id"] for row in rows] == order
    assert [bool(row["tags"]) for row in rows] == [True, False] * 6
    assert all(row["sha256"] for row in rows)


def test_tags_of_versions_on_another_server(minio: S3Server, versitygw: S3Server, tmp_path: Any) -> None:
    move = Move(make_old_shop(minio), make_old_shop(versitygw), record=str(tmp_path))
    for number in range(2):
        move.source.put("a", b"%d" % number, Tagging=f"n={number}", CacheControl="no-store")
    move.run(history=True)
    change_tags(move.source, "a", ids(move.source, "a")[0], n="2")
    done = move.run(history=True, recheck=True, cutover=True)
    assert (done.amended, done.same, done.reasons, done.unproven) == (1, 1, (), "")
    location = {"Bucket": move.destination.name, "Key": "a"}
    tags = [
        move.destination.boto.get_object_tagging(**location, VersionId=version)["TagSet"]
        for version in ids(move.destination, "a")
    ]
    assert tags == [[{"Key": "n", "Value": value}] for value in ("2", "1")]


def test_what_a_server_has_kept_of_a_probe_is_removed_before_the_proof(
    old: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """versitygw 1.8 keeps a version now and then whose neighbour is removed at the same moment."""
    old.source.put("a", b"1")

    def prove_later(*arguments: Any) -> Any:
        monkeypatch.undo()
        old.destination.put("moveout-probe-0123456789ab/e", b"probe")
        return prove(*arguments)

    monkeypatch.setattr(run, "prove", prove_later)
    done = old.run(history=True, cutover=True)
    assert (done.unproven, done.proof.objects) == ("", 1)
    assert [key for key, *_ in history(old.destination)] == ["a"]


def test_what_of_a_version_cannot_be_brought_in_step(old: Move) -> None:
    """It is a gap by name; what can be is brought in step all the same."""
    for number in range(2):
        old.source.put("a", b"%d" % number)
    old.source.put("b", b"1")
    old.run(history=True)
    (oldest, _), (its_oldest, its_newest) = ids(old.source, "a"), ids(old.destination, "a")
    hold = {"Status": "ON"}
    for version in (its_oldest, its_newest):
        old.destination.boto.put_object_legal_hold(
            Bucket=old.destination.name, Key="a", VersionId=version, LegalHold=hold
        )
    change_tags(old.source, "a", oldest, t="1")
    done = old.run(history=True, recheck=True)
    assert (done.same, done.amended, done.failed, done.exit_code) == (1, 0, 2, 3)
    assert all("a (version" in gap.item and "lifts no lock" in gap.reason for gap in done.gaps)
    assert history(old.destination)["a"][0][5] == {"t": "1"}
    assert [row["tags"] for row in old.record_rows() if row["version_id"] == oldest] == [[("t", "1")]]
    assert old.run(history=True).exit_code == 0


@pytest.mark.torture
def test_a_destination_that_refuses_tags_of_versions(
    old: Move, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.source.put("a", b"1")
    old.source.put("b", b"1")
    old.run(history=True)
    change_tags(old.source, "a", ids(old.source, "a")[0], t="1")
    with RefusesTags(old.destination.server.endpoint) as proxy:
        there = extra_profile(monkeypatch, tmp_path, old.destination.server, endpoint=proxy.endpoint)
        through = Move(old.source, old.destination, profiles=(old.source.server.profile, there))
        done = through.run(history=True, recheck=True)
    assert (done.same, done.failed, done.exit_code) == (1, 1, 3)
    assert "does not take its tags" in done.gaps[0].reason


class RefusesTags(HttpProxy):
    def handle(self, asked: Asked) -> Answer | None:
        if asked.method == "PUT" and "tagging" in asked.query:
            return Answer(
                403, (("Content-Type", "application/xml"),), b"<Error><Code>AccessDenied</Code></Error>"
            )
        return self.forward(asked)


def test_acls_of_versions(old: Move, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each version has its own; what is not public any more is not public at the destination either."""
    for number in range(2):
        old.source.put("a", b"%d" % number)
    with (
        VersionAcls(old.source.server.endpoint, name="AmazonS3") as there,
        VersionAcls(old.destination.server.endpoint, name="AmazonS3") as here,
    ):
        profiles = [
            extra_profile(monkeypatch, tmp_path, shop.server, endpoint=proxy.endpoint)
            for shop, proxy in ((old.source, there), (old.destination, here))
        ]
        through = Move(old.source, old.destination, profiles=(profiles[0], profiles[1]))
        assert through.run(history=True).copied == 2
        here.acls.clear()
        (first, second), (its_first, its_second) = ids(old.source, "a"), ids(old.destination, "a")
        there.acls[first] = "public-read"
        here.acls[its_second] = "public-read"
        done = through.run(history=True, recheck=True)
        assert (done.amended, done.exit_code) == (2, 0)
        assert (here.acls[its_first], here.acls[its_second]) == ("public-read", "private")
        assert second not in there.acls


class VersionAcls(AclProxy):
    """``acls`` by version; those of the newest one also by path."""

    def handle(self, asked: Asked) -> Answer | None:
        version = asked.query.get("versionId", [""])[0]
        if "acl" in asked.query and version:
            if asked.method == "PUT":
                self.acls[version] = asked.header("x-amz-acl") or ""
                return Answer(200)
            return Answer(
                200, (("Content-Type", "application/xml"),), self._body(self.acls.get(version, "private"))
            )
        return AclProxy.handle(self, asked)
