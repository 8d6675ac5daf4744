"""``_work/<source>/plan.json``: planned and done totals of a source, for whoever asks how far the export
is.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.bundle.progress_database import Totals
from migrate.errors import DamageError, GoneError
from migrate.storage.api import Store

VERSION = 1


class Summary(Struct, frozen=True):
    """``whole``: the plan is complete, ``planned`` grows no more. ``at``: when this was written (UTC, ISO
    8601).
    """

    planned: Totals
    whole: bool
    done: Totals
    at: str


def write_summary(store: Store, source: str, summary: Summary) -> None:
    """Write or replace a source's summary."""
    store.put(layout.plan_summary(source), canonical_json.encode({"version": VERSION, **as_dict(summary)}))


def read_summary(store: Store, source: str) -> Summary | None:
    """Return a source's summary, None where there is none (or none that makes sense: it is only for show)."""
    key = layout.plan_summary(source)
    try:
        return msgspec.convert(canonical_json.decode(store.read(key), key), Summary)
    except (GoneError, DamageError, ValueError):
        return None
