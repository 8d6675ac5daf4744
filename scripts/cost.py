"""What a program takes that runs to its end: time, processor and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MB = 1_000_000
_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
"""Of ``ru_maxrss`` (getrusage(2))."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of the clock; those of the processor, of the program and of those that it started and waited for; the
    peak of resident memory of the largest of them.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        return f"{self.seconds:7.2f} s {self.cpu_seconds:7.2f} s of CPU {self.peak_bytes / MB:6.0f} MB"


def cost_of(command: Sequence[str | Path], variables: Mapping[str, str] | None = None) -> Cost:
    """Run a command, with ``variables`` beside those of the environment, and return what it took. Raises
    ``subprocess.CalledProcessError``.
    """
    known = {**os.environ, **(variables or {})}
    known.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    started = time.monotonic()
    process = subprocess.Popen(command, env=known, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * _RSS_UNIT_BYTES)
