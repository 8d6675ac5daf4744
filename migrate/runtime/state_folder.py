"""The folder on this machine in which moveout keeps what lies nowhere else."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """Return ``$XDG_STATE_HOME/moveout``, or ``~/.local/state/moveout`` where that is not set."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local/state") / "moveout"
