"""What a run is going to do: what of both sides is its business, and how it is counted and written down."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from exporters.bucket_api import ObjectSummary, Page
from exporters.objects.key_oddities import NAMELESS
from exporters.selection import Selection
from migrate.runtime.progress import Silent
from migrate.storage.s3.own_objects import SYNC_RECORDS
from migrate.sync import plan
from migrate.sync.diff import Action, Comparison, SyncStep
from migrate.sync.plan import Plan, Sides, in_order, make_plan, without_records
from migrate.sync.record.column_pages import UnorderedError
from tests.sync.test_diff import THEN, listed, pages


def sides(**choice: object) -> Sides:
    source = destination = SimpleNamespace(prefix="")
    return Sides("media", source, destination, Selection(**choice))


def test_records_of_syncs_are_no_objects_of_the_source():
    record = listed(f"{SYNC_RECORDS}a")
    assert "where moveout keeps the records" in str(sides().excludes(record.key, record))
    assert sides().excludes("a", listed("a")) is None


def test_a_choice_by_size_and_time_is_about_objects_of_the_source():
    chosen = sides(min_bytes=2, newer_than=THEN)
    assert "smaller" in str(chosen.excludes("a", listed("a", size=1)))
    assert "before" in str(chosen.excludes("a", listed("a", size=2, modified=THEN - timedelta(seconds=1))))
    assert chosen.excludes("a", listed("a", size=2)) is None
    marker = ObjectSummary("a", 0, "", THEN, version_id="1", is_delete_marker=True)
    assert chosen.excludes("a", marker) is None, "a delete marker has no size"


def test_what_only_the_destination_has_is_left_alone_where_its_name_is_not_chosen():
    assert not sides().is_unselected("a")
    assert not sides(min_bytes=2, newer_than=THEN).is_unselected("a")
    assert sides(exclude=("a*",), min_bytes=2).is_unselected("ab")
    assert not sides(exclude=("a*",), min_bytes=2).is_unselected("b")
    assert sides(include=("a*",)).is_unselected("b")


def test_only_a_choice_by_tags_asks_for_tags(monkeypatch):
    asked = []
    monkeypatch.setattr(plan, "steps_by_tags", lambda steps, *_: asked.append(1) or steps)
    for chosen in (sides(), sides(tags={"a": "b"})):
        comparison = chosen.comparison()
        assert isinstance(comparison, Comparison)
        record = SimpleNamespace(known=list)
        steps = chosen.walk(comparison, record, frozenset(), (iter(pages([listed("a")])), iter([])))
        assert [step.key for step in steps] == ["a"]
        assert len(asked) == bool(chosen.selection.tags)


def test_a_choice_by_tags_asks_for_those_of_every_version(monkeypatch):
    asked = []
    monkeypatch.setattr(plan, "by_tags", lambda histories, *_: asked.append(1) or histories)
    for chosen in (sides(), sides(tags={"a": "b"})):
        both = replace(chosen, history=True)
        listings = (iter(pages([listed("a")])), iter([]))
        steps = both.walk(both.comparison(), SimpleNamespace(known_versions=list), frozenset(), listings)
        assert [step.key for step in steps] == ["a"]
        assert len(asked) == bool(chosen.selection.tags)


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_listing_that_is_not_by_key_is_sorted_for_its_side_only(side, history):
    both = replace(sides(), history=history)
    rows = {"source": [listed("a"), listed("b")], "destination": [listed("c")]}
    rows[side].insert(0, listed("d"))

    def walk(*unordered: str) -> list[str]:
        record = SimpleNamespace(known=list, known_versions=list)
        listings = (iter(pages(rows["source"], 1)), iter(pages(rows["destination"], 1)))
        return [step.key for step in both.walk(both.comparison(), record, frozenset(unordered), listings)]

    for unordered in ([], [{"source": "destination", "destination": "source"}[side]]):
        with pytest.raises(UnorderedError) as raised:
            walk(*unordered)
        assert raised.value.side == side
    assert walk(side) == walk("source", "destination") == ["a", "b", "c", "d"]


@pytest.mark.parametrize("history", [False, True])
def test_versions_are_listed_for_a_history_only(history):
    asked = []

    def of_source(*, versions: bool, until: object, other_pages: bool) -> list[Page]:
        asked.append(versions)
        return pages([listed("p/a")])

    listing = SimpleNamespace(
        versions=lambda prefix, *, other_pages: iter(pages([listed(f"{prefix}versions")])),
        objects=lambda prefix, *, other_pages: iter(pages([listed(f"{prefix}objects")])),
        not_utf_8=set(),
    )
    source = SimpleNamespace(prefix="p/", pages=of_source, listing=listing)
    destination = SimpleNamespace(prefix="q/", reader=SimpleNamespace(listing=listing))
    keys = [
        [key for page in side for key in page.keys]
        for side in Sides("media", source, destination, Selection(), history=history).listings()
    ]
    assert (asked, keys) == ([history], [["p/a"], ["q/versions" if history else "q/objects"]])


class Scripted:
    """Sides of which a walk yields these steps; torn ones list out of order at first."""

    name, destination = "media", SimpleNamespace(prefix="")

    def __init__(self, steps: list[SyncStep | int], torn: int = 0) -> None:
        self.steps, self.torn = steps, torn
        self.walks: list[tuple[frozenset[str], object]] = []

    def comparison(self, kinds: object) -> SimpleNamespace:
        assert kinds is not None
        return SimpleNamespace(listed=7, listed_bytes=70, same=3)

    def walk(
        self, comparison: object, record: object, unordered: frozenset[str], listings: object
    ) -> Iterator[SyncStep | int]:
        del comparison, record
        self.walks.append((unordered, listings))
        yield from self.steps
        if len(self.walks) <= self.torn:
            raise UnorderedError("destination")


class Record:
    """Keeps what is written and swept."""

    header = SimpleNamespace(rows=5)

    def __init__(self) -> None:
        self.pieces: list[tuple[str, int, list[SyncStep]]] = []
        self.swept: list[str] = []

    def write_plan(self, run: str, number: int, piece: list[SyncStep]) -> None:
        self.pieces.append((run, number, piece))

    def sweep(self, run: str) -> None:
        self.swept.append(run)
        self.pieces.clear()


class Notes(Silent):
    """Sums up what is reported."""

    def __init__(self) -> None:
        self.items = 0
        self.reports = 0
        self.tasks: list[tuple[str, int] | None] = []

    def begin(self, what: str, *, items: int, size_bytes: int, of: object = None) -> None:
        del size_bytes, of
        self.tasks.append((what, items))

    def end(self, *, stopped: bool = False) -> None:
        del stopped
        self.tasks.append(None)

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        del size_bytes
        self.items += items
        self.reports += 1


def copy(key: str, size: int, **more: object) -> SyncStep:
    return SyncStep(Action.COPY, key, "new", listed(key, size=size), known=False, **more)


STEPS = [
    4,
    copy("a", 10),
    SyncStep(Action.LOOK, "b//c", "there already", listed("b//c", size=5), listed("b//c"), known=True),
    2,
    SyncStep(Action.EXTRA, "d", "", None, listed("d"), known=True),
    SyncStep(Action.EXTRA, "e", "", None, listed("e")),
    SyncStep(Action.EXCLUDED, "f", "a filter", listed("f", size=1000)),
    copy("", 7),
]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PLAN_ROWS", 4)


def planned(run: str, *, torn: int = 0) -> tuple[Plan, Scripted, Record, Notes]:
    both, record, notes = Scripted(STEPS, torn), Record(), Notes()
    return make_plan(both, record, run, notes, ("listing", "listing")), both, record, notes


def test_steps_are_counted_by_what_they_do():
    made, _, _, notes = planned("run")
    assert made.steps == {Action.COPY: 2, Action.LOOK: 1, Action.EXTRA: 2, Action.EXCLUDED: 1}
    assert (made.to_do, made.extra, made.strangers, made.excluded) == (3, 2, 1, 1)
    assert (made.size_bytes, made.listed, made.listed_bytes, made.same) == (22, 7, 70, 3)
    assert made.examples[Action.EXTRA] == ["d", "e"]
    assert [sample.key for sample in made.samples] == ["a", "b//c"]
    assert notes.items == 4 + 2 + 6
    assert notes.tasks == [("compare media", 5), None]


def test_all_steps_are_written_in_their_order_with_what_is_odd_about_their_keys():
    made, _, record, _ = planned("run")
    assert [(run, number) for run, number, _ in record.pieces] == [("run", 0), ("run", 1)]
    written = [step for _, _, piece in record.pieces for step in piece]
    assert [step.key for step in written] == ["a", "b//c", "d", "e", "f", ""]
    assert (written[0].odd, written[-1].odd) == ((), (NAMELESS,))
    assert written[1].odd
    assert made.odd == {NAMELESS, *written[1].odd}


def test_without_a_folder_nothing_is_written():
    made, _, record, _ = planned("")
    assert (made.to_do, record.pieces, record.swept) == (3, [], [])


def test_a_side_that_lists_out_of_order_is_listed_again_and_its_plan_begun_anew():
    made, both, record, _ = planned("run", torn=1)
    assert both.walks == [(frozenset(), ("listing", "listing")), (frozenset({"destination"}), None)]
    assert record.swept == ["run"]
    assert sum(len(piece) for _, _, piece in record.pieces) == 6
    assert made.to_do == 3
    assert planned("", torn=1)[2].swept == []


def test_of_many_steps_a_few_are_examples(monkeypatch):
    monkeypatch.setattr(plan, "_REPORTED_AT_ONCE", 5)
    many = [copy(f"{number:02}", 1) for number in range(23)]
    notes = Notes()
    made = make_plan(Scripted(many), Record(), "run", notes)
    assert len(made.examples[Action.COPY]) == 20
    assert [sample.key for sample in made.samples] == ["00", "01", "03", "07", "15"]
    assert (notes.items, notes.reports) == (23, 5)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_records_of_syncs_are_left_out_of_a_listing_that_can_hold_them(size):
    names = [
        "!",
        ".a",
        ".moveout-sync",
        SYNC_RECORDS,
        f"{SYNC_RECORDS}a",
        f"{SYNC_RECORDS}\U0010ffff",
        ".moveout-sync0",
        "z",
    ]
    kept = [name for name in names if not name.startswith(SYNC_RECORDS)]
    rows = [listed(name) for name in sorted(names)]
    for prefix in ("", ".", ".moveout"):
        found = [row.key for page in without_records(pages(rows, size), prefix) for row in page.rows()]
        assert found == sorted(kept)
    below = [row.key for page in without_records(pages(rows, size), "a/") for row in page.rows()]
    assert below == sorted(names)


def test_a_listing_is_sorted_by_key_and_names_each_once():
    rows = [listed("b", "2", size=2), listed("ä", "4"), listed("a", "1"), listed("b", "3", size=3)]
    sorted_rows = [row for page in in_order(pages(rows, 2)) for row in page.rows()]
    assert sorted_rows == [rows[2], rows[3], rows[1]]
