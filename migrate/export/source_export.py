"""One source in one run of an export: what an earlier run has of it, its units, and its own summary.

What every step needs is in ``ExportRun``. A source that breaks off is no error of the export: it comes back with what
was exported of it, and with the error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Gap, Outlined, Snapshot, Source, SourceSummary
from exporters.engine import SummaryOfGone, load_part
from exporters.errors import (
    SourceError,
    SourceSnapshotLostError,
    SourceStateError,
    SourceUnreachableError,
)
from migrate.bundle import layout, reconciliation
from migrate.bundle.commit_records import (
    FinalRecord,
    group_infos,
    read_final,
    read_group,
    read_records,
    record_ids,
    refuse_damage,
    separate_groups,
    write_final,
)
from migrate.bundle.reader import describe_file
from migrate.bundle.reconciliation import SourceReconciliation
from migrate.bundle.seal import compare
from migrate.bundle.source_workspace import StoreWorkspace
from migrate.bundle.unit_sink import StoreSink
from migrate.engines import registry
from migrate.errors import DamageError, GoneError, MoveoutError, NoSpaceError
from migrate.export.open_sources import UnreadableSource
from migrate.export.outcome import BrokenSource
from migrate.export.seal_time import counted_in_time, woken_at_the_seal
from migrate.export.source_units import ExportRun, SourceUnits
from migrate.export.unit_runner import same_position
from migrate.runtime import malloc
from migrate.runtime.progress import Progress, SourceTask
from migrate.runtime.retry_pauses import RESTART_POLL_SECONDS, RESTART_SECONDS
from migrate.storage.api import MultipartStore

_EXPORTED_AGAIN = "the same command exports it again"
LOST_IN_VAIN = 3
"""A source is left when so many snapshots in a row were lost before they brought more units than those before."""


class ExportedSource(Struct, frozen=True):
    """The result of one source. ``broken``: why it broke off, if it did. ``is_earlier``: an earlier run has exported it
    completely, and it was not asked again. ``describe`` returns the reconciliation of a
    source that could not be finished. It writes files, so it is called just before the seal.
    """

    reconciliation: SourceReconciliation
    broken: BrokenSource | None = None
    describe: Callable[[], SourceReconciliation] | None = None
    is_earlier: bool = False

    def described(self) -> SourceReconciliation:
        """Return the reconciliation for the seal."""
        return self.reconciliation if self.describe is None else self.describe()


def export_source(run: ExportRun, source: Source) -> ExportedSource:
    """Export one source, as far as it can be."""
    final = run.executor.submit(_read_final, run.store, source.name)
    _separate_groups(run, source.name)
    before = _finished_before(run, source, final.result())
    if before is not None and _is_finished(run, before):
        run.followed.resume(source.name, before.summary.positions)
        _show_done(run.progress, before)
        return ExportedSource(before, is_earlier=before.complete)
    if before is not None and not before.totals.items and not isinstance(source, UnreadableSource):
        _forget_earlier_run(run, source)
        before = None
    reading = _SourceReading(run, source, is_finished=final.result() is not None)
    try:
        reading.read()
    except (SourceError, NoSpaceError) as exc:
        reading.error = reading.error or run.room.as_source_error(exc)
    units, summary, error = reading.units, reading.summary, reading.error
    run.progress.end(stopped=error is not None)
    failures = list(units.failed) if units else []
    broken = None
    if error is not None:
        what = f"{source.name} {'could not be read' if units is None else 'broke off'}"
        broken = BrokenSource(source.name, error, f"{what}: {error}")
        failures.insert(0, broken.reason)
        # One that could not be opened was noted then, and the only one ends the export with its error.
        if not isinstance(source, UnreadableSource) and len(run.state.sources) > 1:
            run.progress.note_error(what, error)
    if units is None and before is not None:
        summary = before.summary
    if summary is not None:
        if failures:
            _keep_unrecorded(run, source.name, units.obsolete if units else ())
        return ExportedSource(_reconciliation(run, source, summary, failures), broken)
    error = error or SourceError(f"{source.name} was not finished")
    _load_rest(run, source.name)
    run.progress.count_gaps(1)
    # A base of changes that was replaced is one that the earlier summary names.
    is_as_before = (before is not None or units is None) and source.name not in run.options.follow
    earlier = final.result() if is_as_before else None
    known = _reconciliation(run, source, SourceSummary([], []), failures)
    describe = partial(_described, run, source, error, earlier, failures)
    return ExportedSource(known, broken, describe)


class _SourceReading:
    """Reads one source in this run. ``is_finished``: an earlier run has written its final record. ``units`` are those
    of the last snapshot, None where there was none.
    """

    def __init__(self, run: ExportRun, source: Source, *, is_finished: bool) -> None:
        self.units: SourceUnits | None = None
        self.summary: SourceSummary | None = None
        self.error: SourceError | None = None
        self._run, self._source = run, source
        self._is_finished = is_finished
        self._workspace = StoreWorkspace(
            run.store, source.name, on_listed=lambda count: run.progress.advance(items=count)
        )

    def read(self) -> None:
        """Export the source under a snapshot. Where that is lost on the way, export what is missing under a new one, as
        long as each brings more.
        """
        run, name = self._run, self._source.name
        self._begin_snapshot()
        if isinstance(self._source, UnreadableSource):  # more room, or time, would not change that
            raise self._source.error
        run.options.seal_time.check(name)
        run.room.check()
        run.room.keep(run.ledger.unit_count())
        most_units = lost_in_vain = 0
        wait_seconds = 0.0
        while True:
            try:
                self._read_snapshot(wait_seconds)
            except SourceSnapshotLostError as exc:
                units = 0 if self._is_finished else run.ledger.totals(name).units
                lost_in_vain = 0 if units > most_units else lost_in_vain + 1
                if lost_in_vain == LOST_IN_VAIN or run.options.seal_time.is_over:
                    raise
                most_units = max(most_units, units)
                run.progress.note(f"! {exc}; what is missing of {name} is read under a new snapshot")
            else:
                return
            run.progress.end(stopped=True)
            if not self._is_finished:  # else no snapshot stood yet, and what an earlier run has of it stays
                run.ledger.forget(name)
                _separate_groups(run, name)
            self._begin_snapshot()
            wait_seconds = RESTART_SECONDS

    def _begin_snapshot(self) -> None:
        name = self._source.name
        self._run.progress.begin(f"snapshot {name}", items=0, size_bytes=0, of=SourceTask(name, 0.0))

    def _read_snapshot(self, wait_seconds: float) -> None:
        """Take a snapshot of the source, and export its units and what belongs to the whole of it."""
        run, source = self._run, self._source
        with ExitStack() as stack:
            snapshot = self._open(stack, wait_seconds)
            self._workspace.on_listed = None  # what is listed from now on is the second count
            run.progress.begin(
                f"export {source.name}", items=0, size_bytes=0, of=SourceTask(source.name, counts_sent=False)
            )
            if self._is_finished:
                run.ledger.set_aside(source.name)
                self._is_finished = False
                run.store.delete(layout.final_record(source.name))
            if isinstance(snapshot, Outlined):
                snapshot.begin_outline(self._workspace)
            self.units = units = SourceUnits(run, source, snapshot)
            error = units.run()
            if isinstance(error, SourceSnapshotLostError):
                raise error
            self.error = error
            if isinstance(error, SourceUnreachableError) and isinstance(snapshot, Outlined):
                return  # rather than wait for it once more
            lift_rate_limit(run)
            before: set[str] = set()
            if error is not None or units.failed:
                before = _load_rest(run, source.name)
            is_whole = error is None and not units.failed
            with counted_in_time(run.options.seal_time, snapshot):
                self.summary = _finish_source(run, source, snapshot, before, complete=is_whole)

    def _open(self, stack: ExitStack, wait_seconds: float) -> Snapshot:
        """Take a snapshot, which the stack ends. Retry for some seconds where the source cannot be reached, such as
        while its server restarts. Wait no longer than until it is time to seal.
        """
        run, source = self._run, self._source
        until = time.monotonic() + wait_seconds
        with woken_at_the_seal(run.options.seal_time, source.url):
            while True:
                try:
                    return stack.enter_context(run.followed.snapshot(source, self._workspace, run.workers))
                except SourceUnreachableError as exc:
                    if run.options.seal_time.is_over:
                        raise run.options.seal_time.error(source.name) from exc
                    if time.monotonic() >= until or run.unit_cancellation.wait(RESTART_POLL_SECONDS):
                        raise
                except MoveoutError:
                    raise
                except Exception as exc:
                    raise SourceError(f"{source.name} could not be opened: {exc!r}") from exc


def lift_rate_limit(run: ExportRun) -> None:
    """Lift the bandwidth limit for a seal before the deadline: it must not wait for bytes that were sent before."""
    if run.options.seal_time.is_over and run.options.rate_limiter is not None:
        run.options.rate_limiter.lift()


def _show_done(progress: Progress, before: SourceReconciliation) -> None:
    """Count a source that an earlier run has exported, so that the share of all sources does not go back."""
    items, size_bytes = before.totals.items, before.totals.size_bytes
    progress.begin(f"export {before.name}", items=items, size_bytes=size_bytes, of=SourceTask(before.name))
    progress.skip(items=items, size_bytes=size_bytes)
    progress.end()


def _is_finished(run: ExportRun, before: SourceReconciliation) -> bool:
    """Tell whether a source is not asked again after an earlier run has finished it."""
    lacks_base = run.followed.lacks_base(before.name, before.summary.positions)
    return not run.options.ask or (before.complete and not lacks_base)


def _forget_earlier_run(run: ExportRun, source: Source) -> None:
    """Forget an earlier run in which nothing was exported: its filters may have been wrong."""
    run.ledger.forget(source.name)
    for info in list(run.store.list(f"{layout.WORK}{source.name}/")):
        run.store.delete(info.key)


def _separate_groups(run: ExportRun, source: str) -> None:
    """Give units that were recorded in groups under an earlier snapshot records of their own. Where such a record is
    damaged, they are exported again.
    """

    def on_damage(error: DamageError) -> None:
        run.progress.note(f"{error}; {_EXPORTED_AGAIN}")

    separate_groups(run.store, source, on_damage)


def _finish_source(
    run: ExportRun, source: Source, snapshot: Snapshot, before: Collection[str], *, complete: bool
) -> SourceSummary:
    """Let the source write what belongs to all of it. A final record is written only where the source is ``complete``,
    else the next run tries again. ``before``: units of an earlier run that were not compared with this snapshot.
    """
    run.lease.check()
    malloc.give_back()  # the units' buffers are needed no more
    sink = StoreSink(run.store, source.name, cancellation=run.cancellation, check=run.lease.check)
    try:
        done = (
            replace(unit, is_compared=False)
            if unit.unit.id in before and not same_position(unit.position, snapshot.position)
            else unit
            for unit in run.ledger.done(source.name)
        )
        summary = snapshot.finish(done, sink)
    except MoveoutError:
        raise
    except Exception as exc:
        raise sink.error or SourceError(f"{source.name} could not be finished: {exc!r}") from exc
    if sink.error is not None:
        raise sink.error
    _count_own_gaps(run, source.name, summary)
    final = FinalRecord(source.name, summary, sink.files)
    run.lease.check()
    if complete:
        write_final(run.store, final)
    run.ledger.add_final(final)
    return summary


def _count_own_gaps(run: ExportRun, name: str, summary: SourceSummary) -> None:
    """Count the gaps that no unit had: those of the others were counted when they ended."""
    failed = {gap.item for gap in summary.gaps if gap.disposition == "failed"}
    if failed:
        of_units = (gap.item for unit in run.ledger.done(name) for gap in unit.outcome.gaps)
        run.progress.count_gaps(len(failed.difference(of_units)))


def _described(
    run: ExportRun,
    source: Source,
    error: SourceError,
    earlier: FinalRecord | DamageError | None,
    failures: Sequence[str],
) -> SourceReconciliation:
    """Return the reconciliation of a source that broke off. What an ``earlier`` run has written of the whole source
    stays, as long as nothing was replaced that it speaks of; else the outline says what there is, and what is missing.
    """
    name = source.name
    lacking = "the rest" if run.ledger.totals(name).units else "all"
    final: FinalRecord | None = None
    if isinstance(earlier, FinalRecord) and run.ledger.has_all_set_aside(name) and _are_there(run, earlier):
        final = earlier
    else:
        final = _final_of_gone(run, source, error)
        lacking = lacking if final is None else "the second count"  # it names what else is missing
    gap = Gap(f"{lacking} of {name}", "failed", str(error))
    run.ledger.add_gaps(name, [gap])
    summary = SourceSummary([], [], gaps=[gap])
    if final is not None:
        run.ledger.add_final(final)
        summary = replace(final.summary, gaps=[*final.summary.gaps, gap])
    _keep_unrecorded(run, name)
    return _reconciliation(run, source, summary, failures)


def _keep_unrecorded(run: ExportRun, source: str, obsolete: Collection[str] = ()) -> None:
    """Seal files that no record names as they are, each recorded as a gap: the source may never be readable again. They
    come from damaged records, and from a run that was killed before it wrote their record. ``obsolete`` files are not
    among them.
    """
    prefix, others = layout.source_file(source, ""), {layout.duckdb_script(source), *obsolete}
    unrecorded = [
        key
        for key, expected_bytes, _ in compare(run.ledger.files(prefix), run.store, prefix)
        if expected_bytes is None and layout.is_payload(key) and key not in others
    ]
    run.ledger.add_files([describe_file(run.store, key) for key in unrecorded])
    reason = "no record says what is in this file; it is kept as it is"
    run.ledger.add_gaps(source, [Gap(key, "failed", reason) for key in unrecorded])
    run.progress.count_gaps(len(unrecorded))
    if unrecorded:
        run.progress.note(f"{source}: {unrecorded[0]}: {reason}; {len(unrecorded)} files in all")


def _final_of_gone(run: ExportRun, source: Source, error: SourceError) -> FinalRecord | None:
    """Write the files of a source that cannot be read any more, from its outline. None where there is none, or a
    damaged one.
    """
    engine = registry.find(source.url)
    if engine is None or not engine.summary_of_gone:
        return None
    summary_of_gone: SummaryOfGone = load_part(engine.summary_of_gone)
    sink = StoreSink(run.store, source.name, cancellation=run.cancellation, check=run.lease.check)
    workspace = StoreWorkspace(run.store, source.name)
    try:
        summary = summary_of_gone(workspace, run.ledger.done(source.name), sink, error)
    except SourceStateError as exc:
        run.progress.note(f"{source.name}: {exc}")
        return None
    return None if summary is None else FinalRecord(source.name, summary, sink.files)


def _are_there(run: ExportRun, final: FinalRecord) -> bool:
    """Tell whether the files of the final record are as they were written. A run may have ended replacing them."""
    try:
        return all(describe_file(run.store, file.key) == file for file in final.files)
    except GoneError:
        return False


def _read_final(store: MultipartStore, source: str) -> FinalRecord | DamageError | None:
    try:
        return read_final(store, source)
    except GoneError:
        return None
    except DamageError as exc:
        return exc


def _finished_before(
    run: ExportRun, source: Source, final: FinalRecord | DamageError | None
) -> SourceReconciliation | None:
    """Return the reconciliation of a source that an earlier run finished. None where none did, or where its records are
    damaged: then the source is read again.
    """
    if final is None:
        return None
    try:
        if isinstance(final, DamageError):
            raise final
        _load_records(run, source.name)
    except DamageError as exc:
        run.progress.note(f"{exc}; {_EXPORTED_AGAIN}")
        run.ledger.forget(source.name)
        return None
    run.ledger.add_final(final)
    return _reconciliation(run, source, final.summary)


def _load_records(
    run: ExportRun, source: str, on_damage: Callable[[DamageError], None] = refuse_damage
) -> set[str]:
    """Load the commit records at the location that the ledger lacks, and return their units. Among them are groups
    whose worker was ended before it reported what it had committed.
    """
    loaded: set[str] = set()
    ids: Iterable[str] = (
        unit_id for unit_id in record_ids(run.store, source) if not run.ledger.has(source, unit_id)
    )
    for record in read_records(run.store, source, ids, run.executor, on_damage):
        run.ledger.add(record)
        loaded.add(record.unit.id)
    for info in group_infos(run.store, source):
        try:
            group = read_group(run.store, source, info.key)
        except DamageError as exc:
            on_damage(exc)
            continue
        for record in group:
            if not run.ledger.has(source, record.unit.id):
                run.ledger.add(record)
                loaded.add(record.unit.id)
    return loaded


def _load_rest(run: ExportRun, source: str) -> set[str]:
    """Load the commit records that an earlier run has left of units that failed now, or that this run did not reach.
    Return their units. A damaged record is a gap. It stays, so that the next run reads its unit again.
    """

    def on_damage(error: DamageError) -> None:
        reason = f"the record of what an earlier run has exported is damaged: {error.explanation}"
        run.ledger.add_gaps(source, [Gap(error.key, "failed", f"{reason}; {_EXPORTED_AGAIN}")])
        run.progress.count_gaps(1)
        run.progress.note(f"{source}: {error}; {_EXPORTED_AGAIN}")

    return _load_records(run, source, on_damage)


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
