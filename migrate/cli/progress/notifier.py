"""Notifications of a long command, to a program or URL of the user's own."""

from __future__ import annotations

import base64
import json
import queue
import shlex
import subprocess
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

from migrate.case.model import Notify
from migrate.cli.common.session import Session
from migrate.progress.state import Ending, ProgressState

NOTIFY_SECONDS = 10.0
"""How long one notification may take."""
_GAP_SECONDS = 60.0
"""Gaps are reported no more often than that."""


class Notifier:
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

    def end(self, state: ProgressState, ending: Ending) -> None:
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
                    except (OSError, ValueError, HTTPException, subprocess.SubprocessError) as exc:
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
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(  # noqa: S310  the case file takes http and https only
        parts._replace(netloc=host).geturl(), data, {"Content-Type": "application/json"}, method="POST"
    )
    if at:
        user, _, password = userinfo.partition(":")
        token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")  # for this host alone
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
