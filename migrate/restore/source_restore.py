"""A restore of one source, whichever engine it is of, and what restores have left out of a live one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from exporters.engine import Engine, TablesRequest, live_reader_of, load_part, part_reader_of
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import compare_tables
from migrate.case.secrets import redact
from migrate.engines import registry
from migrate.errors import IncompleteError, NotEmptyError, UsageError
from migrate.number_text import list_words
from migrate.restore.common.api import CreateDestination, RestoreOutcome, Restorer, RestoreRequest, Retry
from migrate.restore.common.left_out import FinishedRestore, lacking_of, now_there, subject_of, unique
from migrate.restore.common.selection import LEFT_OUT, RestoreSelection


def restorer_of(engine: Engine) -> Restorer:
    """Return the engine's restorer. Raises ``UsageError`` where it has none."""
    reference = registry.require(engine, engine.restorer, "restored")
    return cast("Restorer", load_part(reference)())


def restore_source(request: RestoreRequest, *, create: bool = False) -> RestoreOutcome:
    """Restore one source of a bundle. ``create``: make the destination where it does not exist. Raises
    ``IncompleteError`` where the bundle has nothing of the source.
    """
    engine = registry.engine_for(request.url, redact(request.url))
    require_content(request.reader, request.source)
    if LEFT_OUT in request.only:
        raise UsageError(
            f"{LEFT_OUT} is no part of {request.source}",
            next_step="leave --only out: what was left out is tried again",
        )
    if request.only and engine.contents == "objects":
        raise UsageError(
            f"{request.source}: only databases can be restored in parts", next_step="leave --only out"
        )
    restorer = restorer_of(engine)
    created = None
    if create and engine.create:
        creator = cast("CreateDestination", load_part(engine.create))
        created = creator(request.reader, request.source, request.url, secrets=request.secrets)
        if created is not None:
            request.progress.note(f"{request.source}: {created.sentence}")
    outcome = _restored(restorer, engine, request)
    if created is None:
        return outcome
    if created.as_source:
        return replace(outcome, routine=(created.sentence, *outcome.routine))
    return replace(outcome, notes=(created.sentence, *outcome.notes))


def _restored(restorer: Restorer, engine: Engine, request: RestoreRequest) -> RestoreOutcome:
    """Restore the selection, or what an earlier restore had to leave out."""
    try:
        outcome = restorer.restore(request)
    except NotEmptyError as refusal:
        return _restore_missing(restorer, engine, request, refusal)
    return _retry(restorer, request, outcome, outcome.retry) if outcome.retry else outcome


def _retry(
    restorer: Restorer, request: RestoreRequest, outcome: RestoreOutcome, retry: Retry
) -> RestoreOutcome:
    """Try again what earlier restores left out of a destination that is as they have left it."""
    before = unique(*(record.left_out for record in retry.records))
    request.progress.note(
        f"{request.source}: tries again what an earlier restore left out: {list_words(list(map(subject_of, before)))}"
    )
    only = [LEFT_OUT, *(row.full_name for row in retry.absent)]
    again = restorer.restore(replace(request, only=only, earlier=retry.records))
    notes = now_there(before, again.left_out)
    earlier = unique(*(record.notes for record in retry.records))
    present = outcome.items - sum(row.items for row in retry.absent if row.kind == "table")
    return replace(
        again,
        items=present + again.items,
        skipped_items=present + again.skipped_items,
        findings=tuple(unique(outcome.findings, again.findings)),
        notes=tuple(unique(notes, again.notes, earlier) if notes else outcome.notes),
        routine=again.routine if notes else outcome.routine,
        left_out=tuple(unique((entry for entry in outcome.left_out if entry not in before), again.left_out)),
        tables=(*outcome.tables, *again.tables),
    )


def _restore_missing(
    restorer: Restorer, engine: Engine, request: RestoreRequest, refusal: NotEmptyError
) -> RestoreOutcome:
    """Restore what a destination lacks that was restored from the bundle while that was incomplete: tables, rows of
    tables that came up empty, and what needed them. Or go on with an interrupted restore of what was left out. Raises
    the ``refusal`` where the destination has anything but the bundle's tables, each with its rows, none, or as a
    restore has left it.
    """
    reader, source = request.reader, request.source
    if request.only or not engine.live_reader:
        raise refusal
    own = restorer.finished(reader, source, request.url, secrets=request.secrets)
    by_predecessor = [
        (predecessor, record)
        for predecessor in reader.predecessors()
        for record in restorer.finished(predecessor, source, request.url, secrets=request.secrets)
    ]
    earlier = [record for _, record in by_predecessor]
    for of_reader, record in [*((reader, record) for record in own), *by_predecessor]:
        if not record.finished and (reader.info.continues or _selection_of(record).left_out):
            outcome = restorer.restore(_interrupted(request, of_reader, record, [*own, *earlier]))
            return outcome if outcome.findings else _restored(restorer, engine, request)
    if not reader.info.continues or request.merge:
        raise refusal
    lacking = _lacking_tables(engine, request, [*own, *earlier])
    if lacking is None:
        raise refusal
    words = [row.full_name for row in (*lacking.missing, *lacking.empty)]
    note = f"it was restored while the bundle was incomplete; this adds {', '.join(words)}"
    request.progress.note(f"{source}: {note}")
    outcomes = []
    if lacking.missing:
        only = [row.full_name for row in lacking.missing]
        outcomes.append(restorer.restore(replace(request, only=only, earlier=earlier)))
    if lacking.empty:
        outcomes.append(
            restorer.restore(replace(request, only=["data", *(row.full_name for row in lacking.empty)]))
        )
    records = finished_restores(reader, source, request.url, secrets=request.secrets)
    outcome = _joined(outcomes, items_there=lacking.items_there)
    return replace(
        outcome,
        notes=tuple(unique([note], outcome.notes)),
        left_out=tuple(unique(outcome.left_out, missing_from(reader, source, records))),
    )


def _joined(outcomes: Sequence[RestoreOutcome], *, items_there: int) -> RestoreOutcome:
    """Return the outcome of several restores into one destination, which had ``items_there`` before."""
    return replace(
        outcomes[0],
        items=sum(outcome.items for outcome in outcomes) + items_there,
        size_bytes=sum(outcome.size_bytes for outcome in outcomes),
        skipped_items=sum(outcome.skipped_items for outcome in outcomes) + items_there,
        findings=tuple(unique(*(outcome.findings for outcome in outcomes))),
        notes=tuple(unique(*(outcome.notes for outcome in outcomes))),
        routine=tuple(unique(*(outcome.routine for outcome in outcomes))),
        left_out=tuple(unique(*(outcome.left_out for outcome in outcomes))),
        tables=tuple(table for outcome in outcomes for table in outcome.tables),
    )


def _interrupted(
    request: RestoreRequest, reader: BundleReader, record: FinishedRestore, earlier: Sequence[FinishedRestore]
) -> RestoreRequest:
    """Return the request that continues an interrupted restore of this bundle or of an earlier one. Only
    where it makes definitions, those that ``earlier`` restores left out are among them.
    """
    continues = reader is request.reader and _selection_of(record).definitions
    return replace(
        request,
        reader=reader,
        only=RestoreSelection.split_words(record.only),
        earlier=[other for other in earlier if other.finished] if continues else (),
    )


def _selection_of(record: FinishedRestore) -> RestoreSelection:
    return RestoreSelection.parse(RestoreSelection.split_words(record.only))


class _Lacking(Struct, frozen=True):
    """What a destination lacks: tables and views, and rows of tables; and how many rows the others have."""

    missing: Sequence[CatalogRow]
    empty: Sequence[CatalogRow]
    items_there: int


def _lacking_tables(
    engine: Engine, request: RestoreRequest, records: Sequence[FinishedRestore]
) -> _Lacking | None:
    """Compare a destination with the bundle; None where nothing is lacking, or something else differs."""
    reader, source = request.reader, request.source
    rows = reader.tables(source)
    views = {row.key for row in rows if row.kind == "materialized view"}
    tables_request = TablesRequest(request.workers, lambda _rows, _bytes: None, also=views)
    read = live_reader_of(engine).live_tables(request.url, tables_request, secrets=request.secrets)
    live = read.named_as(row.key for row in rows).digests
    missing = [row for row in rows if row.number and row.key not in live]
    tables = [row for row in rows if row.kind == "table" and row.key in live]
    empty = [row for row in tables if row.items and not live[row.key].rows]
    present = [row for row in tables if row not in empty]
    differing = [
        difference
        for difference in compare_tables(present, live)
        if not any(record.accepts(difference.name, live.get(difference.name)) for record in records)
    ]
    label = part_reader_of(engine).label
    gaps = {gap.item for gap in reader.failed(source)}
    others = [
        name
        for name in live.keys() - {row.key for row in rows}
        if live[name].rows or label(*name) not in gaps
    ]
    if differing or others or not (missing or empty):
        return None
    return _Lacking(missing, empty, sum(row.items for row in present))


def require_content(reader: BundleReader, source: str) -> None:
    """Raise ``IncompleteError`` where the export could not finish a source, so that nothing describes what is there."""
    reader.info.source(source)
    if any(reader.source_files(source, "schema/")) or any(row.source == source for row in reader.catalog()):
        return
    reasons = [
        reason for entry in reader.reconciliation() if entry.name == source for reason in entry.reasons
    ]
    if reasons:
        raise IncompleteError(
            f"the bundle has nothing of it: {reasons[0]}",
            next_step="export it again to the same location, while the old host is there",
        )


def finished_restores(
    reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
) -> Sequence[FinishedRestore]:
    """Return what earlier restores left out of a live source, from this bundle or from those that it continues; nothing
    where moveout cannot restore such sources.
    """
    engine = registry.find(url)
    if engine is None or not engine.restorer:
        return []
    restorer = restorer_of(engine)
    records = list(restorer.finished(reader, source, url, secrets=secrets))
    if not any(not record.only for record in records):
        for earlier in reader.predecessors():
            records += restorer.finished(earlier, source, url, secrets=secrets)
    return records


def missing_from(reader: BundleReader, source: str, records: Sequence[FinishedRestore]) -> list[str]:
    """Return what is missing from a restored source: what restores left out, and what the bundle lacks."""
    return unique(*(record.left_out for record in records), lacking_of(reader, source))
