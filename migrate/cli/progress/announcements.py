"""Who is told of a long command besides its terminal: readers of a page, and a program or URL of the user's own."""

from __future__ import annotations

import json
import queue
import shlex
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer

from migrate.case.model import Case, Notify
from migrate.cli.common.session import Answer, Session
from migrate.cli.progress.progress_view import stage_words, time_words
from migrate.errors import OK, IncompleteError, MoveoutError, UsageError
from migrate.progress.state import ProgressState
from migrate.report.status_page import REFRESH_SECONDS, ShownRun, status_page
from migrate.storage.registry import open_location

A = TypeVar("A", bound=Answer)

StatusPage = Annotated[
    str | None,
    typer.Option(
        "--status-page",
        metavar="FILE|LOCATION",
        help="Write a page every 30 s that shows how far this is: FILE.html, or status.html at a location.",
    ),
]
PAGE = "status.html"
NOTIFY_SECONDS = 10.0
"""How long one notification may take."""
_LOOK_SECONDS = 1.0
_GAP_SECONDS = 60.0
"""Gaps are told of no more often than that."""
_LAST_SECONDS = 15.0


def announced(session: Session, case: Case | None, status_page: str | None, work: Callable[[], A]) -> A:
    """Do the work of a command; meanwhile renew its page, and notify whom the case names."""
    listeners: list[_Listener] = [_Page(session, status_page)] if status_page else []
    listeners += [_Notifier(session, case.notify)] if case and case.notify else []
    if case is not None:
        session.meter.set_case(case.name, case.deadline)
    with _watched(session, listeners) as ending:
        answer = work()
        ending.exit_code = answer.exit_code
    return answer


class _Listener(Protocol):
    """Somebody who is told how far a command is."""

    def look(self, state: ProgressState) -> None:
        """Take the present state; called every second."""
        ...

    def end(self, state: ProgressState, ending: _Ending) -> None:
        """Take the last state."""
        ...


@dataclass(slots=True)
class _Ending:
    """How the command ended."""

    exit_code: int | None = None
    error: str = ""

    @property
    def words(self) -> str:
        if self.exit_code is None:
            return self.error or "stopped"
        words = {OK: "done, complete", IncompleteError.exit_code: "done, with gaps"}
        return words.get(self.exit_code, f"ended with exit code {self.exit_code}")


@contextmanager
def _watched(session: Session, listeners: Sequence[_Listener]) -> Iterator[_Ending]:
    ending, stop = _Ending(), threading.Event()

    def watch() -> None:
        while not stop.wait(_LOOK_SECONDS):
            for listener in listeners:
                listener.look(session.meter.state())

    thread = threading.Thread(target=watch, name="moveout-announce", daemon=True)
    thread.start()
    try:
        yield ending
    except MoveoutError as exc:
        ending.exit_code, ending.error = exc.exit_code, str(exc)
        raise
    finally:
        stop.set()
        thread.join(_LAST_SECONDS)
        for listener in listeners:
            listener.end(session.meter.state(), ending)


class _Page:
    """Renews the page. What cannot be written is a note, once."""

    def __init__(self, session: Session, target: str) -> None:
        self._session = session
        self._write = _writer(session, target)
        self._written = -REFRESH_SECONDS * 1.0
        self._stage = ""
        self._failed = False

    def look(self, state: ProgressState) -> None:
        """Write the page if it is due: it is old, or another stage has begun."""
        now = datetime.now(UTC).timestamp()
        if now - self._written >= REFRESH_SECONDS or state.stage != self._stage:
            self._written, self._stage = now, state.stage
            self._put(state, shown_state(state, alive=True), REFRESH_SECONDS)

    def end(self, state: ProgressState, ending: _Ending) -> None:
        """Write the last page, which is not loaded again."""
        good = ending.exit_code == OK
        shown = ShownRun("", ending.words.capitalize(), good, ending.error, state)
        self._put(state, shown, 0)

    def _put(self, state: ProgressState, shown: ShownRun, refresh_seconds: int) -> None:
        try:
            self._write(status_page(page_title(state), [shown], refresh_seconds=refresh_seconds))
        except (MoveoutError, OSError) as exc:
            if not self._failed:
                self._failed = True
                self._session.meter.note(f"the status page could not be written: {exc}")


def page_title(state: ProgressState) -> str:
    """Return the title of a page."""
    return f"{state.case}: {state.command}" if state.case else f"moveout {state.command}"


def shown_state(state: ProgressState, *, alive: bool, title: str = "", detail: str = "") -> ShownRun:
    """Return a command as the page shows it."""
    time_left = time_words(state, datetime.now(UTC))
    late = "late" in time_left
    headline = stage_words(state) if alive else f"{state.command} is not at work any more"
    return ShownRun(title, headline[0].upper() + headline[1:], alive and not late, detail, state, time_left)


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

    def write(data: bytes) -> None:
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(data)
        temporary.replace(path)

    return write


class _Notifier:
    """Sends events to the user's program and URL, one after the other, in a thread. A failure is a note."""

    def __init__(self, session: Session, notify: Notify) -> None:
        self._session, self._notify = session, notify
        self._stages: dict[str, str] = {}
        self._gaps, self._gaps_reported_at = 0, -_GAP_SECONDS
        self._late = False
        self._failing: set[str] = set()
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="moveout-notify", daemon=True)
        self._thread.start()

    def look(self, state: ProgressState) -> None:
        """Send what has happened since the last look."""
        for stage in state.stages:
            before = self._stages.get(stage.name, "waiting")
            self._stages[stage.name] = stage.state
            if stage.state == "done" and before != "done" and len(state.stages) > 1:
                self._event("stage_ended", state, f"the stage {stage.name} has ended", stage=stage.name)
        now = datetime.now(UTC).timestamp()
        if state.gaps > self._gaps and now - self._gaps_reported_at >= _GAP_SECONDS:
            new_gaps, self._gaps, self._gaps_reported_at = state.gaps - self._gaps, state.gaps, now
            self._event("gaps", state, f"{new_gaps} more items are missing, {state.gaps} in all")
        late = is_late(state)
        if late and not self._late:
            self._event("late", state, "by the forecast (P90) the deadline will be missed")
        self._late = late

    def end(self, state: ProgressState, ending: _Ending) -> None:
        """Send that the command has ended, and wait a moment for what is still on its way."""
        self.look(state)
        message = f"{state.command}: {ending.words}"
        self._event("ended", state, message, exit_code=ending.exit_code, error=ending.error)
        self._events.put(None)
        self._thread.join(2 * NOTIFY_SECONDS)

    def _event(self, event: str, state: ProgressState, message: str, **more: object) -> None:
        self._events.put(
            {
                "event": event,
                "message": message,
                "case": state.case,
                "command": state.command,
                "at": state.at,
                "stage": state.stage,
                "fraction": state.fraction,
                "gaps": state.gaps,
                "deadline": state.deadline,
                "ready": list(state.ready),
            }
            | more
        )

    def _send_all(self) -> None:
        while (event := self._events.get()) is not None:
            data = json.dumps(event, ensure_ascii=False).encode()
            for send, target in ((_run, self._notify.command), (_post, self._notify.url)):
                if target:
                    try:
                        send(target, data)
                    except (OSError, ValueError, subprocess.SubprocessError) as exc:
                        self._session.meter.note(
                            f"the notification of {event['event']} failed: {_reason(exc)}"
                        )


def is_late(state: ProgressState) -> bool:
    """Tell whether the forecast (P90, else the present rates) lies behind the deadline."""
    if not state.deadline or state.ended:
        return False
    if len(state.ready) == 3:
        return state.ready[0] == "left" and state.ready[2] > state.deadline
    left = (datetime.fromisoformat(state.deadline) - datetime.now(UTC)).total_seconds()
    return state.seconds_left is not None and state.seconds_left > left


def _run(command: str, data: bytes) -> None:
    subprocess.run(
        shlex.split(command),
        input=data,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
        timeout=NOTIFY_SECONDS,
    )


def _post(url: str, data: bytes) -> None:
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method="POST")  # noqa: S310  the case file takes http and https only
    with urllib.request.urlopen(request, timeout=NOTIFY_SECONDS):  # noqa: S310  as above
        pass


def _reason(exc: Exception) -> str:
    if isinstance(exc, subprocess.TimeoutExpired):
        return f"it took more than {NOTIFY_SECONDS:.0f} s"
    if isinstance(exc, subprocess.CalledProcessError):
        lines = exc.stderr.decode(errors="replace").strip().splitlines()
        return f"exit code {exc.returncode}" + (f": {lines[-1][:200]}" if lines else "")
    if isinstance(exc, urllib.error.HTTPError):
        exc.close()
        return f"HTTP {exc.code} {exc.reason}"
    if isinstance(exc, urllib.error.URLError):
        return str(exc.reason)
    return str(exc) or type(exc).__name__
