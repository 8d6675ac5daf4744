"""The steps of a restore that work on rows: they are copied in parallel, read back, and compared with the bundle's."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module

from msgspec.structs import replace

from exporters.api import Loss
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.live_digests import TablesToRead, digest_tables
from exporters.row_digest import Advance, RowsDigest
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.table_comparison import compare_tables
from migrate.errors import NotAllowedError
from migrate.restore.common.api import OpenRowPool
from migrate.restore.common.table_parts import PartFile, WrittenRows, parts_of
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.postgres import destination as postgres_destination
from migrate.restore.postgres.context import PostgresRestore
from migrate.restore.postgres.definitions.post_data import is_mark
from migrate.restore.postgres.rows import large_objects
from migrate.restore.postgres.rows.load_rows import RowWriter
from migrate.restore.postgres.rows.prepared_parts import PreparedParts
from migrate.restore.postgres.rows.value_differences import explained
from migrate.restore.postgres.statistics import Analysis
from migrate.runtime.progress import SourceTask
from migrate.runtime.worker_pool import run_all

_ANALYZING_SESSIONS = 2
"""One alone is not done when the rows have been compared."""


def prepare(job: PostgresRestore, stop: threading.Event) -> PreparedParts:
    """Prepare small parts until ``stop`` is set, where this process copies them into tables that are made now."""
    import_module("exporters.postgres.rows.asyncpg_feed")  # by which rows are compared at the end
    prepared = PreparedParts(job.run.reader)
    if job.selection.definitions and job.selection.rows and job.open_pool is None:
        prepared.fill(parts_of(job.run.tables), stop)
    return prepared


def copy_rows(
    job: PostgresRestore, run: TableRestore, done: set[str], prepared: PreparedParts | None
) -> WrittenRows:
    """Copy the parts that are not done, the largest first: the end is reached sooner."""
    _check_triggers(job)
    rows = run.begin_rows(parts_of(run.tables), done)
    left = sorted(rows.parts, key=lambda part: part.size_bytes, reverse=True)
    if any(is_mark(name) for name in done) and not _keeps_triggers_from_firing(job):
        job.refused_parts.extend(left)  # an earlier run has made triggers
        return rows.end()
    if job.open_pool is not None:
        left = _copied_by_others(job, job.open_pool, left, rows.advance)
    writer = RowWriter(
        run.reader, job.destination.address, workers=run.workers, advance=rows.advance, prepared=prepared
    )
    job.refused_parts.extend(writer.write_all(left))
    job.note_damage(writer.damaged, quote_qualified)
    return rows.end()


def _copied_by_others(
    job: PostgresRestore, open_pool: OpenRowPool, parts: Sequence[PartFile], advance: Advance
) -> list[PartFile]:
    """Have other machines copy parts; return those that the destination refused."""
    lead = job.destination.connection.info.backend_pid
    refused = []
    for part, is_in in run_all(open_pool(job.run.source, lead, job.run.progress), parts):
        if is_in:
            advance(part.rows, part.size_bytes)
        else:
            refused.append(part)
    return refused


def _keeps_triggers_from_firing(job: PostgresRestore) -> bool:
    """Tell whether the role may write rows without any trigger."""
    with job.destination.connection.transaction(force_rollback=True):
        return postgres_destination.without_triggers(job.destination.connection)


def _check_triggers(job: PostgresRestore) -> None:
    """Raise ``NotAllowedError`` where tables have triggers already, and these cannot be kept from firing."""
    if job.selection.is_everything:
        return
    if _keeps_triggers_from_firing(job):
        return
    if table := postgres_destination.table_with_triggers(job.destination.connection, job.names):
        raise NotAllowedError(
            f"{table} has triggers or foreign keys, and this role may not keep them from firing",
            next_step="restore as a superuser, or: GRANT SET ON PARAMETER session_replication_role TO the role",
        )


@contextmanager
def analyzed(job: PostgresRestore) -> Iterator[None]:
    """Analyze the tables by sessions of their own, while the caller reads them by others."""
    analysis = Analysis(job.destination)
    with ThreadPoolExecutor(1, thread_name_prefix="moveout-analyze") as pool:
        notes = pool.submit(analysis.run, _ANALYZING_SESSIONS if job.run.workers > 1 else 1)
        try:
            yield
            job.run.progress.begin(
                f"statistics of {job.run.source}", items=0, size_bytes=0, of=SourceTask(job.run.source, 0.0)
            )
            job.notes.extend(notes.result())
            job.run.progress.end()
        except BaseException:
            analysis.cancel()
            raise


def unexplained_differences(job: PostgresRestore, run: TableRestore) -> list[str]:
    """Return the differences that are more than values which the destination holds otherwise: those are losses."""
    otherwise = explained(job, run) if compare_tables(run.tables, run.destination_digests) else {}
    for losses in otherwise.values():
        for loss in losses:
            job.note_loss(loss)
    rest = [table for table in run.tables if table.key not in otherwise]
    return run.findings(rest, quote_qualified)


def read_back(job: PostgresRestore, run: TableRestore) -> TableRestore:
    """Read the destination's rows, and return the tables that can be compared with the bundle's. What the destination
    does not let be read is left out of that by name; what cannot be read of the bundle is a finding already.
    """
    names = {table.key for table in run.tables} if job.selection.is_part else None
    numbers = large_objects.numbers(run, job.damaged.keys())
    to_read = TablesToRead(names, also=job.derived, large_objects=numbers, orders=job.orders)
    live = digest_tables(
        job.destination.address, to_read, workers=run.workers, advance=run.begin_comparison(), tolerant=True
    )
    run.end_comparison(live.digests)
    job.unread.update(live.unread)
    job.left_out.extend(
        f"the comparison of {quote_qualified(*name)}: {reason}" for name, reason in job.unread.items()
    )
    unknown = job.unread.keys() | job.damaged.keys()
    return replace(run, tables=[table for table in run.tables if table.key not in unknown])


def note_recomputed(job: PostgresRestore) -> None:
    """Record as lost the rows of the materialized views that the comparison has found to hold others."""
    for view in job.run.views:
        if view.key in job.unread:
            continue
        digest = job.run.destination_digests.get(view.key)
        if digest == RowsDigest(view.items, int(view.digest, 16)):
            continue
        job.note_loss(Loss(f"materialized view {quote_qualified(*view.key)}", "rows", _reason(view, digest)))


def _reason(view: CatalogRow, digest: RowsDigest | None) -> str:
    if digest is None:
        return f"it has none here, for it could not be made or refreshed; the bundle has the source's {view.items}"
    many = "as many" if digest.rows == view.items else f"{digest.rows} instead of {view.items}"
    return f"REFRESH computes others here than the source had stored ({many}); the bundle has the source's"
