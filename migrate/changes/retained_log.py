"""Whether a server still keeps its log for a capture, and how much: the end comes before the server's disk is full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from exporters.changes import BASE_AGAIN, ChangeLog, LogState
from exporters.errors import SourceGoneError
from migrate.errors import MoveoutError
from migrate.number_text import bytes_words
from migrate.runtime.cancellation import CancellationToken

_POLL_SECONDS = 5.0
_END_SECONDS = 2.0
"""How long the end waits for a server's answer, which the network may have swallowed."""
_WARN_SHARE = 0.8
_CATCH_UP_SECONDS = 60.0
"""How long a server that keeps too much may keep as much. A capture that begins late has to read it first, and
a server removes its log some time after it was acknowledged.
"""


def is_near(retained_bytes: int, limit_bytes: int) -> bool:
    """Tell whether a server keeps nearly as much as it may."""
    return retained_bytes >= _WARN_SHARE * limit_bytes


class RetainedLogWatch:
    """Asks a server, in a thread of its own while the context lasts, whether its log is lost, and how much it keeps.
    Warns near ``limit_bytes``. With more, the log is given up once it does not become less any more, so the server is
    free of it. None: no limit; nor has a log any that the server would keep without us. Then ``error`` says what that
    costs, and ``cancellation``, under which changes are captured, is cancelled.
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
        self.cancellation = cancellation.child()
        self._note = note
        self._warned = False
        self._acknowledged: int | None = None
        self._least_bytes, self._least_at = 0, 0.0
        self._thread = threading.Thread(target=self._run, name="moveout-retained", daemon=True)
        self.error: SourceGoneError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancellation.cancel()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        while not self.cancellation.is_cancelled:
            try:
                state = self._log.state(self._objects)
                if not self.cancellation.is_cancelled:
                    self._judge(state)
            except MoveoutError:
                pass  # a server that does not answer now is asked again
            self.cancellation.wait(_POLL_SECONDS)

    def _judge(self, state: LogState) -> None:
        if state.lost:
            self._judge_lost(state.lost)
            return
        self._acknowledged = state.acknowledged
        if state.is_reserved and self._limit_bytes is not None:
            self._judge_size(state, self._limit_bytes)

    def _judge_lost(self, lost: str) -> None:
        """End where the log is lost. What was acknowledged before is known. Where nothing was, a stream is about to be
        opened: its error says what is captured, so it has the time until the server is asked again.
        """
        if self._acknowledged is None:
            self._acknowledged = 0
            return
        known = self._log.show(self._acknowledged) if self._acknowledged else ""
        words = f"{lost}: changes after {known} are not known" if known else lost
        self._end(SourceGoneError(words, next_step=BASE_AGAIN))

    def _end(self, error: SourceGoneError) -> None:
        self.error = error
        self.cancellation.cancel()

    def _judge_size(self, state: LogState, limit_bytes: int) -> None:
        kept = f"the server keeps {bytes_words(state.retained_bytes)} of its log for changes that are not captured"
        if state.retained_bytes >= limit_bytes and self._becomes_less(state.retained_bytes):
            self._warn(
                f"{kept}, and {bytes_words(limit_bytes)} are allowed: following ends unless it becomes less"
            )
        elif state.retained_bytes >= limit_bytes:
            error = SourceGoneError(
                f"{kept}, and {bytes_words(limit_bytes)} are allowed: it was told to keep them no longer, so changes"
                f" after {self._log.show(state.acknowledged)} are not known",
                next_step=BASE_AGAIN,
            )
            self._log.drop(self._objects, even_if_read=True)
            self._end(error)
        elif is_near(state.retained_bytes, limit_bytes):
            self._warn(f"{kept}; at {bytes_words(limit_bytes)} following ends")
            self._least_bytes = 0
        else:
            self._warned, self._least_bytes = False, 0

    def _becomes_less(self, retained_bytes: int) -> bool:
        """Tell whether it is too much for the first time, or has become less within the last minute."""
        if not self._least_bytes or retained_bytes < self._least_bytes:
            self._least_bytes, self._least_at = retained_bytes, time.monotonic()
        return time.monotonic() - self._least_at < _CATCH_UP_SECONDS

    def _warn(self, words: str) -> None:
        if not self._warned:
            self._note(f"! {words}")
        self._warned = True
