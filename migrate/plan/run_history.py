"""The moves that were made on this machine, with the time each stage took: ``moveout/moves.json`` in the user's state
directory.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from migrate.plan.stage_work import RunRecord, StageRecord
from migrate.runtime.state_folder import state_folder
from migrate.storage.local.whole_file import replace_file

MOST_RUNS = 50
VERSION = 1


def history_path() -> Path:
    """Return where the history lies."""
    return state_folder() / "moves.json"


def read_history(path: Path | None = None) -> list[RunRecord]:
    """Return the recorded moves, the oldest first; none where there is no history that makes sense."""
    try:
        value = json.loads((path or history_path()).read_text(encoding="utf-8"))
        if value["version"] != VERSION:
            return []
        return [tuple(map(StageRecord.from_json, run)) for run in value["runs"]]
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
    ):  # RuntimeError: there is no home directory
        return []


def add_run(run: Sequence[StageRecord], path: Path | None = None) -> None:
    """Add a move to the history, and drop the oldest ones. Where the directory cannot be written, nothing is kept: a
    history only makes forecasts better.
    """
    if not run:
        return
    with contextlib.suppress(OSError, RuntimeError):
        path = path or history_path()
        runs = [*read_history(path), tuple(run)][-MOST_RUNS:]
        value = {"version": VERSION, "runs": [[record.as_json() for record in past] for past in runs]}
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        replace_file(path, json.dumps(value).encode(), crash_point="plan.run_history")
