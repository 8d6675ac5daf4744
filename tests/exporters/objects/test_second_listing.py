"""The second count of a bucket: it differs from the first only where the first listing has overlooked objects."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from exporters.bucket_api import Bucket, Fetched, ObjectSummary, Page
from exporters.errors import SourceGoneError, SourceNotAllowedError, SourceUnreachableError
from exporters.objects.listing import second_listing
from exporters.objects.listing.inventory import Totals
from exporters.objects.listing.second_listing import PagesAhead, Relisting

BEGUN = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)
OLD, NEW = BEGUN - timedelta(seconds=2), BEGUN + timedelta(seconds=1)
Row = tuple[str, str, str | None, str]
"""A row of the inventory: key, version, the ETag of what was read (None where it was deleted), the listed one."""


def row(key: str, etag: str = "e", modified: datetime = OLD, version: str = "", **more: Any) -> ObjectSummary:
    return ObjectSummary(key, 1, etag, modified, version_id=version, **more)


class Listed:
    """A bucket that lists these rows. ``gone``: keys that are no more when they are asked for."""

    name, prefix, url, server = "media", "", "s3://media", "memory"

    def __init__(
        self, rows: Sequence[ObjectSummary], plain: Sequence[ObjectSummary] = (), gone: Sequence[str] = ()
    ) -> None:
        self.rows, self.plain, self.gone = rows, plain, gone
        self.error: Exception | None = None

    def pages(
        self,
        *,
        versions: bool,
        after: tuple[str, str] = ("", ""),
        until: Any = None,
        other_pages: bool = False,
    ) -> Iterator[Page]:
        del after, until, other_pages
        if self.error is not None:
            raise self.error
        rows = self.rows if versions or not self.plain else self.plain
        for start in range(0, len(rows), 2):
            yield Page.of(rows[start : start + 2])

    def list(self) -> Iterator[ObjectSummary]:
        if self.error is not None:
            raise self.error
        return iter(self.rows)

    list_versions = list  # noqa: A003

    def head(self, summary: ObjectSummary) -> Fetched:
        return Fetched(summary, error=SourceGoneError("gone") if summary.key in self.gone else None)


def relisted(
    bucket: Listed, inventory: Sequence[Row], *, way: str = "in order", cut: int = 100, ahead: bool = False
) -> Relisting:
    """Compare, ``cut`` rows at a time."""
    totals = Totals(
        "id", 1, len(inventory), 1, 1, 1,
        ordered=way != "any order",
        listed_from=BEGUN.isoformat(),
        listed_to=NEW.isoformat(),
        versions=way == "versions",
    )  # fmt: skip
    begun = PagesAhead(cast("Bucket", bucket), totals) if ahead else None
    again = Relisting(cast("Bucket", bucket), totals, begun)
    for start in range(0, len(inventory), cut):
        columns = [list(column) for column in zip(*inventory[start : start + cut], strict=True)]
        again.compare(*cast("tuple[list[str], list[str], list[str | None], list[str]]", columns))
    again.end()
    again.close()
    if begun is not None:
        begun.close()
    return again


def counts(again: Relisting) -> tuple[int, ...]:
    return again.same, again.changed, again.vanished, again.added, again.overlooked


WAYS = pytest.mark.parametrize("way", ["in order", "any order", "versions"])
CUTS = pytest.mark.parametrize("cut", [1, 2, 3, 100])


def versioned(way: str, rows: Sequence[ObjectSummary]) -> list[ObjectSummary]:
    version = "1" if way == "versions" else ""
    return [row(each.key, each.etag, each.modified, version) for each in rows]


@WAYS
@CUTS
def test_what_changed_meanwhile_is_counted_and_is_no_difference(way, cut):
    version = "1" if way == "versions" else ""
    listed = versioned(
        way,
        [
            row("a"),
            row("b", "changed", NEW),
            row("d", "read", NEW),
            row("e", "listed"),
            row("f", "new", NEW),
            row("g", "other", NEW),
            row("h"),
            row("z", "new", NEW),
        ],
    )
    inventory: list[Row] = [
        ("a", version, "e", "e"),
        ("b", version, "e", "e"),  # overwritten since it was read
        ("c", version, "e", "e"),  # deleted since it was read
        ("d", version, "read", "listed"),  # read in a newer version, which is still there
        ("e", version, "read", "listed"),  # the second listing came by before it was overwritten
        ("g", version, None, "e"),  # deleted before it was read, and written again
        ("h", version, None, "e"),  # the second listing came by before it was deleted
        ("i", version, None, "e"),  # deleted before it was read
    ]
    plain = listed if way == "versions" else ()
    again = relisted(Listed(listed, plain), inventory, way=way, cut=cut)
    assert counts(again) == (3, 1, 4, 3, 0)
    assert again.count == len(inventory)
    assert {loss.reason.partition(" ")[0] for loss in again.losses()} == {"3", "1", "4"}
    assert (again.refusal, list(again.gaps())) == (None, [])


@WAYS
@CUTS
def test_what_was_there_and_not_listed_is_named_and_makes_the_counts_differ(way, cut):
    version = "1" if way == "versions" else ""
    whole_second = BEGUN.replace(microsecond=0)
    listed = versioned(
        way, [row("a"), row("b"), row("c"), row("d", modified=whole_second), row("e"), row("f")]
    )
    inventory: list[Row] = [("a", version, "e", "e"), ("e", version, "e", "e")]
    plain = listed if way == "versions" else ()
    again = relisted(Listed(listed, plain, gone=["c"]), inventory, way=way, cut=cut)
    assert counts(again) == (2, 0, 0, 1, 2)
    assert again.count == 4
    names = [f"{name} (version 1)" if version else name for name in ("b", "f")]
    overlooked = [loss.item for loss in again.losses() if loss.property == "object"]
    assert overlooked == names


def test_versions_of_a_key_are_compared_each_and_new_ones_come_first():
    listed = [
        row("a", "3", NEW, "v3"),
        row("a", "2", OLD, "v2"),
        row("b", "-", OLD, "m1", is_delete_marker=True),
        row("b", "1", OLD, "v1"),
        row("c", "0", OLD, "v0"),
    ]
    inventory: list[Row] = [
        ("a", "v2", "2", "2"),
        ("a", "v1", "1", "1"),
        ("b", "m1", "-", "-"),
        ("b", "v1", "1", "1"),
        ("c", "v0", "0", "0"),
    ]
    plain = [row("a", "3", NEW), row("c", "0")]
    again = relisted(Listed(listed, plain), inventory, way="versions", cut=2)
    assert counts(again) == (4, 0, 1, 1, 0)
    assert "versions" in again.how


def test_a_plain_listing_that_shows_what_the_listing_of_versions_does_not_makes_the_counts_differ():
    listed = [
        row("b", "1", OLD, "v1"),
        row("d", "1", OLD, "v1"),
        row("d", "-", OLD, "m", is_delete_marker=True),
    ]
    plain = [row("a"), row("b", "other"), row("c"), row("d", "-"), row("e")]
    inventory: list[Row] = [("b", "v1", "1", "1"), ("d", "v1", "1", "1"), ("d", "m", "-", "-")]
    again = relisted(Listed(listed, plain), inventory, way="versions")
    assert counts(again) == (3, 0, 0, 0, 5)


def test_what_only_the_plain_listing_has_comes_in_its_place_without_a_version():
    versions = [row("b", "1", version="v1"), row("c", "2", version="v2"), row("c", "1", version="v1")]
    plain = [row("a"), row("aa"), row("b", "1"), row("c", "3"), row("d"), row("e")]
    both = [(each.key, each.version_id) for each in second_listing._with_plain(versions, plain)]
    assert both == [
        ("a", ""), ("aa", ""), ("b", "v1"), ("c", "v2"), ("c", "v1"), ("c", ""), ("d", ""), ("e", ""),
    ]  # fmt: skip
    assert list(second_listing._with_plain([], plain)) == plain
    assert list(second_listing._with_plain(versions, [])) == versions


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("error", [SourceNotAllowedError("shut"), SourceGoneError("shut")])
def test_a_bucket_that_was_shut_since_is_a_gap(error, ahead):
    bucket = Listed([row("a")])
    bucket.error = error
    again = relisted(bucket, [("a", "", "e", "e"), ("b", "", "e", "e")], cut=1, ahead=ahead)
    assert again.refusal is error
    assert [(gap.item, gap.disposition) for gap in again.gaps()] == [("a second listing of media", "failed")]
    assert list(again.losses()) == []


def test_a_bucket_in_another_order_that_was_shut_since_is_a_gap_and_one_that_is_silent_is_an_error():
    bucket = Listed([row("a")])
    bucket.error = SourceNotAllowedError("shut")
    assert relisted(bucket, [("a", "", "e", "e")], way="any order").refusal is bucket.error
    bucket.error = SourceUnreachableError("silent")
    with pytest.raises(SourceUnreachableError):
        relisted(bucket, [("a", "", "e", "e")])


@WAYS
def test_pages_that_were_fetched_ahead_are_the_same(way):
    listed = versioned(way, [row(key) for key in "abcde"])
    version = listed[0].version_id
    inventory: list[Row] = [(key, version, "e", "e") for key in "abcde"]
    bucket = Listed(listed, listed if way == "versions" else ())
    again = relisted(bucket, inventory, way=way, cut=2, ahead=way != "any order")
    assert (counts(again), list(again.losses())) == ((5, 0, 0, 0, 0), [])


def test_of_very_many_overlooked_objects_a_thousand_are_named():
    listed = [row(f"{number:04}") for number in range(1005)]
    again = relisted(Listed(listed), [])
    assert (again.overlooked, again.count) == (1005, 1005)
    assert len(list(again.losses())) == 1000


def test_pages_that_nobody_reads_are_fetched_no_more_once_it_is_closed():
    before = set(threading.enumerate())
    bucket = Listed([row(f"{number:03d}", version="1") for number in range(100)])
    totals = Totals(
        "id", 1, 1, 1, 1, 1, ordered=True, listed_from=BEGUN.isoformat(), listed_to=NEW.isoformat(), versions=True
    )  # fmt: skip
    begun = PagesAhead(cast("Bucket", bucket), totals)
    fetching = set(threading.enumerate()) - before
    assert len(fetching) == 2
    begun.close()
    for thread in fetching:
        thread.join(60)
    assert not any(thread.is_alive() for thread in fetching)
