"""Counts what worker threads report, and says how far all of it is."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct, field

from migrate.errors import MoveoutError
from migrate.progress.state import (
    SHOWN_TASKS,
    ProgressState,
    StageProgress,
    State,
    TaskProgress,
    is_enough,
)
from migrate.runtime.progress import OF_NO_SOURCE, SourceTask
from migrate.storage.inflight_limit import gone_bytes

_RATE_WINDOW_SECONDS = 20.0
_LEAST_MOVES = 6
"""A rate is made of at least this many changes, however long they take: a part may take minutes."""
_LEAST_SECONDS = 0.5
"""No rate is shown of less: a moment says nothing."""
_ITEM_BYTES = 1000
"""An item weighs as much as so many bytes where sources are compared: small objects and rows cost time, too."""
_NOTES = 5
STAGE_WEIGHTS = {
    "doctor": 1,
    "plan": 1,
    "export": 30,
    "transfer": 20,
    "verify": 10,
    "restore": 29,
    "compare": 9,
}
"""The share of each stage where nothing has been measured yet."""
_LOOKING = frozenset({"doctor", "plan"})
"""Stages whose duration says nothing of how long the others take."""


class _Task(Struct):
    """The counters of one task. Sizes are bytes; ``skipped_*`` was done by an earlier run."""

    name: str
    of: SourceTask
    started: float
    total_items: int
    total_bytes: int
    items: int = 0
    size_bytes: int = 0
    skipped_items: int = 0
    skipped_bytes: int = 0
    ended: float | None = None
    stopped: bool = False
    """Whether it ended before all of it was done."""
    moves: deque[tuple[float, int, int]] = field(default_factory=deque)
    """When something was first seen to have moved, and how far everything was by then."""


class _Stage(Struct):
    name: str
    weight: float
    started: float | None = None
    ended: float | None = None

    def state(self) -> State:
        if self.started is None:
            return "waiting"
        return "running" if self.ended is None else "done"


def _ignore(_event: str, _words: str) -> None:
    """Log nothing."""


class Meter:
    """A ``Progress`` that keeps the state of a command. Thread-safe. Drawing is up to the subclasses.

    ``under_way`` says how many bytes have left for a location but are not answered yet: where parts take minutes, they
    are the only sign of progress.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, under_way: Callable[[], int] = gone_bytes
    ) -> None:
        self._lock = threading.RLock()
        self._clock = clock
        self._under_way = under_way
        self._since = _now()
        self._command, self._case, self._deadline = "", "", ""
        self._stages: list[_Stage] = []
        self._sizes: dict[str, int] = {}
        self._weights: dict[str, int] = {}
        self._tasks: list[_Task] = []
        self._task: _Task | None = None
        self._gaps = 0
        self._notes: deque[str] = deque(maxlen=_NOTES)
        self._ready: tuple[str, str, str] | None = None
        self._fractions: deque[tuple[float, float]] = deque()
        self._stopped = False
        self._moved_at = clock()
        self.on_event: Callable[[str, str], None] = _ignore
        """Takes what happens, for a log: ``stage``, ``begin``, ``end`` or ``note``, and the words."""

    # What the command line says of the command.

    def open(self, command: str, stages: Sequence[str] = ()) -> None:
        """Name the command and its stages; without stages it is one itself."""
        with self._lock:
            self._command = command
            names = stages or [command]
            self._stages = [_Stage(name, STAGE_WEIGHTS.get(name, 10)) for name in names]

    def set_case(self, name: str, deadline: datetime | None) -> None:
        """Name the case and its deadline."""
        with self._lock:
            self._case = name
            self._deadline = _moment(deadline) if deadline else ""

    def enter_stage(self, name: str) -> None:
        """Begin a stage. Its sources are to be expected anew."""
        with self._lock:
            self.leave_stage()
            stage = next((stage for stage in self._stages if stage.name == name), None)
            if stage is None:
                stage = _Stage(name, STAGE_WEIGHTS.get(name, 10))
                self._stages.append(stage)
            for earlier in self._stages[: self._stages.index(stage)]:
                if earlier.started is None:
                    earlier.started = earlier.ended = self._clock()
            stage.started = self._moved_at = self._clock()
            stage.ended = None
            self.on_event("stage", name)
            self._tasks, self._weights = [], {}
            self._fractions.clear()

    def leave_stage(self) -> None:
        """End the stage that is under way, and its tasks."""
        with self._lock:
            self._end_task()
            for stage in self._stages:
                if stage.state() == "running":
                    stage.ended = self._clock()

    def size_sources(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Take the items and bytes of sources, for the stages that come."""
        with self._lock:
            self._sizes = {name: _weight(items, size_bytes) for name, (items, size_bytes) in sizes.items()}

    def expect(self, sources: Iterable[str]) -> None:
        """Name the sources of the stage."""
        with self._lock:
            self._ensure_stage()
            self._weights = {name: self._sizes.get(name, 0) for name in sources}

    def weigh_stages(self, seconds: Mapping[str, float]) -> None:
        """Take how long each stage is forecast to take as its share of the whole."""
        with self._lock:
            for stage in self._stages:
                stage.weight = seconds.get(stage.name, stage.weight)

    def forecast(self, what: str, median: datetime, late: datetime) -> None:
        """Take the moments by which all has left, or is up, with a probability of 50 % and 90 %."""
        with self._lock:
            self._ready = what, _moment(median), _moment(late)

    # What the work reports: see ``Progress``.

    def begin(
        self,
        what: str,
        *,
        items: int,
        size_bytes: int,
        of: SourceTask = OF_NO_SOURCE,
    ) -> None:
        """Start a task with its totals."""
        with self._lock:
            self._end_task()
            self._ensure_stage()
            now = self._moved_at = self._clock()
            self._task = _Task(what, of, now, items, size_bytes)
            self._task.moves.append((now, 0, 0))
            self._tasks = [*self._tasks[-SHOWN_TASKS + 1 :], self._task]
            self.on_event("begin", what)

    def grow(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Raise the totals."""
        with self._lock:
            self._moved_at = self._clock()
            if self._task:
                self._task.total_items += items
                self._task.total_bytes += size_bytes

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Count what was done now."""
        with self._lock:
            self._moved_at = self._clock()
            if self._task:
                self._task.items += items
                self._task.size_bytes += size_bytes

    def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Count what an earlier run had done."""
        with self._lock:
            self._moved_at = self._clock()
            if self._task:
                self._task.skipped_items += items
                self._task.skipped_bytes += size_bytes

    def count_gaps(self, count: int) -> None:
        """Count items that will be missing."""
        with self._lock:
            self._gaps += count

    def note(self, message: str) -> None:
        """Keep the last notes."""
        with self._lock:
            self._notes.append(message)
            self.on_event("note", message)

    def note_error(self, what: str, error: MoveoutError) -> None:
        """Keep it among the notes."""
        self.note(f"{what}: {error}")

    def end(self, *, stopped: bool = False) -> None:
        """End the task; ``stopped``: before all of it was done."""
        with self._lock:
            if self._task is not None:
                self._task.stopped = stopped or self._task.stopped
            self._end_task()

    def pause_showing(self) -> None:
        """Draw nothing until the next task begins: somebody is asked a question."""

    def break_off(self) -> None:
        """End what is under way before it is done: nothing more will be drawn."""
        with self._lock:
            self._stopped = True
            if self._task is not None:
                self._task.stopped = True
        self.close()

    def close(self) -> None:
        """End what is under way: nothing more will be drawn."""
        self.leave_stage()

    # What others read.

    def state(self) -> ProgressState:
        """Return how far everything is."""
        with self._lock:
            tasks = [self._seen(task) for task in self._tasks]
            stage_fraction = self._stage_fraction(tasks)
            return ProgressState(
                command=self._command,
                case=self._case,
                since=self._since,
                at=_now(),
                stages=[StageProgress(s.name, s.state(), self._seconds(s)) for s in self._stages],
                sources=[*self._weights],
                tasks=tasks,
                fraction=self._fraction(stage_fraction),
                stage_fraction=stage_fraction,
                seconds_left=self._seconds_left(stage_fraction, tasks),
                deadline=self._deadline,
                ready=self._ready or (),
                gaps=self._gaps,
                notes=[*self._notes],
            )

    def quiet_seconds(self) -> float:
        """Return for how long nothing has moved."""
        return self._clock() - self._moved_at

    @property
    def has_begun(self) -> bool:
        """Whether any task has begun: what is locked and claimed before that is so by then."""
        return self._task is not None or bool(self._tasks)

    @property
    def is_open(self) -> bool:
        """Whether a task is under way."""
        return self._task is not None

    def current(self) -> TaskProgress | None:
        """Return the task that is under way, else the last one; None before the first."""
        with self._lock:
            return self._seen(self._tasks[-1]) if self._tasks else None

    def _ensure_stage(self) -> None:
        """Enter the only stage of a command that has no more."""
        if not any(stage.state() == "running" for stage in self._stages):
            self.enter_stage(self._stages[0].name if self._stages else "")

    def _end_task(self) -> None:
        if self._task is not None:
            self._task.ended = self._moved_at = self._clock()
            self.on_event("end", self._task.name)
            self._task = None

    def _seen(self, task: _Task) -> TaskProgress:
        now = self._clock() if task.ended is None else task.ended
        left = max(0, task.total_bytes - task.size_bytes - task.skipped_bytes)
        sent = min(left, self._under_way()) if task.of.counts_sent and task.ended is None else 0
        items_rate, bytes_rate = _rates(task, now, task.items, task.size_bytes + sent)
        if task.ended is not None and now - task.started >= _LEAST_SECONDS:
            items_rate, bytes_rate = (done / (now - task.started) for done in (task.items, task.size_bytes))
        items, size_bytes = task.items + task.skipped_items, task.size_bytes + task.skipped_bytes + sent
        return TaskProgress(
            name=task.name,
            source=task.of.source,
            state="running" if task.ended is None else "stopped" if task.stopped else "done",
            # Estimates may be too low: nothing is more than all of it.
            items=min(items, task.total_items) if task.total_items else items,
            total_items=task.total_items,
            size_bytes=min(size_bytes, task.total_bytes) if task.total_bytes else size_bytes,
            total_bytes=task.total_bytes,
            items_rate=items_rate,
            bytes_rate=bytes_rate,
            seconds=now - task.started,
        )

    def _seconds(self, stage: _Stage) -> float:
        if stage.started is None:
            return 0.0
        return (self._clock() if stage.ended is None else stage.ended) - stage.started

    def _stage_fraction(self, tasks: Sequence[TaskProgress]) -> float | None:
        """Return how much of the stage is done: all of it at its end, else by its sources, or by its task where it has
        none.
        """
        states = {stage.state() for stage in self._stages}
        if "done" in states and "running" not in states and not self._stopped:
            return 1.0
        shares: dict[str, float] = {}
        weights = dict(self._weights)
        for task, seen in zip(self._tasks, tasks, strict=True):
            if not task.of.source:
                continue
            source = task.of.source
            share = task.of.done_before + task.of.share * (seen.fraction or 0.0)
            # One source comes after the other: those before the last one are done.
            shares = {name: 1.0 for name in shares if name != source} | {
                source: max(shares.get(source, 0.0), share)
            }
            weights[source] = max(weights.get(source, 0), _weight(seen.total_items, seen.total_bytes))
        if not weights:
            return tasks[-1].fraction if tasks else None
        known = [weight for weight in weights.values() if weight]
        mean = sum(known) / len(known) if known else 1.0
        whole = sum(weight or mean for weight in weights.values())
        done = sum((weight or mean) * min(1.0, shares.get(name, 0.0)) for name, weight in weights.items())
        return done / whole

    def _fraction(self, stage_fraction: float | None) -> float | None:
        if len(self._stages) < 2:
            return stage_fraction
        states = {"waiting": 0.0, "running": stage_fraction or 0.0, "done": 1.0}
        whole = sum(stage.weight for stage in self._stages)
        return sum(stage.weight * states[stage.state()] for stage in self._stages) / whole

    def _seconds_left(self, fraction: float | None, tasks: Sequence[TaskProgress]) -> float | None:
        """Return how long all of it will take: the rest of the stage at its pace, later ones by their weights. None
        before the first stage that moves data: nothing says yet how long those take.
        """
        running = next((stage for stage in self._stages if stage.state() == "running"), None)
        if running is None:
            return None
        left = self._stage_left(fraction)
        if left is None and not self._weights and tasks:
            left = tasks[-1].seconds_left
        if left is None:
            return None
        # A burst before it made the pace higher.
        left = max(left, *(task.seconds_left or 0.0 for task in tasks), 0.0)
        moving = [stage for stage in self._stages if stage.name not in _LOOKING]
        waiting = sum(stage.weight for stage in moving if stage.state() == "waiting")
        begun = sum(stage.weight for stage in moving if stage.state() != "waiting")
        if waiting and not begun:
            return None
        spent = sum(self._seconds(stage) for stage in moving)
        return left + waiting * (spent + left) / begun if waiting else left

    def _stage_left(self, fraction: float | None) -> float | None:
        now, moves = self._clock(), self._fractions
        if fraction is None:
            return None
        if not moves or fraction != moves[-1][1]:
            moves.append((now, fraction))
        while len(moves) > _LEAST_MOVES and now - moves[1][0] > 3 * _RATE_WINDOW_SECONDS:
            moves.popleft()
        moved, seconds = fraction - moves[0][1], now - moves[0][0]
        if moved <= 0 or seconds < _LEAST_SECONDS or not is_enough(moved, seconds):
            return None
        return (1 - fraction) * seconds / moved


def _rates(task: _Task, now: float, items: int, size_bytes: int) -> tuple[float, float]:
    """Return items and bytes per second over the window."""
    moves = task.moves
    if (items, size_bytes) != moves[-1][1:]:
        moves.append((now, items, size_bytes))
    while len(moves) > _LEAST_MOVES and now - moves[1][0] > _RATE_WINDOW_SECONDS:
        moves.popleft()
    then, items_then, bytes_then = moves[0]
    last = moves[-1][0]
    usual = (last - then) / max(1, len(moves) - 1)
    # Until the next move is overdue, that nothing moves says nothing.
    seconds = last - then + max(0.0, now - last - usual)
    if seconds < _LEAST_SECONDS:
        return 0.0, 0.0
    return max(0.0, (items - items_then) / seconds), max(0.0, (size_bytes - bytes_then) / seconds)


def _weight(items: int, size_bytes: int) -> int:
    return size_bytes + _ITEM_BYTES * items


def _now() -> str:
    return _moment(datetime.now(UTC))


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
