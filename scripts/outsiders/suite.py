"""What a suite is: it says where its material comes from, obtains it, runs, and yields rows of a scoreboard.

A suite is a module of this package with an object ``SUITE`` that follows the protocol ``Suite``. ``__main__.SUITES``
names the module.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from scripts.servers import Servers

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A suite, or a part of one, that could not be run, and why."""

    reason: str


@dataclass(slots=True)
class SuiteRow:
    """The result of one variant. ``moved`` and ``equal`` count what the suite counts: tables, objects, files."""

    variant: str
    moved: int = 0
    equal: int = 0
    losses: list[str] = field(default_factory=list)
    """Differences that moveout reported by name."""
    unreported: list[str] = field(default_factory=list)
    """Differences that moveout did not report: defects."""
    errors: list[str] = field(default_factory=list)
    """Commands that failed, tracebacks, hangs: defects, too."""
    skipped: str = ""
    """Why the variant did not run; empty if it did."""

    @property
    def failed(self) -> bool:
        """True where the row shows a defect."""
        return bool(self.unreported or self.errors)


@dataclass(frozen=True, slots=True)
class Context:
    """What a run gives to a suite."""

    material: Path
    """What ``obtain`` returned."""
    servers: Servers
    scratch: Path
    """A directory of the suite's own, removed after the run."""
    seed: int
    slice_index: int = 0
    slice_count: int = 1
    skip: int = 0
    """So many items of the slice were run before; they are left out."""
    ends_at: float | None = None
    """A ``time.monotonic`` value after which a suite begins nothing new."""

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds that the run may still take; None without a limit."""
        return None if self.ends_at is None else max(0.0, self.ends_at - time.monotonic())

    @property
    def out_of_time(self) -> bool:
        """True once the budget is used up."""
        return self.seconds_left == 0.0

    def choose(self, items: Sequence[_Item]) -> list[_Item]:
        """Return the items of this run's slice in an order that the seed decides, without those to skip."""
        shuffled = list(items)
        self.random("order").shuffle(shuffled)
        return shuffled[self.slice_index :: self.slice_count][self.skip :]

    def random(self, purpose: str) -> random.Random:
        """Return a generator that depends on the seed and the purpose only."""
        return random.Random(f"{self.seed}/{purpose}")


class Suite(Protocol):
    """A test suite of somebody else."""

    @property
    def name(self) -> str:
        """The name by which the command line calls it."""

    @property
    def origin(self) -> str:
        """Who wrote it, and how it is obtained: one line."""

    def obtain(self) -> Path | Skipped:
        """Return the directory with the suite's material; find, fetch or build it first."""

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Run the suite; yield each variant's row when it is done."""
