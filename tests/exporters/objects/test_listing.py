"""Listings in several parts at once: everything once, in order, whatever the keys; killed anywhere they go on."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from contextlib import nullcontext
from itertools import cycle, pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.bucket_api import Bucket, ObjectSummary, Page
from exporters.objects.index_rows import from_state
from exporters.objects.listing import inventory, lister, second_listing, shards
from exporters.selection import EVERYTHING
from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.listing import pages
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.source_bucket import open_bucket
from scripts.servers import S3Server
from tests.exporters.objects.memory import MOMENT, MemoryListing
from tests.exporters.objects.test_history import make_old_shop
from tests.exporters.objects.workspaces import Workspace

PIECES = st.sampled_from([
    "a", "b", "/", "//", ".", "..", "-", "0", "1", "10", "~", " ", "+", "%2F", "\x01", "\x7f", "\ufffd", "é", "e\u0301",
    "日", "😀", "\U0010ffff",
])  # fmt: skip
KEYS = st.sets(st.lists(PIECES, min_size=1, max_size=6).map("".join), max_size=60)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few keys are a large bucket."""
    monkeypatch.setattr(inventory, "SHARD_ROWS", 7)
    monkeypatch.setattr(lister, "_TICK_SECONDS", 0.001)
    monkeypatch.setattr(lister, "PAGES", 1)
    monkeypatch.setattr(lister, "_GROWS", 0.0)


def found(bucket: Any, workspace: Workspace) -> list[tuple[str, str]]:
    taken = inventory.take(cast("Bucket", bucket), workspace)
    rows = [one for shard in range(taken.totals.shards) for one in taken.objects(shard, 0, 1000)]
    assert len(rows) == taken.totals.objects
    return [(one.key, one.version_id) for one in rows]


def shard_ranges(workspace: Workspace) -> list[shards.ShardRange]:
    names = [name for name in workspace if name.endswith(".parquet")]
    tables = [(from_state(workspace[name], name), name) for name in names]
    return shards.ordered(one for one in (shards.range_of(table, name) for table, name in tables) if one)


@settings(max_examples=20, deadline=None)
@given(KEYS, st.integers(1, 5))
def test_any_keys_are_listed_once_and_in_order(keys: set[str], page_rows: int) -> None:
    bucket = MemoryListing(dict.fromkeys(keys, ("",)), page_rows=page_rows)
    assert found(bucket, Workspace()) == [(key, "") for key in sorted(keys)]


@settings(max_examples=12, deadline=None)
@given(
    st.dictionaries(KEYS.map(lambda keys: max(keys, default="k")), st.integers(1, 20), max_size=20),
    st.integers(1, 5),
)
def test_so_are_any_versions(counts: dict[str, int], page_rows: int) -> None:
    rows = {key: [f"v{number:02d}" for number in range(count, 0, -1)] for key, count in counts.items()}
    bucket = MemoryListing(rows, page_rows=page_rows)
    wanted = [(key, version) for key in sorted(rows) for version in rows[key]]
    assert found(bucket, Workspace()) == wanted


@settings(max_examples=10, deadline=None)
@given(KEYS, st.integers(1, 4), st.lists(st.integers(1, 3), min_size=1, max_size=8))
def test_what_was_killed_anywhere_goes_on(keys: set[str], page_rows: int, steps: list[int]) -> None:
    rows = {key: ["b", "a"] if len(key) % 2 else ["c"] for key in keys}
    workspace = Workspace()
    for step in cycle(steps):  # how many it takes depends on threads
        workspace.fail_after = len(workspace) + step
        try:
            listed = found(MemoryListing(rows, page_rows=page_rows), workspace)
        except KeyboardInterrupt:
            continue
        break
    assert listed == [(key, version) for key in sorted(rows) for version in rows[key]]


def test_parts_are_listed_at_once() -> None:
    keys = [f"user-{number % 9}/photo-{number:05d}" for number in range(900)] + [
        f"{number:06x}" for number in range(500)
    ]
    bucket = MemoryListing(dict.fromkeys(keys, ("",)), page_rows=5)
    workspace = Workspace()
    assert [key for key, _ in found(bucket, workspace)] == sorted(keys)
    assert bucket.at_once > 4
    parts = shard_ranges(workspace)
    assert parts != sorted(parts, key=lambda one: one.number)
    for one, following in pairwise(parts):
        assert one.upto is not None
        assert one.upto <= following.after
    totals = inventory.take(cast("Bucket", bucket), workspace).totals
    assert totals.at_once > 1
    assert list(totals.ends) == [one.upto[0] for one in parts if one.upto]


def test_a_second_listing_is_not_cut_within_the_versions_of_a_key() -> None:
    rows = {f"k{number:03d}": [f"v{version:02d}" for version in range(30, 0, -1)] for number in range(60)}
    workspace = Workspace()
    totals = inventory.take(cast("Bucket", MemoryListing(rows, page_rows=5)), workspace).totals
    inside, ends = (
        [one.upto[0] for one in shard_ranges(workspace) if one.upto and bool(one.upto[1]) == within]
        for within in (True, False)
    )
    assert inside
    assert list(totals.ends) == (ends if totals.at_once > 1 else [])


def test_a_bucket_that_cannot_be_listed_from_anywhere_is_listed_once_more_in_one_part() -> None:
    bucket = MemoryListing(dict.fromkeys((f"{number:04d}" for number in range(900)), ("",)), page_rows=5)
    bucket.lists_from_anywhere = False
    totals = inventory.take(cast("Bucket", bucket), Workspace()).totals
    assert (totals.at_once, list(totals.ends)) == (1, [])
    small = inventory.take(cast("Bucket", MemoryListing({"a": ("",)}, page_rows=5)), Workspace()).totals
    assert small.at_once == 1


def page_of(*rows: str) -> Page:
    """A page of keys, or of keys with a version: ``k/1``."""
    return Page.of([
        ObjectSummary(key, 1, "e", MOMENT, version_id=version)
        for key, _, version in (row.partition("/") for row in rows)
    ])  # fmt: skip


def rows_of(pages: list[Page]) -> str:
    return " ".join(f"{row.key}{row.version_id}" for page in pages for row in page.rows())


def test_rows_wait_until_a_shard_is_full() -> None:
    held = lister._Held(4, whole_keys=False)
    held.add(page_of())
    held.add(page_of("a", "b", "c"))
    assert held.full() is None
    held.add(page_of("d", "e", "f"))
    assert (held.rows, held.full()) == (6, ("d", ""))
    assert (rows_of(held.drain()), held.rows, held.full()) == ("a b c d", 2, None)
    assert (rows_of(held.drain(everything=True)), held.rows) == ("e f", 0)


@pytest.mark.parametrize(
    ("rows", "ends", "shard"),
    [
        ("a/2 a/1 b/2 b/1", None, ""),  # the key may go on
        ("a/2 a/1 b/2 b/1 c/1", ("b", ""), "a2 a1 b2 b1"),
        ("a/2 a/1 b/3 b/2 b/1", None, ""),
        ("a/2 a/1 b/3 b/2 b/1 c/1", ("b", ""), "a2 a1 b3 b2 b1"),
        ("a/1 b/7 b/6 b/5 b/4 b/3 b/2", None, ""),
        (
            "a/1 b/7 b/6 b/5 b/4 b/3 b/2 b/1",
            ("b", "1"),
            "a1 b7 b6 b5 b4 b3 b2 b1",
        ),  # twice a shard: it is cut
        ("a/1 b/8 b/7 b/6 b/5 b/4 b/3 b/2 b/1", ("b", "2"), "a1 b8 b7 b6 b5 b4 b3 b2"),
        ("a/1 b/7 b/6 b/5 b/4 b/3 b/2 c/1", ("b", ""), "a1 b7 b6 b5 b4 b3 b2"),
    ],
)
@pytest.mark.parametrize("page_rows", [2, 3, 9])
def test_versions_of_a_key_are_in_one_shard_unless_they_are_very_many(
    rows: str, ends: tuple[str, str] | None, shard: str, page_rows: int
) -> None:
    held, split_rows = lister._Held(4, whole_keys=True), rows.split()
    for start in range(0, len(split_rows), page_rows):
        held.add(page_of(*split_rows[start : start + page_rows]))
    assert held.full() == ends
    left = len(split_rows) - len(shard.split())
    if ends is not None:
        assert (rows_of(held.drain()), held.rows) == (shard, left)
        assert len(rows_of(held.drain(everything=True)).split()) == left


def listing_of(bucket: Any, *, versions: bool = False, in_order: bool = True) -> lister.Listing:
    return lister.Listing(
        cast("Bucket", bucket),
        Workspace(),
        inventory._ListedCounts(),
        EVERYTHING,
        versions,
        in_order,
        shard_rows=7,
    )


def test_a_range_takes_what_lies_in_it_and_ends_behind_it() -> None:
    listing, key_range = listing_of(None), lister.Range(("b", ""), "e")
    assert key_range.cursor == "b"
    assert rows_of([listing._take(key_range, page_of("c", "d"))]) == "c d"
    assert (key_range.cursor, key_range.pages, key_range.ended) == ("d", 1, False)
    assert rows_of([listing._take(key_range, page_of("e", "f"))]) == "e"
    assert (key_range.cursor, key_range.pages, key_range.ended) == ("e", 2, True)
    beyond = lister.Range(("b", ""), "e")
    assert rows_of([listing._take(beyond, page_of("f", "g"))]) == ""
    assert (beyond.cursor, beyond.ended) == ("b", True)
    assert listing.workspace.listed_items == 6


@pytest.mark.parametrize(
    ("versions", "pages", "refused"),
    [
        (False, ["c", "d"], False),
        (False, ["c", "c"], True),
        (True, ["c", "c"], False),
        (False, ["d", "c"], True),
        (True, ["d", "c"], True),
        (False, ["dc"], True),
        (False, ["b"], True),
        (True, ["a"], True),
        (False, ["", "c"], False),
    ],
)
def test_keys_that_come_too_late_are_out_of_order(versions: bool, pages: list[str], refused: bool) -> None:
    key_range = lister.Range(("b", ""), None)
    with pytest.raises(lister.OutOfOrderError) if refused else nullcontext():
        for keys in pages:
            listing_of(None, versions=versions)._take(key_range, page_of(*keys))
    any_order = listing_of(None, versions=versions, in_order=False)
    for keys in pages:
        assert any_order._take(lister.Range(("b", ""), None), page_of(*keys)).keys == list(keys)


def test_versions_that_an_earlier_run_has_listed_are_left_out() -> None:
    key_range = lister.Range(("b", "2"), None, frozenset({"2", "3"}))
    page = page_of("b/3", "b/2", "b/1", "c/3")
    assert rows_of([listing_of(None, versions=True)._take(key_range, page)]) == "b1 c3"


def test_the_range_that_was_listed_for_longest_is_cut() -> None:
    keys = [f"{number:04d}" for number in range(900)]
    listing = listing_of(MemoryListing(dict.fromkeys(keys, ("",)), page_rows=5))
    first, longest = lister.Range(("", ""), "0100", pages=2), lister.Range(("0100", ""), None, pages=3)
    longest.cursor = "0200"
    new, unseen = lister.Range(("0700", ""), None), lister.Range(("0700", ""), None, pages=9)
    unseen.whole = True
    assert listing._cut([first, longest], 0) == []
    assert listing._cut([new, unseen], 3) == []
    parts = [longest, *reversed(listing._cut([first, longest, new, unseen], 3))]
    assert len(parts) > 2
    for part, following in pairwise(parts):
        assert part.until is not None
        assert "0200" < part.until == following.after[0]
    assert (parts[-1].until, longest.pages, longest.whole) == (None, 1, False)
    assert (first.until, first.pages) == ("0100", 2)


def test_only_what_lies_ahead_in_the_range_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = ["0100", "0200", "0300", "0700", "0800"]
    monkeypatch.setattr(lister, "split_points", lambda *_: cuts)
    key_range = lister.Range(("0100", ""), "0700", pages=1)
    key_range.cursor = "0200"
    (part,) = listing_of(None)._cut([key_range], 4)
    assert (key_range.until, part.after, part.until) == ("0300", ("0300", ""), "0700")
    key_range.pages = 1
    assert (listing_of(None)._cut([key_range], 4), key_range.whole) == ([], False)
    ended = lister.Range(("0100", ""), "0700", pages=1, ended=True)
    assert (listing_of(None)._cut([ended], 4), ended.until) == ([], "0700")


def test_a_range_has_ended_however_it_ends() -> None:
    listing = listing_of(MemoryListing(dict.fromkeys("abcd", ("",)), page_rows=2))
    whole, first = lister.Range(("", ""), None), lister.Range(("", ""), "a")
    stopped = lister.Range(("", ""), None)
    listing._list(whole)
    listing._list(first)
    listing._stop.set()
    listing._list(stopped)
    assert (whole.ended, first.ended, stopped.ended) == (True, True, True)
    assert [(shard_range.number, shard_range.after, shard_range.upto) for shard_range in listing.shard_ranges] == [
        (0, ("", ""), None), (1, ("", ""), ("a", "")),
    ]  # fmt: skip


def shard_range(number: int, after: str, upto: str | None) -> shards.ShardRange:
    """A shard between two positions: a key, or ``key/version``."""
    start, end = (None if text is None else (*text.split("/"), "")[:2] for text in (after, upto))
    return shards.ShardRange(number, start, end)


@pytest.mark.parametrize(
    ("shard_ranges", "left"),
    [
        ([], [(("", ""), None)]),
        ([shard_range(0, "", None)], []),
        ([shard_range(0, "", "c"), shard_range(1, "c", "d")], [(("d", ""), None)]),
        ([shard_range(0, "b", "c"), shard_range(1, "f", None)], [(("", ""), "b"), (("c", ""), "f")]),
        ([shard_range(0, "", "k/5"), shard_range(1, "k/5", "k/2")], [(("k", "2"), None)]),
        ([shard_range(0, "", "k/5"), shard_range(1, "k", None)], [(("k", "5"), "k")]),
        ([shard_range(0, "", "m"), shard_range(1, "c", "z")], [(("z", ""), None)]),  # listed twice
    ],
)
def test_what_no_shard_has_is_listed(shard_ranges: list[shards.ShardRange], left: list[Any]) -> None:
    assert shards.gaps(shard_ranges) == left


def test_shards_are_in_the_order_of_their_keys_and_within_a_key_of_their_numbers() -> None:
    made = [
        shard_range(1, "k", "z"),
        shard_range(4, "k/2", "k"),
        shard_range(2, "k/9", "k/5"),
        shard_range(3, "k/5", "k/2"),
        shard_range(9, "", "k/9"),
    ]
    assert [one.number for one in shards.ordered(made)] == [9, 2, 3, 4, 1]


def test_where_there_is_nothing_to_cut_it_is_not_tried_again() -> None:
    listing = listing_of(MemoryListing({"a": ("",), "b": ("",)}, page_rows=5))
    last = lister.Range(("", ""), None, pages=1)
    last.cursor = "b"
    assert (listing._cut([last], 3), last.whole) == ([], True)
    assert (last.until, last.ended) == (None, False)


class Clock:
    """A time that the test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("rates", "targets", "worth"),
    [
        ([100, 200, 400, 800], [2, 4, 8, 8], 8),  # it grows up to the most
        ([100, 200, 220, 900], [2, 4, 2, 2], 2),  # four brought no more than two
        ([100, 110], [2, 1], 1),
        ([100, 121, 146], [2, 4, 8], 4),
    ],
)
def test_as_many_listings_run_at_once_as_raise_the_rate(
    monkeypatch: pytest.MonkeyPatch, rates: list[int], targets: list[int], worth: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(lister, "time", clock)
    monkeypatch.setattr(lister, "PAGES", 2)
    monkeypatch.setattr(lister, "_GROWS", 1.2)
    concurrency = lister.ListingConcurrency(8)
    reached = []
    for rate in rates:
        active = concurrency.target
        for _ in range(2 * active - 1):
            concurrency.note(10)
        assert concurrency.reconsider(active) == active  # too few pages to tell
        concurrency.note(10)
        clock.now += 2 * active * 10 / rate
        reached.append(concurrency.reconsider(active))
    assert (reached, concurrency.worth) == (targets, worth)


def test_what_fewer_listings_brought_is_not_counted_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lister, "PAGES", 2)
    concurrency = lister.ListingConcurrency(8)
    for _ in range(2):
        concurrency.note(10)
    assert concurrency.reconsider(1) == 2
    for _ in range(9):
        concurrency.note(10)
    assert concurrency.reconsider(1) == 2  # only one ran
    assert concurrency.reconsider(2) == 2  # of what two bring nothing is known yet


@settings(max_examples=10, deadline=None)
@given(KEYS, st.integers(1, 4), st.data())
def test_a_second_listing_in_known_parts_is_the_same(
    keys: set[str], page_rows: int, data: st.DataObject
) -> None:
    rows = {key: ["b", "a"] if len(key) % 2 else ["c"] for key in keys}
    ends = sorted(data.draw(st.sets(st.sampled_from(sorted(keys) or ["x"]))))
    bucket = cast("Bucket", MemoryListing(rows, page_rows=page_rows))
    whole = [one for page in bucket.pages(versions=bool(keys), until=lambda: None) for one in page.rows()]
    rows_listed = [
        one
        for page in second_listing.pages_in_parts(bucket, ends, 3, versions=bool(keys))
        for one in page.rows()
    ]
    assert rows_listed == whole


def test_a_server_that_turns_out_not_to_list_by_key_is_listed_again_in_one_part() -> None:
    keys = [f"k{number:03d}" for number in range(200)]
    shuffled = keys.copy()
    random.Random(1).shuffle(shuffled)
    bucket = MemoryListing(dict.fromkeys(keys, ("",)), page_rows=10, shuffled=shuffled)
    workspace = Workspace()
    workspace.fail_after = 12
    with pytest.raises(KeyboardInterrupt):
        found(bucket, workspace)
    workspace.fail_after = 1 << 60
    assert [key for key, _ in found(bucket, workspace)] == shuffled


def test_shards_of_before_the_order_broke_are_no_part_of_the_listing() -> None:
    keys = [f"k{number:03d}" for number in range(200)]
    shuffled = keys.copy()
    random.Random(1).shuffle(shuffled)
    rows, workspace = dict.fromkeys(keys, ("",)), Workspace()
    workspace.fail_after = 4
    with pytest.raises(KeyboardInterrupt):
        found(MemoryListing(rows, page_rows=10), workspace)
    workspace.fail_after = 1 << 60
    assert len(shard_ranges(workspace)) == 3
    bucket = MemoryListing(rows, page_rows=10, shuffled=shuffled)
    assert [key for key, _ in found(bucket, workspace)] == shuffled
    assert not inventory.take(cast("Bucket", bucket), workspace).totals.ordered


@pytest.fixture(scope="module")
def filled(minio: S3Server, make_bucket: Callable[[S3Server], str]) -> tuple[str, list[str]]:
    """A bucket on a real server with directories, a flat part, and keys that stand at the edges of directories."""
    url = f"s3://{make_bucket(minio)}?profile={minio.profile}"
    keys = [f"user-{number % 9}/photo-{number:05d}" for number in range(450)]
    keys += [f"flat/{secrets.token_hex(8)}" for _ in range(250)] + [f"user-{number}0" for number in range(9)]
    keys += ["user-3/ä", "user-3/日", "user-3/a b+c%2F", "user-3/😀", "z" * 200]
    destination = open_destination_bucket(url)
    assert all(
        one.error is None
        for one in destination.put_all(((Description(key), b"") for key in keys), window_bytes=1)
    )
    return url, sorted(keys)


@pytest.mark.parametrize("page_keys", [7, pytest.param(50, marks=pytest.mark.torture)])
def test_a_real_bucket_in_parts(
    filled: tuple[str, list[str]], page_keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_KEYS", page_keys)
    url, keys = filled
    workspace = Workspace()
    assert [key for key, _ in found(open_bucket(url), workspace)] == keys
    assert [one.number for one in shard_ranges(workspace)] != sorted(
        one.number for one in shard_ranges(workspace)
    )
    killed = Workspace()
    killed.fail_after = len(workspace) // 2
    with pytest.raises(KeyboardInterrupt):
        found(open_bucket(url), killed)
    killed.fail_after = 1 << 60
    assert [key for key, _ in found(open_bucket(url), killed)] == keys


def test_real_versions_in_parts(minio: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_KEYS", 5)
    shop = make_old_shop(minio, lock=False)
    for number in range(60):
        for version in range(1 + number % 4):
            shop.put(f"{number % 5}/{number:02d}", bytes([version]))
    shop.boto.delete_object(Bucket=shop.name, Key="3/13")
    bucket = open_bucket(shop.url)
    whole = [(one.key, one.version_id) for one in bucket.list_versions()]
    assert len(whole) == 151
    assert found(bucket, Workspace()) == whole
