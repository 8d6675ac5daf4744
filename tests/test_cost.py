"""What a program takes is its own, not that of the process that measures it."""

import subprocess
import sys

import pytest

from scripts.cost import MB, cost_of


def test_the_peak_is_not_that_of_the_process_that_measures():
    held = bytearray(b"x") * (200 * MB)
    cost = cost_of([sys.executable, "-S", "-c", "bytearray(b'x') * 60_000_000"])
    del held
    assert 60 * MB < cost.peak_bytes < 120 * MB
    assert cost.cpu_seconds > 0
    assert 0 < cost.seconds < 60


def test_a_program_that_fails_is_an_error_with_its_code():
    with pytest.raises(subprocess.CalledProcessError) as raised:
        cost_of([sys.executable, "-c", "print('not ours'); raise SystemExit(3)"])
    assert raised.value.returncode == 3
