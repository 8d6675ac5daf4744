"""Files that a command is asked to write, outside of any location."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from migrate.storage.local.errors import translated


def write_whole(path: Path, data: bytes) -> None:
    """Write or replace a file in one step: a full disk costs nothing that stood there, whose
    permissions stay. What is no file, such as ``/dev/stdout``, is written to. Raises the errors of ``migrate.errors``.
    """
    with translated(path):
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        goal = path.resolve()
        temporary = goal.with_name(f".{goal.name}.{os.getpid()}.new")
        try:
            temporary.touch()
            if goal.exists():
                shutil.copymode(goal, temporary)
            temporary.write_bytes(data)
            temporary.replace(goal)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
