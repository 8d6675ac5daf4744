"""The snapshots over which a bundle was taken, oldest first, kept in the workspace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from exporters.api import Workspace

NAME = "points.json"


def remember(workspace: Workspace, point: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Add this point to those of former runs; return all."""
    points = json.loads(workspace.read(NAME) or b"[]")
    points.append(dict(point))
    workspace.write(NAME, json.dumps(points).encode())
    return list(points)
