"""The outcome of a restore of one source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.table_comparison import TableDigest
from migrate.restore.common.finished_record import FinishedRestore


class Retry(Struct, frozen=True):
    """What earlier restores left out: their records, and the tables and materialized views of the bundle that the
    destination lacks.
    """

    records: Sequence[FinishedRestore]
    absent: Sequence[CatalogRow]


class RestoreOutcome(Struct, frozen=True):
    """``items``: rows or objects of the source in the destination now; ``skipped_items`` of them were there already
    from an earlier run. ``computed_items``: rows of materialized views, which the destination computes. ``size_bytes``:
    payload written now. ``findings`` are sentences about what is not as in the bundle (none: it is equal); ``notes``
    what the user should know. ``losses``: rows of the restore's own loss ledger, which is stored with its report at
    ``report``. ``left_out``: what could not be made because the destination refuses it, or the bundle, incomplete as it
    is, lacks what it needs. ``tables``: what was read back from the destination at the end. ``is_equal``: every
    table and materialized view of the source was read back, and no other was there; each has the bundle's rows.
    ``retry``: where nothing was done, what can be tried again.
    """

    source: str
    items: int
    size_bytes: int
    skipped_items: int = 0
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    losses: int = 0
    report: str = ""
    left_out: tuple[str, ...] = ()
    tables: tuple[TableDigest, ...] = ()
    retry: Retry | None = None
    computed_items: int = 0
    is_equal: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as it is stored in the report."""
        fields = as_dict(replace(self, retry=None, tables=()))
        del fields["retry"], fields["is_equal"]
        tables = tuple(table.as_json() for table in self.tables)
        return fields | {"findings": list(self.findings), "notes": list(self.notes), "tables": tables}
