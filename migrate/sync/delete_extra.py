"""Objects that only the destination has, removed when told to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from exporters.api import Gap
from exporters.bucket_api import Fetched, ObjectSummary
from exporters.errors import SourceGoneError
from migrate.errors import NotAllowedError, UnreachableError
from migrate.sync.copy import SyncContext, source_of
from migrate.sync.diff import SyncStep
from migrate.sync.outcome import Removed
from migrate.sync.versions.null_version import is_null, is_replaced
from migrate.sync.versions.version_diff import ANOTHER

_BATCH = 1000
_LISTED_NOT = "the source does not list it, and still has it; it was not removed at the destination"


@dataclass(slots=True)
class Removal:
    """What was removed, and what was not, by reason."""

    removed: list[Removed] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def gaps(self) -> Iterator[Gap]:
        """Yield what was to be removed and is still there."""
        for key, reason in self.kept.items():
            yield Gap(key, "failed", reason)

    def run(self, way: SyncContext, steps: Iterable[SyncStep]) -> None:
        """Remove. Each key is asked for at the source once more: not every server lists all that it has."""
        rest = iter(steps)
        while batch := list(islice(rest, _BATCH)):
            self._remove(way, self._gone(way, batch))

    def _gone(self, way: SyncContext, batch: Sequence[SyncStep]) -> list[ObjectSummary]:
        asked = [_at_source(way, step) for step in batch]
        gone: list[ObjectSummary] = []
        for step, found in zip(batch, way.source.heads(asked), strict=True):
            assert step.destination is not None
            way.note(found)
            if step.why == ANOTHER or _is_gone(way, step, found):
                gone.append(step.destination)
            else:
                why = (
                    _LISTED_NOT
                    if found.error is None
                    else f"whether the source has it is not known: {found.error}"
                )
                self.kept[step.name] = why
        return gone

    def _remove(self, way: SyncContext, there: Sequence[ObjectSummary]) -> None:
        skip = len(way.destination.prefix)
        if any(one.version_id for one in there):
            answers = way.destination.delete_versions((one.key, one.version_id) for one in there)
        else:
            answers = way.destination.delete_all(one.key for one in there)
        for one, answer in zip(there, answers, strict=True):
            key = one.key[skip:]
            if answer.error is None:
                self.removed.append(Removed(key, one.size_bytes, one.etag, one.version_id))
                way.progress.advance(items=1)
                continue
            locked = bool(one.version_id) and isinstance(answer.error, NotAllowedError)
            if isinstance(answer.error, UnreachableError | NotAllowedError) and not locked:
                raise answer.error
            self.kept[one.name[skip:]] = f"the destination does not remove it ({answer.error})"


def _is_gone(way: SyncContext, step: SyncStep, found: Fetched) -> bool:
    """Tell whether the source does not have it any more."""
    if is_null(step.source):
        return is_replaced(way.source, replace(source_of(step), key=way.source.prefix + step.key))
    return isinstance(found.error, SourceGoneError)


def _at_source(way: SyncContext, step: SyncStep) -> ObjectSummary:
    assert step.destination is not None
    key, modified, was = way.source.prefix + step.key, step.destination.modified, step.source
    if was is None:
        return ObjectSummary(key, 0, "", modified)
    return ObjectSummary(key, 0, was.etag, modified, version_id=was.version_id)
