"""Capture during other work: in a thread of its own, for as long as it takes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from exporters.changes import ChangeLog
from exporters.errors import SourceGoneError
from migrate.changes.capture import Capture, resume_position
from migrate.changes.retained_log import RetainedLogWatch
from migrate.changes.segments import SegmentFolder
from migrate.errors import DamageError, MoveoutError
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.retry_pauses import RetryPauses
from migrate.storage.api import Store


def keep_capturing(
    log: ChangeLog,
    base: Mapping[str, Any],
    folder: SegmentFolder,
    cancellation: CancellationToken,
    *,
    note: Callable[[str], None],
    retain_bytes: int | None,
    until: Callable[[int], bool] = lambda _: False,
    limit_seconds: float = math.inf,
) -> None:
    """Capture until the run is cancelled, or ``until`` is true (see ``Capture.run``). What fails is noted once, and
    tried again; after ``limit_seconds`` it is raised (see ``RetryPauses``). ``base`` is what ``ChangeBase.described``
    returned. The server may keep ``retain_bytes`` of its log; with more, changes are given up. Raises
    ``SourceGoneError`` where changes are lost, and ``DamageError``: no attempt would mend that.
    """
    problem = "changes are not captured for now, and are kept by the source"
    pauses = RetryPauses(problem, cancellation, note, limit_seconds)
    with RetainedLogWatch(log, base["log"], retain_bytes, cancellation, note) as retained:
        while not cancellation.is_cancelled:
            after = 0
            try:
                # Before the stream: what another capture writes meanwhile is in the way of this one.
                capture = Capture(folder, pauses.succeeded)
                after = resume_position(folder, base["position"])
                with log.stream(base["log"], after, folder) as stream:
                    capture.run(stream, retained.cancellation, until)
            except (SourceGoneError, DamageError) as exc:
                if retained.error is None and 0 < after < resume_position(folder, base["position"]):
                    continue  # another capture was faster: what is gone from the log lies in its segments
                raise retained.error or exc from exc
            except MoveoutError as exc:
                if retained.error is not None:
                    raise retained.error from exc
                pauses.failed(exc)
            else:
                if retained.error is not None:
                    raise retained.error
                return


class CaptureThread:
    """Captures one source's changes until it is stopped. It never ends the work that goes on meanwhile: what
    fails is noted, and the server keeps the changes.
    """

    def __init__(
        self,
        source: str,
        log: ChangeLog,
        base: Mapping[str, Any],
        store: Store,
        *,
        cancellation: CancellationToken,
        note: Callable[[str], None],
        retain_bytes: int | None,
    ) -> None:
        self._source = source
        self._log = log
        self._base = base
        self._folder = SegmentFolder(store, source, base["position"])
        self._cancellation = cancellation.child()
        self._note = note
        self._retain_bytes = retain_bytes
        self._thread = threading.Thread(target=self._run, name=f"moveout-capture-{source}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write down what has arrived, and end."""
        self._cancellation.cancel()
        self._thread.join()

    def _run(self) -> None:
        def note(message: str) -> None:
            self._note(f"{self._source}: {message}")

        try:
            keep_capturing(
                self._log,
                self._base,
                self._folder,
                self._cancellation,
                note=note,
                retain_bytes=self._retain_bytes,
            )
        except Cancelled:
            return
        except MoveoutError as exc:
            step = f" → {exc.next_step}" if exc.next_step else ""
            note(f"changes are not captured any more: {exc}{step}")
        except Exception as exc:
            note(f"changes are not captured any more: unexpected error: {type(exc).__name__}: {exc}")
