"""The page about a sync for people: the verdict, the numbers, what is missing, what was removed."""

from __future__ import annotations

from migrate import software
from migrate.bundle.export_state import now
from migrate.report.render import render
from migrate.sync.outcome import SyncOutcome

_SHOWN = 200


def page(of: SyncOutcome) -> bytes:
    """Return the page, UTF-8."""
    values = {
        "title": "A bucket copied to a bucket",
        "outcome": of,
        "written": now(),
        "software": software(),
        "shown": _SHOWN,
    }
    return render("sync.html", values)
