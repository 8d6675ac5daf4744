"""A snapshot that is lost with the session that held it, whichever engine it is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from exporters.errors import SourceSnapshotLostError, SourceUnreachableError


def snapshot_lost(source: str, reason: str) -> SourceSnapshotLostError:
    """Return the error of a snapshot whose session has ended, for this reason."""
    return SourceSnapshotLostError(f"the session that held the snapshot has ended: {reason}", about=source)


@contextmanager
def lost_with_sessions(url: str, has_ended: Callable[[SourceUnreachableError], bool]) -> Iterator[None]:
    """Raise ``SourceSnapshotLostError`` where what is read under a snapshot fails because a session ``has_ended``."""
    try:
        yield
    except SourceSnapshotLostError:
        raise
    except SourceUnreachableError as exc:
        if not has_ended(exc):
            raise
        raise snapshot_lost(url, exc.explanation) from exc
