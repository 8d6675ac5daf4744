"""Both sides are proved equal by two walks: what one of them finds otherwise is no proof."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from exporters.bucket_api import ObjectSummary
from migrate.runtime.progress import Silent
from migrate.sync.diff import Action, Comparison, SyncStep
from migrate.sync.equality_proof import Walk, prove
from migrate.sync.record.column_pages import Known, UnorderedError, microseconds
from tests.sync.test_diff import THEN, known_pages, listed, pages
from tests.sync.test_plan import Notes

EQUAL = (
    [listed("a", "one", size=3), listed("b", "two", size=4)],
    [listed("a", "one", size=3), listed("b", "2", size=4)],
)
RECORD = [
    Known("a", "one", 3, microseconds(THEN), "one"),
    Known("b", "two", 4, microseconds(THEN), "2"),
]
Lists = tuple[list[ObjectSummary], list[ObjectSummary]]


class TwoSides:
    """Two sides that list something else with each walk. ``torn``: how often the source is listed out of order."""

    history = False
    selection = SimpleNamespace(describe=lambda: "all of it")

    def __init__(self, *walks: Lists, torn: int = 0, left_out: str = "") -> None:
        self.walks, self.torn, self.left_out = list(walks), torn, left_out
        self.unordered: list[frozenset[str]] = []

    def comparison(self) -> Comparison:
        return Comparison(
            "", "", lambda key, _: "a filter" if key == self.left_out else None, lambda _: False
        )

    def listings(self, *, other_pages: bool) -> Lists:
        """Cut otherwise than what was copied: a server may skip keys between two pages."""
        assert other_pages
        return self.walks[0]

    def walk(
        self, comparison: Comparison, record: object, unordered: frozenset[str], listings: Lists
    ) -> Iterator[SyncStep | int]:
        del record
        assert listings is self.walks[0]
        self.unordered.append(unordered)
        if len(self.unordered) <= self.torn:
            raise UnorderedError("source" if not unordered else "destination")
        source, destination = self.walks.pop(0)
        return comparison.steps(pages(source), pages(destination), known_pages(RECORD))


def proved(*walks: Lists, **options: object):
    sides = TwoSides(*walks, **options)
    return (*prove(sides, SimpleNamespace(header=SimpleNamespace(rows=2)), Silent()), sides)


def digest(*lines: str) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def test_two_walks_that_find_all_as_it_was_copied_are_a_proof():
    proof, walk, sides = proved(EQUAL, EQUAL)
    assert proof is not None
    assert sides.walks == []
    assert (proof.objects, proof.size_bytes, proof.by_etag, proof.by_record, proof.excluded) == (
        2,
        7,
        1,
        1,
        0,
    )
    assert proof.source_digest == digest("3 one a", "4 two b")
    assert proof.destination_digest == digest("3 one a", "4 2 b")
    (began, ended), (began_again, ended_again) = proof.walks
    assert began <= ended <= proof.moment <= began_again <= ended_again
    assert (proof.choice, proof.history, walk.different) == ("all of it", False, {})


def test_the_objects_of_both_walks_are_reported():
    notes = Notes()
    prove(TwoSides(EQUAL, EQUAL), SimpleNamespace(header=SimpleNamespace(rows=3)), notes)
    assert (notes.tasks, notes.items) == ([("prove", 6), None], 4)
    notes = Notes()
    prove(TwoSides(changed(1, [])), SimpleNamespace(header=SimpleNamespace(rows=3)), notes)
    assert notes.tasks == [("prove", 6), None]


def changed(side: int, rows: list[ObjectSummary]) -> Lists:
    return (rows, EQUAL[1]) if side == 0 else (EQUAL[0], rows)


DIFFERENCES = {
    "an object is new": (changed(0, [*EQUAL[0], listed("c")]), Action.COPY, "c"),
    "an object was changed": (changed(0, [listed("a", "other", size=3), EQUAL[0][1]]), Action.COPY, "a"),
    "an object is missing": (changed(1, EQUAL[1][:1]), Action.COPY, "b"),
    "an object was written to": (changed(1, [listed("a", "other", size=3), EQUAL[1][1]]), Action.LOOK, "a"),
    "an object was deleted": (changed(0, EQUAL[0][:1]), Action.EXTRA, "b"),
    "only the destination has it": (changed(1, [*EQUAL[1], listed("c")]), Action.EXTRA, "c"),
}


@pytest.mark.parametrize(("walk", "action", "key"), DIFFERENCES.values(), ids=DIFFERENCES)
@pytest.mark.parametrize("first", [True, False])
def test_what_one_of_the_walks_finds_otherwise_is_no_proof(walk, action, key, first):
    proof, found, _ = proved(walk, EQUAL) if first else proved(EQUAL, walk)
    assert proof is None
    assert (found.different, found.example) == ({action: 1}, key)
    assert found.changes == (action != Action.EXTRA)


@pytest.mark.parametrize("lost_first", [True, False])
@pytest.mark.parametrize("kept", [0, 1])
def test_an_object_that_both_sides_lost_or_got_between_the_walks_is_no_proof(kept, lost_first):
    """The record knows it, so that a walk alone finds nothing to do."""
    fewer = (EQUAL[0][kept : kept + 1], EQUAL[1][kept : kept + 1])
    proof, walk, _ = proved(fewer, EQUAL) if lost_first else proved(EQUAL, fewer)
    assert proof is None
    assert (walk.different, walk.example, walk.changes) == ({Action.COPY: 1}, "its listing", True)


def test_what_is_left_out_is_counted_and_no_difference():
    proof, _, _ = proved(EQUAL, EQUAL, left_out="b")
    assert proof is not None
    assert (proof.objects, proof.excluded, proof.size_bytes) == (1, 1, 3)


def test_a_side_that_lists_out_of_order_is_walked_otherwise():
    proof, _, sides = proved(EQUAL, EQUAL, torn=2)
    assert proof is not None
    assert sides.unordered == [
        frozenset(),
        frozenset({"source"}),
        frozenset({"source", "destination"}),
        frozenset(),
    ]


@pytest.mark.parametrize(
    ("different", "sentence"),
    [
        ({Action.COPY: 1, Action.LOOK: 3, Action.EXTRA: 4}, "4 objects are not the same on both sides ('k')"),
        ({Action.COPY: 2}, "2 objects are not the same on both sides ('k')"),
        ({Action.LOOK: 2}, "2 objects are not the same on both sides ('k')"),
        ({Action.EXTRA: 4}, "4 objects are only at the destination ('k'); --delete removes them"),
        ({Action.EXTRA: 4, Action.STUCK: 5}, "5 versions cannot be put in their order"),
    ],
)
def test_it_says_what_is_not_equal(different, sentence):
    assert Walk(different=different, example="k").sentence.startswith(sentence)


@pytest.mark.parametrize(("history", "noun"), [(True, "version"), (False, "object")])
def test_it_says_of_what_it_is(history, noun):
    sides = TwoSides(changed(1, EQUAL[1][:1]))
    sides.history = history
    _, walk = prove(sides, SimpleNamespace(header=SimpleNamespace(rows=2)), Silent())
    assert walk.sentence.startswith(f"1 {noun} is not the same")


def test_the_example_is_what_another_run_can_make_equal():
    both = (EQUAL[0], [listed("Z"), *EQUAL[1][1:]])
    proof, walk, _ = proved(both, EQUAL)
    assert proof is None
    assert (walk.different, walk.example) == ({Action.EXTRA: 1, Action.COPY: 1}, "a")
