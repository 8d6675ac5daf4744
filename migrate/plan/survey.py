"""Looks at sources and tries out the way: reads a sample, writes a sample."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Estimate, Measurable, Source, Survey
from migrate.bundle import layout
from migrate.engines import registry
from migrate.plan.cost_model import reference
from migrate.plan.stage_work import StageWork
from migrate.storage import incompressible
from migrate.storage.api import Store

SAMPLE_SECONDS = 3.0
"""How long each source is read for the sample."""
_FILES = 4
"""How many files a location is tried with at once."""
_FIRST_FILE_BYTES, _LAST_FILE_BYTES = 2**20, 16 * 2**20
_ROUND_SECONDS = 0.5


class SourcePlan(Struct, frozen=True):
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

    @property
    def bundle_bytes(self) -> int:
        """About how large the part of a bundle is that the source becomes; its own size where that was not measured."""
        share = self.estimate.bundle_share if self.estimate else None
        return round(self.size_bytes * (1.0 if share is None else share))

    @property
    def kind(self) -> str:
        """The preferred URL scheme of the source's engine."""
        engine = registry.find(self.url)
        return engine.schemes[0] if engine else self.url.partition("://")[0]


def survey(source: Source, *, workers: int, sampled_from_seconds: float = 0.0) -> SourcePlan:
    """Survey a source and read a sample of it, if its export takes so long by the model. Raises ``SourceError``."""
    snapshot = source.survey()
    plan = SourcePlan(source.name, source.url, snapshot, None)
    is_short = not snapshot.goes_on and _export_seconds(plan) < sampled_from_seconds
    if is_short or not isinstance(source, Measurable):
        return plan
    estimate = source.estimate(snapshot, seconds=SAMPLE_SECONDS, workers=workers)
    if estimate.faults:
        snapshot = replace(snapshot, warnings=[*snapshot.warnings, *estimate.faults])
    return SourcePlan(source.name, source.url, snapshot, estimate)


def _export_seconds(plan: SourcePlan) -> float:
    """Return how long the export of a source takes by the model."""
    tables = len(plan.survey.items)
    return reference().model_seconds(
        StageWork("export", plan.name, plan.kind, tables, plan.items, plan.size_bytes)
    )


class LocationRates(Struct, frozen=True):
    """The bytes a second that a location takes and gives."""

    write: float
    read: float


def measure_location(store: Store) -> LocationRates:
    """Write a few files, read them back, and remove them again. The files grow until a round takes long enough."""
    prefix = f"{layout.WORK}probe/{secrets.token_hex(4)}-"
    names = [f"{prefix}{number}" for number in range(_FILES)]
    size_bytes = _FIRST_FILE_BYTES
    with ThreadPoolExecutor(_FILES) as pool:
        while True:
            data = b"".join(incompressible.pieces(size_bytes))
            try:
                started = time.monotonic()
                _do_all(pool, partial(_put, store, data), names)
                written = time.monotonic()
                _do_all(pool, store.read, names)
                ended = time.monotonic()
            finally:
                _do_all(pool, store.delete, names)
            if written - started >= _ROUND_SECONDS or size_bytes >= _LAST_FILE_BYTES:
                round_bytes = _FILES * size_bytes
                return LocationRates(
                    round_bytes / max(written - started, 1e-6), round_bytes / max(ended - written, 1e-6)
                )
            size_bytes *= 4


def _put(store: Store, data: bytes, name: str) -> None:
    store.put(name, data)


def _do_all(pool: Executor, work: Callable[[str], object], names: Sequence[str]) -> None:
    """Work on all names at once, and wait until no work is under way, whatever fails: a file that is still being
    written could not be removed. Raises the first error.
    """
    futures = [pool.submit(work, name) for name in names]
    wait(futures)
    for future in futures:
        future.result()
