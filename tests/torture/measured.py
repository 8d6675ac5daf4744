"""The command ``moveout``, and the most memory that it held."""

import os
import subprocess
import time
from dataclasses import dataclass

from tests.torture.command import MOVEOUT

LIMIT_MIB = 512
"""What is promised for any table and any number of them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How long a command took, and the peak of its memory; programs that it started included, the largest of all."""

    seconds: float
    peak_mib: int


def measured(*words: object) -> Measured:
    """Run ``moveout``, which has to succeed."""
    began = time.monotonic()
    process = subprocess.Popen([MOVEOUT, *map(str, words), "--quiet"], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return Measured(time.monotonic() - began, used.ru_maxrss // 1024)
