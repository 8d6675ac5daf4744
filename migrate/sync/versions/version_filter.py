"""Which versions of a history, or objects by their tags, are wanted, where somebody wants not all. Pure.

Each version is chosen by itself, by its own size, time and tags, as an export chooses: delete markers by their key and
time only. But one that stands above versions of which none is wanted would stand alone, and is not wanted either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from exporters.bucket_api import Fetched, ObjectSummary
from exporters.selection import Selection
from migrate.sync.diff import Do, SyncStep

Judged = tuple[ObjectSummary, str]
"""A version of the source, and why it is not wanted: empty where it is."""
Excludes = Callable[[str, ObjectSummary], str | None]
"""Tells of a key and a version why a listing alone makes it unwanted, None where it does not."""

ALONE = "not wanted: no version below this delete marker is"
_ASKED_AT_ONCE = 2000


def judged(
    histories: Iterable[tuple[str, Sequence[ObjectSummary]]], excludes: Excludes
) -> Iterator[tuple[str, Sequence[Judged]]]:
    """Judge what a listing shows of each key, oldest first."""
    for key, versions in histories:
        yield key, alone([(one, excludes(key, one) or "") for one in versions])


def alone(versions: Sequence[Judged]) -> Sequence[Judged]:
    """Return the versions of a key with the delete markers that would stand alone made unwanted."""
    if not any(why for _, why in versions):
        return versions
    found: list[Judged] = []
    left_out = wanted = False
    for one, why in versions:
        said = ALONE if one.is_delete_marker and left_out and not wanted and not why else why
        found.append((one, said))
        if not one.is_delete_marker:
            left_out, wanted = left_out or bool(why), wanted or not why
    return found


def by_tags(
    histories: Iterable[tuple[str, Sequence[Judged]]],
    selection: Selection,
    heads: Callable[[Iterable[ObjectSummary]], Iterator[Fetched]],
) -> Iterator[tuple[str, Sequence[Judged]]]:
    """Judge by tags, too, which no listing shows: ``heads`` is asked for those of every version that is wanted so far,
    many at once. A version that cannot be asked is taken for wanted: copying it says what is wrong.
    """
    for batch in _batches(histories):
        due = (one for _, versions in batch for one, why in versions if not (why or one.is_delete_marker))
        answers = heads(due)
        for key, versions in batch:
            yield key, alone([_by_its_tags(one, why, selection, answers) for one, why in versions])


def steps_by_tags(
    steps: Iterable[SyncStep | int],
    selection: Selection,
    heads: Callable[[Iterable[ObjectSummary]], Iterator[Fetched]],
) -> Iterator[SyncStep | int]:
    """Ask the same about objects that would be copied or looked at, where current ones alone are compared; what is not
    wanted is excluded.
    """
    rest = iter(steps)
    while batch := list(islice(rest, _ASKED_AT_ONCE)):
        asked = [_asked(step) for step in batch]
        answers = heads(one for one in asked if one is not None)
        for step, one in zip(batch, asked, strict=True):
            why = "" if one is None else _by_its_tags(one, "", selection, answers)[1]
            yield replace(step, do=Do.EXCLUDED, why=why) if why and isinstance(step, SyncStep) else step


def _asked(step: SyncStep | int) -> ObjectSummary | None:
    return step.source if isinstance(step, SyncStep) and step.do in {Do.COPY, Do.LOOK} else None


def _by_its_tags(one: ObjectSummary, why: str, selection: Selection, answers: Iterator[Fetched]) -> Judged:
    if why or one.is_delete_marker:
        return one, "" if why == ALONE else why
    found = next(answers)
    return one, "" if found.error is not None else selection.excludes_tags(found.tags) or ""


def _batches(
    histories: Iterable[tuple[str, Sequence[Judged]]],
) -> Iterator[list[tuple[str, Sequence[Judged]]]]:
    held: list[tuple[str, Sequence[Judged]]] = []
    count = 0
    for key, versions in histories:
        held.append((key, versions))
        count += len(versions)
        if count >= _ASKED_AT_ONCE:
            yield held
            held, count = [], 0
    if held:
        yield held
