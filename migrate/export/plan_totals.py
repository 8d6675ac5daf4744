"""``_work/<source>/plan.json``: planned and done totals of a source. ``moveout status`` shows them."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.bundle.export_ledger import Totals
from migrate.errors import DamageError, GoneError
from migrate.storage.api import Store

VERSION = 1


class PlanTotals(Struct, frozen=True):
    """How much of a source is planned, and how much is done. ``whole``: the plan is complete, so ``planned`` grows no
    more. ``at``: when this was written (UTC, ISO 8601).
    """

    planned: Totals
    whole: bool
    done: Totals
    at: str


def write_plan_totals(store: Store, source: str, totals: PlanTotals) -> None:
    """Write or replace a source's totals."""
    store.put(layout.plan_totals(source), canonical_json.encode({"version": VERSION, **as_dict(totals)}))


def read_plan_totals(store: Store, source: str) -> PlanTotals | None:
    """Return a source's totals. None where there are none, or damaged ones: they are only shown."""
    key = layout.plan_totals(source)
    try:
        return msgspec.convert(canonical_json.decode(store.read(key), key), PlanTotals)
    except (GoneError, DamageError, ValueError):
        return None
