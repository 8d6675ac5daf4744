"""The outcome of a restore of one source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from migrate.bundle.table_comparison import TableDigest


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """``items`` rows or objects of the source in the destination now, of them ``skipped_items`` there already from an
    earlier run; ``size_bytes`` of payload written now. ``findings`` are sentences about what is not as in the bundle
    (none: it is equal); ``notes`` what the user should know. ``losses``: rows of the restore's own loss ledger, which
    is stored with its report at ``report``. ``left_out``: what could not be made because the destination refuses it, or
    the bundle, incomplete as it is, lacks what it needs. ``tables``: what was read back from the destination at the
    end.
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

    def as_json(self) -> dict[str, Any]:
        """Return it as it is stored in the report."""
        return asdict(self) | {"findings": list(self.findings), "notes": list(self.notes)}
