"""What an inventory comes to: every row is counted once, by what it is and by what was chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.bucket_api import Bucket, ObjectSummary, Page, Position
from exporters.errors import SourceUsageError
from exporters.objects.index_rows import from_state
from exporters.objects.listing import inventory, shards
from exporters.objects.listing.inventory import SMALL_BYTES, Inventory, existing, take
from exporters.selection import EVERYTHING, Selection
from tests.exporters.objects.memory import MOMENT, MemoryListing
from tests.exporters.objects.workspaces import Workspace


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "SHARD_ROWS", 3)


class Rows(MemoryListing):
    """A listing of these rows."""

    def __init__(self, rows: Sequence[ObjectSummary], *, shuffled: bool = False) -> None:
        by_key: dict[str, list[str]] = {}
        for row in rows:
            by_key.setdefault(row.key, []).append(row.version_id)
        super().__init__(by_key, page_rows=2, shuffled=list(by_key) if shuffled else None)
        self._summaries = {(row.key, row.version_id): row for row in rows}

    def _page(self, rows: Sequence[Position]) -> Page:
        page = Page.of([self._summaries[row] for row in rows])
        return (
            page if self._versions else Page(page.keys, page.sizes, page.etags, page.modified, page.classes)
        )


def row(key: str, size: int = 1, version: str = "", **more: object) -> ObjectSummary:
    return ObjectSummary(key, size, "etag", MOMENT, version_id=version, **more)


def listed(bucket: MemoryListing, workspace: Workspace, selection: Selection = EVERYTHING) -> Inventory:
    return take(cast("Bucket", bucket), workspace, selection)


def all_of(made: Inventory) -> Iterator[ObjectSummary]:
    for shard in range(made.totals.shards):
        yield from made.objects(shard, 0, 1000)


PLAIN = [
    row("a", 5), row("b", SMALL_BYTES), row("c", SMALL_BYTES + 1), row("d", 0, storage_class="GLACIER"), row("e", 7),
]  # fmt: skip
VERSIONS = [
    row("a", 5, "2"), row("a", 3, "1", is_latest=False), row("b", 0, "2", is_delete_marker=True),
    row("b", 4, "1", is_latest=False), row("c", 0, "1", is_delete_marker=True),
]  # fmt: skip


def test_objects_are_counted_by_their_size():
    made = listed(Rows(PLAIN), Workspace())
    totals = made.totals
    assert list(all_of(made)) == PLAIN
    assert (totals.objects, totals.size_bytes) == (5, 2 * SMALL_BYTES + 13)
    assert (totals.small_objects, totals.small_bytes) == (4, SMALL_BYTES + 12)
    assert (totals.delete_markers, totals.excluded, totals.choice) == (0, 0, "")
    assert (totals.ordered, totals.versions) == (True, False)
    assert totals.listed_from <= totals.listed_to
    assert sum(len(made.sizes(shard)) for shard in range(totals.shards)) == 5
    assert [made.has_class(shard, ["GLACIER"]) for shard in range(totals.shards)].count(True) == 1
    assert not made.has_class(0, ["DEEP_ARCHIVE"])


def test_versions_and_delete_markers_are_counted_each():
    made = listed(Rows(VERSIONS), Workspace())
    assert list(all_of(made)) == VERSIONS
    totals = made.totals
    assert (totals.objects, totals.delete_markers, totals.versions, totals.ordered) == (5, 2, True, True)
    assert totals.size_bytes == 12


def test_versions_without_a_delete_marker_have_none():
    made = listed(Rows([VERSIONS[0], VERSIONS[1]]), Workspace())
    assert (made.totals.objects, made.totals.delete_markers) == (2, 0)


@pytest.mark.parametrize(
    ("parts", "plain", "versions"),
    [
        (["ab", "c"], True, True),
        (["ab", "b"], False, True),
        (["ac", "b"], False, False),
        (["b", "a"], False, False),
        (["ba"], False, False),
        (["aa"], False, True),
    ],
)
def test_a_listing_is_in_order_across_its_shards(parts, plain, versions):
    """A plain listing names each key once; one of versions may go on with the key."""
    for expected, column in ((plain, {}), (versions, {"version_id": "1", "is_delete_marker": False})):
        counts = inventory._ListedCounts()
        for keys in parts:
            columns = {"key": list(keys), "size": [1] * len(keys)}
            counts.add(pa.table(columns | {name: [value] * len(keys) for name, value in column.items()}))
        assert counts.ordered is expected


def test_versions_are_listed_once_where_the_one_after_which_it_goes_on_is_gone():
    versions = [str(number) for number in range(30, 9, -1)]
    rows = [
        row("a", version="1"),
        *(row("k", version=version) for version in versions),
        row("z", version="1"),
    ]
    workspace = Workspace()
    workspace.fail_after = 4
    with pytest.raises(KeyboardInterrupt):
        listed(Rows(rows), workspace)
    workspace.fail_after = 1 << 60
    names = [name for name in workspace if name.endswith(".parquet")]
    ends = [shards.range_of(from_state(workspace[name], name), name).upto for name in names]
    key, version = max(ends, key=lambda end: -int(end[1] or 99))
    assert key == "k"
    assert version
    left = [each for each in rows if (each.key, each.version_id) != (key, version)]
    assert [(each.key, each.version_id) for each in all_of(listed(Rows(left), workspace))] == [
        (each.key, each.version_id) for each in rows
    ]


def test_an_inventory_of_a_moveout_that_did_not_list_in_parts_is_read():
    workspace = Workspace()
    listed(Rows(PLAIN), workspace)
    written = json.loads(workspace[inventory._SUMMARY])
    later = ("versions", "delete_markers", "excluded", "choice", "order", "at_once", "ends")
    workspace[inventory._SUMMARY] = json.dumps(
        {name: value for name, value in written.items() if name not in later}
    ).encode()
    totals = listed(Rows(PLAIN), workspace).totals
    assert (totals.versions, totals.delete_markers, totals.excluded, totals.choice) == (False, 0, 0, "")
    assert (list(totals.order), totals.at_once, list(totals.ends)) == ([], 1, [])


def test_what_is_excluded_stays_in_the_inventory_with_the_reason():
    chosen = Selection(exclude=("b", "e"), max_bytes=SMALL_BYTES)
    made = listed(Rows(PLAIN), Workspace(), chosen)
    totals = made.totals
    assert (totals.objects, totals.excluded) == (5, 3)
    assert (totals.size_bytes, totals.small_objects, totals.small_bytes) == (5, 2, 5)
    assert totals.choice == chosen.describe()
    kept, left_out, sizes = [], {}, []
    for shard in range(totals.shards):
        rows = list(made.objects(shard, 0, 1000))
        for number, summary in made.included(shard, 0, 1000):
            assert rows[number] == summary
            kept.append(summary.key)
        for number, summary, reason in made.excluded(shard):
            assert rows[number] == summary
            left_out[summary.key] = reason
        sizes += made.sizes(shard)
    assert kept == ["a", "d"]
    assert {key: reason.split(": ")[1].split()[0] for key, reason in left_out.items()} == {
        "b": "matches", "c": "larger", "e": "matches",
    }  # fmt: skip
    assert sizes == [5, None, None, 0, None]


def test_rows_from_the_middle_of_a_shard_keep_their_numbers():
    for chosen in (EVERYTHING, Selection(exclude=("a",))):
        made = listed(Rows(PLAIN), Workspace(), chosen)
        rows = list(made.objects(0, 0, 1000))
        assert [(number, summary.key) for number, summary in made.included(0, 1, 1)] == [(1, rows[1].key)]


def test_a_finished_inventory_is_taken_as_it_is_also_where_there_is_nothing():
    for rows in (PLAIN, []):
        workspace, bucket = Workspace(), Rows(rows)
        first = listed(bucket, workspace)
        asked = bucket.requests
        assert listed(bucket, workspace).totals.id == first.totals.id
        assert bucket.requests == asked
    assert existing(cast("Bucket", Rows(PLAIN)), Workspace(), EVERYTHING) is None


def test_where_nothing_was_under_a_prefix_it_is_looked_again():
    workspace, empty, filled = Workspace(), Rows([]), Rows(PLAIN)
    empty.prefix = filled.prefix = "p/"
    assert listed(empty, workspace).totals.objects == 0
    workspace.pop(inventory._START)
    for name in workspace.names(shards.FOLDER):
        workspace.delete(name)
    assert listed(filled, workspace).totals.objects == 5


def test_another_choice_later_is_refused_whether_the_listing_has_ended_or_not():
    workspace = Workspace()
    chosen = Selection(exclude=("a",))
    listed(Rows(PLAIN), workspace, chosen)
    for _ in range(2):
        with pytest.raises(SourceUsageError, match="another choice"):
            listed(Rows(PLAIN), workspace)
        workspace.pop(inventory._SUMMARY, None)
    assert listed(Rows(PLAIN), workspace, chosen).totals.excluded == 1


def test_current_versions_alone_are_a_plain_listing():
    asked = []

    class Asked(Rows):
        def keeps_versions(self) -> bool:
            asked.append(True)
            return True

    workspace = Workspace()
    assert listed(Asked(PLAIN), workspace, Selection(current_only=True)).totals.versions is False
    assert asked == []
    assert json.loads(workspace[inventory._START])["versions"] is False


def test_a_listing_that_is_not_by_key_says_so():
    shuffled = [PLAIN[2], PLAIN[0], PLAIN[4], PLAIN[1], PLAIN[3]]
    made = listed(Rows(shuffled, shuffled=True), Workspace())
    assert [summary.key for summary in all_of(made)] == ["c", "a", "e", "b", "d"]
    assert (made.totals.ordered, made.totals.objects) == (False, 5)
    declared = Rows(PLAIN, shuffled=True)
    declared.lists_in_order = False
    assert listed(declared, Workspace()).totals.ordered, "this one does, though it does not say so"
    declared = Rows(shuffled, shuffled=True)
    declared.lists_in_order = False
    assert not listed(declared, Workspace()).totals.ordered


def test_a_shard_that_does_not_say_what_it_covers_is_listed_again_and_others_are_kept():
    rows = [row(f"{number:02}") for number in range(20)]
    workspace = Workspace()
    workspace.fail_after = 4
    with pytest.raises(KeyboardInterrupt):
        listed(Rows(rows), workspace)
    workspace.fail_after = 1 << 60
    first, *others = [name for name in workspace.names(shards.FOLDER) if name.endswith(".parquet")]
    assert others
    table = from_state(workspace[first], first).replace_schema_metadata({})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    workspace[first] = sink.getvalue().to_pybytes()
    kept = {name: workspace[name] for name in others}
    made = listed(Rows(rows), workspace)
    assert (list(all_of(made)), made.totals.objects) == (rows, 20)
    assert all(workspace[name] == data for name, data in kept.items())


def test_a_shard_that_is_gone_is_an_error_with_its_name():
    workspace = Workspace()
    made = listed(Rows(PLAIN), workspace)
    name = next(name for name in workspace.names(shards.FOLDER) if name.endswith(".parquet"))
    workspace.delete(name)
    with pytest.raises(FileNotFoundError, match=name):
        list(all_of(Inventory(workspace, made.totals, selection=EVERYTHING)))


def test_times_are_those_of_the_listing_to_the_microsecond():
    rows = [
        ObjectSummary(str(number), 1, "e", MOMENT + timedelta(microseconds=number * 333_333))
        for number in range(4)
    ]
    assert list(all_of(listed(Rows(rows), Workspace()))) == rows
