"""The plan, executed in batches by several threads. Each batch is committed to the record as it ends. Objects that only
the destination has are removed at the end with ``--delete``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Gap
from exporters.bucket_api import Fetched, ObjectSummary
from exporters.errors import SourceGoneError
from exporters.objects.key_oddities import Oddities
from migrate.errors import UnreachableError
from migrate.storage.s3.capability_probe import ALWAYS
from migrate.sync.copy import SmallCopy, SyncContext, is_small
from migrate.sync.diff import Action, SyncStep, destination_of, source_of
from migrate.sync.inspect import ObjectCheck
from migrate.sync.large_object_copy import LargeCopy, Uploads
from migrate.sync.object_item import BatchOutcome
from migrate.sync.outcome import Removed
from migrate.sync.record.sync_record import Record
from migrate.sync.versions.null_version import is_null, is_replaced
from migrate.sync.versions.version_copy import HistoryCopy, VersionCheck
from migrate.sync.versions.version_diff import ANOTHER

BATCH_OBJECTS = 1000
BATCH_BYTES = 32 * 2**20


class PlanExecution(Struct, frozen=True):
    """Executes the plan of one run. ``check_lease`` raises once the lease is lost."""

    context: SyncContext
    record: Record
    run: str
    check_lease: Callable[[], None]
    uploads: Uploads
    history: bool

    def execute(self, workers: int) -> BatchOutcome:
        """Return the counts, the gaps and the damage. Raises what stops the whole sync."""
        total = BatchOutcome()
        steps = self._allowed(total)
        with ThreadPoolExecutor(workers, thread_name_prefix="moveout-sync") as executor:
            under_way: deque[Future[BatchOutcome]] = deque()
            try:
                for number, batch in enumerate(batches(steps)):
                    under_way.append(executor.submit(self._run_batch, number, batch))
                    while len(under_way) > workers:
                        total.add(under_way.popleft().result())
                while under_way:
                    total.add(under_way.popleft().result())
            finally:
                for future in under_way:
                    future.cancel()
        return total

    def _allowed(self, total: BatchOutcome) -> Iterator[SyncStep]:
        """Yield the steps whose keys the destination accepts. The others become gaps."""
        refused = self.context.terms.refused_keys
        meeting = self._colliding_keys(refused)
        for step in self.record.plan(self.run):
            if step.do not in {Action.COPY, Action.LOOK}:
                continue
            reason = refusal_of([*step.odd, *meeting.get(step.key, ())], refused)
            if reason:
                total.gaps.append(Gap(step.name, "failed", reason))
                self.context.progress.advance(items=1)
            else:
                yield step

    def _colliding_keys(self, refused: Mapping[str, str]) -> dict[str, frozenset[str]]:
        """Return the keys that would meet another one at a destination that takes the two for the same; only a look
        at all of them shows which.
        """
        if not ALWAYS & refused.keys():
            return {}
        skip = len(self.context.source.prefix)
        with closing(Oddities(ALWAYS & refused.keys())) as kinds:
            oddities = (
                (
                    summary.key[skip:],
                    kinds.of(self.context.destination.prefix + summary.key[skip:], summary.size_bytes)
                    & ALWAYS,
                )
                for summary in self.context.source.list()
            )
            return {key: oddities_found for key, oddities_found in oddities if oddities_found}

    def _run_batch(self, number: int, batch: list[SyncStep]) -> BatchOutcome:
        """Copy a batch, and commit what of it is at the destination, also where the rest fails."""
        outcome = BatchOutcome()
        try:
            self.context.source.cancellation.check()
            self.check_lease()
            self._copy_batch(batch, outcome)
        finally:
            if outcome.rows:
                self.check_lease()
                self.record.write_done(self.run, number, outcome.rows)
                outcome.noted = len(outcome.rows)
                outcome.rows = []
        return outcome

    def _copy_batch(self, batch: list[SyncStep], outcome: BatchOutcome) -> None:
        if self.history:
            HistoryCopy(self.context, outcome, self.uploads).run(batch)
            return
        steps_to_copy = [step for step in batch if step.do == Action.COPY]
        looked_at = [step for step in batch if step.do == Action.LOOK]
        if looked_at:
            check = ObjectCheck(self.context, outcome)
            steps_to_copy += check.run(looked_at)
            if check.unlike_locked:
                VersionCheck(self.context, outcome).run(check.unlike_locked)
        small = SmallCopy(self.context, outcome)
        small.run([step for step in steps_to_copy if is_small(step)])
        rest = [step for step in steps_to_copy if not is_small(step)] + small.grown
        LargeCopy(self.context, outcome, self.uploads).run(rest)


def refusal_of(odd: Iterable[str], refused: Mapping[str, str]) -> str:
    """Return why the destination does not take a key, empty where it does."""
    for kind in odd:
        if kind in refused:
            return f"it has {kind}: the destination {refused[kind]}"
    return ""


def batches(steps: Iterable[SyncStep]) -> Iterator[list[SyncStep]]:
    """Gather steps in their order; a large object is a batch by itself. Versions of a key stay together."""
    gathered: list[SyncStep] = []
    held_bytes = 0
    for step in steps:
        size_bytes = step.source.size_bytes if step.source else 0
        full = held_bytes + size_bytes > BATCH_BYTES or len(gathered) >= BATCH_OBJECTS
        if gathered and full and step.key != gathered[-1].key:
            yield gathered
            gathered, held_bytes = [], 0
        gathered.append(step)
        held_bytes += size_bytes
    if gathered:
        yield gathered


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
            context.note(fetched)
            if step.why == ANOTHER or _is_gone(context, step, fetched):
                gone.append(destination_of(step))
            else:
                reason = (
                    _LISTED_NOT
                    if fetched.error is None
                    else f"whether the source has it is not known: {fetched.error}"
                )
                self.kept[step.name] = reason
        return gone

    def _remove(self, context: SyncContext, extra_objects: Sequence[ObjectSummary]) -> None:
        context.check_lease()
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
    key, modified, was = context.source.prefix + step.key, destination_of(step).modified, step.source
    if was is None:
        return ObjectSummary(key, 0, "", modified)
    return ObjectSummary(key, 0, was.etag, modified, version_id=was.version_id)
