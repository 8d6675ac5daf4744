"""What is decided about histories, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from exporters.bucket_api import NULL_VERSION, Fetched, ObjectSummary, Page
from exporters.selection import Selection
from migrate.restore.objects.destination_terms import Markers
from migrate.storage.s3.capability_probe import FIRST_MARKER, REPEATED_MARKER
from migrate.storage.s3.metadata.object_metadata import LEGAL_HOLD, LOCK_MODE, LOCK_UNTIL, Description
from migrate.sync.amendment import amendment
from migrate.sync.diff import AGAIN, Action
from migrate.sync.record.column_pages import UnorderedError, microseconds
from migrate.sync.record.record_merge import by_version, folded
from migrate.sync.record.record_rows import synced_table, which_version
from migrate.sync.versions import version_filter as choice_module
from migrate.sync.versions.version_diff import _LATE as LATE
from migrate.sync.versions.version_diff import (
    ANOTHER,
    NOT_CURRENT,
    OTHERS,
    HistoryComparison,
    KnownVersion,
    by_key,
    decide,
    in_order,
)
from migrate.sync.versions.version_filter import ALONE, Judged, alone, by_tags

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
MOMENT = pa.timestamp("us", tz="UTC")


def version(number: int, content: str, side: str = "s") -> ObjectSummary:
    """A version of the key ``k``; an empty ``content`` is a delete marker."""
    return ObjectSummary(
        "k",
        len(content),
        content,
        BEGAN + timedelta(seconds=number),
        version_id=f"{side}{number}",
        is_delete_marker=not content,
    )


class Model:
    """A key at a source and at a destination that keeps what it is given, and the record between them."""

    def __init__(self, markers: Markers) -> None:
        self.markers = markers
        self.source: list[ObjectSummary] = []
        self.destination: list[ObjectSummary] = []
        self.known: list[KnownVersion] = []
        self.made = 0
        self.chosen = {"a", "b", "cc"}

    def write(self, content: str) -> None:
        self.made += 1
        self.source.append(version(self.made, content))

    def play(self, turns: list[Any]) -> None:
        """Write, sync, and sync as far as it is not killed, in turns."""
        for turn in turns:
            if isinstance(turn, list):
                for content in turn:
                    self.write(content)
            elif turn == "sync":
                self.sync()
            else:
                self.sync(kill_after=turn[1], lose=turn[2])

    def judged(self) -> list[Judged]:
        return list(
            alone([(one, "" if one.etag in self.chosen or not one.etag else "no") for one in self.source])
        )

    def sync(self, *, delete: bool = False, kill_after: int = 99, lose: bool = False) -> list[Action]:
        """Do what is decided, as far as it is not killed; ``lose``: nothing is committed."""
        decided = decide("k", self.judged(), self.destination, self.known, self.markers)
        for step in decided.steps[:kill_after]:
            if step.do == Action.COPY:
                assert step.before == len(self.destination)
                assert not self.markers.refuse(
                    step.source, self.destination[-1] if self.destination else None
                )
                self.made += 1
                content = "" if step.source.is_delete_marker else step.source.etag
                self.destination.append(version(self.made, content, "t"))
                self._note(step.source, self.destination[-1], lose=lose)
            elif step.do == Action.LOOK and step.source.etag == step.destination.etag:
                self._note(step.source, step.destination, lose=lose)
            elif step.do == Action.EXTRA and delete:
                self.destination = [
                    one for one in self.destination if one.version_id != step.destination.version_id
                ]
        ids = {one.version_id for one in self.destination}
        self.known = [one for one in self.known if one.destination_version in ids]
        return [step.do for step in decided.steps]

    def _note(self, source: ObjectSummary, destination: ObjectSummary, *, lose: bool) -> None:
        if not lose:
            modified = int((source.modified - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)
            self.known.append(
                KnownVersion(
                    source.version_id, source.etag, source.size_bytes, modified, source.is_delete_marker,
                    destination.version_id,
                )
            )  # fmt: skip

    def wanted(self) -> list[str]:
        """What the destination is to have: the source's, without the delete markers that it does not make."""
        kept: list[ObjectSummary] = []
        for one, why in self.judged():
            if not why and not self.markers.refuse(one, kept[-1] if kept else None):
                kept.append(one)
        return [one.etag for one in kept]


TURNS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(["a", "b", "cc", ""]), max_size=3),
        st.tuples(st.just("killed"), st.integers(0, 4), st.booleans()),
        st.just("sync"),
    ),
    max_size=8,
)


@given(turns=TURNS, refused=st.sets(st.sampled_from([FIRST_MARKER, REPEATED_MARKER])))
def test_passes_that_are_killed_end_where_the_source_is(turns, refused):
    """Whatever is written meanwhile and wherever a pass is killed, with or without its commit: nothing twice."""
    model = Model(Markers(frozenset(refused)))
    model.play(turns)
    model.sync()
    assert [one.etag for one in model.destination] == model.wanted()
    assert set(model.sync()) <= {Action.EXCLUDED}


@given(
    contents=st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=6),
    gone=st.sets(st.integers(0, 5)),
    more=st.lists(st.sampled_from(["a", ""]), max_size=3),
)
def test_what_is_deleted_at_the_source_goes_only_when_told(contents, gone, more):
    model = Model(Markers())
    for content in contents:
        model.write(content)
    model.sync()
    model.source = [one for number, one in enumerate(model.source) if number not in gone]
    for content in more:
        model.write(content)
    model.sync()
    assert [one.etag for one in model.destination] == [*contents, *more]
    model.sync(delete=True)
    assert [one.etag for one in model.destination] == model.wanted()


@given(
    turns=TURNS,
    chosen=st.sets(st.sampled_from(["a", "b", "cc"])),
    refused=st.sets(st.sampled_from([FIRST_MARKER, REPEATED_MARKER])),
)
def test_what_was_chosen_comes_in_its_order(turns, chosen, refused):
    """Each version by itself; the same choice again finds nothing to do."""
    model = Model(Markers(frozenset(refused)))
    model.chosen = chosen
    model.play(turns)
    model.sync()
    assert [one.etag for one in model.destination] == model.wanted()
    assert set(model.sync()) <= {Action.EXCLUDED}


@given(
    contents=st.lists(st.sampled_from(["a", "b", "cc", ""]), min_size=1, max_size=7),
    first=st.sets(st.sampled_from(["a", "b", "cc"])),
    then=st.sets(st.sampled_from(["a", "b", "cc"])),
)
def test_another_choice_later_puts_nothing_into_the_wrong_order(contents, first, then):
    """What can still be added on top is; what belongs below is stuck; what is not wanted any more stays."""
    model = Model(Markers())
    model.chosen = first
    for content in contents:
        model.write(content)
    model.sync()
    before = [one.version_id for one in model.destination]
    model.chosen = then
    model.sync()
    assert [one.version_id for one in model.destination][: len(before)] == before
    numbers = {one.destination_version: int(one.version_id[1:]) for one in model.known}
    order = [numbers[one.version_id] for one in model.destination]
    assert order == sorted(order)
    there = {one.version_id for one in model.known}
    missing = [one for one, why in model.judged() if not why and one.version_id not in there]
    decided = model.sync()
    assert decided.count(Action.STUCK) == len(missing)
    assert set(decided) <= {Action.STUCK, Action.EXCLUDED}


def test_a_delete_marker_does_not_stand_alone() -> None:
    """Above what is not wanted, it is not wanted; where nothing stood below it, or something wanted does, it is."""

    def judge(*given: tuple[str, str]) -> list[str]:
        versions = [(version(number, content), why) for number, (content, why) in enumerate(given)]
        return [why for _, why in alone(versions)]

    assert judge(("a", "no"), ("", "")) == ["no", ALONE]
    assert judge(("", ""), ("a", "no"), ("", ""), ("a", ""), ("", "")) == ["", "no", ALONE, "", ""]
    assert judge(("a", ""), ("b", "no"), ("", "")) == ["", "no", ""]
    assert judge(("a", "no"), ("", "late")) == ["no", "late"]


def test_a_newest_version_that_is_not_wanted_says_what_that_comes_to() -> None:
    one, two = version(1, "a"), version(2, "bb")
    steps = decide("k", [(one, ""), (two, "no")], (), (), Markers()).steps
    assert {(step.do, step.why) for step in steps} == {
        (Action.COPY, "new"),
        (Action.EXCLUDED, "no" + NOT_CURRENT),
    }


def test_tags_are_asked_for_of_what_is_wanted_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_module, "_ASKED_AT_ONCE", 2)
    asked: list[str] = []

    def heads(wanted: Any) -> Any:
        for one in wanted:
            asked.append(one.version_id)
            yield Fetched(one, tags={"t": one.etag})

    versions = [version(number, content) for number, content in enumerate(("a", "b", "", "a", ""))]
    listed = [("k", [(one, "") for one in versions[:3]]), ("x", [(versions[3], "no"), (versions[4], ALONE)])]
    chosen = list(by_tags([*listed, ("y", [(versions[3], "")])], Selection(tags={"t": "b"}), heads))
    assert asked == ["s0", "s1", "s3"]
    assert [[bool(why) for _, why in judged] for _, judged in chosen] == [
        [True, False, False], [True, True], [True],
    ]  # fmt: skip


def test_what_has_no_id_comes_on_top_again() -> None:
    """Where a record says that it lies below what is older, it is not in its place, and no proof says that it is."""
    one, null = version(1, "a"), replace(version(2, "b"), version_id=NULL_VERSION)
    destination = [version(8, "b", "t"), version(9, "a", "t")]
    modified = microseconds(null.modified)
    known = [
        KnownVersion(NULL_VERSION, "b", 1, modified, False, "t8"),
        KnownVersion("s1", "a", 1, 0, False, "t9"),
    ]
    decided = decide("k", [(one, ""), (null, "")], destination, known, Markers())
    assert decided.same == [(one, destination[1])]
    assert [(step.do, step.source, step.destination) for step in decided.steps] == [
        (Action.COPY, null, None), (Action.EXTRA, null, destination[0]),
    ]  # fmt: skip
    assert decided.steps[0].before == 2


def test_what_stands_below_is_not_put_on_top() -> None:
    model = Model(Markers())
    for content in ("a", "b"):
        model.write(content)
    model.sync()
    model.destination, model.known = model.destination[1:], model.known[1:]
    assert model.sync() == [Action.STUCK]


def record_of(*pairs: tuple[int, int, str]) -> list[KnownVersion]:
    """What the record says: (number at the source, number at the destination, content)."""
    return [
        KnownVersion(f"s{source}", content, len(content), 0, not content, f"t{destination}")
        for source, destination, content in pairs
    ]


A, B, C = version(1, "a"), version(2, "bb"), version(3, "ccc")
T1, T2 = version(1, "a", "t"), version(2, "bb", "t")


@pytest.mark.parametrize(
    ("source", "destination", "record", "same", "expected"),
    [
        ([A, B], [], [], [], [(Action.COPY, "s1", "new", False, 0), (Action.COPY, "s2", "new", False, 1)]),
        ([A, B], [T1], [(1, 1, "a")], ["t1"], [(Action.COPY, "s2", "new", False, 1)]),
        ([A], [], [(1, 1, "a")], [], [(Action.COPY, "s1", "missing", True, 0)]),
        ([A, B, C], [T1, T2], [(1, 1, "a"), (2, 2, "bb")], ["t1", "t2"], [(Action.COPY, "s3", "new", False, 2)]),
        # Another program has written something: it may be the same, or not.
        ([A], [T1], [], [], [(Action.LOOK, "s1", "there already", False, 0)]),
        ([A, B], [T1], [], [], [
            (Action.LOOK, "s1", "there already", False, 0), (Action.COPY, "s2", "new", False, 1),
        ]),
        ([A, B], [T1, T2], [], [], [
            (Action.LOOK, "s1", "there already", False, 0), (Action.LOOK, "s2", "there already", False, 0),
        ]),
        ([A], [T2], [], [], [(Action.STUCK, "s1", OTHERS, False, 0), (Action.EXTRA, "t2", ANOTHER, False, 0)]),
        ([A], [T1, T2], [], [], [
            (Action.STUCK, "s1", OTHERS, False, 0), (Action.EXTRA, "t1", ANOTHER, False, 0),
            (Action.EXTRA, "t2", ANOTHER, False, 0),
        ]),
        ([B], [T1, T2], [(1, 1, "a")], [], [
            (Action.LOOK, "s2", "there already", False, 0), (Action.EXTRA, "s1", "", True, 0),
        ]),
        # What the record has is gone from both sides, or from one.
        ([], [T1], [(1, 1, "a")], [], [(Action.EXTRA, "s1", "", True, 0)]),
        ([], [T1], [], [], [(Action.EXTRA, "t1", "", False, 0)]),
        ([B], [T2], [(1, 1, "a"), (2, 2, "bb")], ["t2"], [(Action.FORGET, "s1", "", True, 0)]),
        ([A, B], [T2], [(2, 2, "bb")], ["t2"], [(Action.STUCK, "s1", LATE, False, 0)]),
    ],
)  # fmt: skip
def test_what_is_to_be_done_about_a_key(source, destination, record, same, expected) -> None:
    decided = decide("k", [(one, "") for one in source], destination, record_of(*record), Markers())
    assert [counterpart.version_id for _, counterpart in decided.same] == same
    assert [
        (step.do, (step.source or step.destination).version_id, step.why, step.known, step.before)
        for step in decided.steps
    ] == expected
    assert all(step.ours == (step.do == Action.COPY) for step in decided.steps)


def test_versions_that_have_ids_are_the_same_in_any_order() -> None:
    destination = [version(8, "bb", "t"), version(9, "a", "t")]
    decided = decide("k", [(A, ""), (B, "")], destination, record_of((1, 9, "a"), (2, 8, "bb")), Markers())
    assert (decided.same, decided.steps) == ([(A, destination[1]), (B, destination[0])], [])


def test_another_history_is_gone_on_above_when_that_is_asked_for() -> None:
    decided = decide("k", [(A, ""), (C, "")], [T2], [], Markers(), overwrite=True)
    assert [(step.do, step.why, step.before) for step in decided.steps] == [
        (Action.COPY, "new", 1), (Action.COPY, "new", 2), (Action.EXTRA, ANOTHER, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(("options", "action"), [({}, Action.STUCK), ({"overwrite": True}, Action.COPY)])
def test_a_walk_goes_on_above_another_history_only_when_told(
    options: dict[str, bool], action: Action
) -> None:
    walk = HistoryComparison(lambda _: False, Markers(), **options)
    steps = list(walk.steps([("k", [(A, "")])], [("k", [T2])], []))
    assert [step.do for step in steps] == [action, Action.EXTRA]


@pytest.mark.parametrize(("contents", "action"), [(("", "bb"), Action.COPY), (("bb", ""), Action.EXCLUDED)])
def test_a_marker_is_refused_above_a_marker_only(contents: tuple[str, str], action: Action) -> None:
    source = [version(number, content) for number, content in enumerate((*contents, ""), 1)]
    destination = [version(number, content, "t") for number, content in enumerate(contents, 1)]
    known = record_of(*((number, number, content) for number, content in enumerate(contents, 1)))
    markers = Markers(frozenset({REPEATED_MARKER}))
    (step,) = decide("k", [(one, "") for one in source], destination, known, markers).steps
    assert (step.do, step.source) == (action, source[-1])


def test_what_is_not_chosen_any_more_stays_as_it_is() -> None:
    known = record_of((1, 1, "a"))
    decided = decide("k", [(A, "no"), (B, "no"), (C, "")], [T1], known, Markers())
    assert decided.same == []
    assert [(step.do, step.why, step.destination, step.known) for step in decided.steps] == [
        (Action.EXCLUDED, "no", T1, True), (Action.EXCLUDED, "no", None, False), (Action.COPY, "new", None, False),
    ]  # fmt: skip
    only = decide("k", [(A, "no")], [T1], known, Markers())
    assert [step.why for step in only.steps] == ["no"]


def listing(*versions: tuple[str, str]) -> list[Page]:
    rows = [replace(version(int(number), "a"), key=f"p/{key}") for key, number in versions]
    return [Page.of(rows[start : start + 2]) for start in range(0, len(rows), 2)]


def ids(histories: Any) -> list[tuple[str, list[str]]]:
    return [(key, [one.version_id for one in versions]) for key, versions in histories]


def test_versions_are_gathered_by_key_the_oldest_first() -> None:
    pages = listing(("a", "3"), ("a", "2"), ("a", "1"), ("b", "1"))
    expected = [("a", ["s1", "s2", "s3"]), ("b", ["s1"])]
    assert ids(by_key(pages, 2, "source")) == ids(in_order(pages, 2)) == expected


@pytest.mark.parametrize("keys", ["ba", "aba"])
def test_versions_that_are_not_listed_by_key_are_sorted_when_asked_for(keys: str) -> None:
    pages = listing(*((key, str(9 - number)) for number, key in enumerate(keys)))
    with pytest.raises(UnorderedError) as raised:
        ids(by_key(pages, 2, "destination"))
    assert raised.value.side == "destination"
    assert [key for key, _ in ids(in_order(pages, 2))] == ["a", "b"]


@pytest.mark.parametrize("recheck", [False, True])
def test_a_recheck_looks_at_every_version_but_delete_markers(recheck: bool) -> None:
    marker = version(2, "")
    destination = [T1, version(2, "", "t")]
    seen: list[str] = []
    pairs: list[tuple[Any, ...]] = []
    walk = HistoryComparison(lambda _: False, Markers(), see=seen.extend, recheck=recheck)
    walk.on_same = lambda *columns: pairs.append(tuple(map(list, columns)))
    source = [("k", [(A, ""), (marker, "")]), ("x", [(A, "no")])]
    taken = list(walk.steps(source, [("k", destination)], [("k", record_of((1, 1, "a"), (2, 2, "")))]))
    same = [(["k"], [0], ["-"], ["-"])] if recheck else [(["k", "k"], [1, 0], ["a", "-"], ["a", "-"])]
    assert (walk.same, seen, pairs) == (len(same[0][0]), ["k"], same)
    looked = [(step.why, step.source, step.destination, step.ours, step.known) for step in taken[1:-1]]
    assert (taken[0], looked) == (walk.same, [(AGAIN, A, T1, True, True)] if recheck else [])


def test_a_walk_counts_every_version() -> None:
    one, two = version(1, "a"), version(2, "bb")
    seen: list[tuple[str, ...]] = []
    walk = HistoryComparison(lambda key: key == "y", Markers())
    walk.on_same = lambda *columns: seen.append(tuple(columns[2]))
    source = [("k", [(one, ""), (two, "")]), ("x", [(one, "no")])]
    destination = [("k", [version(9, "a", "t")]), ("y", [one]), ("z", [one])]
    known = [("k", [KnownVersion("s1", "a", 1, 0, False, "t9")])]
    taken = list(walk.steps(source, destination, known))
    assert [step if isinstance(step, int) else (step.do, step.key) for step in taken] == [
        1, (Action.COPY, "k"), (Action.EXCLUDED, "x"), (Action.EXTRA, "z"),
    ]  # fmt: skip
    assert (walk.listed, walk.listed_bytes, walk.same, seen) == (3, 4, 1, [("a",)])


def rows(given: list[tuple[str, str, int]]) -> pa.Table:
    keys, ids, marks = zip(*given, strict=True) if given else ((), (), ())
    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "version_id": pa.array(ids, pa.string()),
            "last_modified": pa.array(marks, MOMENT),
            "destination_version_id": pa.array(
                [f"t{version}{mark}" for _, version, mark in given], pa.string()
            ),
        }
    )


@given(
    counts=st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(0, 4), st.integers(0, 3))),
    size=st.integers(1, 4),
    drop=st.integers(0, 3),
)
def test_rows_of_versions_are_folded_in_their_order(counts, size, drop):
    """Old ones, then new ones, of each key; wherever files end."""
    old = [(key, f"v{n}", n) for key, (first, _) in sorted(counts.items()) for n in range(first)]
    new = [
        (key, f"v{n}", n) for key, (first, more) in sorted(counts.items()) for n in range(first, first + more)
    ]

    def cut(whole: pa.Table) -> list[pa.Table]:
        return [whole.slice(start, size) for start in range(0, whole.num_rows, size)]

    dropped = [(key, which_version(key, f"v{drop}", drop)) for key in sorted(counts)]
    found = [
        row
        for part in folded(cut(rows(old)), cut(rows(new)), dropped, by_version)
        for row in part.to_pylist()
    ]
    kept = [one for one in old if one[2] != drop] + new
    assert [(row["key"], row["version_id"]) for row in found] == [
        (key, name) for key, name, _ in sorted(kept, key=lambda one: (one[0], one[2]))
    ]


def test_a_version_that_was_looked_at_again_keeps_its_place_and_its_digests() -> None:
    """Only what can change of it is taken over."""

    def row(key: str, destination: str, **more: Any) -> dict[str, Any]:
        common = {
            "key": key,
            "version_id": f"s-{destination}",
            "destination_version_id": destination,
            "last_modified": BEGAN,
        }
        return {**common, "size": 1, "tags": [("t", "1")], "losses": [], **more}

    old = [
        row("a", "1", sha256="x", losses=[("ETag", "of parts"), ("tag", "t=1")]),
        row("a", "2", sha256="y"),
        row("b", "3", sha256="z"),
    ]
    again = row(
        "a", "1", tags=[("t", "2")], legal_hold="ON", losses=[("own checksum", "no"), ("ACL", "refused")]
    )
    new = row("a", "4")
    found = [
        one
        for part in folded([synced_table(old)], [synced_table([again, new])], (), by_version)
        for one in part.to_pylist()
    ]
    assert [one["destination_version_id"] for one in found] == ["1", "2", "4", "3"]
    assert (found[0]["sha256"], found[0]["tags"], found[0]["legal_hold"]) == ("x", [("t", "2")], "ON")
    assert found[0]["losses"] == [("ETag", "of parts"), ("ACL", "refused")]
    assert found[1]["sha256"] == "y"


def test_what_has_no_id_is_told_apart_by_its_time() -> None:
    old, new = rows([("a", "null", 1)]), rows([("a", "null", 2)])
    assert pa.concat_tables(folded([old], [new], (), by_version)).num_rows == 2
    gone = [("a", which_version("a", "null", 1))]
    assert pa.concat_tables(folded([old], [new], gone, by_version)).num_rows == 1


SOON, LATE, PAST = "2026-02-01T00:00:00Z", "2026-03-01T00:00:00.000Z", "2025-12-01T00:00:00Z"
GOVERNED, STRICT = (LOCK_MODE, "GOVERNANCE"), (LOCK_MODE, "COMPLIANCE")


@pytest.mark.parametrize(
    ("wanted", "found", "changes", "faults"),
    [
        ({}, {}, [], 0),
        ({"tags": {"a": "1"}}, {}, ["tags"], 0),
        ({"headers": {"cache-control": "no-store"}}, {"cache-control": "no-cache"}, [], 1),
        ({"metadata": {"n": "1"}}, {"x-amz-meta-n": "2"}, [], 1),
        ({"lock_mode": "GOVERNANCE", "lock_until": LATE}, {**dict([GOVERNED]), LOCK_UNTIL: SOON}, ["retention"], 0),
        ({"lock_mode": "GOVERNANCE", "lock_until": SOON}, {**dict([GOVERNED]), LOCK_UNTIL: LATE}, [], 1),
        ({"lock_mode": "COMPLIANCE", "lock_until": SOON}, {**dict([GOVERNED]), LOCK_UNTIL: SOON}, ["retention"], 0),
        ({"lock_mode": "GOVERNANCE", "lock_until": SOON}, {**dict([STRICT]), LOCK_UNTIL: SOON}, [], 1),
        ({"lock_mode": "GOVERNANCE", "lock_until": PAST}, {**dict([GOVERNED]), LOCK_UNTIL: PAST}, [], 0),
        ({}, {**dict([GOVERNED]), LOCK_UNTIL: SOON}, [], 1),
        ({}, {**dict([GOVERNED]), LOCK_UNTIL: PAST}, [], 0),
        ({"legal_hold": True}, {}, ["legal hold"], 0),
        ({}, {LEGAL_HOLD: "ON"}, [], 1),
        ({"acl": "public-read"}, {}, ["ACL"], 0),
    ],
)  # fmt: skip
def test_what_of_a_version_can_be_changed(wanted, found, changes, faults):
    """Tags and ACL both ways, locks only to what is stricter; headers and metadata never."""
    described = Description("k", **wanted)
    seen = amendment(
        version(1, "a", "t"), Fetched(version(1, "a", "t"), headers=found), described, "", now=BEGAN
    )
    assert ([what for what, _ in seen.changes], len(seen.faults)) == (changes, faults)
    assert all(request.query["versionId"] == "t1" for _, request in seen.changes)


def test_a_bucket_that_locks_by_itself_may_lock_longer() -> None:
    held = Fetched(version(1, "a", "t"), headers={**dict([GOVERNED]), LOCK_UNTIL: SOON})
    seen = amendment(version(1, "a", "t"), held, Description("k"), locks_itself=True, now=BEGAN)
    assert (list(seen.changes), list(seen.faults)) == ([], [])
