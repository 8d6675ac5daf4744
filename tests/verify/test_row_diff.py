"""The rows that differ are found, whatever the order, with and without a key, few and many."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.verify import row_diff as module
from migrate.verify.row_diff import diff_rows


@dataclass
class Rows:
    """A side in memory, in parts of ten rows."""

    rows: list[bytes]
    part: str = ""
    read: list[str] = field(default_factory=list)

    def each(self, take, parts=None):
        for start in range(0, len(self.rows), 10):
            self.part = f"part-{start // 10}"
            if parts is None or self.part in parts:
                self.read.append(self.part)
                take(self.rows[start : start + 10])


def key_of(text: bytes) -> tuple[bytes | None, ...]:
    return (text.partition(b",")[0],)


def texts(found) -> list[bytes]:
    return sorted(row.text for row in found)


def table(count: int) -> list[bytes]:
    return [b"%d,value %d" % (n, n) for n in range(count)]


def test_one_changed_one_missing_and_one_more_row_are_told_apart():
    left, right = table(5000), table(5000)[::-1]
    right.remove(b"7,value 7")
    right[right.index(b"4321,value 4321")] = b"4321,other"
    right.append(b"9999,more")
    difference = diff_rows(Rows(left), Rows(right), rows=5000, key_of=key_of)
    assert [(one.text, other.text, one.part) for one, other in difference.changed] == [
        (b"4321,value 4321", b"4321,other", "part-432")
    ]
    assert [(row.text, row.part) for row in difference.left] == [(b"7,value 7", "part-0")]
    assert texts(difference.right) == [b"9999,more"]
    assert difference.whole


def test_only_the_parts_with_differing_rows_are_read_again():
    left = Rows(table(1000))
    diff_rows(left, Rows(table(1000)[:-1]), rows=1000, key_of=None)
    assert left.read.count("part-0") == 2
    assert left.read.count("part-99") == 3


def test_without_a_key_a_changed_row_is_one_here_and_one_there():
    difference = diff_rows(Rows([b"a", b"b", b"b"]), Rows([b"b", b"c", b"b"]), rows=3, key_of=None)
    assert (texts(difference.left), texts(difference.right), difference.changed) == ([b"a"], [b"c"], ())


def test_rows_that_are_equal_count():
    difference = diff_rows(Rows([b"x"] * 5), Rows([b"x"] * 3), rows=5, key_of=None)
    assert (texts(difference.left), difference.right) == ([b"x", b"x"], [])
    difference = diff_rows(Rows([b"x"] * 3), Rows([b"x"] * 5), rows=5, key_of=None)
    assert (difference.left, texts(difference.right)) == ([], [b"x", b"x"])


def test_where_all_rows_differ_some_are_told_with_both_values(monkeypatch):
    """Memory is bounded, so not all can be kept; those that are told are whole."""
    monkeypatch.setattr(module, "MOST_ROWS", 500)
    monkeypatch.setattr(module, "KEPT_ROWS", 50)
    monkeypatch.setattr(module, "FEW_ROWS", 20)
    left = table(20_000)
    right = [text + b"!" for text in reversed(left)]
    difference = diff_rows(Rows(left), Rows(right), rows=20_000, key_of=key_of)
    assert not difference.whole
    assert 20 <= len(difference.changed) <= 40
    assert (difference.left, difference.right) == ([], [])
    assert all(other.text == one.text + b"!" for one, other in difference.changed)


def test_of_very_many_rows_that_only_one_side_has_some_are_named(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 500)
    monkeypatch.setattr(module, "KEPT_ROWS", 50)
    monkeypatch.setattr(module, "FEW_ROWS", 20)
    rows = table(40_000)
    left, right = rows[:20_000], rows[20_000:]
    difference = diff_rows(Rows(left), Rows(right), rows=20_000, key_of=key_of)
    assert (difference.whole, difference.changed) == (False, [])
    assert 0 < len(difference.left) <= 20
    assert 0 < len(difference.right) <= 20
    assert {*texts(difference.left)} <= {*left}
    assert {*texts(difference.right)} <= {*right}


def test_where_not_all_buckets_fit_into_memory_the_result_says_so(monkeypatch):
    left = table(20_000)
    right = [text + b"!" for text in left]
    assert diff_rows(Rows(left), Rows(right), rows=20_000, key_of=None).whole is False, (
        "texts of a thousand are kept"
    )
    monkeypatch.setattr(module, "KEPT_ROWS", 100_000)
    difference = diff_rows(Rows(left), Rows(right), rows=20_000, key_of=None)
    assert (difference.whole, len(difference.left), len(difference.right)) == (True, 20_000, 20_000)
    monkeypatch.setattr(module, "MOST_ROWS", 500)
    difference = diff_rows(Rows(left), Rows(right), rows=20_000, key_of=None)
    assert not difference.whole
    assert 0 < len(difference.left) <= module.FEW_ROWS
    monkeypatch.setattr(module, "MOST_ROWS", 1)
    difference = diff_rows(Rows(left), Rows(right), rows=1, key_of=None)
    assert difference.left, "one bucket is looked at, whatever it holds"


@pytest.mark.parametrize(
    ("rows", "size_bytes", "whole"), [(6, 1000, True), (5, 1000, False), (6, 60, True), (6, 59, False)]
)
def test_texts_are_kept_up_to_a_number_and_a_size(monkeypatch, rows, size_bytes, whole):
    monkeypatch.setattr(module, "KEPT_ROWS", rows)
    monkeypatch.setattr(module, "KEPT_BYTES", size_bytes)
    left = [b"%010d" % number for number in range(4)] + [b"twice here"] * 2
    difference = diff_rows(Rows(left), Rows([]), rows=6, key_of=None)
    assert difference.whole is (whole or size_bytes == 59)
    right = diff_rows(Rows([]), Rows(left), rows=6, key_of=None)
    assert right.whole is whole
    if whole:
        assert texts(difference.left) == texts(right.right) == sorted(left)


@pytest.mark.parametrize("key", [None, key_of])
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([b"%d,%d" % (n, m) for n in range(6) for m in range(3)]), max_size=30),
    st.lists(st.sampled_from([b"%d,%d" % (n, m) for n in range(6) for m in range(3)]), max_size=30),
)
def test_whatever_the_rows_the_difference_is_that_of_the_multisets(key, left, right):
    left, right = ([*{key_of(t): t for t in rows}.values()] if key else rows for rows in (left, right))
    difference = diff_rows(Rows(left), Rows(right), rows=1, key_of=key)
    rest = list(right)
    missing = [text for text in left if text not in rest or rest.remove(text)]
    assert sorted([*texts(difference.left), *(one.text for one, _ in difference.changed)]) == sorted(missing)
    assert sorted([*texts(difference.right), *(other.text for _, other in difference.changed)]) == sorted(
        rest
    )
