"""A source's objects from a bundle into a bucket, with their history where the bundle has one.

Nothing but the bundle and the bucket is needed to go on after a crash: what the bucket holds already is
listed and compared. A bucket that holds anything else is not touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import chain, islice

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Loss
from exporters.bucket_api import ObjectSummary
from exporters.objects.key_oddities import NAMELESS, OWN_FOLDER, Oddities, is_own_folder
from exporters.objects.server_quirks import Trait, has
from migrate.bundle.lease import Lease
from migrate.bundle.object_index import (
    FailedObject,
    ObjectRow,
    failed_objects,
    has_history,
    hidden_keys,
    histories,
    object_rows,
)
from migrate.bundle.reader import BundleReader
from migrate.errors import NotAllowedError, NotEmptyError
from migrate.number_text import things
from migrate.restore.common.api import RestoreOutcome, RestoreRequest, naming_create
from migrate.restore.common.left_out import FinishedRestore, lacking_of
from migrate.restore.common.report import RestoreReport, VersionMap
from migrate.restore.objects.bucket_settings import of_bundle
from migrate.restore.objects.copy import (
    BatchOutcome,
    History,
    ObjectCopy,
    ObjectPool,
    OpenObjectPool,
)
from migrate.restore.objects.destination_terms import STANDARD, Markers, Terms, has_odd_tags, is_of_concern
from migrate.restore.objects.existing import ExistingObjects, taken, why_current_only
from migrate.restore.objects.lease import RestoreFolder, lease_of
from migrate.runtime import malloc
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress, SourceTask
from migrate.runtime.worker_pool import ThreadWorkerPool, run_all
from migrate.storage.s3.capability_probe import ALWAYS, ProbePlan, clear_probe_objects, probe, refused_markers
from migrate.storage.s3.destination_bucket import DestinationBucket, open_destination_bucket
from migrate.storage.s3.metadata.acl import canned
from migrate.storage.s3.metadata.metadata_check import has_headers, has_tags
from migrate.storage.s3.own_objects import RESTORES

_LOOKED_AT = 1000
"""How many of the objects that are there already are asked for their metadata and tags."""
_GIVE_BACK_EVERY = 32
"""After this many batches free memory is given back to the system: it is scattered among memory in use."""
_NAMED = 20
"""Findings of one kind that are named one by one; the rest is counted."""


class BucketRestorer:
    """Restores buckets; see ``Restorer``."""

    def restore(self, request: RestoreRequest) -> RestoreOutcome:
        """Write all objects of a source to a bucket with their headers, metadata, tags and locks, then the bucket's
        settings. All versions are written where the bundle has them and the destination keeps them. The ``report`` gets
        what the destination cannot hold before anything is written, and which version became which. Small objects are
        packed where the destination can unpack them and keeps no versions.

        The prefix that was exported is replaced by the URL's. Raises ``NotEmptyError`` where the bucket holds
        something that is not in the bundle (with ``merge`` that is left alone), and what stops everything:
        ``BusyError``, ``UnreachableError``, ``NotAllowedError``, ``NoSpaceError``, ``GoneError``. An object that
        the destination does not take is left out.
        """
        cancellation = (request.cancellation or CancellationToken()).child()
        with naming_create():
            destination = open_destination_bucket(
                request.url, secrets=request.secrets, cancellation=cancellation, note=request.progress.note
            )
        report = RestoreReport(request.report, request.source)
        restore = _Restore(request.reader, request.source, destination, report, request.progress)
        return restore.run(
            request.workers, request.open_pool, merge=request.merge, snowball=request.pack_small_objects
        )

    def finished(
        self, reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
    ) -> Sequence[FinishedRestore]:
        """Return nothing: a bucket keeps no record, the comparison finds what is missing."""
        del reader, source, url, secrets
        return []


class _Histories(Struct, frozen=True):
    """The objects of a source under the keys that they get at the destination, each with the versions that are to be
    restored, oldest first. ``why_current_only``: why older versions are left out, "" where they are not. ``hidden``:
    see ``histories``.
    """

    reader: BundleReader
    source: str
    destination: DestinationBucket
    why_current_only: str
    markers: Markers = field(default_factory=Markers)
    hidden: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[tuple[str, Sequence[ObjectRow]]]:
        for key, rows in histories(object_rows(self.reader, self.source), self.hidden):
            chosen = [row for row, reason in self._chosen(key, rows) if not reason]
            if chosen:
                yield self.destination.prefix + key, chosen

    def left_out(self) -> Iterator[tuple[str, ObjectRow, str]]:
        """Yield the versions that are not restored, each with the reason."""
        all_rows = histories(object_rows(self.reader, self.source))
        # Without these only an own folder is left out, which is the first by key.
        for key, rows in all_rows if self.why_current_only or self.markers.refused else islice(all_rows, 1):
            for row, reason in self._chosen(key, rows):
                if reason:
                    yield self.destination.prefix + key, row, reason

    def _chosen(self, key: str, rows: Sequence[ObjectRow]) -> Iterator[tuple[ObjectRow, str]]:
        name, before = self.destination.prefix + key, None
        own_folder = OWN_FOLDER if is_own_folder(name, max(row.size_bytes for row in rows)) else ""
        for row in rows:
            not_current = self.why_current_only and (row.is_delete_marker or not row.is_latest)
            reason = own_folder or (
                self.why_current_only if not_current else self.markers.refuse(row, before)
            )
            if not reason:
                before = row
            yield row, reason


class _Plan(Struct):
    """What the survey of both sides has counted. Nothing is written for it."""

    items: int = 0
    size_bytes: int = 0
    extra: int = 0
    concerns: int = 0
    odd_tags: bool = False
    any_tags: bool = False
    headers: set[str] = field(default_factory=set)
    acls: set[str] = field(default_factory=set)
    oddities: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    findings: list[str] = field(default_factory=list)


class _Restore:
    """One restore: survey, report losses, write."""

    def __init__(
        self,
        reader: BundleReader,
        source: str,
        destination: DestinationBucket,
        report: RestoreReport,
        progress: Progress,
    ) -> None:
        self._reader, self._source, self._destination = reader, source, destination
        self._report, self._progress = report, progress
        self._settings = of_bundle(reader, source, destination)
        self._notes: list[str] = []
        self._lost_settings: list[Loss] = []

    def run(
        self, workers: int, open_pool: OpenObjectPool | None, *, merge: bool, snowball: bool
    ) -> RestoreOutcome:
        """Do all of it."""
        with lease_of(self._destination, self._progress, others=open_pool is not None) as lease:
            history = has_history(self._reader, self._source)
            only_current = why_current_only(self._destination) if history else ""
            with_versions = history and not only_current
            markers = Markers(refused_markers(self._destination) if with_versions else frozenset())
            hidden = hidden_keys(self._reader, self._source) if with_versions else frozenset()
            rows = _Histories(self._reader, self._source, self._destination, only_current, markers, hidden)
            with closing(ExistingObjects(self._destination, versions=with_versions)) as present:
                clear_probe_objects(self._destination, present.probe_objects)
                plan = _survey(rows, present, merge=merge)
                terms = self._agree_on_terms(rows, plan, with_versions=with_versions, snowball=snowball)
                # A server that takes the lease takes the condition, too. A version that is added hides none for good.
                terms = replace(terms, only_new=lease is not None and not with_versions)
                self._progress.begin(
                    f"restore {self._source}",
                    items=plan.items,
                    size_bytes=plan.size_bytes,
                    of=SourceTask(self._source),
                )
                copy = ObjectCopy(self._source, self._reader.store, self._destination, terms, with_versions)
                run = _ObjectWrites(rows, present, copy, self._progress)
                with self._report.versions() as moved:
                    done = run.write(workers, open_pool, lease, moved if with_versions else None)
                self._progress.end()
        self._finish(plan, only_current)
        return self._outcome(plan, run, done)

    def _agree_on_terms(self, rows: _Histories, plan: _Plan, *, with_versions: bool, snowball: bool) -> Terms:
        """Return what the destination keeps of objects, and report the rest as losses. Write the first settings."""
        terms = self._try_out(plan)
        setting_losses = [] if plan.extra else self._settings.write_first()
        encrypts = bool(self._destination.setting("encryption"))
        terms = replace(terms, encrypts=encrypts, snowball=snowball and not encrypts and self._unpacks())
        all_losses = chain(
            setting_losses, self._losses(with_versions=with_versions), _row_losses(rows, plan, terms)
        )
        self._report.write_losses(all_losses)
        return terms

    def _outcome(self, plan: _Plan, run: _ObjectWrites, done: BatchOutcome) -> RestoreOutcome:
        if note := run.note():
            self._notes.append(note)
        outcome = RestoreOutcome(
            source=self._source,
            items=done.items + run.skipped,
            size_bytes=done.size_bytes,
            skipped_items=run.skipped,
            findings=(*plan.findings, *done.findings),
            notes=tuple(self._notes),
            losses=self._report.losses,
            report=self._report.location,
            left_out=(*run.left_out(), *done.refused, *self._lacking()),
            lost=self._report.lost,
        )
        settings = [{"property": loss.property, "reason": loss.reason} for loss in self._lost_settings]
        report = outcome.as_json() | {"destination": self._destination.url, "settings": settings}
        self._report.write_json("report.json", report)
        return outcome

    def _lacking(self) -> Sequence[str]:
        """Return what the bundle lacks: objects, or where none is recorded, what could not be listed."""
        objects = list(_missing(failed_objects(self._reader, self._source)))
        return objects or lacking_of(self._reader, self._source)

    def _unpacks(self) -> bool:
        """Tell whether the destination makes objects of a tar's members, one version each."""
        able = False
        with suppress(NotAllowedError):
            able = (
                has(self._destination.server, Trait.UNPACKS_TARS)
                and self._destination.versioning() != "Enabled"
            )
        if not able:
            self._notes.append(
                "objects were written one by one: the destination does not unpack tars, or keeps versions, or does not"
                " say whether it does"
            )
        return able

    def _try_out(self, plan: _Plan) -> Terms:
        """Try out what the destination keeps, and write the result to the report."""
        probe_plan = ProbePlan(
            plan.oddities - {NAMELESS},
            plan.classes - {STANDARD},
            tags=plan.any_tags,
            odd_tags=plan.odd_tags,
            headers=plan.headers,
            acls=plan.acls,
        )
        capabilities = probe(self._destination, probe_plan)
        if not capabilities.probed:
            self._notes.append(f"the destination was not tried out: {capabilities.why}")
        self._report.write_json("capabilities.json", capabilities.as_json())
        return Terms.of(capabilities)

    def _losses(self, *, with_versions: bool) -> Iterator[Loss]:
        yield from self._settings.losses_before()
        name = self._destination.name
        yield Loss(name, "last modified", "every object has the time of its restore")
        if with_versions:
            yield Loss(
                name, "version ids", "the destination gives its own; versions.parquet says which became which"
            )

    def _finish(self, plan: _Plan, only_current: str) -> None:
        """Write the settings, and add notes for the user."""
        if only_current:
            self._notes.append(f"only current versions were restored: {only_current}")
        if plan.extra and self._settings.settings:
            self._notes.append("the bucket held objects before, so its settings were left as they are")
        elif self._settings.settings:
            lost = self._lost_settings = self._settings.write_last()
            self._report.losses += len(lost)
            self._notes += [
                f"the bucket's {loss.property.removeprefix('bucket ')}: {loss.reason}" for loss in lost
            ]


def _missing(failed: Iterable[FailedObject]) -> Iterator[str]:
    """Yield what the bundle lacks, the first objects by name."""
    count = 0
    for count, missing in enumerate(failed, 1):
        if count <= _NAMED:
            older = "; no older version is shown instead" if missing.is_latest and missing.version_id else ""
            yield f"{missing.name} is not in the bundle ({missing.reason}){older}"
    if count > _NAMED:
        yield f"{count - _NAMED} more objects are not in the bundle; data/gaps.parquet names them"


def _row_losses(rows: _Histories, plan: _Plan, terms: Terms) -> Iterator[Loss]:
    """Yield what will not be at the destination, version by version; looks at none where that cannot be."""
    if (
        plan.concerns
        or terms.snowball
        or terms.lost_tags
        or terms.lost_headers
        or terms.refused_keys.keys() & {*plan.oddities, *ALWAYS}
    ):
        with closing(Oddities(ALWAYS & terms.refused_keys.keys())) as kinds:
            for key, versions in rows:
                refused = terms.refused_oddity(kinds.of(key, versions[-1].size_bytes))
                for row in versions:
                    if refused:
                        reason = f"it has {refused}: the destination {terms.refused_keys[refused]}"
                        yield Loss(_name(key, row), "object", reason)
                    else:
                        yield from terms.losses(key, row)
    for key, row, reason in rows.left_out():
        yield Loss(_name(key, row), "delete marker" if row.is_delete_marker else "version", reason)


def _name(key: str, row: ObjectRow) -> str:
    return f"{key} (version {row.version_id})" if row.version_id else key


def _survey(rows: _Histories, present: ExistingObjects, *, merge: bool) -> _Plan:
    plan, kinds, destination = _Plan(), Oddities(), rows.destination
    for key, versions in rows:
        plan.items += len(versions)
        plan.size_bytes += sum(row.size_bytes for row in versions)
        plan.oddities |= kinds.of(key, versions[-1].size_bytes)
        plan.classes |= {row.storage_class for row in versions if not row.is_delete_marker}
        plan.concerns += sum(map(is_of_concern, versions))
        plan.acls |= {acl for row in versions if row.acl and (acl := canned(row.acl))}
        plan.headers.update(*(row.headers for row in versions))
        plan.any_tags = plan.any_tags or any(row.tags for row in versions)
        plan.odd_tags = plan.odd_tags or any(map(has_odd_tags, versions))
        if present.earlier_versions(key, versions) is None:
            if not merge:
                raise _not_empty(destination, key, "an object of that key with other content")
            plan.findings.append(taken(key))
    foreign = present.foreign()
    if foreign is not None:
        plan.extra = 1
        if not merge:
            raise _not_empty(destination, foreign, "an object that is not in the bundle")
    return plan


def _not_empty(destination: DestinationBucket, key: str, what: str) -> NotEmptyError:
    return NotEmptyError(
        f"{destination.url} is not empty: {key!r} is {what}",
        next_step="name an empty bucket or prefix, or say --merge to leave what is there as it is",
    )


class _ObjectWrites:
    """Writes the histories that are missing, and notes which are left out."""

    def __init__(
        self, rows: _Histories, present: ExistingObjects, copy: ObjectCopy, progress: Progress
    ) -> None:
        self._rows, self._present, self._copy, self._progress = rows, present, copy, progress
        self._terms = copy.terms
        self._refused_keys: dict[str, list[str]] = {}
        self._refused_count = Counter[str]()
        self._ours = RestoreFolder(copy.destination).prefix
        self._reserved: list[str] = []
        self._looked_at: list[tuple[ObjectSummary, ObjectRow]] = []
        self._not_compared = 0
        self.skipped = 0

    def write(
        self, workers: int, open_pool: OpenObjectPool | None, lease: Lease | None, moved: VersionMap | None
    ) -> BatchOutcome:
        """Write what is not there yet; with all its versions where there is a map to note them in."""
        items = size_bytes = 0
        findings: list[str] = []
        refused: list[str] = []
        with closing(Oddities(ALWAYS & self._terms.refused_keys.keys())) as kinds:
            pool = self._pool(workers, open_pool, lease)
            check = lease.check if lease is not None else None
            for _, done in run_all(pool, self._batches(moved, kinds), check=check):
                items, size_bytes = items + done.items, size_bytes + done.size_bytes
                findings.extend(done.findings)
                refused.extend(done.refused)
                if moved is not None:
                    moved.add(done.moved)
        findings.extend(self._otherwise_described())
        return BatchOutcome(items, size_bytes, tuple(findings), refused=tuple(refused))

    def _otherwise_described(self) -> Iterator[str]:
        """Yield what is wrong with objects that were there: a listing shows their bytes, and no more. Who put them
        there need not have been a restore of this bundle. The first of them are looked at.
        """
        reader = self._copy.destination.reader
        fetched = reader.heads(summary for summary, _ in self._looked_at)
        for there, (summary, row) in zip(fetched, self._looked_at, strict=True):
            expected = self._terms.describe(summary.key, row)
            if there.error is not None:
                self._not_compared += 1
            elif not (has_headers(there, expected) and has_tags(there, expected)):
                yield f"{summary.name}: it was there with other headers, metadata or tags, and was left alone"

    def note(self) -> str:
        """Return the note about objects that were there and were not compared; "" where there are none."""
        objects = things(self._not_compared, "object")
        words = f"metadata and tags of {objects} that the bucket had already were not compared"
        return f"{words}: moveout verify --against does that" if self._not_compared else ""

    def _pool(self, workers: int, open_pool: OpenObjectPool | None, lease: Lease | None) -> ObjectPool:
        """Return who writes: other machines, or threads."""
        if open_pool is not None and lease is not None:
            return open_pool(self._copy, lease, self._progress)
        cancellation = self._copy.destination.reader.cancellation

        def check() -> None:
            cancellation.check()
            if lease is not None:  # this run may have hung, and the bucket be in use by now
                lease.check()

        write = partial(self._copy.write, progress=self._progress, check=check)
        return ThreadWorkerPool(write, workers, name="moveout-restore", ahead=1, cancellation=cancellation)

    def left_out(self) -> Iterator[str]:
        """Yield what the destination does not take, the first keys of each kind by name."""
        for key in self._reserved:
            yield f"{key!r} lies where restores keep what they need themselves ({RESTORES})"
        for oddity, keys in self._refused_keys.items():
            what = f"the destination {self._terms.refused_keys[oddity]}"
            for key in keys:
                yield f"{key!r} has {oddity}: {what}"
            if self._refused_count[oddity] > _NAMED:
                yield f"{self._refused_count[oddity] - _NAMED} more keys have {oddity}"

    def _refuse(self, oddity: str, key: str) -> None:
        self._refused_count[oddity] += 1
        if self._refused_count[oddity] <= _NAMED:
            self._refused_keys.setdefault(oddity, []).append(key)

    def _batches(self, moved: VersionMap | None, kinds: Oddities) -> Iterator[Sequence[History]]:
        for number, batch in enumerate(self._copy.batches(self._pending_histories(moved, kinds))):
            if number % _GIVE_BACK_EVERY == 0:
                malloc.give_back()
            yield batch

    def _pending_histories(self, moved: VersionMap | None, kinds: Oddities) -> Iterator[History]:
        for key, rows in self._rows:
            if key.startswith(self._ours):
                self._reserved.append(key)
                continue
            if refused := self._terms.refused_oddity(kinds.of(key, rows[-1].size_bytes)):
                self._refuse(refused, key)
                continue
            existing = self._present.earlier_versions(key, rows)
            if existing is None:
                continue
            if existing:
                self._skip(existing, rows[: len(existing)])
                if moved is not None:
                    pairs = zip(rows, existing, strict=False)
                    moved.add(
                        (key, row.version_id, written.version_id, row.is_delete_marker)
                        for row, written in pairs
                    )
            if len(existing) < len(rows):
                yield History(key, rows[len(existing) :], len(existing))

    def _skip(self, existing: Sequence[ObjectSummary], rows: Sequence[ObjectRow]) -> None:
        pairs = [pair for pair in zip(existing, rows, strict=True) if not pair[1].is_delete_marker]
        room = _LOOKED_AT - len(self._looked_at)
        self._looked_at += pairs[:room]
        self._not_compared += len(pairs[room:])
        self.skipped += len(rows)
        self._progress.skip(items=len(rows), size_bytes=sum(row.size_bytes for row in rows))
