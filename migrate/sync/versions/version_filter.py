"""Which versions of a history, or objects by their tags, are selected. Pure.

Each version is chosen by itself, by its own size, time and tags, as an export chooses: delete markers by their key and
time only. But one that stands above versions of which none is selected would stand alone, and is not selected either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from msgspec.structs import replace

from exporters.bucket_api import Fetched, ObjectSummary
from exporters.selection import Selection
from migrate.sync.diff import Action, SyncStep

Judged = tuple[ObjectSummary, str]
"""A version of the source, and why it is not selected: empty where it is."""
Excludes = Callable[[str, ObjectSummary], str | None]
"""Returns why a version of a key is excluded by what a listing shows, None where it is not."""

ALONE = "not selected: no version below this delete marker is"
_ASKED_AT_ONCE = 2000


def judged(
    histories: Iterable[tuple[str, Sequence[ObjectSummary]]], excludes: Excludes
) -> Iterator[tuple[str, Sequence[Judged]]]:
    """Judge what a listing shows of each key, oldest first."""
    for key, versions in histories:
        yield key, alone([(version, excludes(key, version) or "") for version in versions])


def alone(versions: Sequence[Judged]) -> Sequence[Judged]:
    """Return the versions of a key with the delete markers that would stand alone made unwanted."""
    if not any(reason for _, reason in versions):
        return versions
    judged_versions: list[Judged] = []
    left_out = any_selected = False
    for version, reason in versions:
        final_reason = (
            ALONE if version.is_delete_marker and left_out and not any_selected and not reason else reason
        )
        judged_versions.append((version, final_reason))
        if not version.is_delete_marker:
            left_out, any_selected = left_out or bool(reason), any_selected or not reason
    return judged_versions


def by_tags(
    histories: Iterable[tuple[str, Sequence[Judged]]],
    selection: Selection,
    heads: Callable[[Iterable[ObjectSummary]], Iterator[Fetched]],
) -> Iterator[tuple[str, Sequence[Judged]]]:
    """Judge by tags, too, which no listing shows: ``heads`` returns those of versions that are selected so far, many at
    once. A version that cannot be asked is taken for selected: copying it says what is wrong.
    """
    for batch in _batches(histories):
        versions_to_ask = (
            version
            for _, versions in batch
            for version, reason in versions
            if not (reason or version.is_delete_marker)
        )
        responses = heads(versions_to_ask)
        for key, versions in batch:
            yield (
                key,
                alone([_by_its_tags(version, reason, selection, responses) for version, reason in versions]),
            )


def steps_by_tags(
    steps: Iterable[SyncStep | int],
    selection: Selection,
    heads: Callable[[Iterable[ObjectSummary]], Iterator[Fetched]],
) -> Iterator[SyncStep | int]:
    """Judge by tags the objects that would be copied or looked at, in a sync of current versions. Those that are not
    selected become steps to exclude.
    """
    rest = iter(steps)
    while batch := list(islice(rest, _ASKED_AT_ONCE)):
        summaries = [_asked(step) for step in batch]
        responses = heads(version for version in summaries if version is not None)
        for step, version in zip(batch, summaries, strict=True):
            reason = "" if version is None else _by_its_tags(version, "", selection, responses)[1]
            yield (
                replace(step, do=Action.EXCLUDED, why=reason)
                if reason and isinstance(step, SyncStep)
                else step
            )


def _asked(step: SyncStep | int) -> ObjectSummary | None:
    return step.source if isinstance(step, SyncStep) and step.do in {Action.COPY, Action.LOOK} else None


def _by_its_tags(
    version: ObjectSummary, reason: str, selection: Selection, responses: Iterator[Fetched]
) -> Judged:
    if reason or version.is_delete_marker:
        return version, "" if reason == ALONE else reason
    fetched = next(responses)
    return version, "" if fetched.error is not None else selection.excludes_tags(fetched.tags) or ""


def _batches(
    histories: Iterable[tuple[str, Sequence[Judged]]],
) -> Iterator[list[tuple[str, Sequence[Judged]]]]:
    batch: list[tuple[str, Sequence[Judged]]] = []
    count = 0
    for key, versions in histories:
        batch.append((key, versions))
        count += len(versions)
        if count >= _ASKED_AT_ONCE:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch
