"""The plan cut into spans: what one thread does at a time, and commits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from migrate.sync.diff import SyncStep

SPAN_OBJECTS = 1000
SPAN_BYTES = 32 * 2**20


def spans(steps: Iterable[SyncStep]) -> Iterator[list[SyncStep]]:
    """Gather steps in their order; a large object is a span by itself. Versions of a key stay together."""
    gathered: list[SyncStep] = []
    held = 0
    for step in steps:
        size_bytes = step.source.size_bytes if step.source else 0
        full = held + size_bytes > SPAN_BYTES or len(gathered) >= SPAN_OBJECTS
        if gathered and full and step.key != gathered[-1].key:
            yield gathered
            gathered, held = [], 0
        gathered.append(step)
        held += size_bytes
    if gathered:
        yield gathered
