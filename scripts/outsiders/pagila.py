"""The scripts of pagila, a sample database of PostgreSQL, in the version on which pgcopydb is tested."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from scripts.outsiders.suite import Skipped
from scripts.process import Argv

VARIABLE = "OUTSIDERS_PAGILA"
_COMMIT = "e0e35a666f31a786b9d3c06cb83799fc46db25d4"
"""The last one before pagila needs PostgreSQL 18. pgcopydb's tests name its partitions of 2022."""
_FILES = ("pagila-schema.sql", "pagila-data.sql")


def pagila_scripts(directory: Path, commit: str = _COMMIT) -> Path | Skipped:
    """Write the scripts into a new directory, and return it. They come from the checkout that the variable names."""
    checkout = os.environ.get(VARIABLE)
    if not checkout:
        return Skipped(f"it needs pagila: set {VARIABLE} to a checkout of it (github: devrimgunduz/pagila)")
    directory.mkdir()
    for name in _FILES:
        argv: Argv = ["git", "-C", checkout, "show", f"{commit}:{name}"]
        shown = subprocess.run(argv, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
        if shown.returncode:
            words = shown.stderr.decode(errors="replace").strip()
            return Skipped(
                f"it needs pagila: the checkout {VARIABLE}={checkout} does not show {name} of {commit}: {words}"
            )
        (directory / name).write_bytes(shown.stdout)
    return directory
