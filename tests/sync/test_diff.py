"""What there is to do, found from three lists by key."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.bucket_api import ObjectSummary, Page
from exporters.objects.key_oddities import Oddities
from migrate.sync.diff import AGAIN, Action, Comparison, SyncStep, decide
from migrate.sync.execute import BATCH_BYTES, BATCH_OBJECTS, batches
from migrate.sync.record.column_pages import Known, KnownPage, UnorderedError, microseconds
from migrate.sync.record.record_merge import folded, grouped, size_bytes_of, whole_keys
from migrate.sync.record.record_rows import begun_rows, plan_bytes, read_plan

THEN = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def listed(key: str, etag: str = "a", *, size: int = 1, modified: datetime = THEN) -> ObjectSummary:
    return ObjectSummary(key, size, etag, modified)


def known(key: str, etag: str = "a", destination: str = "a", *, begun: bool = False) -> Known:
    return Known(key, etag, 1, microseconds(THEN), destination, begun)


def pages(rows: list, size: int = 1000) -> list[Page]:
    return [Page.of(rows[at : at + size]) for at in range(0, len(rows), size)]


def known_pages(rows: list, size: int = 1000) -> list[KnownPage]:
    return [KnownPage.of(rows[at : at + size]) for at in range(0, len(rows), size)]


def walk(source: list, destination: list, record: list) -> list[SyncStep]:
    comparison = Comparison("", "", lambda *_: None, lambda _: False)
    steps = comparison.steps(pages(source), pages(destination), known_pages(record))
    return [step for step in steps if isinstance(step, SyncStep)]


@pytest.mark.parametrize(
    ("destination", "record", "expected"),
    [
        (None, None, (Action.COPY, "new", True)),
        (None, known("k"), (Action.COPY, "missing", True)),
        (listed("k"), known("k"), None),
        (listed("k"), None, (Action.LOOK, "there already", False)),
        (listed("k"), known("k", "older"), (Action.COPY, "changed", True)),
        (listed("k", "other"), known("k"), (Action.LOOK, "changed at the destination", False)),
        (listed("k", "other"), Known("k", begun=True), (Action.LOOK, "begun", True)),
        (listed("k", "other"), known("k", begun=True), (Action.LOOK, "begun", True)),
        (listed("k", size=2), known("k"), (Action.LOOK, "changed at the destination", False)),
    ],
)
def test_what_is_to_be_done(destination, record, expected):
    step = decide("k", listed("k"), destination, record)
    assert (None if step is None else (step.do, step.why, step.ours)) == expected
    has_row = record is not None and record.size_bytes >= 0
    assert step is None or (step.known, step.source, step.destination) == (has_row, listed("k"), destination)


def test_a_new_time_is_a_change_of_metadata():
    later = listed("k", modified=THEN + timedelta(milliseconds=1))
    step = decide("k", later, listed("k"), known("k"))
    assert step is not None
    assert step.why == "changed"
    whole = Known("k", "a", 1, microseconds(THEN.replace(microsecond=0)), "a")
    assert decide("k", listed("k"), listed("k"), whole) is None, "headers tell whole seconds only"


def test_an_empty_object_is_known_like_any_other():
    record = [Known(key, "a", 0, microseconds(THEN), "a") for key in "bcd"]
    source, destination = [listed("b", size=0), listed("d", size=0)], [listed("a"), listed("b", size=0)]
    steps = walk(source, destination, record)
    assert [(step.do, step.key, step.why, step.known) for step in steps] == [
        (Action.EXTRA, "a", "", False),
        (Action.FORGET, "c", "", True),
        (Action.COPY, "d", "missing", True),
    ]
    assert [step.known for step in walk([], [listed("b", size=0)], record[:1])] == [True]


def test_three_lists_side_by_side():
    steps = walk(
        [listed("a"), listed("c"), listed("d")],
        [listed("a"), listed("b"), listed("e")],
        [known("a"), known("b"), known("d"), known("f")],
    )
    assert [(step.do, step.key, step.known) for step in steps] == [
        (Action.EXTRA, "b", True),
        (Action.COPY, "c", False),
        (Action.COPY, "d", True),
        (Action.EXTRA, "e", False),
        (Action.FORGET, "f", True),
    ]


def test_keys_of_the_three_lists_are_compared_by_their_text():
    number = 7
    steps = walk(
        [listed(f"key-{number}", "newer")], [listed(f"key-{number}")], [known(f"key-{number}"), known("z")]
    )
    assert [(step.do, step.why) for step in steps] == [(Action.COPY, "changed"), (Action.FORGET, "")]


def test_prefixes_are_left_out():
    comparison = Comparison("old/", "very/new/", lambda *_: None, lambda _: False)
    source, destination = [listed("old/a"), listed("old/b")], [listed("very/new/a")]
    steps = list(comparison.steps(pages(source), pages(destination), [plain([known("a")])]))
    assert [it if isinstance(it, int) else it.key for it in steps] == [1, "b"]
    assert (comparison.listed, comparison.same) == (2, 1)


def test_what_is_the_same_everywhere_is_counted_at_once():
    rows = [listed(key) for key in "abc"]
    seen, same = [], []
    comparison = Comparison(
        "",
        "",
        lambda *_: None,
        lambda _: False,
        see=seen.extend,
        on_same=lambda *columns: same.append(columns),
    )
    record = [plain([known(key) for key in "abc"])]
    assert list(comparison.steps(pages(rows), pages(rows), record)) == [3]
    assert (comparison.listed, comparison.listed_bytes, comparison.same) == (3, 3, 3)
    assert seen == ["a", "b", "c"]
    assert [tuple(map(list, columns)) for columns in same] == [
        (["a", "b", "c"], [1] * 3, ["a"] * 3, ["a"] * 3)
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"chooses": True}, [1, (Action.EXCLUDED, "b", "too old"), 1]),
        (
            {"recheck": True},
            [(Action.LOOK, "a", AGAIN), (Action.EXCLUDED, "b", "too old"), (Action.LOOK, "c", AGAIN)],
        ),
    ],
)
def test_a_choice_or_a_recheck_is_about_what_seems_the_same_too(options, expected):
    rows = [listed(key) for key in "abc"]
    comparison = Comparison(
        "", "", lambda key, _: "too old" if key == "b" else None, lambda _: False, **options
    )
    steps = list(comparison.steps(pages(rows), pages(rows), [plain([known(key) for key in "abc"])]))
    assert [it if isinstance(it, int) else (it.do, it.key, it.why) for it in steps] == expected
    assert (comparison.listed, comparison.listed_bytes) == (3, 3)
    assert all(
        (it.known, it.ours) == (True, it.do == Action.LOOK) for it in steps if isinstance(it, SyncStep)
    )


def plain(rows: list) -> KnownPage:
    """A page of the record as it is read: without a word of what was begun."""
    return _as_read(KnownPage.of(rows))


@given(
    state=st.lists(st.tuples(*(st.sampled_from(["", "a", "b"]) for _ in range(3))), max_size=60),
    size=st.integers(1, 20),
    chooses=st.booleans(),
)
def test_columns_and_rows_come_to_the_same(state, size, chooses):
    """Whatever the three lists hold, and however they are cut into pages."""
    rows = [(f"{n:03d}", *found) for n, found in enumerate(state)]
    source = [listed(key, etag) for key, etag, _, _ in rows if etag]
    destination = [listed(key, etag) for key, _, etag, _ in rows if etag]
    record = [known(key, "a", etag) for key, _, _, etag in rows if etag]
    seen, reported = [], []
    comparison = Comparison(
        "",
        "",
        lambda *_: None,
        lambda _: False,
        chooses,
        see=seen.extend,
        on_same=lambda keys, sizes, ours, theirs: reported.extend(zip(keys, ours, theirs, strict=True)),
    )
    parts = known_pages(record, size)
    parts = [_as_read(part) for part in parts]
    steps = [
        it
        for it in comparison.steps(pages(source, size), pages(destination, size + 1), parts)
        if isinstance(it, SyncStep)
    ]
    wanted = {
        one.key: decide(one.key, one, _of(destination, one.key), _of(record, one.key)) for one in source
    }
    assert [step for step in steps if step.source] == [step for step in wanted.values() if step]
    assert reported == [
        (one.key, one.etag, _of(destination, one.key).etag) for one in source if wanted[one.key] is None
    ]
    assert seen == [one.key for one in source]
    assert (comparison.listed, comparison.same) == (len(source), len(reported))
    there = {one.key for one in source}
    assert [it.key for it in steps if it.do == Action.EXTRA] == [
        it.key for it in destination if it.key not in there
    ]


def _as_read(page: KnownPage) -> KnownPage:
    return KnownPage(*map(list, (page.keys, page.etags, page.sizes, page.modified, page.destination_etags)))


def _of(rows, key):
    return next((one for one in rows if one.key == key), None)


@pytest.mark.parametrize("keys", [["b", "a"], ["a", "a"]])
def test_a_listing_in_another_order_is_no_basis(keys):
    with pytest.raises(UnorderedError) as caught:
        walk([], [listed(key) for key in keys], [])
    assert caught.value.side == "destination"


def test_a_plan_is_read_as_it_was_written():
    steps = [
        SyncStep(Action.COPY, "a\u00e9", "new", listed("p/a\u00e9"), None, ours=True, odd=("x",)),
        SyncStep(Action.LOOK, "b", "there already", listed("p/b"), listed("q/b", "c")),
        SyncStep(Action.EXTRA, "c", "", None, listed("q/c"), known=True),
    ]
    data = plan_bytes(steps)
    assert list(read_plan(data)) == steps
    assert list(begun_rows(data)) == [Known("a\u00e9", begun=True)], "only what was ours to write"


def test_spans_are_cut_by_number_and_size():
    small = [SyncStep(Action.COPY, f"{n:05d}", "new", listed(f"{n:05d}")) for n in range(BATCH_OBJECTS + 1)]
    assert [len(batch) for batch in batches(small)] == [BATCH_OBJECTS, 1]
    large = SyncStep(Action.COPY, "x", "new", listed("x", size=BATCH_BYTES + 1))
    assert [len(batch) for batch in batches([small[0], large, small[1]])] == [1, 1, 1]


def table(rows: dict[str, int]) -> pa.Table:
    keys = sorted(rows, key=str.encode)
    numbers = pa.array([rows[key] for key in keys], pa.int64())
    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "n": numbers,
            "destination_version_id": pa.nulls(len(keys), pa.string()),
        }
    )


KEYS = st.text(alphabet="ab\u00e9\U0001f600/", max_size=3)


@given(
    old=st.dictionaries(KEYS, st.just(1), max_size=30),
    new=st.dictionaries(KEYS, st.just(2), max_size=30),
    dropped=st.sets(KEYS, max_size=10),
    size=st.integers(1, 7),
)
def test_folding_is_what_a_dictionary_does(old, new, dropped, size):
    def cut(rows: dict[str, int]) -> list[pa.Table]:
        whole = table(rows)
        return [whole.slice(start, size) for start in range(0, whole.num_rows, size)]

    drops = [(key, key) for key in sorted(dropped, key=str.encode)]
    found = [row for part in folded(cut(old), cut(new), drops) for row in part.to_pylist()]
    wanted = table({key: n for key, n in old.items() if key not in dropped} | new).to_pylist()
    assert found == wanted
    parts = [part.num_rows for part in grouped(folded(cut(old), cut(new), drops), 4)]
    assert sum(parts) == len(wanted)
    assert all(count == 4 for count in parts[:-1])


def keyed(keys: str, mark: str = "old") -> pa.Table:
    return pa.table(
        {"key": list(keys), "destination_version_id": [mark] * len(keys), "size": [0] * len(keys)}
    )


def joined(tables: Iterable[pa.Table]) -> list[str]:
    return ["".join(table["key"].to_pylist()) for table in tables]


def test_new_rows_take_the_place_of_old_ones_and_are_never_dropped():
    old, new = [keyed("ab"), keyed("cd"), keyed("f")], [keyed("b", "new"), keyed("de", "new")]
    dropped = [(key, key) for key in "abcz"]
    rows = [row for table in folded(old, new, dropped) for row in table.to_pylist()]
    assert [(row["key"], row["destination_version_id"]) for row in rows] == [
        ("b", "new"), ("d", "new"), ("e", "new"), ("f", "old"),
    ]  # fmt: skip
    assert joined(folded([], [], dropped)) == []
    assert "".join(joined(folded(old, [], []))) == "abcdf"
    assert "".join(joined(folded([], new, [("b", "b")]))) == "bde"


def test_no_key_has_rows_in_two_tables():
    assert joined(whole_keys([keyed("aab"), keyed("bc"), keyed(""), keyed("cc")])) == ["aa", "bb", "ccc"]
    assert joined(whole_keys([keyed("a"), keyed("a"), keyed("a")])) == ["aaa"]
    assert joined(whole_keys([keyed("")])) == []


def test_tables_are_gathered_into_ones_of_the_same_size():
    assert joined(grouped([keyed("abc"), keyed("de"), keyed("f"), keyed("g")], 2)) == ["ab", "cd", "ef", "g"]
    assert joined(grouped([keyed("abcd")], 2)) == ["ab", "cd"]
    assert joined(grouped([], 2)) == []
    assert (size_bytes_of(keyed("ab")), size_bytes_of(pa.table({"size": [3, 4]}))) == (0, 7)


@given(keys=st.lists(KEYS, min_size=1, max_size=20, unique=True), cut=st.integers(1, 7))
def test_keys_that_pass_by_leave_what_is_above_the_next_one(keys, cut):
    """Some at a time or one by one: what is odd about the next key is the same."""
    *passing, asked = sorted(keys)
    one_by_one, together = Oddities(), Oddities()
    for key in passing:
        one_by_one.of(key, 1)
    for start in range(0, len(passing), cut):
        together.see_all(passing[start : start + cut])
    together.see_all([asked])  # a comparison shows all keys, and asks about some
    assert together.of(asked, 1) == one_by_one.of(asked, 1)
