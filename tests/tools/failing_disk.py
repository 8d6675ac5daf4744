"""Commands on a disk that fails at a chosen call: ``failing_disk.c``, loaded into them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.cli.conftest import Ended
from tests.tools.preloaded import compile_library

IMPATIENT = """
from migrate.storage import retry
retry.TOTAL_SECONDS = 3.0
from migrate.cli import main
raise SystemExit(main())
"""
"""The command, which tries an error that may pass again for three seconds, not for five minutes."""
LETTERS = {"w": "write", "s": "fsync", "r": "rename", "o": "create", "m": "mkdir", "l": "read"}


@dataclass(frozen=True)
class Failure:
    """The ``nth`` call of a kind fails, and ``times`` in a row (0: all from then on). ``letter``: see ``LETTERS``."""

    letter: str
    nth: int
    times: int
    errno: int

    def __str__(self) -> str:
        last = f" and {self.times - 1} more" if self.times else " and all later ones"
        return f"{LETTERS[self.letter]} {self.nth}{last}: {os.strerror(self.errno)}"


@dataclass(frozen=True)
class FailingDisk:
    """The library, and a file for what it records."""

    library: Path
    log: Path

    @classmethod
    def build(cls, directory: Path) -> FailingDisk:
        """Compile the library; skip and say so where there is no compiler."""
        return cls(compile_library("failing_disk", directory), directory / "calls")

    def run(self, folder: Path, words: list[str], failure: Failure | None = None) -> Ended:
        """Run moveout while calls for what lies below the folder fail."""
        self.log.unlink(missing_ok=True)
        chosen = failure or Failure("w", 0, 0, 0)
        variables = {
            "LD_PRELOAD": self.library,
            "FAILING_DISK_FOLDER": folder,
            "FAILING_DISK_KIND": chosen.letter,
            "FAILING_DISK_NTH": chosen.nth,
            "FAILING_DISK_TIMES": chosen.times,
            "FAILING_DISK_ERRNO": chosen.errno,
            "FAILING_DISK_LOG": self.log,
        }
        done = subprocess.run(
            [sys.executable, "-c", IMPATIENT, *words],
            env={**os.environ, **{name: str(value) for name, value in variables.items()}},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def calls(self) -> Counter[str]:
        """Return how many calls there were by letter; those that failed by upper-case letters."""
        return Counter(self.log.read_text()) if self.log.exists() else Counter()
