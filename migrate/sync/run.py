"""Make one bucket equal to another: plan, act, report; with a proof at the end where one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Loss
from exporters.objects.key_oddities import NAMELESS
from exporters.objects.listing.hidden_objects import gaps_not_utf_8, nothing_under
from exporters.objects.outage_detection import OutageDetector
from exporters.selection import EVERYTHING, Selection
from migrate.bundle.export_state import now
from migrate.bundle.lease import Lease
from migrate.errors import UsageError
from migrate.report.render import get_template
from migrate.restore.objects.destination_terms import REFUSED, STANDARD, Markers, Terms
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore
from migrate.storage.known_files import KnownFiles
from migrate.storage.rate_limit import RateLimiter
from migrate.storage.s3.capability_probe import clear_probe_objects, is_probe_object, refused_markers
from migrate.storage.s3.http.concurrent_requests import CONNECTIONS
from migrate.sync.bucket_settings import KEPT, BucketSettings, Rules, SettingsPolicy, read_source_settings
from migrate.sync.capability_survey import CAPABILITIES, CapabilitySurvey, survey
from migrate.sync.copy import SyncContext
from migrate.sync.diff import Action, SyncStep
from migrate.sync.equality_proof import prove
from migrate.sync.execute import PlanExecution, Removal, refusal_of
from migrate.sync.inspect import FOREIGN
from migrate.sync.large_object_copy import Uploads
from migrate.sync.object_item import BatchOutcome
from migrate.sync.open_buckets import check_histories
from migrate.sync.outcome import SyncOutcome
from migrate.sync.plan import EXAMPLES, Listings, Plan, Sides, make_plan
from migrate.sync.record.sync_record import HEADER, Header, Record
from migrate.sync.report import PAGE, PROOF, SyncReport
from migrate.sync.versions.hidden_keys import HiddenKeys

_AHEAD = 16
_NOT_REMOVED = "its key, which is percent-encoded here, is not UTF-8; it was not removed at the destination"
CUTOVER_TRIES = 5
"""How often what has changed since is copied before a cutover is given up: then the source is still written to."""


class SyncOptions(Struct, frozen=True):
    """``delete``: remove at the destination what the source does not have. ``overwrite``: replace objects of the
    destination that this sync did not write. ``recheck``: look at each object on both sides, for listings show
    neither tags nor locks. ``cutover``: prove at the end that both sides are equal. ``dry_run``: only plan.
    ``settings``: what may happen to those of the destination's bucket; ``apart``: the record lies somewhere else.
    ``history``: copy every version and delete marker. ``may_be_empty``: a prefix without objects is no mistake.
    """

    selection: Selection = EVERYTHING
    delete: bool = False
    overwrite: bool = False
    recheck: bool = False
    cutover: bool = False
    dry_run: bool = False
    settings: SettingsPolicy = SettingsPolicy.WRITE
    apart: bool = False
    history: bool = False
    may_be_empty: bool = False


def sync(
    sides: Sides,
    store: MultipartStore,
    options: SyncOptions,
    *,
    workers: int,
    progress: Progress,
    rate_limiter: RateLimiter | None = None,
) -> SyncOutcome:
    """Copy what is new or has changed, one object to one object. ``store`` is where the record lies.

    Raises ``UsageError`` before anything is touched, ``BusyError`` where another run keeps the same record, and what
    stops everything: ``UnreachableError``, ``NotAllowedError``, ``NoSpaceError``, ``GoneError``, ``SourceError``.
    """
    fresh = Header(
        sides.source.name,
        sides.source.prefix,
        sides.destination.name,
        sides.destination.prefix,
        begun=now(),
        history=options.history,
    )
    _check(options)
    if options.history:
        check_histories(sides, dry_run=options.dry_run)
    sides = replace(sides, recheck=options.recheck, history=options.history, overwrite=options.overwrite)
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="moveout-ahead") as threads:
        source_settings = threads.submit(read_source_settings, sides)

        def run_of(record: Record, check_lease: Callable[[], None], listings: Listings | None) -> _Sync:
            settings = threads.submit(_settings_of, sides, record, options, source_settings)
            return _Sync(
                sides=sides,
                record=record,
                options=options,
                progress=progress,
                rate_limiter=rate_limiter,
                workers=workers,
                threads=threads,
                settings=settings,
                check_lease=check_lease,
                listings=listings,
            )

        if options.dry_run:
            return run_of(Record(store, fresh), _no_lease, None).foresee()
        threads.submit(sides.destination.versioning)  # somebody needs the answer later
        with Lease(store, "sync", progress=progress) as lease:
            try:
                # Not with a history: its first run tries out delete markers, which would be listed.
                listings = None if options.history else sides.listings()
                files = KnownFiles(store)
                files.load((HEADER, KEPT, CAPABILITIES))
                return run_of(Record(files, fresh, threads), lease.check, listings).run()
            finally:
                threads.shutdown()  # what they write, they write under the lease


def _check(options: SyncOptions) -> None:
    chosen = options.selection
    bounds = (chosen.min_bytes, chosen.max_bytes, chosen.newer_than, chosen.older_than)
    if options.delete and (chosen.tags or any(bound is not None for bound in bounds)):
        raise UsageError(
            "--delete goes with --include and --exclude only: of what the source has deleted nobody knows"
            " size, time and tags",
            next_step="leave one of them out",
        )


def _settings_of(
    sides: Sides, record: Record, options: SyncOptions, source_settings: Future[Mapping[str, Any]]
) -> BucketSettings:
    rules = Rules(options.settings, options.delete, inside=not options.apart, history=options.history)
    return BucketSettings(sides, record.store, rules, source_settings.result())


def _no_lease() -> None:
    """Check nothing: a dry run writes nothing, so it has no lease."""


class _Sync(Struct):
    """One sync. ``threads`` ask for what is needed later. ``listings``: those of the first pass, begun while the
    record's files are read.
    """

    sides: Sides
    record: Record
    options: SyncOptions
    progress: Progress
    rate_limiter: RateLimiter | None
    workers: int
    threads: Executor
    settings: Future[BucketSettings]
    check_lease: Callable[[], None]
    listings: Listings | None
    _pending: list[Future[object]] = field(default_factory=list)
    _settled: bool = False

    def run(self) -> SyncOutcome:
        """Do all of it."""
        self.record.begin()
        self._settled = self.record.settle()
        if self.options.history:
            hidden = HiddenKeys(self.record.store, self.sides.destination)
            self.sides = replace(self.sides, markers=self._markers(), hidden=hidden)
        report = SyncReport(self.record.store, self.sides)
        self._later(report.load_losses)
        self.threads.submit(get_template, PAGE)  # it is compiled while others are waited for
        outcome = self._pass(report)
        self.sides = replace(self.sides, recheck=False)
        if self.options.cutover:
            outcome = self._cut_over(report, outcome)
        report.close(outcome)
        self._wait()
        return outcome

    def _later(self, call: Callable[[], object]) -> None:
        """Make a call by a thread, while the next step runs. ``_wait`` raises its error."""
        self._pending.append(self.threads.submit(call))

    def _wait(self) -> None:
        """Wait for the calls that ``_later`` has begun."""
        while self._pending:
            self._pending.pop().result()

    def foresee(self) -> SyncOutcome:
        """Say what would be done; write nothing."""
        plan = self._plan("")
        outcome = self._outcome(plan, BatchOutcome(gaps=plan.not_utf_8), Removal())
        return replace(outcome, planned=self._planned(plan))

    def _markers(self) -> Markers:
        """Return which delete markers the destination does not make; tried out once."""
        record = self.record
        if record.header.refused_markers is None:
            refused = sorted(refused_markers(self.sides.destination))
            record.header = replace(record.header, refused_markers=refused)
            record.write_header()
        return Markers(frozenset(record.header.refused_markers or ()))

    def _cut_over(self, report: SyncReport, outcome: SyncOutcome) -> SyncOutcome:
        for _ in range(CUTOVER_TRIES):
            if not outcome.complete:
                return replace(outcome, unproven="not every object is at the destination")
            self._wait()
            proof, walk = prove(self.sides, self.record, self.progress)
            if proof is not None and (unproven := self._unnamed()):
                return replace(outcome, unproven=unproven)
            if proof is not None:
                report.write_json(PROOF, proof.as_json())
                return replace(outcome, proof=proof)
            if walk.changes:
                self.progress.note(f"not equal yet: {walk.sentence}")
                outcome = outcome.then(self._pass(report))
            elif not self._clear_probe_objects([walk.example]):
                return replace(outcome, unproven=walk.sentence)
        return replace(outcome, unproven=f"the source is still being written to: {walk.sentence}")

    def _pass(self, report: SyncReport) -> SyncOutcome:
        """Make the destination equal to the source as it is now."""
        run = self.record.begin_run()
        listings, self.listings = self.listings, None
        plan = self._plan(run, listings)
        self._wait()
        extra = (step.key for step in self._steps(plan, Action.EXTRA))
        if plan.strangers and self._clear_probe_objects(extra):
            plan = self._plan(self.record.begin_run())
        other_objects = plan.strangers > 0
        if self.settings.result().write_first(other_objects=other_objects):
            self.record.store.delete(CAPABILITIES)  # what is encrypted has other ETags
        outcome = self._copy(report, plan) if plan.to_do else BatchOutcome()
        outcome.gaps += plan.not_utf_8
        if self.sides.hidden is not None:
            self.sides.hidden.settle(outcome.hidden)
        removal = Removal()
        if self.options.delete and plan.extra:
            self._remove(report, plan, removal)
        if self.options.delete:
            removal.kept |= dict.fromkeys(self._extra_not_utf_8, _NOT_REMOVED)
        other_objects = (other_objects and not self.options.delete) or any(
            gap.reason.startswith(FOREIGN) for gap in outcome.gaps
        )
        settings = self.threads.submit(self.settings.result().write_last, other_objects=other_objects)
        is_folded = self._fold(plan, outcome, removal)
        if settings.result() or is_folded or self._settled:
            self._write_losses(report, plan, self._survey(plan))
            self._wait()
            self._settled = False
        report.write_gaps(self._steps(plan, Action.EXCLUDED, Action.STUCK), [*outcome.gaps, *removal.gaps()])
        removed = frozenset(removed_object.which for removed_object in removal.removed)
        report.write_extra(self._steps(plan, Action.EXTRA), removed)
        self._later(self.record.sweep)
        return self._outcome(plan, outcome, removal)

    def _plan(self, run: str, listings: Listings | None = None) -> Plan:
        """Return what ``make_plan`` does, with the objects that cannot be named."""
        plan = make_plan(self.sides, self.record, run, self.progress, listings)
        plan.not_utf_8 = list(gaps_not_utf_8(self.sides.source, self.sides.selection))
        plan.listed += len(plan.not_utf_8)
        return plan

    def _clear_probe_objects(self, keys: Iterable[str]) -> bool:
        """Remove objects that a killed sync had written to try out the destination, or that a server did not remove at
        once. Tell whether there were any.
        """
        destination = self.sides.destination
        whole_keys = (destination.prefix + key for key in keys)
        probe_objects = [key for key in whole_keys if is_probe_object(destination, key)]
        clear_probe_objects(destination, probe_objects)
        return bool(probe_objects)

    def _copy(self, report: SyncReport, plan: Plan) -> BatchOutcome:
        for bucket in (self.sides.source, self.sides.destination.reader):
            self._later(partial(bucket.requests.http.warm, min(plan.to_do, CONNECTIONS)))
        capability_survey = self._survey(plan)
        context = self._context(capability_survey.terms)
        self._later(partial(self._write_losses, report, plan, capability_survey))
        uploads = Uploads(self.record.store, self.sides.destination)
        self.progress.begin(f"copy {self.sides.name}", items=plan.to_do, size_bytes=plan.size_bytes)
        execution = PlanExecution(
            context, self.record, plan.run, self.check_lease, uploads, self.options.history
        )
        outcome = execution.execute(self.workers)
        self._wait()
        self.progress.end()
        uploads.clear()
        return outcome

    def _survey(self, plan: Plan) -> CapabilitySurvey:
        """Return what the destination takes, and what a sync does not bring there."""
        keys, classes = frozenset(plan.odd - {NAMELESS}), frozenset(plan.classes - {STANDARD})
        capability_survey = survey(self.sides, self.record.store, keys, classes, plan.samples, self._later)
        if not capability_survey.capabilities.probed:
            self.progress.note(f"the destination was not tried out: {capability_survey.capabilities.why}")
        return capability_survey

    def _refused(self, plan: Plan, terms: Terms) -> Iterator[Loss]:
        """Yield what is known not to come to the destination, before the first object goes there."""
        if not plan.odd & terms.refused_keys.keys():
            return
        for step in self._steps(plan, Action.COPY):
            if reason := refusal_of(step.odd, terms.refused_keys):
                yield Loss(step.name, "object", reason)

    def _left_out(self, plan: Plan) -> Iterator[Loss]:
        """Yield the delete markers that the destination does not make."""
        if self.sides.markers.refused:
            for step in self._steps(plan, Action.EXCLUDED):
                if step.marks and step.why.startswith(REFUSED):
                    yield Loss(step.name, "delete marker", step.why)

    def _context(self, terms: Terms) -> SyncContext:
        sides = self.sides
        return SyncContext(
            source=sides.source,
            destination=sides.destination,
            terms=terms,
            selection=self.options.selection,
            progress=self.progress,
            outage=OutageDetector(sides.source),
            destination_outage=OutageDetector(sides.destination.reader),
            rate_limiter=self.rate_limiter,
            overwrite=self.options.overwrite,
            locks_itself=bool((sides.destination.object_lock() or {}).get("Rule")),
            check_lease=self.check_lease,
        )

    def _remove(self, report: SyncReport, plan: Plan, removal: Removal) -> None:
        """Remove what only the destination has; what was removed is reported, also where not all could be."""
        if not plan.listed:
            raise UsageError(
                f"{self.sides.source.url} lists no object; nothing was removed at the destination",
                next_step="check the source's prefix, or empty the destination by other means if that is what you want",
            )
        self.check_lease()
        self.progress.begin("remove at the destination", items=plan.extra, size_bytes=0)
        try:
            removal.run(self._context(Terms(object_lock=False)), self._steps(plan, Action.EXTRA))
        finally:
            if removal.removed:
                report.write_removed(removal.removed)
            self.progress.end()

    def _write_losses(self, report: SyncReport, plan: Plan, capability_survey: CapabilitySurvey) -> None:
        """Write the list of losses, as far as they are known by now."""
        known = chain(
            capability_survey.losses,
            self.settings.result().losses,
            self._refused(plan, capability_survey.terms),
            self._left_out(plan),
            self.record.losses(),
        )
        self.record.header = replace(self.record.header, losses=report.write_losses(known))
        self.record.write_header()

    def _fold(self, plan: Plan, outcome: BatchOutcome, removal: Removal) -> bool:
        """Write the new index of the record, if anything was done. Tell whether there is a new one."""
        removed = frozenset(removed_object.which for removed_object in removal.removed)
        if not (outcome.noted or plan.steps[Action.FORGET] or removed):
            return False
        self.check_lease()

        def dropped(step: SyncStep) -> bool:
            if step.destination is None or step.do != Action.EXTRA:
                return step.do == Action.FORGET
            return step.known and (step.key, step.destination.version_id) in removed

        self.record.fold(plan.run, map(self.record.which, filter(dropped, self.record.plan(plan.run))))
        return True

    def _steps(self, plan: Plan, *kinds: Action) -> Iterator[SyncStep]:
        if not any(plan.steps[do] for do in kinds):
            return iter(())
        return (step for step in self.record.plan(plan.run) if step.do in kinds)

    def _outcome(self, plan: Plan, batch_outcome: BatchOutcome, removal: Removal) -> SyncOutcome:
        sides, gaps = self.sides, [*batch_outcome.gaps, *removal.gaps()]
        excluded = sum(gap.disposition == "excluded" for gap in gaps)
        return SyncOutcome(
            source=sides.source.url,
            destination=sides.destination.url,
            record=self.record.store.location,
            listed=plan.listed,
            listed_bytes=plan.listed_bytes,
            same=plan.same + batch_outcome.same,
            copied=batch_outcome.copied,
            copied_bytes=batch_outcome.copied_bytes,
            adopted=batch_outcome.adopted,
            amended=batch_outcome.amended,
            newer=batch_outcome.newer,
            excluded=plan.excluded + excluded,
            failed=len(gaps) - excluded + plan.steps[Action.STUCK],
            extra=plan.extra + len(self._extra_not_utf_8),
            deleted=len(removal.removed),
            losses=self.record.header.losses,
            rows=self.record.header.rows,
            gaps=(*plan.reserved, *gaps),
            damaged=tuple(batch_outcome.damaged),
            removed=tuple(removal.removed),
            extras=tuple(removal.kept) if self.options.delete else self._examples_of_extra(plan),
            reasons=(*_reconciled(plan, batch_outcome), *self._emptiness(plan)),
            history=sides.history,
            settings=self.settings.result().outcome_by_setting,
        )

    def _unnamed(self) -> str:
        """Return why there is no proof: one side has objects whose keys are not UTF-8. "" where there are none."""
        gaps = gaps_not_utf_8(self.sides.source, self.sides.selection)
        selected = [gap.item for gap in gaps if gap.disposition == "failed"]
        if not selected and not self._extra_not_utf_8:
            return ""
        side, keys = ("source", selected) if selected else ("destination", self._extra_not_utf_8)
        return f"the {side} has keys that are not UTF-8: {len(keys)}, such as {keys[0]} (percent-encoded)"

    @property
    def _extra_not_utf_8(self) -> list[str]:
        """The destination's keys that are not UTF-8, so the source's listing is not compared with them."""
        return sorted(self.sides.destination.reader.not_utf_8)

    def _examples_of_extra(self, plan: Plan) -> tuple[str, ...]:
        return (*plan.examples.get(Action.EXTRA, ()), *self._extra_not_utf_8)[:EXAMPLES]

    def _emptiness(self, plan: Plan) -> Iterator[str]:
        """Yield what is wrong where nothing was listed."""
        if not plan.listed and not self.options.may_be_empty and (reason := nothing_under(self.sides.source)):
            yield reason

    def _planned(self, plan: Plan) -> dict[str, object]:
        names = self.settings.result().foresee(other_objects=plan.strangers > 0)
        planned: dict[str, object] = {
            str(do): {"count": plan.steps[do], "first": plan.examples.get(do, [])} for do in Action
        }
        return planned | {
            "settings": {"count": len(names), "first": names},
            "removes": self.options.delete,
        }


def _reconciled(plan: Plan, outcome: BatchOutcome) -> Iterator[str]:
    """Yield a sentence where the counts do not add up: every listed object must have exactly one result."""
    if not plan.run:
        return
    accounted_for = (
        plan.same
        + outcome.same
        + plan.excluded
        + outcome.copied
        + outcome.adopted
        + outcome.amended
        + len(outcome.gaps)
        + len(outcome.damaged)
        + plan.steps[Action.STUCK]
    )
    if accounted_for != plan.listed:
        yield f"{plan.listed} objects were listed, {accounted_for} are accounted for"
