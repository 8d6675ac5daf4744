"""Looks at sources and tries out the way: reads a sample, writes a sample."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from exporters.api import Estimate, Source, Survey
from migrate.bundle import layout
from migrate.storage.api import Store

SAMPLE_SECONDS = 3.0
"""How long each source is read for the sample."""
_SAMPLE_BYTES = 8 * 2**20
_MIN_SAMPLES, _MAX_SAMPLES, _WRITERS = 4, 32, 4


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """A source, what is there, and how long reading it takes (None where the source cannot be tried out)."""

    name: str
    url: str
    survey: Survey
    estimate: Estimate | None

    @property
    def items(self) -> int:
        """Rows or objects in all."""
        return sum(item.items for item in self.survey.items)

    @property
    def size_bytes(self) -> int:
        """Bytes in all, as the source counts them."""
        return sum(item.size_bytes for item in self.survey.items)


def survey(source: Source, *, workers: int) -> SourcePlan:
    """Survey a source and read a sample of it. Raises ``SourceError``."""
    snapshot = source.survey()
    measure = getattr(source, "estimate", None)
    estimate = measure(snapshot, seconds=SAMPLE_SECONDS, workers=workers) if measure else None
    if estimate is not None and estimate.faults:
        snapshot = replace(snapshot, warnings=[*snapshot.warnings, *estimate.faults])
    return SourcePlan(source.name, source.url, snapshot, estimate)


def measure_write(store: Store) -> float:
    """Return the bytes a second that the location takes, by writing a few files and removing them again."""
    data = secrets.token_bytes(_SAMPLE_BYTES)
    prefix = f"{layout.WORK}probe/{secrets.token_hex(4)}-"
    started = time.monotonic()
    written = 0
    with ThreadPoolExecutor(_WRITERS) as pool:
        while written < _MAX_SAMPLES and (written < _MIN_SAMPLES or time.monotonic() - started < 1):
            names = [f"{prefix}{written + i}" for i in range(_WRITERS)]
            try:
                list(pool.map(lambda name: store.put(name, data), names))
            finally:
                list(pool.map(store.delete, names))
            written += _WRITERS
    return written * _SAMPLE_BYTES / max(time.monotonic() - started, 1e-6)
