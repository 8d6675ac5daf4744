"""How far a command is, as plain data: what the terminal, ``moveout status`` and the status page show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.errors import OK, IncompleteError

State = Literal["waiting", "running", "done", "stopped"]

COUNTED = "counted "
"""Stands before what is forecast where not everything was counted."""
SHOWN_TASKS = 200
"""How many tasks of a stage are kept; a stage has one or two a source."""


_SURE_FRACTION, _SURE_SECONDS = 0.01, 30.0


def is_enough(fraction: float, seconds: float) -> bool:
    """Tell whether what was done in this time says how long the rest takes: the first bytes take longer than others."""
    return fraction >= _SURE_FRACTION or seconds >= _SURE_SECONDS


class TaskProgress(Struct, frozen=True):
    """One task of a stage, such as ``export app``. ``items`` and ``size_bytes`` are done, by this run or an earlier
    one; totals are 0 where they are unknown. Rates per second, over the last moments. ``seconds`` since it began.
    """

    name: str
    source: str
    state: State
    items: int = 0
    total_items: int = 0
    size_bytes: int = 0
    total_bytes: int = 0
    items_rate: float = 0.0
    bytes_rate: float = 0.0
    seconds: float = 0.0

    @property
    def fraction(self) -> float | None:
        """How much is done, 0 to 1, by bytes where they are known, else by items."""
        if self.state == "done":
            return 1.0
        if self.total_bytes:
            return min(1.0, self.size_bytes / self.total_bytes)
        if self.total_items:
            return min(1.0, self.items / self.total_items)
        return None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the present rate; None where nothing moves, nothing is known of the rest, or too
        little was seen.
        """
        if not is_enough(self.fraction or 0.0, self.seconds):
            return None
        if self.total_bytes and self.bytes_rate >= 1:
            return max(0.0, (self.total_bytes - self.size_bytes) / self.bytes_rate)
        if not self.total_bytes and self.total_items and self.items_rate >= 1:
            return max(0.0, (self.total_items - self.items) / self.items_rate)
        return None


class StageProgress(Struct, frozen=True):
    """One stage of a run. ``seconds``: how long it has taken so far."""

    name: str
    state: State
    seconds: float = 0.0


class ProgressState(Struct, frozen=True, kw_only=True):
    """How far a command is. Moments are UTC, ISO 8601; "" where there is none.

    ``fraction`` is that of all stages together, ``stage_fraction`` that of the present one; both are None where nothing
    is known. ``sources`` names all sources of the present stage; ``tasks`` are those that have begun. ``ready``: what
    is forecast ("left" the old host, or "up" on the new one; with ``COUNTED`` before it: only what was counted). Then
    the moments by which all of it is so with a probability of 50 % and 90 %. Empty without a forecast.
    """

    command: str
    case: str = ""
    since: str = ""
    at: str = ""
    stages: Sequence[StageProgress] = ()
    sources: Sequence[str] = ()
    tasks: Sequence[TaskProgress] = ()
    fraction: float | None = None
    stage_fraction: float | None = None
    seconds_left: float | None = None
    deadline: str = ""
    ready: Sequence[str] = ()
    gaps: int = 0
    notes: Sequence[str] = ()
    ended: str = ""
    """Why nothing more will come: "done", "stopped" or an error; "" while the command runs."""

    @property
    def stage(self) -> str:
        """The stage that is under way, "" between two of them."""
        return next((stage.name for stage in self.stages if stage.state == "running"), "")

    @property
    def stage_number(self) -> int:
        """The number of the stage that is under way, from 1; between two of them that of the earlier one, which the
        tasks are of.
        """
        begun = [number for number, stage in enumerate(self.stages, 1) if stage.state != "waiting"]
        running = [number for number in begun if self.stages[number - 1].state == "running"]
        return (running or begun or [1])[-1]

    @property
    def last_task(self) -> TaskProgress | None:
        """The task that is under way, else the last one of the stage; None before its first."""
        return self.tasks[-1] if self.tasks else None

    @property
    def running(self) -> Sequence[TaskProgress]:
        """The tasks that are under way."""
        return [task for task in self.tasks if task.state == "running"]

    @property
    def sources_done(self) -> int:
        """How many sources of the stage are done: begun, and with no task that is still under way."""
        begun = {task.source for task in self.tasks if task.source}
        return len(begun - {task.source for task in self.running})

    def as_json(self) -> dict[str, Any]:
        """Return all of it, with each task's share and time left."""
        derived = [
            as_dict(task) | {"fraction": task.fraction, "seconds_left": task.seconds_left}
            for task in self.tasks
        ]
        return as_dict(replace(self, tasks=())) | {"tasks": derived, "stage": self.stage}


class Ending(Struct):
    """How the command ended."""

    exit_code: int | None = None
    error: str = ""
    next_step: str = "run the same command again: it continues"
    """What helps where it did not end by itself."""
    printed: str = ""
    """What it prints at its end; "" where it ended with an error."""

    @property
    def words(self) -> str:
        """How the command ended, for people."""
        if self.exit_code is None:
            return self.error or "stopped"
        words = {OK: "done, complete", IncompleteError.exit_code: "done, with gaps"}
        return words.get(self.exit_code, f"ended with exit code {self.exit_code}")


def from_json(value: dict[str, Any]) -> ProgressState:
    """Return what ``as_json`` was made of. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
    known = ProgressState.__struct_fields__
    state = ProgressState(**{name: content for name, content in value.items() if name in known})
    task_fields = TaskProgress.__struct_fields__
    return replace(
        state,
        stages=[StageProgress(**stage) for stage in value["stages"]],
        tasks=[
            TaskProgress(**{name: content for name, content in task.items() if name in task_fields})
            for task in value["tasks"]
        ],
    )
