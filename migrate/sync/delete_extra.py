"""Objects that only the destination has, removed with ``--delete``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Gap
from exporters.bucket_api import Fetched, ObjectSummary
from exporters.errors import SourceGoneError
from migrate.errors import UnreachableError
from migrate.sync.copy import SyncContext, source_of
from migrate.sync.diff import SyncStep
from migrate.sync.outcome import Removed
from migrate.sync.versions.null_version import is_null, is_replaced
from migrate.sync.versions.version_diff import ANOTHER

_BATCH = 1000
_LISTED_NOT = "the source does not list it, and still has it; it was not removed at the destination"


class Removal(Struct):
    """What was removed, and what was not, by reason."""

    removed: list[Removed] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def gaps(self) -> Iterator[Gap]:
        """Yield what was to be removed and is still there."""
        for key, reason in self.kept.items():
            yield Gap(key, "failed", reason)

    def run(self, context: SyncContext, steps: Iterable[SyncStep]) -> None:
        """Remove. Each key is asked for at the source once more: not every server lists all that it has."""
        rest = iter(steps)
        while batch := list(islice(rest, _BATCH)):
            self._remove(context, self._gone(context, batch))

    def _gone(self, context: SyncContext, batch: Sequence[SyncStep]) -> list[ObjectSummary]:
        summaries = [_at_source(context, step) for step in batch]
        gone: list[ObjectSummary] = []
        for step, fetched in zip(batch, context.source.heads(summaries), strict=True):
            assert step.destination is not None
            context.note(fetched)
            if step.why == ANOTHER or _is_gone(context, step, fetched):
                gone.append(step.destination)
            else:
                reason = (
                    _LISTED_NOT
                    if fetched.error is None
                    else f"whether the source has it is not known: {fetched.error}"
                )
                self.kept[step.name] = reason
        return gone

    def _remove(self, context: SyncContext, extra_objects: Sequence[ObjectSummary]) -> None:
        skip = len(context.destination.prefix)
        if any(extra_object.version_id for extra_object in extra_objects):
            results = context.destination.delete_versions(
                (extra_object.key, extra_object.version_id) for extra_object in extra_objects
            )
        else:
            results = context.destination.delete_all(extra_object.key for extra_object in extra_objects)
        for extra_object, result in zip(extra_objects, results, strict=True):
            key = extra_object.key[skip:]
            if result.error is None:
                self.removed.append(
                    Removed(key, extra_object.size_bytes, extra_object.etag, extra_object.version_id)
                )
                context.progress.advance(items=1)
                continue
            if isinstance(result.error, UnreachableError):
                raise result.error
            self.kept[extra_object.name[skip:]] = f"the destination does not remove it ({result.error})"


def _is_gone(context: SyncContext, step: SyncStep, fetched: Fetched) -> bool:
    """Tell whether the source does not have it any more."""
    if is_null(step.source):
        return is_replaced(context.source, replace(source_of(step), key=context.source.prefix + step.key))
    return isinstance(fetched.error, SourceGoneError)


def _at_source(context: SyncContext, step: SyncStep) -> ObjectSummary:
    assert step.destination is not None
    key, modified, was = context.source.prefix + step.key, step.destination.modified, step.source
    if was is None:
        return ObjectSummary(key, 0, "", modified)
    return ObjectSummary(key, 0, was.etag, modified, version_id=was.version_id)
