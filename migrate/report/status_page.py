"""The page that shows how far a move is: one file, no script, renewed by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from migrate.progress.state import ProgressState
from migrate.report.render import render

REFRESH_SECONDS = 30
"""How often the page is written, and loaded again."""


class ShownRun(Struct, frozen=True):
    """One command, or one location, on the page. ``good``: nothing is amiss. ``gaps``: source, item and
    reason. ``sources``: a line each.
    """

    title: str
    headline: str
    good: bool
    detail: str = ""
    state: ProgressState | None = None
    time_left: str = ""
    gaps: Sequence[tuple[str, str, str]] = ()
    sources: Sequence[str] = ()


def capital(words: str) -> str:
    """Return words with a capital letter at their beginning."""
    return words[:1].upper() + words[1:]


def status_page(
    title: str, runs: Sequence[ShownRun], *, refresh_seconds: int = REFRESH_SECONDS, deadline: str = ""
) -> bytes:
    """Return the page. ``refresh_seconds`` is 0 where nothing more will come. ``deadline`` is a sentence about it."""
    written = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return render(
        "status.html",
        {
            "title": title,
            "runs": runs,
            "written": written,
            "refresh_seconds": refresh_seconds,
            "deadline": deadline,
        },
    )
