"""The commit records at a directory, read as files: also while an export is under way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def commit_records(location: Path, source: str = "*") -> Iterator[dict[str, Any]]:
    """Yield every unit's record, of those with a record of their own and of those in groups."""
    for path in location.glob(f"_work/{source}/units/**/*.json"):
        yield json.loads(path.read_text())
    for path in location.glob(f"_work/{source}/groups/*.json"):
        yield from json.loads(path.read_text())["records"]


def recorded_units(location: Path, source: str = "*") -> set[str]:
    """Return the ids of the units that have a commit record."""
    return {record["unit"]["id"] for record in commit_records(location, source)}
