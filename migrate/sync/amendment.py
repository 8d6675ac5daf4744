"""What is to be changed of a version that both sides have: its tags, locks and ACL can be, its headers and metadata
cannot. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from exporters.bucket_api import Fetched, ObjectSummary
from migrate.storage.s3.http.messages import Request
from migrate.storage.s3.metadata.metadata_check import has_headers, has_tags, moment_of
from migrate.storage.s3.metadata.object_metadata import (
    LEGAL_HOLD,
    LOCK_MODE,
    LOCK_UNTIL,
    Description,
    acl_change,
    hold_change,
    retention_change,
    tags_change,
)

_HEADERS = "the destination has it with other headers or metadata, and those of a version cannot be changed"
_COMPLIANCE = "COMPLIANCE"


class Amendment(Struct, frozen=True):
    """What is to be changed of a version at the destination, each with its name, and what cannot be."""

    changes: Sequence[tuple[str, Request]] = ()
    faults: Sequence[str] = ()


class LockChange(Struct, frozen=True):
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
    summary: ObjectSummary,
    destination_object: Fetched,
    description: Description,
    acl: str | None = None,
    *,
    locks_itself: bool = False,
    now: datetime | None = None,
) -> Amendment:
    """Decide purely about a version. ``acl``: the canned one that it has, None where ACLs do not count.
    ``locks_itself``: the destination's bucket has a default retention, which may have locked it for longer.
    """
    changes: list[tuple[str, Request]] = []
    faults = [] if has_headers(destination_object, description) else [_HEADERS]
    if not has_tags(destination_object, description):
        changes.append(("tags", tags_change(summary, description.tags)))
    if acl is not None and acl != description.acl:
        changes.append(("ACL", acl_change(summary, description.acl)))
    locks = lock_amendment(summary, destination_object, description, locks_itself=locks_itself, now=now)
    return Amendment([*changes, *locks.changes], [*faults, *locks.faults])


def lock_amendment(
    summary: ObjectSummary,
    destination_object: Fetched,
    description: Description,
    *,
    locks_itself: bool = False,
    now: datetime | None = None,
) -> Amendment:
    """Decide purely about the retention and the legal hold of a version. ``locks_itself``: see ``amendment``."""
    changes: list[tuple[str, Request]] = []
    faults: list[str] = []
    moment = now or datetime.now(UTC)
    lock = LockChange.of(description.lock_mode, description.lock_until, moment)
    its_lock = LockChange.of(
        destination_object.headers.get(LOCK_MODE, ""), destination_object.headers.get(LOCK_UNTIL, ""), moment
    )
    if not lock.is_within(its_lock):
        changes.append(
            ("retention", retention_change(summary, description.lock_mode, description.lock_until))
        )
    elif not (its_lock.is_within(lock) or locks_itself):
        faults.append(
            f"the destination locks it until {its_lock.until:%Y-%m-%dT%H:%M:%SZ} ({its_lock.mode}), longer or stricter"
            " than the source; a sync lifts no lock"
        )
    has_legal_hold = destination_object.headers.get(LEGAL_HOLD, "OFF") == "ON"
    if description.legal_hold and not has_legal_hold:
        changes.append(("legal hold", hold_change(summary)))
    elif has_legal_hold and not description.legal_hold:
        faults.append("the destination has a legal hold on it, the source has none; a sync lifts no lock")
    return Amendment(changes, faults)
