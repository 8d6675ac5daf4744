"""Follows one source: a thread captures its changes, another one applies them, until both are ended.

Each goes on by itself: where the destination is away, or does not exist yet, changes are still captured; where the
source is gone, what was captured is still applied.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress

from msgspec import Struct, field

from exporters.changes import NotFollowed
from migrate.changes.apply import Applying, ChangeWriter, Mark
from migrate.changes.capture import resume_position
from migrate.changes.capture_thread import keep_capturing
from migrate.errors import (
    BusyError,
    GoneError,
    IncompleteError,
    MoveoutError,
    NoSpaceError,
    UnreachableError,
)
from migrate.follow.followed import FollowedSource, require_base
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.retry_pauses import RetryPauses
from migrate.storage.api import Store

_WATCH_SECONDS = 2.0
"""How often a source is asked where its log ends."""
_OPENED_SECONDS = 0.05
"""How often the watch looks whether the destination was opened."""
_RESTORE_SECONDS = 2.0
"""How often a destination is asked whether it was restored meanwhile."""
_LAST_SESSION_SECONDS = 120.0
"""How long a server may take to notice that a session of ours has ended, where the network has dropped it, say."""
_RATE_SAMPLES = 30
DEFINE_STEP = (
    "give the source's statements at the destination, too; moveout resync then fills a new table, else moveout cutover"
    " does"
)
UNCOMPARED = "definitions of both sides could not be compared"
_UNASKED = f"the source could not be asked which tables refuse changes, and {UNCOMPARED}"
_DEFINITIONS_SECONDS, _DEFINITIONS_SHARE = 30.0, 20
"""How often the definitions of both sides are compared; less often where it takes more than this share of the time."""
_STALE_SECONDS = 15.0
"""A source that has not said for so long where its log ends does not say how far behind we are."""


class FollowState(Struct, frozen=True):
    """How far a source is. Positions are as its server writes them, "" where they are not known. ``lag_bytes``: how
    much of the log is not applied. ``lag_seconds``: how old that is. ``rate``: changes that were applied each second,
    of late. ``catch_up_seconds``: after how long nothing is behind, at the speed of late; None where the lag does not
    become less. ``stopped``: why changes are not captured, or not applied, any more. ``is_waiting``: the destination
    was not restored yet. ``skipped``: the tables that the restore left out, whose changes are left out, too.
    ``undefined``: what only the source defines. ``refusing``: the tables that refuse changes to the application since
    they are followed, and those whose changes are not followed any more. ``uncompared``: which of these
    are not known, and why.
    """

    source: str
    captured: str
    applied: str
    lag_bytes: int | None
    lag_seconds: float | None
    changes: int
    rate: float
    is_waiting: bool
    is_caught_up: bool
    stopped: tuple[MoveoutError, ...]
    skipped: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    refusing: tuple[NotFollowed, ...] = ()
    catch_up_seconds: float | None = None
    uncompared: str = ""


class _Counts(Struct):
    """What the threads report. ``ends``: where the log ended, and when that was asked."""

    captured: int = 0
    applied: int = 0
    changes: int = 0
    is_waiting: bool = True
    first_end: int | None = None
    skipped: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    refusing: tuple[NotFollowed, ...] = ()
    is_compared: bool = False
    uncompared: str = ""
    ends: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=10_000))
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_RATE_SAMPLES))
    lags: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_RATE_SAMPLES))


def run_guarded(loop: Callable[[], None], errors: list[MoveoutError], note: Callable[[str], None]) -> None:
    """Run the loop of a thread until it ends, or the run is cancelled. ``errors`` takes what stops it; ``note``
    is called with it.
    """
    try:
        loop()
    except Cancelled:
        return
    except MoveoutError as exc:
        error = exc
    except Exception as exc:
        error = MoveoutError(f"unexpected error: {type(exc).__name__}: {exc}")
    else:
        return
    errors.append(error)
    note(f"stopped: {error}" + (f" → {error.next_step}" if error.next_step else ""))


class Follower:
    """Captures and applies one source's changes in threads of its own. ``note`` is called with what fails for a
    while; what fails for ``limit_seconds`` ends, and a destination is not waited for any longer to be restored.
    """

    def __init__(
        self,
        followed: FollowedSource,
        store: Store,
        *,
        cancellation: CancellationToken,
        note: Callable[[str], None],
        limit_seconds: float,
    ) -> None:
        self.followed = followed
        self._folder = followed.folder(store)
        self._cancellation = cancellation
        self._limit_seconds = limit_seconds
        self._note: Callable[[str], None] = lambda message: note(f"{followed.name}: {message}")
        self._log = followed.open_log()
        self._counts = _Counts()
        self._errors: list[MoveoutError] = []
        self._capture_failed = self._is_gone_noted = False
        loops = {"capture": self._capture, "apply": self._apply, "watch": self._watch}
        self._threads = {
            name: threading.Thread(
                target=run_guarded,
                args=(loop, self._errors, self._note),
                name=f"moveout-{name}-{followed.name}",
                daemon=True,
            )
            for name, loop in loops.items()
        }

    def start(self) -> None:
        """Begin."""
        for thread in self._threads.values():
            thread.start()

    def join(self, seconds: float) -> None:
        """Wait, so long at most, until capture and apply have ended, which they do once the run is cancelled, or no
        server is silent. The watch may wait for an answer that the network has swallowed: it ends with the process.
        """
        until = time.monotonic() + seconds
        for name in ("capture", "apply"):
            self._threads[name].join(max(0.0, until - time.monotonic()))

    @property
    def is_ended(self) -> bool:
        """Whether everything has ended: both capture and apply have stopped."""
        return not (self._threads["capture"].is_alive() or self._threads["apply"].is_alive())

    @property
    def is_done(self) -> bool:
        """Whether all is applied that the source had committed when it was asked first, and definitions were compared,
        as far as that can be; or whether that will never be.
        """
        counts = self._counts
        is_reached = counts.first_end is not None and counts.applied >= counts.first_end
        return (is_reached and counts.is_compared) or not self._threads["apply"].is_alive()

    def state(self) -> FollowState:
        """Return how far it is."""
        counts, show = self._counts, self._log.show
        ends = list(counts.ends)
        is_known = bool(ends) and time.monotonic() - ends[-1][0] < _STALE_SECONDS
        lag_bytes = self._log.distance_bytes(counts.applied, ends[-1][1]) if is_known else None
        later = [moment for moment, end in ends if end > counts.applied]
        lag_seconds = (time.monotonic() - later[0] if later else 0.0) if is_known else None
        return FollowState(
            source=self.followed.name,
            captured=show(counts.captured) if counts.captured else "",
            applied=show(counts.applied) if counts.applied else "",
            lag_bytes=lag_bytes,
            lag_seconds=lag_seconds,
            changes=counts.changes,
            rate=self._rate(),
            is_waiting=counts.is_waiting,
            is_caught_up=counts.first_end is not None and counts.applied >= counts.first_end,
            stopped=tuple(self._errors),
            skipped=counts.skipped,
            undefined=counts.undefined,
            refusing=counts.refusing,
            catch_up_seconds=self._catch_up_seconds(lag_bytes),
            uncompared=counts.uncompared,
        )

    def _rate(self) -> float:
        samples = list(self._counts.samples)
        if not samples or samples[-1][0] <= samples[0][0]:
            return 0.0
        return (samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0])

    def _catch_up_seconds(self, lag_bytes: int | None) -> float | None:
        lags = list(self._counts.lags)
        if not lag_bytes or not lags or (gained := lags[0][1] - lags[-1][1]) <= 0:
            return None
        return lag_bytes * (lags[-1][0] - lags[0][0]) / gained

    def _watch(self) -> None:
        """Ask where the log ends, and now and then what the source has defined since."""
        compare_at = time.monotonic()
        while not self._cancellation.is_cancelled and not self.is_ended:
            counts = self._counts
            counts.samples.append((time.monotonic(), counts.changes))
            try:
                if counts.first_end is None:
                    counts.first_end = self._log.end(self.followed.log)
                asked_at, end = time.monotonic(), self._log.state(self.followed.log, counts.captured).end
                counts.ends.append((asked_at, end))
                counts.lags.append((asked_at, self._log.distance_bytes(counts.applied, end)))
                if not counts.is_waiting and asked_at >= compare_at:
                    self._compare_definitions()
                    compared_at = time.monotonic()
                    pause = max(_DEFINITIONS_SECONDS, (compared_at - asked_at) * _DEFINITIONS_SHARE)
                    compare_at = compared_at + pause
            except MoveoutError:
                pass  # capture and apply say so
            self._pause()

    def _pause(self) -> None:
        """Wait for the next round of the watch; no longer than until the destination was opened, for then definitions
        can be compared.
        """
        was_waiting, until = self._counts.is_waiting, time.monotonic() + _WATCH_SECONDS
        while time.monotonic() < until and not self._cancellation.is_cancelled:
            self._cancellation.wait(_OPENED_SECONDS if was_waiting else _WATCH_SECONDS)
            if was_waiting and not self._counts.is_waiting:
                return

    def _compare_definitions(self) -> None:
        """Note what the source defines and the destination lacks, and the tables that refuse changes, each once."""
        counts, unknown = self._counts, _UNASKED
        try:
            refusing = tuple(self._log.troubled_tables(self.followed.log))
            for table in refusing:
                if table not in counts.refusing:
                    self._note(table.sentence)
            counts.refusing, unknown = refusing, UNCOMPARED
            undefined = self.followed.definition_gaps(counts.skipped)
            if fresh := [thing for thing in undefined if thing not in counts.undefined]:
                self._note(f"not at the destination: {', '.join(fresh)}; {DEFINE_STEP}")
            counts.undefined, counts.uncompared = undefined, ""
        except MoveoutError as exc:
            uncompared = f"{unknown}: {exc}"
            if counts.uncompared != uncompared:
                self._note(uncompared)
            counts.uncompared = uncompared
        finally:
            counts.is_compared = True

    def _capture(self) -> None:
        def until(position: int) -> bool:
            self._counts.captured = max(position, self._counts.captured)
            return False

        base = {"position": self.followed.base, "log": self.followed.log}
        with suppress(MoveoutError):  # the capture itself raises it, or waits
            self._counts.captured = resume_position(self._folder, 0)
        try:
            keep_capturing(
                self._log,
                base,
                self._folder,
                self._cancellation,
                note=self._note,
                retain_bytes=self.followed.source.retain_bytes,
                until=until,
                limit_seconds=self._limit_seconds,
            )
        except BaseException:
            self._capture_failed = True
            raise

    def _apply(self) -> None:
        """Apply until the run is cancelled, or until all is applied that a capture which has stopped has left. What
        passes is noted once, and tried again: also a destination that is busy with our own last session, whose end the
        server has not noticed yet. One that is busy for longer from the beginning is another command's.
        """
        busy_until, restored_until = math.inf, time.monotonic() + self._limit_seconds
        pauses = RetryPauses(
            "changes are not applied for now", self._cancellation, self._note, self._limit_seconds
        )
        while not self._cancellation.is_cancelled:
            try:
                has_ended = self._capture_failed
                writer = self._open_writer()
                if writer is None and has_ended:
                    return  # nothing more comes: a follow after the restore applies what there is
                if writer is None:
                    pauses.succeeded()
                    self._wait_for_restore(restored_until)
                    continue
                with closing(writer):
                    self._apply_by(writer, pauses)
            except BusyError as exc:
                now = time.monotonic()
                busy_until = min(busy_until, now + _LAST_SESSION_SECONDS)
                if self._counts.is_waiting and now >= busy_until:
                    raise
                pauses.failed(exc)
            except (UnreachableError, NoSpaceError) as exc:
                pauses.failed(exc)
            else:
                return

    def _wait_for_restore(self, until: float) -> None:
        """Wait a moment for a restore. Raises ``IncompleteError`` where the destination was not restored ``until``."""
        if time.monotonic() >= until:
            raise IncompleteError(
                f"{self.followed.destination.shown} was not restored from this bundle yet",
                next_step="run moveout restore, then the same command again",
            )
        self._cancellation.wait(_RESTORE_SECONDS)

    def _open_writer(self) -> ChangeWriter | None:
        """Return what writes to the destination; None where that was not restored yet, which is noted where it is not
        there at all. Raises ``IncompleteError`` where it was restored from another snapshot.
        """
        try:
            writer = self.followed.open_writer()
        except GoneError as exc:
            if not self._is_gone_noted:
                self._note(f"changes are kept until moveout restore has filled the destination: {exc}")
            self._is_gone_noted = True
            return None
        try:
            mark = writer.mark()
        except BaseException:
            writer.close()
            raise
        if mark is not None and mark.base == self.followed.base:
            self._note_skipped(mark)
            return writer
        writer.close()
        if mark is not None:
            require_base(self.followed, mark)
        return None

    def _note_skipped(self, mark: Mark) -> None:
        """Keep which tables the destination does not follow, and note them once."""
        counts = self._counts
        if counts.is_waiting and mark.skipped:
            self._note(f"not followed, since the restore left them out: {', '.join(mark.skipped)}")
        counts.is_waiting, counts.skipped = False, mark.skipped

    def _apply_by(self, writer: ChangeWriter, pauses: RetryPauses) -> None:
        counts = self._counts

        def report(mark: Mark, changes: int) -> None:
            pauses.succeeded()
            counts.applied = max(counts.applied, mark.position)
            counts.changes += changes

        applying = Applying(self._folder, writer, report)
        captured, is_last_round = 0, False

        def reached(mark: Mark) -> bool:
            # All that was captured before this round began is applied now.
            nonlocal captured, is_last_round
            pauses.succeeded()
            if applying.is_settled:
                counts.applied = max(counts.applied, mark.position, captured)
            if is_last_round and applying.is_committed:
                return True
            captured, is_last_round = counts.captured, self._capture_failed
            return False

        applying.run(self._cancellation, reached)
