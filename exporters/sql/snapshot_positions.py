"""The snapshots over which a bundle was taken, oldest first, kept in the workspace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from exporters.api import Workspace
from exporters.errors import reading_state

NAME = "positions.json"


def remember(workspace: Workspace, position: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Add this position to those of former runs; return all. Raises ``SourceStateError``."""
    with reading_state(NAME):
        positions = json.loads(workspace.read(NAME) or b"[]")
        positions.append(dict(position))
    workspace.write(NAME, json.dumps(positions).encode())
    return list(positions)
