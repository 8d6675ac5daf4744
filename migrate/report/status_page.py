"""The page that shows how far a move is: one file, no script, renewed by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from migrate.progress.state import ProgressState, TaskProgress
from migrate.report.render import render

REFRESH_SECONDS = 30
"""How often the page is written, and loaded again."""
_MANY_TASKS = 12
"""More than these are not all drawn."""


class ShownRun(Struct, frozen=True):
    """One command, or one location, on the page. ``good``: nothing is amiss. ``gaps``: source, item and
    reason. ``sources``: a line each. ``printed``: what the command printed at its end.
    """

    title: str
    headline: str
    good: bool
    detail: str = ""
    state: ProgressState | None = None
    time_left: str = ""
    gaps: Sequence[tuple[str, str, str]] = ()
    sources: Sequence[str] = ()
    printed: str = ""

    @property
    def tasks(self) -> Sequence[TaskProgress]:
        """The tasks of its state, those first that are not done: they are what a reader looks for."""
        tasks = self.state.tasks if self.state else ()
        return sorted(tasks, key=lambda task: task.state == "done") if len(tasks) > _MANY_TASKS else tasks

    @property
    def drawn_tasks(self) -> Sequence[TaskProgress]:
        """Those of them that are drawn as bars: of many not the ones that are done."""
        return [task for task in self.tasks if len(self.tasks) <= _MANY_TASKS or task.state != "done"]


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
