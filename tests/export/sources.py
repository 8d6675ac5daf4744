"""A small source that lives in memory: whole numbers, cut into units, each a file of text lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from exporters.api import (
    CatalogEntry,
    DoneUnit,
    Enumeration,
    Gap,
    Loss,
    Outcome,
    Sink,
    SourceSummary,
    Survey,
    SurveyItem,
    Unit,
    Workspace,
)

UNIT_ITEMS = 10


def nothing(unit: Unit) -> None:
    """Let a unit pass."""


@dataclass
class Numbers:
    """The numbers below ``count``, each planned as ``item_bytes``. ``on_export`` is called with each unit before it
    writes; what it raises, the unit raises. ``on_plan`` is called with the number of each unit, and may plan another
    one in its place. ``padding`` is written in front of each number, ``index_padding`` in front of the index.
    """

    name: str = "app"
    url: str = "numbers://host/app"
    count: int = 95
    item_bytes: int = 4
    padding: bytes = b""
    index_padding: bytes = b""
    on_export: Callable[[Unit], None] = nothing
    on_finish: Callable[[], None] = lambda: None
    on_plan: Callable[[int], Unit | None] = lambda _: None
    holds: bool = True
    gaps: dict[int, Gap] = field(default_factory=dict)
    losses: Sequence[Loss] = ()
    counted: int | None = None
    exported: list[str] = field(default_factory=list)
    finished: int = 0

    def survey(self) -> Survey:
        return Survey([SurveyItem("numbers", "bucket", self.count, self.count * 4, exact=True)], "memory")

    @contextmanager
    def snapshot(self, workspace: Workspace, *, workers: int) -> Iterator[NumbersSnapshot]:
        known = workspace.read("plan.json")
        if known is None:
            workspace.write("plan.json", json.dumps({"count": self.count}).encode())
        yield NumbersSnapshot(self)

    def close(self) -> None:
        pass


@dataclass
class NumbersSnapshot:
    source: Numbers
    position: dict[str, object] = field(default_factory=lambda: {"time": "then"})

    def units(self) -> Iterator[Unit]:
        for start in range(0, self.source.count, UNIT_ITEMS):
            items = min(UNIT_ITEMS, self.source.count - start)
            yield self.source.on_plan(start // UNIT_ITEMS) or Unit(
                f"chunk/{start:08d}", items, items * self.source.item_bytes, {"start": start, "items": items}
            )

    def export(self, unit: Unit, sink: Sink) -> Outcome:
        self.source.exported.append(unit.id)
        start, items = unit.spec["start"], unit.spec["items"]
        numbers = [n for n in range(start, start + items) if n not in self.source.gaps]
        with sink.create(f"numbers/{start:08d}.txt") as file:
            self.source.on_export(unit)
            for number in numbers:
                file.write(self.source.padding + f"{number}\n".encode())
        gaps = [self.source.gaps[n] for n in range(start, start + items) if n in self.source.gaps]
        return Outcome(len(numbers), len(numbers) * 4, sum(numbers), gaps=gaps, facts={"first": start})

    def still_holds(self, done: DoneUnit) -> bool:
        assert list(done.files) == [f"numbers/{done.unit.spec['start']:08d}.txt"]
        return self.source.holds

    def finish(self, done: Iterator[DoneUnit], sink: Sink) -> SourceSummary:
        self.source.on_finish()
        self.source.finished += 1
        items = digest = 0
        with sink.create("index/numbers.txt") as file:
            file.write(self.source.index_padding)
            for unit in done:
                items += unit.outcome.items
                digest += unit.outcome.digest or 0
                file.write(f"{unit.unit.id} {unit.outcome.facts['first']}\n".encode())
        gaps = sorted(self.source.gaps.values(), key=lambda gap: gap.item)
        counted = self.source.count if self.source.counted is None else self.source.counted
        return SourceSummary(
            entries=[
                CatalogEntry(
                    "bucket", 0, "", "numbers", items, items * 4, f"{digest:032x}", {"kind": "whole"}
                )
            ],
            enumerations=[
                Enumeration("objects", "counted before", counted),
                Enumeration("objects", "exported and missing", items + len(gaps)),
            ],
            gaps=gaps,
            losses=list(self.source.losses),
            positions=[self.position],
            server="memory",
        )


def fingerprint(store: object) -> dict[str, str]:
    """All files of a bundle with their SHA-256, work files left out."""
    return {
        info.key: hashlib.sha256(store.read(info.key)).hexdigest()  # type: ignore[attr-defined]
        for info in store.list()  # type: ignore[attr-defined]
        if not info.key.startswith("_work/")
    }
