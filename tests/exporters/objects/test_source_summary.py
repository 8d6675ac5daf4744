"""The end of an export of a bucket: what its summary counts, and what is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.api import DoneUnit, Enumeration, Gap, Loss, Outcome, Unit
from exporters.bucket_api import ObjectSummary
from exporters.objects import changed_objects, index_rows, source_summary
from exporters.objects.source_summary import (
    FinishedUnits,
    NotedBucket,
    ObjectCounts,
    SummaryWriter,
    noted_bucket,
)
from exporters.selection import Selection
from tests.exporters.objects.memory import MOMENT
from tests.exporters.objects.workspaces import Workspace

HIDES = "a server that hides"


def closing(**changes: Any) -> SummaryWriter:
    totals = {
        "versions": False,
        "delete_markers": 2,
        "objects": 9,
        "choice": "",
        "listed_from": "1",
        "listed_to": "2",
    }
    of_bucket = {"name": "media", "prefix": "", "server": "memory", "not_utf_8": ()}
    relisting = {"refusal": None, "how": "again", "count": 8}
    for values in (totals, of_bucket, relisting):
        values.update({name: value for name, value in changes.items() if name in values})
    return SummaryWriter(
        SimpleNamespace(**of_bucket),
        SimpleNamespace(totals=SimpleNamespace(**totals)),
        Workspace(),
        None,
        SimpleNamespace(**relisting),
        changes.get("report"),
        ObjectCounts(rows=7, exported=6, size_bytes=60, files=2, reread=1),
    )


def test_a_source_is_counted_by_its_listing_its_index_and_a_second_listing():
    summary = closing()._summary([Loss("a", "b", "c")])
    assert summary.enumerations == [
        Enumeration("objects", "the listing", 9),
        Enumeration("objects", "rows of the index", 7),
        Enumeration("objects", "again", 8),
    ]
    (entry,) = summary.entries
    assert (entry.kind, entry.number, entry.name) == ("bucket", 0, "media")
    assert (entry.items, entry.size_bytes) == (6, 60)
    assert (entry.details["index_files"], entry.details["newer_than_listed"], entry.details["history"]) == (
        2,
        1,
        False,
    )
    assert summary.positions == [{"listed_from": "1", "listed_to": "2"}]
    assert summary.losses == [Loss("a", "b", "c")]


def test_the_listings_are_held_against_the_index_to_their_end_and_what_they_lack_is_named():
    ended: list[str] = []
    relisting = SimpleNamespace(
        refusal=None, how="again", count=0, end=lambda: ended.append("again"),
        gaps=lambda: [Gap("a second listing", "failed", "shut")], losses=lambda: [Loss("l", "object", "new")],
    )  # fmt: skip
    report = SimpleNamespace(
        end=lambda: ended.append("report"), enumeration=lambda: Enumeration("objects", "a report", 0),
        losses=lambda: [Loss("r", "S3 Inventory", "lacks it")],
    )  # fmt: skip
    bucket = SimpleNamespace(
        not_utf_8=(),
        name="media", prefix="", server="memory",
        configuration=lambda: {"denied": ["policy"], "b": 1, "a": 2}, tags_readable=bool,
    )  # fmt: skip
    totals = closing().inventory.totals
    totals.shards = 1
    inventory = SimpleNamespace(
        totals=totals,
        selection=Selection(),
        shard=lambda number: SimpleNamespace(num_rows=2),
        objects=lambda shard, start, count: [SimpleNamespace(is_delete_marker=False)],
    )
    files = Files()
    summary = SummaryWriter(bucket, inventory, Workspace(), None, relisting, report).run([], files)
    assert ended == ["again", "report"]
    assert summary.gaps == [Gap("a second listing", "failed", "shut")]
    assert [(loss.item, loss.property) for loss in summary.losses] == [
        ("media", "bucket policy"), ("l", "object"), ("r", "S3 Inventory"),
    ]  # fmt: skip
    assert json.loads(files.files[source_summary.CONFIGURATION]) == {"denied": ["policy"], "a": 2, "b": 1}
    assert list(files.files) == ["index/objects-000000.parquet", source_summary.CONFIGURATION]
    totals.shards = 0
    summary = SummaryWriter(bucket, inventory, Workspace(), None, relisting).run([], Files())
    assert "tags" in [loss.property for loss in summary.losses]


def test_settings_that_change_are_named_from_one_run_to_the_next():
    settings = {
        "tagging": {"a": 1},
        "cors": {},
        "acl": {"g": 1},
        "denied": ["website"],
        "failing": ["logging"],
    }
    noted = NotedBucket("media", "", "memory", settings=settings)
    later = {"tagging": {"a": 2}, "cors": {}, "policy": {"p": MOMENT}, "website": {"w": 1}, "denied": ["acl"]}
    assert noted.changed_until(later) == ("policy", "tagging")
    workspace = Workspace()
    msgspec.structs.replace(noted, settings=later, changed=noted.changed_until(later)).note(workspace)
    again = noted_bucket(workspace)
    assert again.changed_until(later | {"cors": {"x": 1}}) == ("cors", "policy", "tagging")
    assert msgspec.structs.replace(again, settings=None).changed_until(later) == ("policy", "tagging")


def test_settings_whose_lists_come_in_another_order_are_the_same():
    """MinIO and versitygw answer so: the tags of a bucket, and the actions and resources of its policy."""

    def settings(*names):
        policy = {"Statement": [{"Action": list(names), "Resource": "r"}]}
        return {
            "tagging": {"TagSet": [{"Key": name} for name in names]},
            "policy": {"Policy": json.dumps(policy)},
        }

    noted = NotedBucket("media", "", "memory", settings=settings("a", "b"))
    assert noted.changed_until(settings("b", "a")) == ()
    assert noted.changed_until(settings("b", "c")) == ("policy", "tagging")


def test_without_a_second_listing_a_report_may_be_the_other_count():
    report = SimpleNamespace(
        enumeration=lambda: Enumeration("objects", "a report", 5), losses=lambda: [Loss("r", "b", "c")]
    )
    summary = closing(refusal=ValueError("shut"), versions=True, prefix="p/", report=report)._summary([])
    assert [(each.what, each.how) for each in summary.enumerations] == [
        ("versions", "the listing"),
        ("versions", "rows of the index"),
        ("objects", "a report"),
    ]
    assert [loss.item for loss in summary.losses] == ["r"]
    assert (summary.entries[0].name, summary.entries[0].details["history"]) == ("media/p/", True)


@pytest.mark.parametrize(
    ("totals", "configuration", "readable", "lost"),
    [
        ({}, {}, True, []),
        ({}, {}, False, ["tags"]),
        ({}, {"denied": ["policy"], "failing": ["cors"]}, True, ["bucket policy", "bucket cors"]),
        ({"versions": None}, {}, True, ["versions"]),
        ({}, {"versioning": {"Status": "Enabled"}}, True, ["versions"]),
        ({"versions": True}, {"versioning": {"Status": "Enabled"}}, True, []),
        ({"server": HIDES}, {}, True, ["keys below the names of objects"]),
    ],
)
def test_what_a_bundle_does_not_hold_of_a_bucket_is_a_loss(
    monkeypatch, totals, configuration, readable, lost
):
    monkeypatch.setattr(source_summary, "lists_no_keys_beneath", lambda server: server == HIDES)
    losses = closing(**totals)._losses(configuration, tags_readable=readable)
    assert [loss.property for loss in losses] == lost


def test_a_choice_of_current_versions_is_said_to_be_one():
    configuration = {"versioning": {"Status": "Enabled"}}
    reasons = [
        loss.reason
        for choice in ("", '{"current_only": true}')
        for loss in closing(choice=choice)._losses(configuration, tags_readable=True)
    ]
    assert [reason.endswith("as was chosen") for reason in reasons] == [False, True]


def test_what_was_read_takes_the_place_of_what_was_listed():
    etags: list[str | None] = ["a", "b", "c", "d", "e", "f"]
    table = pa.table(
        {
            "position": [0, 1, 2, 3, 4, 5],
            "etag": ["a", "newer", None, "x", "", "0"],
            "disposition": ["exported", "exported", "failed", "failed", "exported", "exported"],
            "reason": ["", "", changed_objects.DELETED, "broken", "", ""],
        }
    )
    assert source_summary._put_read(etags, table) == 2
    assert etags == ["a", "newer", None, "d", "", "0"]


class Files:
    """Keeps the files that are written."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    @contextmanager
    def create(self, name: str) -> Iterator[BytesIO]:
        file = BytesIO()
        yield file
        self.files[name] = file.getvalue()


def rows(count: int, disposition: str = "exported") -> pa.Table:
    empty = index_rows.INDEX.empty_table().to_pydict()
    columns = {name: [None] * count for name in empty} | {
        "key": [str(number) for number in range(count)],
        "size": [10] * count,
        "disposition": [disposition] * count,
    }
    return pa.table(
        {name: pa.array(columns[name], index_rows.INDEX.field(name).type) for name in index_rows.INDEX.names}
    )


@pytest.mark.parametrize(
    ("shards", "files"),
    [([], [0]), ([3, 2], [5]), ([3, 3], [3, 3]), ([2, 3, 1, 5, 4], [5, 1, 5, 4]), ([0, 5], [5])],
)
def test_the_index_is_cut_between_shards(monkeypatch, shards, files):
    monkeypatch.setattr(source_summary, "INDEX_ROWS", 5)
    sink, counts = Files(), ObjectCounts()
    source_summary._write_index(iter([rows(count) for count in shards]), sink, counts)
    assert [pq.read_metadata(BytesIO(data)).num_rows for data in sink.files.values()] == files
    assert list(sink.files) == [f"index/objects-{number:06d}.parquet" for number in range(len(files))]
    assert (counts.files, counts.rows, counts.exported, counts.size_bytes) == (
        len(files), sum(shards), sum(shards), 10 * sum(shards),
    )  # fmt: skip


def test_only_what_was_exported_counts_as_such():
    counts = ObjectCounts()
    source_summary._write_index(iter([rows(3), rows(2, "failed")]), Files(), counts)
    assert (counts.rows, counts.exported, counts.size_bytes) == (5, 3, 30)
    assert (counts.reread, counts.gaps) == (0, [])


def missing(**spec: Any) -> tuple[pa.Table, ObjectCounts]:
    summaries = [
        ObjectSummary("small", 1, "e", MOMENT),
        ObjectSummary("edge", source_summary.SMALL_BYTES, "e", MOMENT),
        ObjectSummary("large", source_summary.SMALL_BYTES + 1, "e", MOMENT),
    ]
    one = SummaryWriter(
        SimpleNamespace(name="media", not_utf_8=()),
        SimpleNamespace(
            included=lambda shard, start, rows: enumerate(summaries[start : start + rows], start)
        ),
        SimpleNamespace(read=lambda name: None),
        SimpleNamespace(pack=lambda unit_id: "rows", large=lambda unit_id: None),
        None,
    )
    table = one._unit_rows(Unit("7", 1, 1, {"shard": 0, "start": 0, "rows": 3, **spec}))
    return table, one.counts


def test_objects_of_a_unit_that_was_not_done_are_gaps(monkeypatch):
    table, counts = missing(number=1)
    assert table["key"].to_pylist() == ["small", "edge"]
    assert [gap.item for gap in counts.gaps] == ["small", "edge"]
    assert {gap.disposition for gap in counts.gaps} == {"failed"}
    assert missing(start=2, rows=1)[0]["key"].to_pylist() == ["large"]
    monkeypatch.setattr(source_summary, "_NAMED_GAPS", 1)
    table, counts = missing(number=1)
    assert (table.num_rows, [gap.item for gap in counts.gaps]) == (2, ["2 objects from 'small' to 'edge'"])
    monkeypatch.setattr(source_summary, "_NAMED_GAPS", 2)
    assert len(missing(number=1)[1].gaps) == 2


def test_shards_are_gathered_from_units_in_their_order():
    units = [Unit(str(number), 1, 1, {"shard": shard}) for number, shard in enumerate([0, 0, 1, 3, 3])]
    gathered = [(shard, [unit.id for unit in these]) for shard, these in source_summary._by_shard(units)]
    assert gathered == [(0, ["0", "1"]), (1, ["2"]), (3, ["3", "4"])]
    assert list(source_summary._by_shard([])) == []


def test_finished_units_are_found_by_their_id(monkeypatch):
    monkeypatch.setattr(source_summary, "rows_file", lambda done: f"rows of {done.unit.id}")
    monkeypatch.setattr(index_rows, "from_json", lambda row: row)
    large = DoneUnit(Unit("large", 1, 1, {}), Outcome(1, 1, facts={"row": {"key": "a"}}), [])
    pack = DoneUnit(Unit("pack", 1, 1, {}), Outcome(1, 1, facts={}), [])
    finished = FinishedUnits([large, pack])
    assert (finished.pack("pack"), finished.pack("large"), finished.pack("x")) == ("rows of pack", None, None)
    assert (finished.large("large"), finished.large("pack")) == ({"key": "a"}, None)
    finished.close()
