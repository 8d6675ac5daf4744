"""The export: snapshot → units → bundle → seal.

One source after the other; the units of one by all workers at once. What is done is what has a commit record
at the location, so a run can die at any moment and the same command goes on. Decisions about failures:

- the location fails (denied, unreachable after the store's retries): the run stops; all that is committed stays;
- the location is full: nothing more is read, a reserve is released, and what is committed is sealed as incomplete;
- one unit fails: the others go on, the unit is a gap;
- the source cannot be reached: the unit is tried again a few times, then the source is left;
- the source denies or is gone: it is left after a few units in a row;
- a source that was left, or could not be opened, is a gap: the other sources are exported, and the bundle is sealed as
  incomplete. Where no source has anything to show, nothing is sealed, and the error is raised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from exporters.api import Gap, Identified, Snapshot, Source, SourceSummary
from exporters.errors import SourceError, SourceGoneError
from migrate.bundle import bundle_json, export_state, layout, reconciliation, tag_files
from migrate.bundle.commit_records import (
    FinalRecord,
    read_final,
    read_records,
    record_ids,
    separate_groups,
    write_final,
)
from migrate.bundle.export_state import ExportState, SourceName
from migrate.bundle.lease import Lease
from migrate.bundle.progress_database import ProgressDatabase
from migrate.bundle.reconciliation import SourceReconciliation
from migrate.bundle.seal import Sealed, seal
from migrate.bundle.source_workspace import StoreWorkspace
from migrate.bundle.unit_sink import StoreSink
from migrate.errors import DamageError, GoneError, MoveoutError, NoSpaceError, UsageError
from migrate.export.followed_changes import FollowedChanges
from migrate.export.location_room import LocationRoom
from migrate.export.lost_source import LostSource, no_source_error
from migrate.export.outcome import ExportOptions, ExportOutcome, result
from migrate.export.preflight import SourceChanges, check_names, claim, is_begun, refuse_foreign
from migrate.export.read_back import part_reader_for
from migrate.export.source_units import UnitRun
from migrate.export.unit_runner import PlannedUnit, SettledUnit, UnitPool, UnitWork
from migrate.report import sealed_page
from migrate.runtime import malloc
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.progress import Progress, SourceTask
from migrate.runtime.worker_pool import GRACE_SECONDS, ThreadWorkerPool
from migrate.storage.api import MultipartStore
from migrate.storage.known_files import KnownFiles

_REQUESTS = 16
"""So many small files of the location are asked for, written or removed at once."""


@dataclass(frozen=True, slots=True)
class ExportRun:
    """What all steps of one export share. ``cancellation`` ends running units at their next write."""

    store: MultipartStore
    state: ExportState
    ledger: ProgressDatabase
    lease: Lease
    executor: Executor
    workers: int
    progress: Progress
    options: ExportOptions
    cancellation: CancellationToken
    followed: FollowedChanges
    room: LocationRoom
    unit_store: MultipartStore
    unit_cancellation: CancellationToken
    """Ends the units under way, and their waiting for ``unit_store``: it is time to seal, or the location is full."""


def already_sealed(
    sources: Sequence[SourceName],
    store: MultipartStore,
    seen: tuple[export_state.LocationKind, str] | None = None,
) -> ExportOutcome | None:
    """Return the outcome where the complete bundle of these sources lies at the location already: then they need
    not even be reachable any more. ``seen``: what ``export_state.look`` has just found there. Raises what ``export``
    raises where something else lies there.
    """
    check_names(sources)
    sealed = refuse_foreign(store, sources, opened=False, seen=seen)
    return None if sealed is None else described(store, sealed)


def export(
    sources: Sequence[Source],
    store: MultipartStore,
    *,
    workers: int,
    progress: Progress,
    options: ExportOptions | None = None,
    cancellation: CancellationToken | None = None,
) -> ExportOutcome:
    """Export ``sources`` into a sealed bundle at ``store``; resume what an earlier run began there.

    Raises ``NotEmptyError`` (the location holds something else), ``BusyError`` (another run is at work), the location's
    errors, and the error of the sources where none could be read. ``cancellation``, on which ``store`` waits, too, is
    cancelled then. After each of them, and after ``KeyboardInterrupt``, the same call goes on.
    """
    options = options or ExportOptions()
    source_names = [_name_of(source, options) for source in sources]
    check_names(source_names)
    lost = [(source.name, source.error) for source in sources if isinstance(source, LostSource)]
    changes = SourceChanges([name for name, _ in lost], options.dropped)
    sealed = None if options.is_seen else refuse_foreign(store, source_names, changes=changes)
    if sealed is not None and next(iter(store.list(layout.WORK)), None) is None:
        return described(store, sealed)
    if len(lost) == len(sources) and (outcome := _without_sources(store, lost)) is not None:
        return outcome
    cancellation = cancellation or CancellationToken()
    with ExitStack() as stack:
        lease = stack.enter_context(
            Lease(store, "export", progress=progress, alone=options.open_pool is None)
        )
        executor = stack.enter_context(_threads(workers, lease, cancellation))
        noted = store if options.open_pool is not None else _noted(store, executor)
        state = claim(noted, source_names, executor=executor, progress=progress, changes=changes)
        if isinstance(state, bundle_json.BundleInfo):
            return described(store, state)
        ledger = stack.enter_context(ProgressDatabase())
        bundle_name = export_state.followed_name(options.case.name if options.case else "", state)
        followed = stack.enter_context(
            FollowedChanges(store, bundle_name, options.follow, cancellation, progress.note)
        )
        unit_cancellation = cancellation.child()
        unit_store = options.open_unit_store(unit_cancellation) if options.open_unit_store else store
        run = ExportRun(
            noted,
            state,
            ledger,
            lease,
            executor,
            workers,
            progress,
            options,
            cancellation,
            followed,
            LocationRoom(store, executor),
            noted.over(unit_store) if isinstance(noted, KnownFiles) else unit_store,
            unit_cancellation,
        )
        try:
            return _export(run, sources)
        except BaseException:
            cancellation.cancel()
            raise


def _noted(store: MultipartStore, executor: Executor) -> KnownFiles:
    """Return the location with knowledge of the files of ``_work/``, which only this machine writes."""
    noted = KnownFiles(store, layout.is_note_of_export)
    noted.load_by(executor, (layout.EXPORT_STATE,), layout.WORK)
    return noted


def _name_of(source: Source, options: ExportOptions) -> SourceName:
    identity = source.identity if isinstance(source, Identified) else ""
    return SourceName(source.name, source.url, identity, source.name in options.may_be_empty)


def seal_unasked(store: MultipartStore, *, workers: int, progress: Progress) -> ExportOutcome:
    """Seal what lies at the location: complete where every source had been finished and its counts agree, else
    incomplete.

    Nothing is done where it is sealed. Raises ``UsageError`` where no run has left anything to seal, ``BusyError``.
    """
    state, sealed = export_state.read_state(store), bundle_json.read_sealed(store)
    if sealed is not None and (state is None or state.id == sealed.id):
        return described(store, sealed)
    if state is None or not any(is_begun(store, source.name) for source in state.sources):
        raise UsageError(
            f"nothing was exported to {store.location} yet", next_step="moveout export begins it"
        )
    not_asked = SourceGoneError("it was not finished, and is not asked again by this seal")
    sources = [LostSource(source.name, source.url, not_asked) for source in state.sources]
    may_be_empty = frozenset(source.name for source in state.sources if source.may_be_empty)
    options = ExportOptions(ask=False, may_be_empty=may_be_empty)
    outcome = export(sources, store, workers=workers, progress=progress, options=options)
    return replace(outcome, broken=())  # that the sources were not asked is no error here


def _export(run: ExportRun, sources: Sequence[Source]) -> ExportOutcome:
    reconciliations: list[SourceReconciliation] = []
    broken: list[tuple[str, SourceError]] = []
    for source in sources:
        source_result, error = _source(run, source)
        reconciliations.append(source_result)
        if error is not None:
            broken.append((source.name, error))
    left_out = dict(broken)
    if all(source.name in left_out and not source.totals.items for source in reconciliations):
        raise no_source_error(broken)
    run.room.release()
    _lift_rate_limit(run)
    run.progress.begin("seal", items=0, size_bytes=0)
    sealed = seal(
        run.store,
        run.state,
        run.ledger,
        reconciliations,
        executor=run.executor,
        check=run.lease.check,
        page=sealed_page,
        left_behind=run.options.left_behind,
        case=run.options.case,
    )
    run.progress.end()
    return _outcome(run, sealed, broken)


def _without_sources(store: MultipartStore, lost: Sequence[tuple[str, SourceError]]) -> ExportOutcome | None:
    """Return the outcome where no source can be opened and a sealed, incomplete bundle lies there: it stays as it is.
    Return None where an earlier run left something that can be sealed. Raises the error of the sources otherwise.
    """
    state, sealed = export_state.read_state(store), bundle_json.read_sealed(store)
    if state is None:
        raise no_source_error(lost)
    if sealed is None or sealed.id != state.id:
        return None
    return replace(described(store, sealed), broken=lost)


def _source(run: ExportRun, source: Source) -> tuple[SourceReconciliation, SourceError | None]:
    """Export one source; return its summary, and the error if it broke off."""
    final = run.executor.submit(_read_final, run.store, source.name)
    _separate_groups(run, source.name)
    before = _finished_before(run, source, final.result())
    if before is not None and _stands(run, before):
        run.followed.go_on(source.name, before.summary.positions)
        _show_done(run.progress, before)
        return before, None
    if before is not None and not before.totals.items and not isinstance(source, LostSource):
        _begin_anew(run, source)
        before = None
    run.progress.begin(f"snapshot {source.name}", items=0, size_bytes=0, of=SourceTask(source.name, 0.0))
    workspace = StoreWorkspace(
        run.store, source.name, on_listed=lambda count: run.progress.advance(items=count)
    )
    error: SourceError | None = None
    summary: SourceSummary | None = None
    units: UnitRun | None = None
    try:
        run.options.seal_time.check(source.name)
        run.room.check(source.name)
        run.room.keep(run.ledger.unit_count())
        with run.followed.snapshot(source, workspace, run.workers) as snapshot:
            workspace.on_listed = None  # what is listed from now on is the second count
            run.progress.begin(
                f"export {source.name}", items=0, size_bytes=0, of=SourceTask(source.name, counts_sent=False)
            )
            if before is not None:
                run.ledger.forget(source.name)
                run.store.delete(layout.final_record(source.name))
            work = _work(run, source, snapshot)
            pool, most_together = _pool(run, source, work)
            units = UnitRun(
                work,
                run.ledger,
                pool,
                most_together,
                room=run.room,
                seal_time=run.options.seal_time,
                rate_limiter=run.options.rate_limiter,
            )
            error = units.run()
            _lift_rate_limit(run)
            if error is not None or units.failed:
                _load_records(run, source.name)  # what an earlier run has of a unit that failed now
            summary = _finish(run, source, snapshot, complete=error is None and not units.failed)
    except (SourceError, NoSpaceError) as exc:
        error = error or run.room.as_source_error(source.name, exc)
    run.progress.end()
    failures = list(units.failed) if units else []
    if error is not None:
        failures.insert(0, f"{source.name} {'could not be read' if units is None else 'broke off'}: {error}")
        if not isinstance(source, LostSource):  # that was said when it could not be opened
            run.progress.note(failures[0])
    if units is None and before is not None:
        return _reconciliation(run, source, before.summary, failures), error
    if summary is None:
        # Nobody could say what is missing, so that is the one thing to say.
        error = error or SourceError(f"{source.name} was not finished")
        _load_records(run, source.name)
        begun = run.ledger.totals(source.name).units > 0
        missing = f"{'the rest' if begun else 'all'} of {source.name}"
        summary = SourceSummary([], [], gaps=[Gap(missing, "failed", str(error))])
        run.ledger.add_gaps(source.name, summary.gaps)
        run.progress.count_gaps(len(summary.gaps))
    return _reconciliation(run, source, summary, failures), error


def _lift_rate_limit(run: ExportRun) -> None:
    """Have what belongs to a seal before the deadline pass at once: it must not wait for bytes that were sent."""
    if run.options.seal_time.is_over and run.options.rate_limiter is not None:
        run.options.rate_limiter.lift()


def _show_done(progress: Progress, before: SourceReconciliation) -> None:
    """Count a source that an earlier run has exported, so that the share of all sources does not go back."""
    items, size_bytes = before.totals.items, before.totals.size_bytes
    progress.begin(f"export {before.name}", items=items, size_bytes=size_bytes, of=SourceTask(before.name))
    progress.skip(items=items, size_bytes=size_bytes)
    progress.end()


def _stands(run: ExportRun, before: SourceReconciliation) -> bool:
    """Tell whether a source is not asked again after an earlier run has finished it."""
    lacks_base = run.followed.lacks_base(before.name, before.summary.positions)
    return not run.options.ask or (before.complete and not lacks_base)


def _begin_anew(run: ExportRun, source: Source) -> None:
    """Forget an earlier run in which nothing was exported: its filters may have been wrong."""
    run.ledger.forget(source.name)
    for info in list(run.store.list(f"{layout.WORK}{source.name}/")):
        run.store.delete(info.key)


def _separate_groups(run: ExportRun, source: str) -> None:
    """Give units that an earlier run has recorded in groups records of their own. Where such a record is damaged, they
    are exported again. Raises ``DamageError`` where the source is not asked any more.
    """

    def on_damage(error: DamageError) -> None:
        if not run.options.ask:
            raise error
        run.progress.note(f"{error}; its units are exported again")

    separate_groups(run.store, source, on_damage)


def _work(run: ExportRun, source: Source, snapshot: Snapshot) -> UnitWork:
    return UnitWork(
        store=run.unit_store,
        lease=run.lease,
        cancellation=run.unit_cancellation,
        progress=run.progress,
        source=source.name,
        snapshot=snapshot,
        attempts=run.options.attempts,
        part_reader=part_reader_for(source.url) if run.options.prove else None,
        strict=run.options.strict_snapshot,
        sealed_before=run.state.created if run.state.continues else "",
    )


def _pool(run: ExportRun, source: Source, work: UnitWork) -> tuple[UnitPool, Callable[[int], int]]:
    """Return the pool for a source, and how many small units it takes as a group, where so many are ready."""
    if run.options.open_pool is not None:
        pool = run.options.open_pool(source, work, run.lease, run.executor)
        if pool is not None:
            return pool, lambda _ready: 1
        run.progress.note(f"{source.name} can only be read by one machine at a time: this one does it")
    pool = ThreadWorkerPool(
        partial(_do_until_stopped, run, work),
        run.workers,
        name="moveout-export",
        ahead=run.workers,
        cancellation=run.cancellation,
        on_stuck=run.lease.abandon,
    )
    return pool, lambda ready: max(1, min(run.store.together, ready // (2 * run.workers)))


def _do_until_stopped(run: ExportRun, work: UnitWork, units: Sequence[PlannedUnit]) -> Sequence[SettledUnit]:
    """Do units; raise why this source alone was cancelled: its time is over, or the location is full."""
    try:
        return work.do_all(units)
    except Cancelled:
        if run.cancellation.is_cancelled:
            raise
        run.room.check(work.source)
        raise run.options.seal_time.error(work.source) from None


def _finish(run: ExportRun, source: Source, snapshot: Snapshot, *, complete: bool) -> SourceSummary:
    """Let the source write what belongs to the whole; a final record only where nothing failed, else a
    rerun tries again.
    """
    run.lease.check()
    malloc.give_back()  # the units' buffers are needed no more
    sink = StoreSink(run.store, source.name, cancellation=run.cancellation)
    try:
        summary = snapshot.finish(run.ledger.done(source.name), sink)
    except MoveoutError:
        raise
    except Exception as exc:
        raise sink.error or SourceError(f"{source.name} could not be finished: {exc!r}") from exc
    if sink.error is not None:
        raise sink.error
    final = FinalRecord(source.name, summary, sink.files)
    run.lease.check()
    if complete:
        write_final(run.store, final)
    run.ledger.add_final(final)
    return summary


def _read_final(store: MultipartStore, source: str) -> FinalRecord | None:
    try:
        return read_final(store, source)
    except GoneError:
        return None


def _finished_before(
    run: ExportRun, source: Source, final: FinalRecord | None
) -> SourceReconciliation | None:
    """Return the summary of a source that an earlier run finished; with nothing amiss it is not even read again."""
    if final is None:
        return None
    _load_records(run, source.name)
    run.ledger.add_final(final)
    earlier = _reconciliation(run, source, final.summary)
    if earlier.complete:
        run.progress.note(f"{source.name} was exported by an earlier run; only the seal is left")
    return earlier


def _load_records(run: ExportRun, source: str) -> None:
    """Take all commit records at the location into the ledger that are not there yet."""
    ids: Iterable[str] = (
        unit_id for unit_id in record_ids(run.store, source) if not run.ledger.has(source, unit_id)
    )
    for record in read_records(run.store, source, ids, run.executor):
        run.ledger.add(record)


def _reconciliation(
    run: ExportRun, source: Source, summary: SourceSummary, failures: Sequence[str] = ()
) -> SourceReconciliation:
    ledger, name = run.ledger, source.name
    summary = replace(
        summary, positions=reconciliation.used_positions(summary.positions, ledger.positions(name))
    )
    totals = ledger.totals(name)
    gaps = ledger.gap_counts(name)
    first = [gap for gap, _ in zip(ledger.gaps(name), range(reconciliation.INLINE_GAPS), strict=False)]
    return SourceReconciliation(
        name=name,
        url=source.url,
        summary=summary,
        totals=totals,
        dispositions={"excluded": 0, "failed": 0} | gaps | {"exported": totals.items},
        gaps=first,
        reasons=reconciliation.reasons_incomplete(
            summary, totals, gaps, failures, may_be_empty=name in run.options.may_be_empty
        ),
    )


def _outcome(run: ExportRun, sealed: Sealed, broken: Sequence[tuple[str, SourceError]]) -> ExportOutcome:
    return ExportOutcome(
        location=run.store.location,
        bundle_id=sealed.id,
        complete=sealed.complete,
        files=sealed.files,
        size_bytes=sealed.size_bytes,
        sources=[result(source) for source in sealed.reconciliations],
        broken=broken,
        left_out=run.state.left_out,
        left_behind=run.options.left_behind,
    )


def described(store: MultipartStore, info: bundle_json.BundleInfo) -> ExportOutcome:
    """Describe a sealed bundle that lies there from its own summary."""
    reconciliations = reconciliation.decode(store.read(layout.RECONCILIATION))
    labels = tag_files.parse_bag_info(store.read(layout.BAG_INFO))
    size_bytes, files = tag_files.parse_oxum(labels.get("Payload-Oxum", ""))
    return ExportOutcome(
        location=store.location,
        bundle_id=info.id,
        complete=info.complete,
        files=files,
        size_bytes=size_bytes,
        sources=[result(source) for source in reconciliations],
        already_sealed=True,
        left_out=info.left_out,
        left_behind=info.left_behind,
    )


@contextmanager
def _threads(workers: int, lease: Lease, cancellation: CancellationToken) -> Iterator[Executor]:
    """Lend threads for small files of the location; wait for them at the end. Where some do not end in time, the lease
    is not given back: another run has to see that this process is dead, or that the lease has grown stale.
    """
    executor = ThreadPoolExecutor(max(workers, _REQUESTS), thread_name_prefix="moveout-records")
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        shutdown_thread = threading.Thread(target=executor.shutdown, daemon=True)
        shutdown_thread.start()
        shutdown_thread.join(GRACE_SECONDS if cancellation.is_cancelled else None)
        if shutdown_thread.is_alive():
            lease.abandon()
