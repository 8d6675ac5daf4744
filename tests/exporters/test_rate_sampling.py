"""The estimate of a source extrapolates from large and small units, and says how large the bundle becomes."""

import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from exporters import rate_sampling
from exporters.api import Outcome, Unit
from exporters.errors import SourceError
from exporters.rate_sampling import measure

UNIT_SECONDS, BYTE_SECONDS = 0.01, 1e-7


class Slow:
    """A snapshot whose units take a set time each and for every byte; half of the bytes are written. Its clock shows
    a worker how long that has worked, and the main thread the time of two workers that never waited.
    """

    def __init__(self):
        self.worked = Counter()

    def monotonic(self):
        thread = threading.current_thread()
        return (
            sum(self.worked.copy().values()) / 2 if thread is threading.main_thread() else self.worked[thread]
        )

    def export(self, unit, sink):
        if unit.id == "damaged":
            raise SourceError("a page is damaged")
        self.worked[threading.current_thread()] += UNIT_SECONDS + unit.size_bytes * BYTE_SECONDS
        with sink.create("file") as file:
            file.write(bytes(unit.size_bytes // 2))
        return Outcome(unit.items, unit.size_bytes)


def units(count, size_bytes):
    return [Unit(f"{size_bytes}/{number}", 10, size_bytes, {}) for number in range(count)]


def test_many_small_units_are_not_taken_for_nothing(monkeypatch):
    work = [*units(40, 1_000_000), *units(2000, 100)]
    snapshot = Slow()
    monkeypatch.setattr(rate_sampling, "time", SimpleNamespace(monotonic=snapshot.monotonic))
    measured = measure(snapshot, work, seconds=1.0, workers=2)
    real = sum(UNIT_SECONDS + unit.size_bytes * BYTE_SECONDS for unit in work) / 2
    by_bytes = 40 * (UNIT_SECONDS + 1_000_000 * BYTE_SECONDS) / 2
    assert measured.seconds == pytest.approx(real, rel=0.01)
    assert measured.seconds > 2 * by_bytes
    assert measured.bundle_share == pytest.approx(0.5, rel=0.01)


def test_a_unit_that_cannot_be_read_is_a_fault_of_the_sample():
    measured = measure(Slow(), [Unit("damaged", 1, 10, {}), *units(3, 100)], seconds=0.5, workers=1)
    assert measured.faults == ["unit damaged (1 items) cannot be read: a page is damaged"]
    assert measured.seconds > 0


def test_nothing_to_read_takes_no_time():
    measured = measure(Slow(), [], seconds=0.5, workers=1)
    assert (measured.seconds, measured.bundle_share) == (0.0, None)
