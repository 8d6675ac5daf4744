"""What makes a source incomplete, and what ``meta/reconciliation.json`` says of it."""

from __future__ import annotations

import json

import pytest

from exporters.api import CatalogEntry, Enumeration, Gap, SourceSummary
from migrate.bundle import canonical_json
from migrate.bundle.export_ledger import Totals
from migrate.bundle.reconciliation import (
    INLINE_FAILURES,
    SourceReconciliation,
    decode,
    reasons_incomplete,
    reconciliation_json,
    used_positions,
)
from migrate.errors import DamageError

ROWS = [Enumeration("rows", "count(*)", 5), Enumeration("rows", "exported", 5)]


def entry(items: int, kind="table", number=1) -> CatalogEntry:
    return CatalogEntry(kind, number, "", "t", items, 0, "", {})


def test_failed_units_are_named_and_what_was_counted_is_compared_all_the_same():
    failures = [f"unit {number} failed" for number in range(INLINE_FAILURES + 2)]
    unfinished = SourceSummary([], [])
    assert reasons_incomplete(unfinished, Totals(0, 0, 0), {}, failures[:INLINE_FAILURES]) == failures[:-2]
    assert reasons_incomplete(unfinished, Totals(0, 0, 0), {}, failures)[-1] == "2 more units failed"
    finished = SourceSummary([entry(5)], [ROWS[0], Enumeration("rows", "exported", 4)])
    assert reasons_incomplete(finished, Totals(1, 5, 0), {}, failures[:1]) == [
        "unit 0 failed",
        "the counts of rows differ: count(*): 5, exported: 4",
    ]


def test_a_count_that_was_not_made_is_no_count():
    """Neither one of two ways, nor a zero that others must equal, nor all that there is."""
    uncounted = Enumeration("rows", "sampled", 0, "too slow")
    assert reasons_incomplete(SourceSummary([entry(5)], [*ROWS, uncounted]), Totals(1, 5, 0), {}) == []
    assert reasons_incomplete(SourceSummary([entry(5)], [ROWS[0], uncounted]), Totals(1, 5, 0), {}) == [
        "rows were counted in one way only (count(*): 5)"
    ]
    assert reasons_incomplete(SourceSummary([entry(5)], [uncounted]), Totals(1, 5, 0), {}) == [
        "nothing was counted"
    ]
    other = [Enumeration("tables", "listed", 1), Enumeration("tables", "exported", 1, "not asked")]
    assert reasons_incomplete(SourceSummary([entry(5)], [*ROWS, *other]), Totals(1, 5, 0), {}) == [
        "tables were counted in one way only (listed: 1)"
    ]


def test_what_failed_is_counted_and_explains_a_difference():
    """Gaps add to the objects of a bucket, not to the rows of a table; a failed one is a reason of its own."""
    bucket = SourceSummary([entry(3, "bucket")], ROWS)
    assert reasons_incomplete(bucket, Totals(1, 3, 0), {"failed": 1, "excluded": 1}) == [
        "1 item could not be exported"
    ]
    assert reasons_incomplete(bucket, Totals(1, 3, 0), {"failed": 3}) == ["3 items could not be exported"]
    assert reasons_incomplete(bucket, Totals(1, 3, 0), {"excluded": 2}) == []
    table = SourceSummary([entry(3)], ROWS)
    assert reasons_incomplete(table, Totals(1, 3, 0), {"excluded": 2}) == [
        "3 items are accounted for, but none of the counts says so: [5]"
    ]


@pytest.mark.parametrize(
    ("summary", "gaps", "reason"),
    [
        (SourceSummary([], []), {}, "it is empty: there is no table in it"),
        (SourceSummary([entry(0, "large objects", 0)], []), {}, "it is empty: there is no table in it"),
        (SourceSummary([entry(0, "table", 1)], []), {}, ""),
        (SourceSummary([], [], has_definitions=True), {}, ""),
        (SourceSummary([entry(0, "bucket")], []), {}, "it is empty: there is no object in it"),
        (
            SourceSummary([entry(0, "bucket")], []),
            {"excluded": 1200},
            "it is empty: all objects in it (1,200) were excluded",
        ),
    ],
)
def test_an_empty_source_is_incomplete_unless_it_may_be_empty(summary, gaps, reason):
    counts = [Enumeration("items", way, sum(gaps.values())) for way in ("listed", "counted")]
    summary = SourceSummary(summary.entries, counts, has_definitions=summary.has_definitions)
    reasons = reasons_incomplete(summary, Totals(0, 0, 0), gaps)
    assert reasons == (
        [f"{reason}: check its name, prefix and filters, or say --allow-empty"] if reason else []
    )
    assert reasons_incomplete(summary, Totals(0, 0, 0), gaps, may_be_empty=True) == []


def test_positions_are_those_of_units_and_the_newest_oldest_first():
    first, idle, second, newest, unknown = ({"lsn": f"0/{number}"} for number in range(5))
    used = [(second, 1, 7), (unknown, 2, 4), (first, 3, 9)]
    assert used_positions([first, idle, second, newest], used) == [
        {**unknown, "units": 2, "items": 4},
        {**first, "units": 3, "items": 9},
        {**second, "units": 1, "items": 7},
        {**newest, "units": 0, "items": 0},
    ]
    assert used_positions([], []) == []


def reconciled(*, dispositions=None, reasons=(), uncounted="") -> SourceReconciliation:
    gaps = [Gap("a", "failed", "gone"), Gap("b", "excluded", "as told")]
    counts = [Enumeration("rows", "count(*)", 0 if uncounted else 5, uncounted)]
    summary = SourceSummary([], counts, gaps, positions=[{"lsn": "0/1"}], server="PostgreSQL")
    dispositions = {"exported": 5, "failed": 1, "excluded": 3} if dispositions is None else dispositions
    return SourceReconciliation(
        "app", "postgresql://h/app", summary, Totals(2, 5, 70), dispositions, gaps, [*reasons]
    )


def test_the_file_says_all_of_it_and_is_read_as_it_was_written():
    whole, partly = reconciled(), reconciled(reasons=["1 item could not be exported"], uncounted="too slow")
    written = reconciliation_json([whole, partly])
    assert (written["complete"], [source["complete"] for source in written["sources"]]) == (
        False,
        [True, False],
    )
    assert written["sources"][0]["gaps_total"] == 4
    assert reconciliation_json([whole])["complete"] is True
    assert decode(canonical_json.encode_pretty(written)) == [whole, partly]


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.update(items=-1),
        lambda it: it.update(size_bytes=2**63),
        lambda it: it["gaps"][0].update(disposition="exported"),
        lambda it: it.pop("reasons"),
        lambda it: it.update(positions=[1]),
        lambda it: it.update(name="../x"),
    ],
)
def test_a_malformed_file_is_damage(change):
    value = json.loads(json.dumps(reconciliation_json([reconciled()])))
    change(value["sources"][0])
    with pytest.raises(DamageError, match=r"meta/reconciliation\.json"):
        decode(canonical_json.encode_pretty(value))
