"""Outlines of several snapshots of a database that is gone: which one says what there is."""

from __future__ import annotations

import json

import pytest

from exporters.api import OUTLINE, DoneUnit, Outcome, Unit
from exporters.errors import SourceError
from exporters.sql.chunk_plan import PlannedTable, spec, unit_id
from exporters.sql.outline import NO_DEFINITIONS, Outline, summary_of_gone
from exporters.sql.source_summary import Counted, Exported, HowCounted
from exporters.testing import MemoryWorkspace


def outline(name: str, *, is_bare: bool = False, position: str = "") -> Outline:
    gaps = [NO_DEFINITIONS] if is_bare else []
    planned = PlannedTable(1, "public", name, "", ((0, 10),))
    table = Exported(1, "public", name, name, None, {})
    return Outline({}, [table], [planned], gaps, [], [{"of": position or name}], "server")


BARE, WITH_DEFINITIONS = outline("t", is_bare=True), outline("t")
RENAMED, BARE_AND_RENAMED = outline("renamed"), outline("renamed", is_bare=True)


@pytest.mark.parametrize(
    ("noted", "entry", "has_definitions"),
    [
        ([BARE], "t", False),
        ([BARE, WITH_DEFINITIONS], "t", True),
        ([WITH_DEFINITIONS, BARE], "t", True),
        ([WITH_DEFINITIONS, outline("t", is_bare=True, position="later")], "t", True),
        ([WITH_DEFINITIONS, BARE_AND_RENAMED], "t", True),
        ([BARE, RENAMED], "renamed", True),
        ([WITH_DEFINITIONS, RENAMED], "renamed", True),
        ([WITH_DEFINITIONS, outline("a"), outline("b"), BARE_AND_RENAMED], "b", True),
    ],
)
def test_of_outlines_under_which_nothing_was_exported_the_latest_with_definitions_counts(
    noted, entry, has_definitions
):
    workspace = MemoryWorkspace()
    for each in noted:
        each.note(workspace)
    summary = summary_of_gone(workspace, [], None, SourceError("gone"))
    assert [row.name for row in summary.entries] == [entry]
    assert summary.positions == noted[-1].positions, "the snapshot is the latest"
    assert (NO_DEFINITIONS not in summary.gaps) is has_definitions


@pytest.mark.parametrize(
    ("noted", "kept"),
    [
        ([BARE, WITH_DEFINITIONS], ["t"]),
        ([WITH_DEFINITIONS, WITH_DEFINITIONS], ["t"]),
        ([WITH_DEFINITIONS, RENAMED], ["renamed", "t"]),
        ([outline(name) for name in "abcd"], ["d", "c", "b"]),
    ],
)
def test_the_latest_outlines_are_kept_one_of_each_set_of_tables(noted, kept):
    workspace = MemoryWorkspace()
    for each in noted:
        each.note(workspace)
    outlines = json.loads(workspace.read(OUTLINE))
    assert [each["tables"][0]["name"] for each in outlines] == kept


def test_rows_of_a_dropped_table_are_not_those_of_the_table_that_has_its_number():
    dropped = PlannedTable(1, "public", "dropped", "", ((0, 10),))
    unit = Unit(unit_id(dropped.directory, 0), 5, 0, spec(dropped, 0))
    done = DoneUnit(unit, Outcome(5, 0, 0, facts={"parts": [], "exact": []}), [], is_compared=False)
    how = HowCounted(("listed", 1), "counted", "measured")
    summary = outline("t").finished([done], {1: Counted(5, {})}, how)
    assert [row.items for row in summary.entries] == [0]
    assert [gap.reason for gap in summary.gaps] == ["0 of 5 rows were exported"]
