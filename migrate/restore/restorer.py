"""The contract of restores, and a restore of one source, whichever engine it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from exporters.engine import Engine, live_reader_of, load_part
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import compare_tables
from migrate.engines import registry
from migrate.errors import IncompleteError, NotEmptyError, UsageError
from migrate.restore.common.bundle_gaps import lacking_of
from migrate.restore.common.finished_record import FinishedRestore, unique
from migrate.restore.common.outcome import RestoreOutcome
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What shall be restored, and where to.

    ``source`` is its name in the bundle; ``url`` the destination, opened by ``secrets``. ``merge``: into a destination
    that is not empty. ``only``: of a database ``schema``, ``data`` or tables. ``report`` is where the restore writes
    what the destination cannot hold. ``open_pool`` makes the pool of a cluster that writes instead of the threads
    of this process; None where the engine has no use for one. ``cancellation`` ends what is under
    way. ``pack_small_objects``: to MinIO, many objects in one request.
    """

    reader: BundleReader
    source: str
    url: str
    workers: int
    progress: Progress
    secrets: Mapping[str, str] = field(default_factory=dict)
    merge: bool = False
    only: Sequence[str] = ()
    report: MultipartStore | None = None
    open_pool: Any = None
    cancellation: CancellationToken | None = None
    pack_small_objects: bool = False


class Restorer(Protocol):
    """Restores sources of one engine.

    - A destination that holds something else is refused (``NotEmptyError``), and not touched.
    - The same request after an interruption goes on; after success it changes nothing.
    - What is restored is read back and compared with the bundle. What differs is a finding of the outcome.
    - What the destination cannot hold is named in the outcome's ``left_out``.
    """

    def restore(self, request: RestoreRequest) -> RestoreOutcome:
        """Restore one source. Raises errors of ``migrate.errors`` and ``exporters.errors``."""
        ...

    def finished(
        self, reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
    ) -> Sequence[FinishedRestore]:
        """Return what earlier restores of a source left out of a destination, as it is recorded there."""
        ...


class CreateDestination(Protocol):
    """Makes the database or bucket that a restore names, as the source was, where the destination allows it."""

    def __call__(self, reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]) -> str:
        """Return a sentence that says what was made; "" where the destination exists. Raises errors of
        ``migrate.errors`` and ``exporters.errors``.
        """
        ...


def restorer_of(engine: Engine) -> Restorer:
    """Return the engine's restorer. Raises ``UsageError`` where it has none."""
    reference = registry.require(engine, engine.restorer, "restored")
    return cast("Restorer", load_part(reference)())


def restore_source(request: RestoreRequest, shown: str, *, create: bool = False) -> RestoreOutcome:
    """Restore one source of a bundle; ``shown`` is the destination's URL without secrets. ``create``: make the
    destination where it does not exist. Raises ``IncompleteError`` where the bundle has nothing of the source.
    """
    engine = registry.engine_for(request.url, shown)
    require_content(request.reader, request.source)
    if request.only and engine.contents == "objects":
        raise UsageError(
            f"{request.source}: only databases can be restored in parts", next_step="leave --only out"
        )
    restorer = restorer_of(engine)
    made = ""
    if create and engine.create:
        creator = cast("CreateDestination", load_part(engine.create))
        made = creator(request.reader, request.source, request.url, secrets=request.secrets)
        if made:
            request.progress.note(f"{request.source}: {made}")
    try:
        outcome = restorer.restore(request)
    except NotEmptyError as refusal:
        outcome = _restore_missing(restorer, engine, request, refusal)
    return replace(outcome, notes=(made, *outcome.notes)) if made else outcome


def _restore_missing(
    restorer: Restorer, engine: Engine, request: RestoreRequest, refusal: NotEmptyError
) -> RestoreOutcome:
    """Restore the tables that a destination lacks which was restored from the bundle while that was incomplete. Raises
    the ``refusal`` where the destination has anything but the bundle's tables, each with its rows or as a restore has
    left it.
    """
    reader, source = request.reader, request.source
    if not reader.info.continues or request.only or request.merge or not engine.live_reader:
        raise refusal
    tables = [row for row in reader.catalog() if row.source == source and row.kind == "table"]
    live = live_reader_of(engine).live_tables(
        request.url, secrets=request.secrets, workers=request.workers, advance=lambda _rows, _bytes: None
    )
    names = {(row.schema, row.name) for row in tables}
    missing = [row for row in tables if row.number and (row.schema, row.name) not in live]
    records = finished_restores(reader, source, request.url, secrets=request.secrets)
    present = [row for row in tables if (row.schema, row.name) in live]
    differing = [
        difference
        for difference in compare_tables(present, live)
        if not any(record.accepts(difference.name, live.get(difference.name)) for record in records)
    ]
    if not missing or differing or not live.keys() <= names:
        raise refusal
    words = [f"{row.schema}.{row.name}" if row.schema else row.name for row in missing]
    note = f"it was restored while the bundle was incomplete; this adds {', '.join(words)}"
    request.progress.note(f"{source}: {note}")
    outcome = restorer.restore(replace(request, only=words))
    there = sum(row.items for row in present)
    left_out = unique(outcome.left_out, missing_from(reader, source, records))
    return replace(
        outcome,
        items=outcome.items + there,
        skipped_items=outcome.skipped_items + there,
        notes=(note, *outcome.notes),
        left_out=tuple(left_out),
    )


def require_content(reader: BundleReader, source: str) -> None:
    """Raise ``IncompleteError`` where the export could not finish a source, so that nothing describes what is there."""
    reader.info.source(source)
    if any(row.source == source for row in reader.catalog()) or any(reader.source_files(source, "schema/")):
        return
    reasons = [
        reason for entry in reader.reconciliation() if entry.name == source for reason in entry.reasons
    ]
    if reasons:
        raise IncompleteError(
            f"nothing of {source} in the bundle can be restored: {reasons[0]}",
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
    """Return what is recorded as missing from a restored source: what its restores left out, and what the bundle
    lacks.
    """
    return unique(*(record.left_out for record in records), lacking_of(reader, source))
