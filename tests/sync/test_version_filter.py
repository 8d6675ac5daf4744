"""Histories of which not every version is wanted, on real servers."""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from exporters.selection import Selection
from migrate.errors import UsageError
from migrate.sync.versions.version_diff import NOT_CURRENT
from migrate.sync.versions.version_filter import ALONE
from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.test_history import make_old_shop
from tests.sync.conftest import Move
from tests.sync.test_history import bodies, change_tags, history, ids, ledger, versions
from tests.tools.pages import parse


@pytest.fixture
def old(minio: S3Server, other_minio: S3Server) -> Move:
    """From a bucket with versions to another one."""
    return Move(make_old_shop(minio), make_old_shop(other_minio))


def gaps(move: Move) -> list[tuple[str, str, str]]:
    rows = pq.read_table(io.BytesIO(move.location().read("gaps.parquet"))).to_pylist()
    return [(row["item"], row["disposition"], row["reason"]) for row in rows]


@pytest.mark.torture
def test_by_size(old: Move) -> None:
    """Each version by its own; what is not wanted is named; the same again finds everything the same."""
    shop = old.source
    for body in (b"1", b"22222", b"333"):
        shop.put("a", body)
    shop.boto.delete_object(Bucket=shop.name, Key="a")
    shop.put("b", b"55555")
    shop.boto.delete_object(Bucket=shop.name, Key="b")
    shop.put("c", b"1")
    shop.put("c", b"55555")
    small = Selection(max_bytes=3)
    first = old.run(history=True, selection=small, cutover=True)
    assert (first.exit_code, first.listed, first.copied, first.excluded) == (0, 8, 4, 4)
    assert (first.proof.objects, first.proof.excluded, first.proof.choice) == (4, 4, small.describe())
    assert bodies(old.destination, "a") == [b"1", b"333", None]
    assert set(history(old.destination)) == {"a", "c"}
    large = "not selected: larger than 3 bytes"
    named = [("a", large), ("b", large), ("b", ALONE), ("c", large + NOT_CURRENT)]
    assert sorted((item[:1], reason) for item, _, reason in gaps(old)) == sorted(named)
    assert {kind for _, kind, _ in gaps(old)} == {"excluded"}
    assert "delete marker" not in {what for _, what in ledger(old)}
    before = versions(old.destination)
    again = old.run(history=True, selection=small, recheck=True, cutover=True)
    assert (again.same, again.copied, again.proof.objects, again.exit_code) == (4, 0, 4, 0)
    assert versions(old.destination) == before


def test_a_wider_choice_later(old: Move) -> None:
    """What belongs below a version that is there cannot come to its location: a gap by name; what is above is added."""
    for body in (b"1", b"22222", b"333", b"44444"):
        old.source.put("a", body)
    old.run(history=True, selection=Selection(max_bytes=3))
    second = ids(old.source, "a")[1]
    wider = old.run(history=True, cutover=True)
    assert (wider.copied, wider.same, wider.failed, wider.exit_code) == (1, 2, 1, 3)
    assert [(item, kind) for item, kind, _ in gaps(old)] == [(f"a (version {second})", "failed")]
    assert bodies(old.destination, "a") == [b"1", b"333", b"44444"]
    narrower = old.run(history=True, selection=Selection(min_bytes=4, max_bytes=5), cutover=True)
    assert (narrower.same, narrower.excluded, narrower.failed) == (1, 2, 1)
    newest = old.run(history=True, selection=Selection(min_bytes=5, exclude=("b",)), dry_run=True)
    assert newest.planned["stuck"]["count"] == 1


def test_by_time(old: Move) -> None:
    shop = old.source
    for key in ("a", "b", "c"):
        shop.put(key, b"old")
    time.sleep(1.1)
    moment = datetime.now(UTC).replace(microsecond=0)
    shop.put("a", b"new")
    shop.boto.delete_object(Bucket=shop.name, Key="b")
    young = Selection(newer_than=moment)
    done = old.run(history=True, selection=young, cutover=True)
    assert (done.copied, done.excluded, done.exit_code, done.proof.objects) == (1, 4, 0, 1)
    assert {key: bodies(old.destination, key) for key in history(old.destination)} == {"a": [b"new"]}
    before = Move(old.source, make_old_shop(old.destination.server))
    assert before.run(history=True, selection=Selection(older_than=moment), cutover=True).proof.objects == 3
    assert [bodies(before.destination, key) for key in ("a", "b", "c")] == [[b"old"]] * 3


def test_by_tag(old: Move) -> None:
    """No listing shows them: every walk asks. What gets its tag too late belongs below, and is stuck."""
    shop = old.source
    for number in range(4):
        shop.put("a", b"%d" % number, Tagging=f"keep={'yes' if number in {0, 2} else 'no'}")
    shop.put("b", b"1")
    kept = Selection(tags={"keep": "yes"})
    done = old.run(history=True, selection=kept, cutover=True)
    assert (done.copied, done.excluded, done.exit_code, done.unproven, done.proof.objects) == (2, 3, 0, "", 2)
    assert bodies(old.destination, "a") == [b"0", b"2"]
    _, second, _, fourth = ids(shop, "a")
    change_tags(shop, "a", fourth, keep="yes")
    assert old.run(history=True, selection=kept, cutover=True).copied == 1
    change_tags(shop, "a", second, keep="yes")
    late = old.run(history=True, selection=kept)
    assert (late.same, late.failed, late.exit_code) == (3, 1, 3)
    change_tags(shop, "a", second, keep="no")
    change_tags(shop, "a", fourth, keep="no")
    left = old.run(history=True, selection=kept, recheck=True, cutover=True)
    assert (left.same, left.excluded, left.exit_code, left.proof.objects) == (2, 3, 0, 2)
    assert bodies(old.destination, "a") == [b"0", b"2", b"3"]


def test_what_the_source_has_deleted_has_no_size(old: Move) -> None:
    old.source.put("a")
    with pytest.raises(UsageError, match="--delete"):
        old.run(history=True, delete=True, selection=Selection(min_bytes=1))


def test_a_choice_by_the_command(old: Move) -> None:
    """As people give it; the page says what the proof is about."""
    for body in (b"1", b"22222"):
        old.source.put("a", body)
    here, there = old.ends()
    result = call("sync", f"old={here}", f"new={there}", "--history", "--max-size", "3B", "--cutover")
    assert result.code == 0
    assert bodies(old.destination, "a") == [b"1"]
    page = parse(old.location().read("REPORT.html"))
    assert "with all versions" not in page.text
    assert '{"max_bytes": 3}' in page.text
