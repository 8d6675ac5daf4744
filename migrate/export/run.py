"""The export: snapshot → units → bundle → seal.

One source after the other; the units of one by all workers at once. What is done is what has a commit record
at the location, so a run can die at any moment and the same command goes on. Decisions about failures:

- the location fails (denied, unreachable after the store's retries): the run stops; all that is committed stays;
- the location is full: nothing more is read, a reserve is released, and what is committed is sealed as incomplete;
- one unit fails: the others go on, the unit is a gap;
- the source cannot be reached: the unit is tried again a few times, then the source is left;
- its snapshot is lost with the session that held it: what is missing is read under a new one, as long as each brings
  more;
- the source denies or is gone: it is left after a few units in a row;
- a source that was left, or could not be opened, is a gap: the other sources are exported, and the bundle is sealed as
  incomplete. Where no source has anything to show, nothing is sealed, and the error is raised.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from msgspec.structs import replace

from exporters.api import OUTLINE, Identified, Source
from exporters.connections.silent_servers import waiting_for_silent
from exporters.errors import SourceGoneError
from migrate.bundle import bundle_json, export_state, layout, reconciliation, tag_files
from migrate.bundle.export_ledger import ExportLedger
from migrate.bundle.export_state import SourceName
from migrate.bundle.lease import Lease
from migrate.bundle.seal import ExportedData, Sealed
from migrate.bundle.seal import seal as write_seal
from migrate.errors import NoSpaceError, UsageError
from migrate.export.followed_changes import FollowedChanges
from migrate.export.open_sources import UnreadableSource, no_source_error
from migrate.export.outcome import BrokenSource, ExportOptions, ExportOutcome, result
from migrate.export.preflight import LocationRoom, SourceChanges, check_names, claim, is_begun, refuse_foreign
from migrate.export.source_export import export_source, lift_rate_limit
from migrate.export.source_units import ExportRun
from migrate.export.standing_seal import is_unchanged
from migrate.number_text import list_words
from migrate.report.bundle_page import sealed_page
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import GRACE_SECONDS
from migrate.storage.api import MultipartStore, exists
from migrate.storage.known_files import KnownFiles

_REQUESTS = 16
"""How many small files of the location are asked for, written or removed at once."""


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
    return None if sealed is None else outcome_of_sealed(store, sealed)


def export(
    sources: Sequence[Source],
    store: MultipartStore,
    *,
    workers: int,
    progress: Progress,
    options: ExportOptions | None = None,
    cancellation: CancellationToken | None = None,
) -> ExportOutcome:
    """Export ``sources`` into a sealed bundle at ``store``; resume what an earlier run began there. A bundle that was
    sealed incomplete, and to which nothing is added, stays as it is.

    Raises ``NotEmptyError`` (the location holds something else), ``BusyError`` (another run is at work), the location's
    errors, and the error of the sources where none could be read. ``cancellation``, on which ``store`` waits, too, is
    cancelled then. After each of them, and after ``KeyboardInterrupt``, the same call goes on.
    """
    options = options or ExportOptions()
    source_names = [_name_of(source, options) for source in sources]
    check_names(source_names)
    lost = [source for source in sources if isinstance(source, UnreadableSource)]
    changes = SourceChanges([source.name for source in lost], options.dropped)
    sealed = None if options.is_seen else refuse_foreign(store, source_names, changes=changes)
    if sealed is not None and next(iter(store.list(layout.WORK)), None) is None:
        return outcome_of_sealed(store, sealed)
    if len(lost) == len(sources) and export_state.read_state(store) is None:
        raise no_source_error([(source.name, source.error) for source in lost])
    cancellation = cancellation or CancellationToken()
    with ExitStack() as stack:
        lease = stack.enter_context(
            Lease(store, "export", progress=progress, alone=options.open_pool is None)
        )
        executor = stack.enter_context(_threads(workers, lease, cancellation))
        noted = store if options.open_pool is not None else _with_known_files(store, executor)
        claimed = claim(noted, source_names, executor=executor, progress=progress, changes=changes)
        if isinstance(claimed, bundle_json.BundleInfo):
            return outcome_of_sealed(store, claimed)
        state, seal = claimed.state, claimed.seal
        ledger = stack.enter_context(ExportLedger())
        bundle_name = export_state.followed_name(options.case.name if options.case else "", state)
        followed = FollowedChanges(
            store, bundle_name, options.follow, cancellation, progress.note, before_base=seal.remove
        )
        stack.enter_context(followed)
        unit_cancellation = _unit_cancellation(stack, cancellation, options)
        unit_store = options.open_unit_store(unit_cancellation) if options.open_unit_store else store
        unit_store = noted.over(unit_store) if isinstance(noted, KnownFiles) else unit_store
        run = ExportRun(
            store=seal.over(noted),
            state=state,
            seal=seal,
            ledger=ledger,
            lease=lease,
            executor=executor,
            workers=workers,
            progress=progress,
            options=options,
            cancellation=cancellation,
            followed=followed,
            room=LocationRoom(store, executor),
            unit_store=seal.over(unit_store),
            unit_cancellation=unit_cancellation,
        )
        try:
            return _export_and_seal(run, sources)
        except BaseException:
            cancellation.cancel()
            raise


def _with_known_files(store: MultipartStore, executor: Executor) -> KnownFiles:
    """Return the location with a memory of the files of ``_work/``, which only this machine writes."""
    known_files = KnownFiles(store, layout.is_note_of_export)
    known_files.load_by(executor, (layout.EXPORT_STATE,), layout.WORK)
    return known_files


def _unit_cancellation(
    stack: ExitStack, cancellation: CancellationToken, options: ExportOptions
) -> CancellationToken:
    """Return what ends the units under way. Who waits for a silent server waits for it, too, and until the seal."""
    child, seal_time = cancellation.child(), options.seal_time
    stack.enter_context(waiting_for_silent(lambda seconds: child.wait(seconds) or seal_time.is_over))
    return child


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
        return outcome_of_sealed(store, sealed)
    if state is None or not any(
        is_begun(store, source.name) or exists(store, layout.workspace_file(source.name, OUTLINE))
        for source in state.sources
    ):
        raise UsageError(
            f"nothing was exported to {store.location} yet", next_step="moveout export begins it"
        )
    not_asked = SourceGoneError("it was not finished, and is not asked again by this seal")
    sources = [UnreadableSource(source.name, source.url, not_asked) for source in state.sources]
    may_be_empty = frozenset(source.name for source in state.sources if source.may_be_empty)
    options = ExportOptions(ask=False, may_be_empty=may_be_empty)
    outcome = export(sources, store, workers=workers, progress=progress, options=options)
    return replace(outcome, broken=())  # that the sources were not asked is no error here


def _export_and_seal(run: ExportRun, sources: Sequence[Source]) -> ExportOutcome:
    results = [export_source(run, source) for source in sources]
    if earlier := [result.reconciliation.name for result in results if result.is_earlier]:
        run.progress.note(f"exported by an earlier run, and not read again: {list_words(earlier)}")
    broken = [result.broken for result in results if result.broken is not None]
    broken_names = {source.name for source in broken}
    options = run.options
    reconciliations = [result.reconciliation for result in results]
    exported = ExportedData(run.state, run.ledger, reconciliations, options.left_behind, options.case)
    run.room.release()
    lift_rate_limit(run)
    if run.seal.stands and is_unchanged(run.store, exported, broken_names, strict=options.strict_snapshot):
        return _outcome_of_kept(run, broken)
    is_nothing = all(source.name in broken_names and not source.totals.items for source in reconciliations)
    if options.ask and is_nothing:
        raise no_source_error([(source.name, source.error) for source in broken])
    run.progress.begin("seal", items=0, size_bytes=0)
    try:
        run.seal.remove()
        exported = replace(exported, reconciliations=[result.described() for result in results])
        sealed = write_seal(
            run.store, exported, executor=run.executor, check=run.lease.check, page=sealed_page
        )
    except NoSpaceError as exc:
        raise run.room.seal_error(exc, run.ledger.unit_count()) from exc
    run.progress.end()
    return _outcome(run, sealed, broken)


def _outcome_of_kept(run: ExportRun, broken: Sequence[BrokenSource]) -> ExportOutcome:
    """Return the outcome of an export that added nothing to the incomplete bundle, which stays as it is."""
    info = bundle_json.read_sealed(run.store)
    assert info is not None, "its seal stands"
    left_behind = run.options.left_behind or info.left_behind
    return replace(outcome_of_sealed(run.store, info), broken=broken, left_behind=left_behind)


def _outcome(run: ExportRun, sealed: Sealed, broken: Sequence[BrokenSource]) -> ExportOutcome:
    return ExportOutcome(
        location=run.store.location,
        bundle_id=sealed.id,
        complete=sealed.complete,
        files=sealed.files,
        size_bytes=sealed.size_bytes,
        sources=[
            replace(result(source), lost=run.ledger.lost_properties(source.name))
            for source in sealed.reconciliations
        ],
        broken=broken,
        left_out=run.state.left_out,
        left_behind=run.options.left_behind,
    )


def outcome_of_sealed(store: MultipartStore, info: bundle_json.BundleInfo) -> ExportOutcome:
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
