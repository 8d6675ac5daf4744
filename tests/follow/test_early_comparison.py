"""Which tables are still equal while the source is written to, and why the others are not; rows in memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from exporters.engine import WriteState
from exporters.row_digest import RowsDigest, digest_texts
from exporters.touched_rows import RowKey, TouchedRows
from migrate.case.model import Endpoint
from migrate.changes.apply import Mark
from migrate.errors import UsageError
from migrate.follow import early_comparison
from migrate.follow.early_comparison import EarlyComparison, digests_with_keys, keyed_rows

NAME, OTHER = ("public", "t"), ("public", "u")


class Side:
    """The rows of one table by their key."""

    def __init__(self, exact: bool = True, **rows: str) -> None:
        self.rows = rows
        self.exact = exact

    def has_exact_keys(self, schema: str, name: str, columns: Sequence[str]) -> bool:
        assert ((schema, name) in {NAME, OTHER}, tuple(columns)) == (True, ("id",))
        return self.exact

    def digest_with_keys(
        self, schema: str, name: str, columns: Sequence[str], keys: Sequence[RowKey]
    ) -> RowsDigest:
        assert ((schema, name) in {NAME, OTHER}, tuple(columns)) == (True, ("id",))
        wanted = [key.decode() for (key,) in keys]
        return digest_texts([f"{key}={self.rows[key]}".encode() for key in wanted if key in self.rows])

    def key_text(self, schema: str, name: str, columns: Sequence[str], key: RowKey) -> str:
        return f"{name}'s {columns[0]} {key[0].decode()}"

    def whole(self) -> dict:
        return {NAME: self.of(*self.rows)}

    def of(self, *keys: str) -> RowsDigest:
        return self.digest_with_keys(*NAME, ("id",), [(key.encode(),) for key in keys])


def touched(*keys: str, reason: str = "") -> dict:
    return {NAME: TouchedRows(("id",), {(key.encode(),) for key in keys}, reason)}


def nothing() -> None:
    pass


def begun(source: Side, destination: Side, *keys: str) -> EarlyComparison:
    early = EarlyComparison(Mark(0), {})
    early.begin(source, destination, (source.whole(), destination.whole()), touched(*keys), nothing)
    return early


def test_a_table_is_taken_where_only_touched_rows_differ():
    source, destination = Side(a="1", b="2", c="3"), Side(a="1", b="1")
    early = begun(source, destination, "b", "c")
    assert (early.digests, early.dropped) == (destination.whole(), {})


def test_a_table_whose_other_rows_differ_is_dropped():
    early = begun(Side(a="1", b="2"), Side(a="2", b="1"), "b")
    assert early.digests == {}
    assert early.dropped == {NAME: "it was not the same on both sides before the hold"}


def test_only_tables_that_both_sides_have_are_taken():
    early, one = EarlyComparison(Mark(0), {}), digest_texts([b"1"])
    digests = {NAME: one, ("", "only here"): one}, {NAME: one, ("", "only there"): one}
    early.begin(Side(), Side(), digests, {}, nothing)
    assert (early.digests, early.dropped) == ({NAME: one}, {})


@pytest.mark.parametrize("at_source", [True, False])
def test_keys_of_which_equal_values_have_several_texts_drop_their_table(at_source):
    early = begun(Side(exact=not at_source, a="1"), Side(exact=at_source, a="1"), "a")
    assert early.dropped == {NAME: "equal values of its key may have several texts"}


@pytest.mark.parametrize(
    ("keys", "rows", "is_held", "drops"),
    [
        (3, 23, True, True),
        (3, 24, True, False),
        (2, 1, True, False),
        (1, 0, True, False),
        (3, 23, False, False),
    ],
)
def test_many_touched_rows_are_not_compared_by_keys_under_the_hold(monkeypatch, keys, rows, is_held, drops):
    monkeypatch.setattr(early_comparison, "_MANY_KEYS", 2)
    early = EarlyComparison(Mark(0), {}, digests={NAME: RowsDigest(rows)})
    left = early.comparable(touched(*map(str, range(keys))), is_held=is_held)
    assert early.dropped == ({NAME: "a large part of its rows was written to"} if drops else {})
    assert list(left) == ([] if drops else [NAME])


def test_a_table_of_which_the_log_does_not_name_all_rows_is_dropped():
    early = EarlyComparison(Mark(0), {}, digests={NAME: RowsDigest(1)})
    assert early.comparable(touched("a", reason="it was emptied") | {("", "u"): TouchedRows()}) == {}
    assert early.dropped == {NAME: "it was emptied"}


def test_a_round_moves_the_digest_on_and_leaves_rows_that_changed_again_to_the_next():
    before = Side(a="1", b="1", c="1")
    early = begun(before, before)
    destination = Side(a="2", b="2", c="1", d="1")
    source = Side(a="2", b="3", c="1", d="1")
    rows_before = {NAME: before.of("a", "b", "d")}
    early.take_round(source, destination, touched("a", "b", "d"), touched("b"), rows_before, nothing)
    assert (early.digests, early.dropped, early.touched) == (destination.whole(), {}, {NAME: 2})


@pytest.mark.parametrize("different", ["a", "b", "c", "d", "e"])
def test_a_round_names_the_row_that_differs(different):
    before = Side()
    early = begun(before, before)
    keys = dict.fromkeys("abcde", "1")
    destination = Side(**(keys | {different: "2"}))
    early.take_round(Side(**keys), destination, touched(*keys), {}, {NAME: before.of()}, nothing)
    assert early.dropped == {NAME: f"its rows with t's id {different} are not the same on both sides"}
    assert (early.digests, early.touched) == ({}, {})


def test_a_round_goes_on_after_a_table_that_differs():
    before = Side()
    early = EarlyComparison(Mark(0), {}, digests={name: before.of() for name in (NAME, OTHER)})
    keys = touched("a") | {OTHER: TouchedRows(("id",), {(b"b",)})}
    rows_before = {name: before.of() for name in (NAME, OTHER)}
    early.take_round(Side(a="1", b="1"), Side(a="2", b="1"), keys, {}, rows_before, nothing)
    assert (list(early.dropped), early.digests) == ([NAME], {OTHER: Side(b="1").of("b")})


def test_a_round_drops_what_later_changes_do_not_name():
    early = begun(Side(), Side())
    early.take_round(
        Side(), Side(), touched("a"), touched(reason="it was emptied"), {NAME: RowsDigest()}, nothing
    )
    assert early.dropped == {NAME: "it was emptied"}


def test_changes_whose_rows_are_not_known_drop_their_table():
    other = ("public", "u")
    early = EarlyComparison(Mark(0), {}, digests={NAME: RowsDigest(1), other: RowsDigest(1)})
    early.add_written({NAME: 2, other: 1}, 7, {NAME})
    early.add_written({NAME: 3}, 1, {NAME})
    assert (early.written, early.written_of_server) == ({NAME: 5, other: 1}, 8)
    assert early.dropped == {other: "it was written to after the comparison before the hold"}


BEFORE = WriteState("s", 10), WriteState("d", 20)
STRANGER = "somebody else may have written to it at the destination"
UNCOUNTED = WriteState("s", None, None, "then"), WriteState("d", None, None, "then")
TIMED = WriteState("s", None, 7, "then", 4), WriteState("d", None, 10, "then", 4)
BY_SERVER = WriteState("s", None, 7, "then"), WriteState("d", None, 10, "then")


@pytest.mark.parametrize(
    ("states", "is_touched", "reason"),
    [
        ((WriteState("s", 10), WriteState("d", 23)), False, ""),
        ((WriteState("s", 13), WriteState("d", 23)), True, ""),
        (None, False, "a server does not say whether it was written to"),
        (
            (WriteState("s", 10), WriteState("e", 23)),
            False,
            "the destination's server says that it was changed, or counts anew",
        ),
        (
            (WriteState("t", 10), WriteState("d", 23)),
            False,
            "the source's server says that it was changed, or counts anew",
        ),
        (
            (WriteState("s", 10), WriteState("c", 23)),
            False,
            "the destination's server says that it was changed, or counts anew",
        ),
        (
            (WriteState("r", 10), WriteState("d", 23)),
            False,
            "the source's server says that it was changed, or counts anew",
        ),
        ((WriteState("s", 10), WriteState("d", 24)), False, STRANGER),
        ((WriteState("s", 10), WriteState("d", 22)), True, STRANGER),
        (
            (WriteState("s", 13), WriteState("d", 23)),
            False,
            "the source's server has counted writes that are not in the log",
        ),
    ],
)
def test_a_table_to_which_anybody_else_has_written_is_not_equal_any_more(states, is_touched, reason):
    early = EarlyComparison(Mark(0), {NAME: BEFORE}, digests={NAME: RowsDigest(1)}, written={NAME: 3})
    early.touched = {NAME: 1} if is_touched else {}
    assert early.still_equal({NAME: states} if states else {}) == ({} if reason else {NAME: RowsDigest(1)})
    assert early.dropped == ({NAME: reason} if reason else {})


@pytest.mark.parametrize(
    ("before", "source", "destination", "is_touched", "reason"),
    [
        (UNCOUNTED, UNCOUNTED[0], UNCOUNTED[1], False, ""),
        (
            UNCOUNTED, UNCOUNTED[0], WriteState("d", None, None, "now"), True,
            "the destination's server does not count the rows that are written to it",
        ),
        (
            UNCOUNTED, UNCOUNTED[0], WriteState("d", None, None, "yesterday"), True,
            "the destination's server does not count the rows that are written to it",
        ),
        (UNCOUNTED, UNCOUNTED[0], WriteState("d", None, 5, "then"), False, ""),
        (BY_SERVER, BY_SERVER[0], WriteState("d", None, None, "then"), False, ""),
        (
            UNCOUNTED, WriteState("s", None, None, "now"), UNCOUNTED[1], False,
            "the source's server has counted writes that are not in the log",
        ),
        (BY_SERVER, WriteState("s", None, 9, "then"), WriteState("d", None, 15, "now"), False, ""),
        (BY_SERVER, WriteState("s", None, 9, "now"), WriteState("d", None, 15, "now"), True, ""),
        (
            BY_SERVER, WriteState("s", None, 9, "then"), WriteState("d", None, 16, "now"), True,
            "somebody else may have written to tables of the destination's server",
        ),
        (
            TIMED, TIMED[0], WriteState("d", None, 99, "then", 4), True,
            "somebody else may have written to tables of the destination's server",
        ),
    ],
)  # fmt: skip
def test_servers_that_count_otherwise_prove_less(before, source, destination, is_touched, reason):
    early = EarlyComparison(Mark(0), {NAME: before}, digests={NAME: RowsDigest(1)}, written={NAME: 3})
    early.written_of_server = 5
    early.touched = {NAME: 1} if is_touched else {}
    early.still_equal({NAME: (source, destination)})
    assert early.dropped == ({NAME: reason} if reason else {})


@pytest.mark.parametrize(
    ("destination", "is_equal"),
    [
        (WriteState("d", None, 99, "then", 4), True),
        (WriteState("d", None, 99, "now", 4), False),
        (WriteState("d", None, 99, "then", 5), False),
        (WriteState("d", None, 99, "then"), False),
        (WriteState("e", None, 99, "then", 4), False),
    ],
)
def test_where_others_write_to_the_server_the_time_of_the_last_write_tells_a_quiet_table(
    destination, is_equal
):
    early = EarlyComparison(Mark(0), {NAME: TIMED}, digests={NAME: RowsDigest(1)})
    assert (NAME in early.still_equal({NAME: (TIMED[0], destination)})) is is_equal


@pytest.mark.parametrize(("rows", "counted"), [(22, False), (23, True), (24, True)])
def test_what_was_applied_is_counted_once_the_server_says_so(rows, counted):
    early = EarlyComparison(Mark(0), {NAME: BEFORE}, digests={NAME: RowsDigest(1)}, written={NAME: 3})
    assert early.are_counted({NAME: (BEFORE[0], WriteState("d", rows))}) is counted
    assert early.are_counted({})


@pytest.mark.parametrize(("written", "counted"), [({}, True), ({NAME: 1}, False)])
def test_a_server_that_counts_no_rows_has_counted_all_where_nothing_was_applied(written, counted):
    early = EarlyComparison(Mark(0), {NAME: UNCOUNTED}, digests={NAME: RowsDigest(1)}, written=written)
    assert early.are_counted({NAME: UNCOUNTED}) is counted


def test_a_table_to_which_nothing_was_applied_is_counted_as_before():
    early = EarlyComparison(Mark(0), {NAME: BEFORE}, digests={NAME: RowsDigest(1)})
    assert early.are_counted({NAME: BEFORE})
    assert early.still_equal({NAME: BEFORE}) == {NAME: RowsDigest(1)}


def test_rows_are_found_by_keys_where_the_engine_does_that(monkeypatch):
    class Keyed:
        def keyed_rows(self, url, *, secrets, is_one_moment):
            return url, secrets, is_one_moment

    endpoint = Endpoint("x://host/db")
    monkeypatch.setattr(early_comparison, "live_reader", lambda _: Keyed())
    for is_one_moment in (False, True):
        assert keyed_rows(endpoint, is_one_moment=is_one_moment) == (endpoint.url, {}, is_one_moment)
    assert keyed_rows(endpoint)[2] is False
    monkeypatch.setattr(early_comparison, "live_reader", lambda _: object())
    with pytest.raises(UsageError, match="x://host/db cannot be found by their keys"):
        keyed_rows(endpoint)


def test_rows_are_read_in_batches_and_each_asks_whether_to_go_on(monkeypatch):
    monkeypatch.setattr(early_comparison, "_BATCH_KEYS", 2)
    side, asked = Side(**dict.fromkeys("abcde", "1")), []
    digests = digests_with_keys(side, touched(*"abcde"), lambda: asked.append(1))
    assert (digests, len(asked)) == (side.whole(), 3)
