"""How much of its log a server keeps for a capture: the end of it comes before the server's disk is full."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from exporters.changes import ChangeLog, LogState
from exporters.errors import SourceGoneError
from migrate.errors import MoveoutError
from migrate.number_text import bytes_words
from migrate.runtime.cancellation import CancellationToken

_POLL_SECONDS = 5.0
_WARN_SHARE = 0.8


def is_near(retained_bytes: int, limit_bytes: int) -> bool:
    """Tell whether a server keeps nearly as much as it may."""
    return retained_bytes >= _WARN_SHARE * limit_bytes


class RetainedLogWatch:
    """Asks a server, in a thread of its own while the context lasts, how much it keeps. Warns near ``limit_bytes``; at
    the limit the log is given up: the server is free of it, and ``error`` says what that costs. None: no limit; nor
    has a log any that the server would keep without us.
    """

    def __init__(
        self,
        log: ChangeLog,
        objects: Mapping[str, Any],
        limit_bytes: int | None,
        cancellation: CancellationToken,
        note: Callable[[str], None],
    ) -> None:
        self._log = log
        self._objects = objects
        self._limit_bytes = limit_bytes
        self._cancellation = cancellation.child()
        self._note = note
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="moveout-retained", daemon=True)
        self.error: SourceGoneError | None = None

    def __enter__(self) -> Self:
        if self._limit_bytes is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cancellation.cancel()
        if self._limit_bytes is not None:
            self._thread.join()

    def _run(self) -> None:
        while self.error is None and not self._cancellation.is_cancelled:
            try:
                state = self._log.state(self._objects)
                if state.is_reserved and not state.lost:
                    self._judge(state, self._limit_bytes or 0)
            except MoveoutError:
                pass  # a server that does not answer now is asked again
            self._cancellation.wait(_POLL_SECONDS)

    def _judge(self, state: LogState, limit_bytes: int) -> None:
        kept = f"the server keeps {bytes_words(state.retained_bytes)} of its log for changes that are not captured"
        if state.retained_bytes >= limit_bytes:
            error = SourceGoneError(
                f"{kept}, and {bytes_words(limit_bytes)} are allowed: it was told to keep them no longer, so changes"
                f" after {self._log.show(state.acknowledged)} are not known",
                next_step="take the base again: moveout export --follow to a new location",
            )
            self._log.drop(self._objects, even_if_read=True)
            self.error = error
        elif is_near(state.retained_bytes, limit_bytes):
            if not self._warned:
                self._note(f"! {kept}; at {bytes_words(limit_bytes)} following ends")
            self._warned = True
        else:
            self._warned = False
