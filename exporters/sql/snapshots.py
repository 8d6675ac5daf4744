"""What snapshots of all engines share: their positions, and that one is lost with the session that held it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from exporters.api import Workspace
from exporters.errors import (
    SourceSilentError,
    SourceSnapshotLostError,
    SourceUnreachableError,
    reading_state,
)


def snapshot_lost(source: str, reason: str) -> SourceSnapshotLostError:
    """Return the error of a snapshot whose session has ended, for this reason."""
    return SourceSnapshotLostError(f"the session that held the snapshot has ended: {reason}", about=source)


@contextmanager
def lost_with_sessions(url: str, has_ended: Callable[[SourceUnreachableError], bool]) -> Iterator[None]:
    """Raise ``SourceSnapshotLostError`` where what is read under a snapshot fails because a session ``has_ended``. What
    another server raises meanwhile, such as a destination, is its own.
    """
    try:
        yield
    except (SourceSnapshotLostError, SourceSilentError):
        raise
    except SourceUnreachableError as exc:
        is_of_another = exc.is_of_url and exc.about != url
        if is_of_another or not has_ended(exc):
            raise
        raise snapshot_lost(url, exc.explanation) from exc


POSITIONS = "positions.json"
"""The positions of the snapshots over which a bundle was taken, oldest first, in the workspace."""


def remember_position(workspace: Workspace, position: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Add this position to those of former runs; return all. Raises ``SourceStateError``."""
    with reading_state(POSITIONS):
        positions = json.loads(workspace.read(POSITIONS) or b"[]")
        positions.append(dict(position))
    workspace.write(POSITIONS, json.dumps(positions).encode())
    return list(positions)
