"""What makes a new name in a directory survive a crash (fsync(2), the last paragraph of its description)."""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Write a directory's entries to the disk. Raises ``OSError``."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(directory: Path) -> None:
    """Make a directory and those above it that are missing, and write their names to the disk. Raises ``OSError``."""
    missing = list(takewhile(lambda path: not path.exists(), (directory, *directory.parents)))
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_directory(path.parent)
