"""The ratios of all benchmarks of one ``make bench``, with the target of each: the table at its end.

A benchmark is a process of its own, and notes its ratios in a file that ``make bench`` names. Run alone, it notes none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, convert, to_builtins

FILE = "MOVEOUT_BENCH_RATIOS"
"""The variable that names the file."""
PROCESSOR = ", by processor time"


class Ratio(Struct, frozen=True):
    """How many times as fast as ``peer`` moveout is at ``what``. ``target``: at least so many, or 0."""

    what: str
    peer: str
    ratio: float
    target: float = 0

    @property
    def verdict(self) -> str:
        """The target, and whether it is met or by how much it is missed; "" where there is none."""
        if not self.target:
            return ""
        missed = 1 - self.ratio / self.target
        return f"{self.target:g} " + ("met" if missed <= 0 else f"missed by {missed:.0%}")


def note(what: str, peer: str, ratio: float, target: float = 0) -> None:
    """Note a ratio for the table."""
    if file := os.environ.get(FILE):
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(to_builtins(Ratio(what, peer, ratio, target))) + "\n")


def noted(file: Path) -> Sequence[Ratio]:
    """Return the ratios in the order in which they were noted."""
    return [convert(json.loads(line), Ratio) for line in file.read_text("utf-8").splitlines()]


def table(ratios: Sequence[Ratio]) -> str:
    """Return a line for each ratio, and above each group of a subject the subject."""
    lines: list[str] = []
    subject = ""
    for each in ratios:
        if each.what != subject:
            subject = each.what
            lines.append(subject)
        lines.append(f"  {each.peer:42} {each.ratio:6.2f}x  {each.verdict}".rstrip())
    return "\n".join(lines)
