"""Materialized views: REFRESH computes their rows, which may not be those that the source had. Nobody can write into
one, so the source's rows stay in the bundle only.
"""

from __future__ import annotations

from exporters.api import Loss
from exporters.postgres.identifiers import quote_qualified
from exporters.row_digest import Tally
from migrate.bundle.catalog import CatalogRow
from migrate.restore.postgres.context import PostgresRestore


def note_recomputed(job: PostgresRestore) -> None:
    """Record as lost the rows of the materialized views that the comparison has found to hold others."""
    for view in job.run.views:
        if (view.schema, view.name) in job.unread:
            continue
        tally = job.run.found.get((view.schema, view.name))
        if tally == Tally(view.items, int(view.digest, 16)):
            continue
        loss = Loss(
            f"materialized view {quote_qualified(view.schema, view.name)}", "rows", _reason(view, tally)
        )
        job.losses.append(loss)
        job.left_out.append(f"the rows of {loss.item}: {loss.reason}")


def _reason(view: CatalogRow, tally: Tally | None) -> str:
    if tally is None:
        return f"it has none here, for it could not be made or refreshed; the bundle has the source's {view.items}"
    many = "as many" if tally.rows == view.items else f"{tally.rows} instead of {view.items}"
    return f"REFRESH computes others here than the source had ({many}); the bundle has the source's"
