"""A source's objects from a bundle into a bucket.

Nothing but the bundle and the bucket is needed to go on after a crash: what the bucket holds already is
listed and compared. A bucket that holds anything else is not touched.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from migrate.bundle import layout
from migrate.bundle.objects import ObjectRow, failed_keys, object_rows, source_prefix
from migrate.bundle.reader import BundleReader
from migrate.errors import MoveoutError, NotEmptyError, UnreachableError
from migrate.progress import Progress
from migrate.restore import objects_keys
from migrate.restore.objects_present import Present
from migrate.restore.objects_write import Done, Job, Writer, batches
from migrate.restore.outcome import RestoreOutcome
from migrate.store.s3_bucket_write import TargetBucket, open_target_bucket

_NAMED = 20
"""Findings of one kind that are named one by one; the rest is counted."""
_NOT_OURS = {"location", "acl", "ownership", "request-payment", "denied", "accelerate"}
"""Settings that belong to the host or its accounts, and are what they are at the new one."""


def restore_bucket(
    reader: BundleReader,
    source: str,
    target_url: str,
    *,
    workers: int,
    progress: Progress,
    merge: bool = False,
    secrets: Mapping[str, str] | None = None,
) -> RestoreOutcome:
    """Write all objects of a source to a bucket with their headers, metadata and tags; then the bucket's
    settings.

    The prefix that was exported is replaced by the URL's. Raises ``NotEmptyError`` where the bucket holds
    something that is not in the bundle (with ``merge`` that is left alone), and what stops everything:
    ``UnreachableError``, ``NotAllowedError``, ``NoSpaceError``, ``GoneError``. An object that the target does
    not take is a finding.
    """
    target = open_target_bucket(target_url, secrets=secrets)
    present = Present(target)
    try:
        plan = _survey(_Rows(reader, source, target), present, merge=merge)
        progress.begin(f"restore {source}", items=plan.items, size_bytes=plan.size_bytes)
        refused = objects_keys.refused(target, plan.oddities)
        run = _Run(_Rows(reader, source, target), present, refused, progress)
        done = run.write(workers)
        progress.end()
    finally:
        present.close()
    notes = list(_notes(reader, source, plan))
    if not target.prefix and not source_prefix(reader, source):
        notes += _restore_settings(reader, source, target, existing=plan.extra > 0)
    findings = [*plan.findings, *run.findings(), *done.findings]
    return RestoreOutcome(
        source, done.items + run.skipped, done.size_bytes, run.skipped, tuple(findings), tuple(notes)
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """The objects of a source under the keys that they get at the target."""

    reader: BundleReader
    source: str
    target: TargetBucket

    def __iter__(self) -> Iterator[tuple[str, ObjectRow]]:
        for row in object_rows(self.reader, self.source):
            yield self.target.prefix + row.key, row


@dataclass(slots=True)
class _Plan:
    """What is to be done, found without writing anything."""

    items: int = 0
    size_bytes: int = 0
    extra: int = 0
    oddities: set[str] = field(default_factory=set)
    left_behind: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def _survey(rows: _Rows, present: Present, *, merge: bool) -> _Plan:
    plan, kinds, target = _Plan(), objects_keys.Oddities(), rows.target
    for key, row in rows:
        plan.items += 1
        plan.size_bytes += row.size_bytes
        plan.oddities |= kinds.of(key, row.size_bytes)
        for what in row.extra:
            plan.left_behind[what] = plan.left_behind.get(what, 0) + 1
        if present.matches(key, row) is False:
            if not merge:
                raise _not_empty(target, key, "an object of that key with other content")
            plan.findings.append(f"{key}: the bucket holds another object of this key; it was left alone")
    foreign = present.foreign()
    if foreign is not None:
        plan.extra = 1
        if not merge:
            raise _not_empty(target, foreign, "an object that is not in the bundle")
    return plan


def _not_empty(target: TargetBucket, key: str, what: str) -> NotEmptyError:
    return NotEmptyError(
        f"{target.url} is not empty: {key!r} is {what}",
        next_step="name an empty bucket or prefix, or say --merge to leave what is there as it is",
    )


class _Run:
    """The writing."""

    def __init__(self, rows: _Rows, present: Present, refused: Mapping[str, str], progress: Progress) -> None:
        self._rows = rows
        self._present, self._refused, self._progress = present, refused, progress
        self._writer = Writer(rows.reader.store, rows.target, progress)
        self._refused_keys: dict[str, list[str]] = {}
        self._refused_count = Counter[str]()
        self.skipped = 0

    def write(self, workers: int) -> Done:
        """Write what is not there yet."""
        items = size_bytes = 0
        findings: list[str] = []
        with ThreadPoolExecutor(workers, thread_name_prefix="moveout-restore") as executor:
            under_way: deque[Future[Done]] = deque()
            try:
                for batch in batches(self._jobs()):
                    under_way.append(executor.submit(self._writer.write, batch))
                    while len(under_way) > workers:
                        done = under_way.popleft().result()
                        items, size_bytes = items + done.items, size_bytes + done.size_bytes
                        findings += done.findings
                while under_way:
                    done = under_way.popleft().result()
                    items, size_bytes = items + done.items, size_bytes + done.size_bytes
                    findings += done.findings
            finally:
                for future in under_way:
                    future.cancel()
        return Done(items, size_bytes, tuple(findings))

    def findings(self) -> Iterator[str]:
        """Yield what the target does not take, the first keys of each kind by name."""
        for oddity, keys in self._refused_keys.items():
            what = f"the target {self._refused[oddity]}"
            for key in keys:
                yield f"{key!r} has {oddity}: {what}; not restored"
            if self._refused_count[oddity] > _NAMED:
                yield f"{self._refused_count[oddity] - _NAMED} more keys have {oddity}; not restored"

    def _refuse(self, oddity: str, key: str) -> None:
        self._refused_count[oddity] += 1
        if self._refused_count[oddity] <= _NAMED:
            self._refused_keys.setdefault(oddity, []).append(key)

    def _jobs(self) -> Iterator[Job]:
        kinds = objects_keys.Oddities()
        for key, row in self._rows:
            refused = sorted(kinds.of(key, row.size_bytes) & self._refused.keys())
            if refused:
                self._refuse(refused[0], key)
                continue
            same = self._present.matches(key, row)
            if same:
                self.skipped += 1
                self._progress.skip(items=1, size_bytes=row.size_bytes)
            elif same is None:
                yield Job(key, row)


def _notes(reader: BundleReader, source: str, plan: _Plan) -> Iterator[str]:
    missing = sum(1 for _ in failed_keys(reader, source))
    if missing:
        yield f"{missing} objects of the source are not in the bundle; data/gaps.parquet names them"
    for what, count in sorted(plan.left_behind.items()):
        yield f"{what}: {count} objects had it at the source and have the target's default now"


def _restore_settings(
    reader: BundleReader, source: str, target: TargetBucket, *, existing: bool
) -> Iterator[str]:
    """Write the settings that can be written and differ; say what was not."""
    file = next(reader.source_files(source, "bucket.json"), None)
    if file is None:
        return
    if existing:
        yield "the bucket held objects before, so its settings were left as they are"
        return
    wanted: dict[str, Any] = json.loads(reader.read_checked(file))
    there = json.loads(json.dumps(target.configuration(), default=str))
    for name, value in sorted(wanted.items()):
        if name in _NOT_OURS or there.get(name) == value:
            continue
        try:
            if not target.configure(name, value):
                yield f"the bucket's {name} is in {layout.source_file(source, 'bucket.json')}; set it by hand"
        except UnreachableError:
            raise
        except MoveoutError as exc:
            yield f"the bucket's {name} could not be set ({exc})"
