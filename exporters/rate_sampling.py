"""Trying a source out: export a sample of its units for real, and throw the bytes away."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import BinaryIO

from exporters.api import Estimate, Outcome, Snapshot, Source, Unit
from exporters.errors import SourceError, SourceNotAllowedError, SourceUnreachableError


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


class _Hole(io.RawIOBase):
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
    """A ``Sink`` that keeps nothing."""

    @contextmanager
    def create(self, name: str, *, size_bytes: int = 0) -> Iterator[BinaryIO]:
        """See ``Sink.create``."""
        del name, size_bytes
        yield _Hole()  # type: ignore[misc]


def try_out(source: Source, *, seconds: float, workers: int) -> Estimate:
    """Do ``exporters.api.Measurable``'s work for a source: export its largest units to nowhere."""
    with source.snapshot(MemoryWorkspace(), workers=workers) as snapshot:
        return measure(snapshot, list(snapshot.units()), seconds=seconds, workers=workers)


def measure(snapshot: Snapshot, units: Sequence[Unit], *, seconds: float, workers: int) -> Estimate:
    """Export units, the largest first, until ``seconds`` have passed, and extrapolate by their sizes to all ``units``.

    The units that run when time is up are finished and counted, so this may take a few seconds longer.
    """
    total_bytes = sum(unit.size_bytes for unit in units)
    left = iter(sorted(units, key=lambda unit: -unit.size_bytes))
    started = time.monotonic()
    results: list[tuple[Unit, Outcome]] = []
    faults: list[str] = []
    with ThreadPoolExecutor(workers) as pool:
        running: dict[Future[Outcome], Unit] = {}
        while True:
            while (
                len(running) < workers and time.monotonic() - started < seconds and (unit := next(left, None))
            ):
                running[pool.submit(snapshot.export, unit, DiscardingSink())] = unit
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                unit = running.pop(future)
                try:
                    results.append((unit, future.result()))
                except (SourceUnreachableError, SourceNotAllowedError):
                    raise
                except SourceError as exc:
                    faults.append(f"unit {unit.id} ({unit.items} items) cannot be read: {exc}")
    elapsed = max(time.monotonic() - started, 1e-6)
    seen_bytes = sum(unit.size_bytes for unit, _ in results)
    return Estimate(
        seconds=elapsed * total_bytes / seen_bytes if seen_bytes else 0.0,
        items_rate=sum(outcome.items for _, outcome in results) / elapsed,
        bytes_rate=seen_bytes / elapsed,
        faults=faults,
    )
