"""Who else is told how far a command is: whoever asks the location."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from migrate.case.model import Case, Endpoint
from migrate.cli.common.session import Session
from migrate.errors import MoveoutError, NotAllowedError, UsageError
from migrate.progress.progress_file import ProgressFile, local_store
from migrate.storage.api import Store
from migrate.storage.registry import open_location, open_object_lock


@contextmanager
def reported(
    session: Session, command: str, location: Endpoint, case: Case | None, sources: Iterable[str] = ()
) -> Iterator[None]:
    """Let ``moveout status`` see how far a command is that works at a location, as long as the context lasts. An
    export and a transfer make the bundle there; for all others it is sealed, and never locked up with such a file.
    """
    meter = session.meter
    if case is not None:
        meter.set_case(case.name, case.deadline)
    meter.expect(sources)
    opens: list[Callable[[], Store]] = [
        lambda: _own_store(session, location),
        lambda: local_store(location.url),
    ]
    if command not in {"export", "transfer"}:
        opens[0] = lambda: _unlocked_store(session, location)
    with ProgressFile(command, meter, opens):
        yield


def _own_store(session: Session, location: Endpoint) -> Store:
    """Return the location without the bandwidth limit, whose waits would make the file old."""
    return open_location(location.url, secrets=location.reveal(), cancellation=session.cancellation.child())


def _unlocked_store(session: Session, location: Endpoint) -> Store:
    """Return the location unless it could lock the file. Raises ``NotAllowedError``."""
    with suppress(NotAllowedError, UsageError):
        open_object_lock(location.url, secrets=location.reveal()).check_lock()
        raise _LockableError(f"{location.shown} has Object Lock")
    return _own_store(session, location)


class _LockableError(MoveoutError):
    """The location could keep the file for good."""
