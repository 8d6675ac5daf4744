"""Files of tests and of their servers in memory: nothing waits for a disk."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from scripts.servers import borrowed_directory, sweep

MEMORY = Path("/dev/shm")
NEEDED_BYTES = 8 * 2**30
"""More than a whole run fills at any time."""


def make_base_directory() -> Path | None:
    """Make a directory in memory for a run's files and for those of its servers, and return it. None where the caller
    has chosen a ``TMPDIR``, and where memory cannot hold them as a disk does.
    """
    if "TMPDIR" in os.environ or not _suits(MEMORY):
        return None
    sweep(MEMORY)
    os.environ["TMPDIR"] = str(MEMORY)  # for servers that may not enter the other directory
    tempfile.tempdir = None
    return borrowed_directory("tests-")


def remove_base_directory(path: Path) -> None:
    """Remove the files of a run, and of servers that did not end in order."""
    shutil.rmtree(path, ignore_errors=True)
    sweep(MEMORY)


def _suits(directory: Path) -> bool:
    """Tell whether there is room, also in the machine, programs may lie there, and files may have attributes."""
    try:
        status = os.statvfs(directory)
        free_bytes = min(status.f_bavail * status.f_frsize, _available_bytes())
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            os.setxattr(file.name, "user.moveout", b"1")
    except OSError:
        return False
    return free_bytes >= NEEDED_BYTES and not status.f_flag & os.ST_NOEXEC


def _available_bytes() -> int:
    """Return how much memory programs may still take; 0 where the system does not say so."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
