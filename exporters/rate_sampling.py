"""Trying a source out: export a sample of its units for real, and throw the bytes away."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import BinaryIO

from msgspec import Struct

from exporters.api import Estimate, Outcome, Snapshot, Source, Unit
from exporters.errors import SourceError, SourceNotAllowedError, SourceUnreachableError

_ROUNDS = 1000


def fit(
    rows: Sequence[Sequence[float]], seconds: Sequence[float], explained: Sequence[float] | None = None
) -> list[float]:
    """Return the coefficients, none below 0, that explain ``seconds`` by the features in ``rows``. ``explained``: the
    part of the seconds that needs no explanation.

    The squares of relative errors are minimized, so a short run counts as much as a long one. The method is
    non-negative least squares by coordinate descent (Franc, Hlavac, Navara 2005). The problems are small.
    """
    scaled = [[value / max(second, 1e-6) for value in row] for row, second in zip(rows, seconds, strict=True)]
    columns = list(zip(*scaled, strict=True))
    products = [[sum(map(_multiply, left, right)) for right in columns] for left in columns]
    rest = [
        1.0 - known / max(second, 1e-6)
        for known, second in zip(explained or [0.0] * len(rows), seconds, strict=True)
    ]
    sums = [sum(map(_multiply, column, rest)) for column in columns]
    coefficients = [0.0] * len(columns)
    for _ in range(_ROUNDS):
        for number, row in enumerate(products):
            if row[number]:
                slope = sums[number] - sum(map(_multiply, row, coefficients))
                coefficients[number] = max(0.0, coefficients[number] + slope / row[number])
    return coefficients


def _multiply(left: float, right: float) -> float:
    return left * right


class MemoryWorkspace:
    """A ``Workspace`` that lives as long as the process."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        """See ``Workspace.read``."""
        return self._files.get(name)

    def write(self, name: str, data: bytes) -> None:
        """See ``Workspace.write``."""
        self._files[name] = data

    def names(self, prefix: str = "") -> Sequence[str]:
        """See ``Workspace.names``."""
        return sorted(name for name in self._files if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """See ``Workspace.delete``."""
        self._files.pop(name, None)

    def listed(self, count: int) -> None:
        """See ``Workspace.listed``; nobody watches."""


class _DiscardingFile(io.RawIOBase):
    """A file that discards what is written, and counts the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        self._size_bytes += size
        return size

    def tell(self) -> int:
        return self._size_bytes


class DiscardingSink:
    """A ``Sink`` that keeps nothing but the number of bytes."""

    def __init__(self) -> None:
        self.size_bytes = 0

    @contextmanager
    def create(self, name: str, *, size_bytes: int = 0) -> Iterator[BinaryIO]:
        """See ``Sink.create``."""
        del name, size_bytes
        file = _DiscardingFile()
        yield file  # type: ignore[misc]
        self.size_bytes += file.tell()

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """See ``Sink.advance``; the outcomes are measured."""


def try_out(source: Source, *, seconds: float, workers: int) -> Estimate:
    """Do ``exporters.api.Measurable``'s work for a source: export its largest units to nowhere."""
    with source.snapshot(MemoryWorkspace(), workers=workers) as snapshot:
        return measure(snapshot, list(snapshot.units()), seconds=seconds, workers=workers)


_NAMED_GAPS = 3
"""How many gaps of a unit are named."""


class _UnitSample(Struct, frozen=True):
    """A unit that was read, how many bytes became of it, and how long a worker needed for it."""

    unit: Unit
    outcome: Outcome
    written_bytes: int
    seconds: float


def measure(snapshot: Snapshot, units: Sequence[Unit], *, seconds: float, workers: int) -> Estimate:
    """Export some units until ``seconds`` have passed, and extrapolate to all ``units``.

    Large and small units are sampled, because each unit costs something even if it is empty. A linear model explains
    the samples: so much for a unit, a row and a byte. The units that run when time is up are finished and counted, so
    this may take a few seconds longer.
    """
    queue = iter(_sampling_order(units))
    started = time.monotonic()
    samples: list[_UnitSample] = []
    faults: list[str] = []
    with ThreadPoolExecutor(workers) as pool:
        running: dict[Future[_UnitSample], Unit] = {}
        while True:
            while (
                len(running) < workers
                and time.monotonic() - started < seconds
                and (unit := next(queue, None))
            ):
                running[pool.submit(_sample, snapshot, unit)] = unit
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                unit = running.pop(future)
                try:
                    samples.append(future.result())
                    faults += [f"{gap.item}: {gap.reason}" for gap in samples[-1].outcome.gaps[:_NAMED_GAPS]]
                except (SourceUnreachableError, SourceNotAllowedError):
                    raise
                except SourceError as exc:
                    faults.append(f"unit {unit.id} ({unit.items} items) cannot be read: {exc}")
    elapsed = max(time.monotonic() - started, 1e-6)
    size_bytes = sum(sample.unit.size_bytes for sample in samples)
    return Estimate(
        seconds=_extrapolate(samples, units, elapsed),
        items_rate=sum(sample.outcome.items for sample in samples) / elapsed,
        bytes_rate=size_bytes / elapsed,
        faults=faults,
        bundle_share=sum(sample.written_bytes for sample in samples) / size_bytes if size_bytes else None,
    )


def _sampling_order(units: Sequence[Unit]) -> Iterator[Unit]:
    """Yield all units, two of the largest and one of the smallest in turn."""
    by_size = deque(sorted(units, key=lambda unit: -unit.size_bytes))
    while by_size:
        for _ in range(min(2, len(by_size))):
            yield by_size.popleft()
        if by_size:
            yield by_size.pop()


def _sample(snapshot: Snapshot, unit: Unit) -> _UnitSample:
    started = time.monotonic()
    sink = DiscardingSink()
    outcome = snapshot.export(unit, sink)
    return _UnitSample(unit, outcome, sink.size_bytes, time.monotonic() - started)


def _extrapolate(samples: Sequence[_UnitSample], units: Sequence[Unit], elapsed: float) -> float:
    """Return the seconds for all units. ``elapsed``: the clock's seconds for the samples; workers overlap."""
    if not samples:
        return 0.0
    cost = fit([_features(sample.unit) for sample in samples], [sample.seconds for sample in samples])
    busy_seconds = sum(sample.seconds for sample in samples)
    all_seconds = sum(
        coefficient * value
        for unit in units
        for coefficient, value in zip(cost, _features(unit), strict=True)
    )
    return all_seconds * elapsed / max(busy_seconds, 1e-6)


def _features(unit: Unit) -> tuple[float, float, float]:
    return 1.0, float(unit.items), float(unit.size_bytes)
