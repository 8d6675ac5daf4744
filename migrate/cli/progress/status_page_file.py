"""The page that shows how far a long command is: a file of this machine, or one at a location."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from migrate.cli.common.session import Session
from migrate.cli.progress.progress_view import stage_words, time_words
from migrate.errors import OK, MoveoutError, UsageError
from migrate.progress.state import Ending, ProgressState
from migrate.report.status_page import REFRESH_SECONDS, ShownRun, capital, status_page
from migrate.storage.local.whole_file import replace_file
from migrate.storage.registry import open_location

PAGE = "status.html"


class StatusPageFile:
    """Renews the page. What cannot be written is a note, once."""

    def __init__(self, session: Session, target: str) -> None:
        self._session = session
        self._target, self._write = target, _writer(session, target)
        self._written = -REFRESH_SECONDS * 1.0
        self._stage = ""
        self._failed = False

    def look(self, state: ProgressState) -> None:
        """Write the page if it is due: it is old, or another stage has begun."""
        now = datetime.now(UTC).timestamp()
        if now - self._written >= REFRESH_SECONDS or state.stage != self._stage:
            self._written, self._stage = now, state.stage
            self._put(state, shown_state(state, alive=True), REFRESH_SECONDS)

    def end(self, state: ProgressState, ending: Ending) -> None:
        """Write the last page, which is not loaded again."""
        good = ending.exit_code == OK
        unfinished = [ending.error, ending.next_step] if ending.error or ending.exit_code is None else []
        detail = " → ".join(filter(None, unfinished))
        shown = ShownRun("", capital(ending.words), good, capital(detail), state, printed=ending.printed)
        self._put(state, shown, 0)

    def _put(self, state: ProgressState, shown: ShownRun, refresh_seconds: int) -> None:
        try:
            self._write(status_page(page_title(state), [shown], refresh_seconds=refresh_seconds))
        except (MoveoutError, OSError) as exc:
            if not self._failed:
                self._failed = True
                reason = exc.strerror or exc if isinstance(exc, OSError) else exc
                self._session.meter.note(f"the status page {self._target} could not be written: {reason}")


def page_title(state: ProgressState) -> str:
    """Return the title of a page."""
    return f"{state.case}: {state.command}" if state.case else f"moveout {state.command}"


def shown_state(state: ProgressState, *, alive: bool, title: str = "", detail: str = "") -> ShownRun:
    """Return a command as the page shows it."""
    known = time_words(state, datetime.now(UTC))
    late = "late" in known
    is_early = alive and not state.ready and state.seconds_left is None
    time_left = "; ".join(filter(None, ["too early to say" if is_early else "", known]))
    headline = f"at work: {stage_words(state)}" if alive else f"{state.command} is not at work any more"
    return ShownRun(title, capital(headline), alive and not late, detail, state, time_left)


def _writer(session: Session, target: str) -> Callable[[bytes], object]:
    """Return what writes the page. Raises ``UsageError`` for a location of no kind."""
    if "://" in target:
        store = open_location(target, cancellation=session.cancellation.child())
        return lambda data: store.put(PAGE, data)
    path = Path(target).expanduser()
    if path.suffix.lower() not in {".html", ".htm"}:
        path = path / PAGE
    if not path.parent.is_dir():
        raise UsageError(
            f"there is no directory {path.parent} for the status page",
            next_step="make it, or name another file",
        )
    return lambda data: replace_file(path, data, crash_point="status_page.file")
