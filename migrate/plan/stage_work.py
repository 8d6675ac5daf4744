"""The stages of a move, and the work that each of them has to do for a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from msgspec import Struct

Stage = Literal["export", "transfer", "verify", "restore", "compare"]
STAGES: tuple[Stage, ...] = get_args(Stage)
LEAVING: tuple[Stage, ...] = ("export", "transfer")
"""The stages that must end before the old host shuts down."""

OTHER_KIND = "*"
"""Stands for kinds of sources of which there are no measurements."""


class StageWork(Struct, frozen=True):
    """What one stage does for one source. ``kind`` is the scheme of its URL.

    ``items`` and ``size_bytes`` are the source's own figures. ``sampled_seconds`` is what a sample, taken before the
    start, says about this work: the source that was read, or the location that was written or read for a moment.
    """

    stage: Stage
    source: str
    kind: str
    tables: int
    items: int
    size_bytes: int
    sampled_seconds: float | None = None


class StageRecord(Struct, frozen=True):
    """Work that was done, and the ``seconds`` it took. ``marks`` are moments of it: seconds since the beginning, and
    the share that was done by then.
    """

    work: StageWork
    seconds: float
    marks: tuple[tuple[float, float], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it without the name of the source: a history needs none."""
        work = self.work
        return {
            "stage": work.stage,
            "kind": work.kind,
            "tables": work.tables,
            "items": work.items,
            "size_bytes": work.size_bytes,
            "sampled_seconds": work.sampled_seconds,
            "seconds": round(self.seconds, 3),
            "marks": [[round(seconds, 2), round(share, 3)] for seconds, share in self.marks],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what ``as_json`` wrote. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        if value["stage"] not in STAGES:
            raise ValueError(value["stage"])
        sampled = value["sampled_seconds"]
        work = StageWork(
            stage=value["stage"],
            source="",
            kind=str(value["kind"]),
            tables=int(value["tables"]),
            items=int(value["items"]),
            size_bytes=int(value["size_bytes"]),
            sampled_seconds=None if sampled is None else float(sampled),
        )
        marks = tuple((float(seconds), float(share)) for seconds, share in value["marks"])
        return cls(work, float(value["seconds"]), marks)


RunRecord = tuple[StageRecord, ...]
"""One move, or as much of it as was done."""
