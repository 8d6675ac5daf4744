"""Versions that both sides have, looked at for what no listing shows. Tags, locks and ACL of a version can be changed,
and are brought in step on that very version; its headers and metadata cannot: where those differ it is a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from exporters.api import Gap
from exporters.bucket_api import Fetched, ObjectSummary
from exporters.objects.index_rows import Content
from migrate.errors import MoveoutError, NoSpaceError, UnreachableError
from migrate.storage.s3.destination_bucket import Written
from migrate.storage.s3.metadata.metadata_check import has_headers, has_tags, moment_of
from migrate.storage.s3.metadata.object_metadata import LEGAL_HOLD, LOCK_MODE, LOCK_UNTIL, Description
from migrate.storage.s3.version_updates import Change, acl_change, hold_change, retention_change, tags_change
from migrate.sync.copy import SyncContext, acls, as_read, lost_gaps, source_of
from migrate.sync.diff import SyncStep
from migrate.sync.inspect import destination_of
from migrate.sync.object_item import Done, Item, item

_HEADERS = "the destination has it with other headers or metadata, and those of a version cannot be changed"
_COMPLIANCE = "COMPLIANCE"


@dataclass(frozen=True, slots=True)
class Amendment:
    """What is to be changed of a version at the destination, each with its name, and what cannot be."""

    changes: Sequence[tuple[str, Change]] = ()
    faults: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LockChange:
    """The retention of a version; ``until`` is None where none holds any more."""

    mode: str = ""
    until: datetime | None = None

    @staticmethod
    def of(mode: str, until: str, now: datetime) -> LockChange:
        """Return what holds ``now`` of the headers of a version."""
        moment = moment_of(until) if mode else None
        return LockChange(mode, moment) if moment is not None and moment > now else LockChange()

    def is_within(self, other: LockChange) -> bool:
        """Tell whether the other one holds for as long and as strictly."""
        if self.until is None:
            return True
        strict = self.mode != _COMPLIANCE or other.mode == _COMPLIANCE
        return other.until is not None and self.until <= other.until and strict


def amendment(
    its: ObjectSummary,
    theirs: Fetched,
    wanted: Description,
    acl: str | None = None,
    *,
    locks_itself: bool = False,
    now: datetime | None = None,
) -> Amendment:
    """Decide purely about a version. ``acl``: the canned one that it has, None where ACLs do not count.
    ``locks_itself``: the destination's bucket has a default retention, which may have locked it for longer.
    """
    changes: list[tuple[str, Change]] = []
    faults = [] if has_headers(theirs, wanted) else [_HEADERS]
    if not has_tags(theirs, wanted):
        changes.append(("tags", tags_change(its, wanted.tags)))
    if acl is not None and acl != wanted.acl:
        changes.append(("ACL", acl_change(its, wanted.acl)))
    moment = now or datetime.now(UTC)
    lock = LockChange.of(wanted.lock_mode, wanted.lock_until, moment)
    its_lock = LockChange.of(theirs.headers.get(LOCK_MODE, ""), theirs.headers.get(LOCK_UNTIL, ""), moment)
    if not lock.is_within(its_lock):
        changes.append(("retention", retention_change(its, wanted.lock_mode, wanted.lock_until)))
    elif not (its_lock.is_within(lock) or locks_itself):
        faults.append(
            f"the destination locks it until {its_lock.until:%Y-%m-%dT%H:%M:%SZ} ({its_lock.mode}), longer or stricter"
            " than the source; a sync lifts no lock"
        )
    held = theirs.headers.get(LEGAL_HOLD, "OFF") == "ON"
    if wanted.legal_hold and not held:
        changes.append(("legal hold", hold_change(its)))
    elif held and not wanted.legal_hold:
        faults.append("the destination has a legal hold on it, the source has none; a sync lifts no lock")
    return Amendment(changes, faults)


@dataclass(frozen=True, slots=True)
class _InspectedVersion:
    step: SyncStep
    made: Item
    found: Amendment


@dataclass(slots=True)
class HistoryLook:
    """Looks at versions for one span, at both sides, and brings them in step."""

    way: SyncContext
    done: Done
    locks_itself: bool = False
    _refused: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def run(self, steps: Sequence[SyncStep]) -> None:
        """Look. Raises what stops the whole sync."""
        due = [seen for seen in self._see(steps) if not self._is_settled(seen)]
        if not due:
            return
        self._amend(due)
        changed = {_which(seen.step): seen for seen in due if seen.found.changes}
        left: dict[tuple[str, str], _InspectedVersion] = {}
        if changed:  # not every server keeps what it takes
            left = {_which(seen.step): seen for seen in self._see([seen.step for seen in changed.values()])}
        for seen in due:
            self._settle(seen, left.get(_which(seen.step)))

    def _see(self, steps: Sequence[SyncStep]) -> Iterator[_InspectedVersion]:
        """Yield what is found of those that can be looked at."""
        way = self.way
        here = way.source.heads(map(source_of, steps))
        there = way.destination.reader.heads(map(destination_of, steps))
        found_acls = acls(way, map(source_of, steps))
        for step, ours, theirs, acl in zip(steps, here, there, found_acls, strict=False):
            way.note(ours, theirs)
            if ours.error is not None or theirs.error is not None:
                self.done.gaps.append(self._lost(step, ours, theirs))
                continue
            made = item(way.source.name, as_read(step, ours), ours, Content("", None, 0), acl)
            wanted = made.described(way.name(step), way.terms)
            its = destination_of(step)
            kept = way.destination.acl(its.key, its.version_id) if way.source.has_acls else None
            yield _InspectedVersion(
                step, made, amendment(its, theirs, wanted, kept, locks_itself=self.locks_itself)
            )

    def _lost(self, step: SyncStep, ours: Fetched, theirs: Fetched) -> Gap:
        """Return the gap of a version that one side does not have any more, or does not show."""
        if ours.error is not None:
            return lost_gaps(self.way.source, [(step, ours.error)])[0]
        return Gap(step.name, "failed", f"it cannot be looked at at the destination: {theirs.error}")

    def _is_settled(self, seen: _InspectedVersion) -> bool:
        if seen.found.changes or seen.found.faults:
            return False
        self._told(seen)
        self.done.same += 1
        return True

    def _told(self, seen: _InspectedVersion) -> None:
        self.way.progress.skip(items=1, size_bytes=source_of(seen.step).size_bytes)

    def _amend(self, due: Sequence[_InspectedVersion]) -> None:
        """Send what is to be changed; note what the destination refuses."""
        changes = [(seen, what, request) for seen in due for what, request in seen.found.changes]
        answers = self.way.destination.amend(request for _, _, request in changes)
        for (seen, what, _), answer in zip(changes, answers, strict=True):
            if answer.error is not None:
                self._refused.setdefault(_which(seen.step), []).append(_refusal(what, answer.error))

    def _settle(self, seen: _InspectedVersion, left: _InspectedVersion | None) -> None:
        """Account for a version that was not the same. ``left``: what was found once it had been changed."""
        self._told(seen)
        refused = self._refused.get(_which(seen.step), [])
        faults = [*seen.found.faults, *refused]
        if seen.found.changes:
            if left is None:
                return  # it has become a gap meanwhile
            if not refused:
                faults += [
                    f"the destination takes its {what} and does not show it afterwards"
                    for what, _ in left.found.changes
                ]
            its = destination_of(seen.step)
            written = Written(seen.step.key, its.etag, version_id=its.version_id)
            self.done.rows.append(left.made.finished(written, self.way.terms))
        if faults:
            self.done.gaps.append(Gap(seen.step.name, "failed", "; ".join(faults)))
        else:
            self.done.amended += 1


def _which(step: SyncStep) -> tuple[str, str]:
    return step.key, destination_of(step).version_id


def _refusal(what: str, error: MoveoutError) -> str:
    """Return the fault of a change that the destination does not take. Raises what stops the whole sync."""
    if isinstance(error, UnreachableError | NoSpaceError):
        raise error
    return f"the destination does not take its {what} ({error})"
