"""Versions that both sides have, looked at for what no listing shows. Tags, locks and ACL of a version can be changed,
and are brought in step on that very version; its headers and metadata cannot: where those differ it is a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from exporters.api import Gap
from exporters.objects.index_rows import Content
from migrate.errors import MoveoutError, NoSpaceError, UnreachableError
from migrate.storage.s3.destination_bucket import Written
from migrate.sync.amendment import Amendment, amendment
from migrate.sync.copy import SyncContext, as_read, lost_gaps, source_of
from migrate.sync.diff import SyncStep
from migrate.sync.inspect import Looked, destination_of, look
from migrate.sync.object_item import Done, Item, item


class _InspectedVersion(Struct, frozen=True):
    step: SyncStep
    made: Item
    amendment: Amendment


class VersionCheck(Struct):
    """Compares versions of one batch on both sides, and makes them equal."""

    context: SyncContext
    done: Done
    _refused: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def run(self, steps: Sequence[SyncStep]) -> None:
        """Look. Raises what stops the whole sync."""
        unsettled = [inspected for inspected in self._see(steps) if not self._is_settled(inspected)]
        if not unsettled:
            return
        self._amend(unsettled)
        changed = {
            _which(inspected.step): inspected for inspected in unsettled if inspected.amendment.changes
        }
        left: dict[tuple[str, str], _InspectedVersion] = {}
        if changed:  # not every server keeps what it takes
            left = {
                _which(inspected.step): inspected
                for inspected in self._see([inspected.step for inspected in changed.values()])
            }
        for inspected in unsettled:
            self._settle(inspected, left.get(_which(inspected.step)))

    def _see(self, steps: Sequence[SyncStep]) -> Iterator[_InspectedVersion]:
        """Yield what is found of those that can be looked at."""
        context = self.context
        for looked in look(context, steps):
            step, source, destination = looked.step, looked.source, looked.destination
            if source.error is not None or destination.error is not None:
                self.done.gaps.append(self._lost(looked))
                continue
            read_item = item(
                context.source.name, as_read(step, source), source, Content("", None, 0), looked.acl
            )
            summary = destination_of(step)
            has_acls = context.source.has_acls
            changes = amendment(
                summary,
                destination,
                context.describe(read_item),
                context.destination.acl(summary.key, summary.version_id) if has_acls else None,
                locks_itself=context.locks_itself,
            )
            yield _InspectedVersion(step, read_item, changes)

    def _lost(self, looked: Looked) -> Gap:
        """Return the gap of a version that one side does not have any more, or does not show."""
        step, error = looked.step, looked.destination.error
        if looked.source.error is not None:
            return lost_gaps(self.context.source, [(step, looked.source.error)])[0]
        return Gap(step.name, "failed", f"it cannot be looked at at the destination: {error}")

    def _is_settled(self, inspected: _InspectedVersion) -> bool:
        if inspected.amendment.changes or inspected.amendment.faults:
            return False
        self._report_skipped(inspected)
        self.done.same += 1
        return True

    def _report_skipped(self, inspected: _InspectedVersion) -> None:
        self.context.progress.skip(items=1, size_bytes=source_of(inspected.step).size_bytes)

    def _amend(self, unsettled: Sequence[_InspectedVersion]) -> None:
        """Send what is to be changed; note what the destination refuses."""
        changes = [
            (inspected, property_name, request)
            for inspected in unsettled
            for property_name, request in inspected.amendment.changes
        ]
        results = self.context.destination.amend(request for _, _, request in changes)
        for (inspected, property_name, _), result in zip(changes, results, strict=True):
            if result.error is not None:
                self._refused.setdefault(_which(inspected.step), []).append(
                    _refusal(property_name, result.error)
                )

    def _settle(self, inspected: _InspectedVersion, left: _InspectedVersion | None) -> None:
        """Account for a version that was not the same. ``left``: what was found once it had been changed."""
        self._report_skipped(inspected)
        refused = self._refused.get(_which(inspected.step), [])
        faults = [*inspected.amendment.faults, *refused]
        if inspected.amendment.changes:
            if left is None:
                return  # it has become a gap meanwhile
            if not refused:
                faults += [
                    f"the destination takes its {property_name} and does not show it afterwards"
                    for property_name, _ in left.amendment.changes
                ]
            destination_summary = destination_of(inspected.step)
            written = Written(
                inspected.step.key, destination_summary.etag, version_id=destination_summary.version_id
            )
            self.done.rows.append(left.made.finished(written, self.context.terms))
        if faults:
            self.done.gaps.append(Gap(inspected.step.name, "failed", "; ".join(faults)))
        else:
            self.done.amended += 1


def _which(step: SyncStep) -> tuple[str, str]:
    return step.key, destination_of(step).version_id


def _refusal(property_name: str, error: MoveoutError) -> str:
    """Return the fault of a change that the destination does not take. Raises what stops the whole sync."""
    if isinstance(error, UnreachableError | NoSpaceError):
        raise error
    return f"the destination does not take its {property_name} ({error})"
