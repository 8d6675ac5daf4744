"""What was found, as people and as programs read it."""

from __future__ import annotations

from migrate.bundle.findings import Finding, RowDifference


def test_a_finding_says_what_it_has_and_no_more():
    plain = Finding("data/a", "is missing")
    assert str(plain) == "data/a: is missing"
    assert plain.as_json() == {"key": "data/a", "what": "is missing", "expected": "", "found": ""}
    both = Finding("data/a", "differs", "1", "2")
    assert str(both) == "data/a: differs: expected 1, found 2"
    assert str(Finding("data/a", "differs", found="2")) == "data/a: differs: found 2"
    row = RowDifference("changed", (("id", "1"),), (("name", None),), (("name", "x"),), "part-0")
    assert Finding("t", "differs", rows=(row,), incomplete=True).as_json() == {
        "key": "t",
        "what": "differs",
        "expected": "",
        "found": "",
        "rows": [
            {
                "side": "changed",
                "key": {"id": "1"},
                "expected": {"name": None},
                "found": {"name": "x"},
                "part": "part-0",
            }
        ],
        "incomplete": True,
    }
