"""Whole histories for one batch: of each key the oldest version first, delete markers in their place, in layers: the
next version of every key at once, then the one after it.

Versions that both sides have are looked at for what no listing shows. Tags, locks and ACL of a version can be changed,
and are brought in step on that very version; its headers and metadata cannot: where those differ it is a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, tee
from operator import attrgetter

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Gap, Loss
from exporters.bucket_api import Fetched
from exporters.objects import index_rows
from exporters.objects.index_rows import Content
from exporters.objects.source_checksums import md5_of, promises_md5, read_again
from migrate.errors import MoveoutError, NoSpaceError, UnreachableError
from migrate.storage.s3.destination_bucket import Written
from migrate.storage.s3.metadata.object_metadata import Description, is_md5
from migrate.sync.amendment import Amendment, amendment
from migrate.sync.copy import (
    UNLIKE,
    SmallCopy,
    SyncContext,
    as_read,
    is_small,
    lost_gaps,
    record_copied,
    refusal,
)
from migrate.sync.diff import AGAIN, Action, SyncStep, destination_of, source_of
from migrate.sync.inspect import Looked, look, same_item
from migrate.sync.large_object_copy import LargeCopy, Uploads
from migrate.sync.object_item import BatchOutcome, Item, item
from migrate.sync.record.record_rows import DESTINATION_ETAG, DESTINATION_VERSION, LOSSES
from migrate.sync.versions.version_diff import OTHERS


class VersionCopy(SmallCopy):
    """Reads and notes small versions. What is written stays, so what may have been damaged is read again before."""

    def checked(self, fetched: Fetched) -> Fetched:
        """See ``SmallCopy.checked``."""
        return fetched if _is_as_promised(fetched) else read_again(self.context.source, fetched)

    def note_doubt(self, read_item: Item, written: Written) -> None:
        """See ``SmallCopy.note_doubt``: read twice, it is what it is."""
        record_copied(
            self.context, self.outcome, read_item, written, Loss(read_item.step.name, "ETag", UNLIKE)
        )


def _is_as_promised(fetched: Fetched) -> bool:
    etag = fetched.summary.etag
    if fetched.crc64nvme is not None or not is_md5(etag) or not promises_md5(fetched):
        return True
    return md5_of(fetched.body) == etag


class HistoryCopy(Struct):
    """Copies histories for one batch: all steps of its keys."""

    context: SyncContext
    outcome: BatchOutcome
    uploads: Uploads
    _counts: dict[str, int] = field(default_factory=dict)

    def run(self, steps: Sequence[SyncStep]) -> None:
        """Look and copy. Raises what stops the whole sync."""
        steps_again = [step for step in steps if step.why == AGAIN]
        if steps_again:
            VersionCheck(self.context, self.outcome).run(steps_again)
        steps_to_copy = [
            part for _, group in groupby(steps, key=attrgetter("key")) if (part := self._due(list(group)))
        ]
        self._counts = {part[0].key: part[0].before for part in steps_to_copy}
        for depth in range(max(map(len, steps_to_copy), default=0)):
            self._layer([part[depth] for part in steps_to_copy if len(part) > depth])
        failed = {gap.item for gap in self.outcome.gaps if gap.disposition == "failed"}
        self.outcome.hidden |= {part[-1].key for part in steps_to_copy if part[-1].name in failed}

    def _due(self, steps: Sequence[SyncStep]) -> list[SyncStep]:
        """Add to the record what a killed run has written of a key; return the steps that are left."""
        looked_at = [step for step in steps if step.do == Action.LOOK and step.why != AGAIN]
        steps_to_copy = [step for step in steps if step.do == Action.COPY]
        adopted = [self._adopt(step) for step in looked_at]
        if all(adopted):
            return steps_to_copy
        self.outcome.gaps += [Gap(step.name, "failed", OTHERS) for step in steps_to_copy]
        return []

    def _adopt(self, step: SyncStep) -> bool:
        """Add a version to the record if it is the same at the destination; tell whether it is."""
        if step.marks:
            self._marked(step, destination_of(step).version_id)
            self.outcome.adopted += 1
            return True
        (looked,) = look(self.context, [step])
        source_error, same = looked.source.error, None
        if source_error is None and looked.destination.error is None:
            same = same_item(self.context, looked, self.context.is_same_when_read)
        if same is None:
            gap = Gap(step.name, "failed", OTHERS)
            if source_error is not None:
                gap = lost_gaps(self.context.source, [(step, source_error)])[0]
            self.outcome.gaps.append(gap)
            return gap.disposition == "excluded"
        self.context.progress.skip(items=1, size_bytes=looked.source.summary.size_bytes)
        self.outcome.rows.append(same.finished(looked.written, self.context.terms))
        self.outcome.adopted += 1
        return True

    def _layer(self, steps: Sequence[SyncStep]) -> None:
        """Add one version to each key."""
        whole_objects = [step for step in steps if step.marks or is_small(step)]
        small = VersionCopy(self.context, self.outcome)
        versions, versions_to_write = tee(self._read(whole_objects, small))
        answers = self.context.destination.put_versions(map(self._described, versions_to_write))
        for written, version in zip(answers, versions, strict=True):
            self._take(small, version, written)
        small.end()
        large = LargeCopy(self.context, self.outcome, self.uploads, versions=True)
        for step in [*(step for step in steps if not (step.marks or is_small(step))), *small.grown]:
            before = self.outcome.copied
            large.run([replace(step, before=self._counts[step.key])])
            self._counts[step.key] += self.outcome.copied - before

    def _read(self, steps: Sequence[SyncStep], small: VersionCopy) -> Iterator[Item | SyncStep]:
        """Yield delete markers, then the versions that could be read."""
        yield from (step for step in steps if step.marks)
        yield from small.read([step for step in steps if not step.marks])

    def _described(self, version: Item | SyncStep) -> tuple[Description, bytes | None]:
        """Return what is to be written."""
        if isinstance(version, SyncStep):
            self.context.check_lease()
            return Description(self.context.name(version), before=self._counts[version.key]), None
        step = version.step
        return replace(self.context.describe(version), before=self._counts[step.key]), version.fetched.body

    def _take(self, small: VersionCopy, version: Item | SyncStep, written: Written) -> None:
        step = version if isinstance(version, SyncStep) else version.step
        self._counts[step.key] += written.error is None
        if isinstance(version, Item):
            small.take(version, written)
        elif written.error is not None:
            self.outcome.gaps.append(refusal(self.context, step, written.error))
        else:
            self._marked(step, written.version_id)
            self.outcome.copied += 1
            self.context.progress.advance(items=1)

    def _marked(self, step: SyncStep, version_id: str) -> None:
        """Note a delete marker that is at the destination."""
        work = index_rows.marker(self.context.source.name, 0, source_of(step))
        work |= {"key": step.key, DESTINATION_ETAG: "", DESTINATION_VERSION: version_id or None, LOSSES: []}
        self.outcome.rows.append(work)


class _InspectedVersion(Struct, frozen=True):
    step: SyncStep
    made: Item
    amendment: Amendment


class VersionCheck(Struct):
    """Compares versions of one batch on both sides, and makes them equal."""

    context: SyncContext
    outcome: BatchOutcome
    _refused: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def run(self, steps: Sequence[SyncStep]) -> None:
        """Compare the versions, and change what differs. Raises what stops the whole sync."""
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
        """Yield the versions that both sides can show, with what has to be changed."""
        context = self.context
        for looked in look(context, steps):
            step, source, destination = looked.step, looked.source, looked.destination
            if source.error is not None or destination.error is not None:
                self.outcome.gaps.append(self._lost(looked))
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
                context.destination.acl(summary.key, summary.version_id) or "" if has_acls else None,
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
        self.outcome.same += 1
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
            self.outcome.rows.append(left.made.finished(written, self.context.terms))
        if faults:
            self.outcome.gaps.append(Gap(inspected.step.name, "failed", "; ".join(faults)))
        else:
            self.outcome.amended += 1


def _which(step: SyncStep) -> tuple[str, str]:
    return step.key, destination_of(step).version_id


def _refusal(property_name: str, error: MoveoutError) -> str:
    """Return the fault of a change that the destination does not take. Raises what stops the whole sync."""
    if isinstance(error, UnreachableError | NoSpaceError):
        raise error
    return f"the destination does not take its {property_name} ({error})"
