"""What stays on the old servers is said in a sentence for each."""

from __future__ import annotations

import pytest

from exporters.discovery import NotTaken
from migrate.bundle import left_behind
from migrate.bundle.left_behind import LeftBehind, ServerRest


@pytest.mark.parametrize(
    ("count", "end"), [(1, "0."), (12, "10, 11."), (13, "10, 11 and 1 more."), (20, "11 and 8 more.")]
)
def test_a_dozen_names_are_shown_and_the_others_counted(count, end):
    (sentence,) = LeftBehind([ServerRest("pg://a", [str(n) for n in range(count)])]).sentences()
    assert sentence.startswith("Also on pg://a, not taken: 0")
    assert sentence.endswith(end)


def test_a_server_that_could_not_be_asked_says_why_and_a_reason_that_was_printed_is_not_repeated():
    rest = LeftBehind(
        [ServerRest("pg://a", ["x"], "it is shut"), ServerRest("pg://b"), ServerRest("pg://c", [], "no")]
    )
    assert list(rest.sentences(["it is shut"], str.upper)) == [
        "Also on pg://a, not taken: x.",
        "What else is on pg://a could not be listed, for the same reason.",
        "What else is on pg://c could not be listed: NO",
    ]


def test_it_is_read_as_it_was_written():
    rest = LeftBehind(
        [ServerRest("pg://a", ["x"], "why")],
        [("pg://b", "old")],
        [NotTaken("queue", "jobs", None, "eu", "drain it"), NotTaken("table", "t", 7, "eu", "copy it")],
    )
    assert left_behind.decode(rest.as_json()) == rest
    assert left_behind.decode(None) is None
