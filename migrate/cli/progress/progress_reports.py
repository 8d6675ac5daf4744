"""Keeps at the location how far a command is, for ``moveout status`` on any machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from migrate.case.model import Case, Endpoint
from migrate.cli.common.session import Session
from migrate.errors import MoveoutError, NotAllowedError, UsageError
from migrate.progress.progress_file import ProgressFile, local_store
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import Store
from migrate.storage.registry import open_location, open_object_lock

if TYPE_CHECKING:
    from migrate.restore.restore_records import RestoreRecords


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
    open_store = own_store if command in {"export", "transfer"} else unlocked_store
    with ProgressFile(command, meter, _stores(session, location, open_store)):
        yield


def restore_records(session: Session, location: Endpoint) -> RestoreRecords:
    """Return what keeps the results of a restore next to its bundle, else on this machine."""
    from migrate.restore.restore_records import RestoreRecords  # noqa: PLC0415  only a restore needs it

    return RestoreRecords(_stores(session, location, unlocked_store))


def _stores(
    session: Session, location: Endpoint, open_store: Callable[[Endpoint, CancellationToken], Store]
) -> list[Callable[[], Store]]:
    """Return what opens the location, and the directory on this machine that stands in for it."""
    return [
        lambda: open_store(location, session.cancellation.child()),
        lambda: local_store(location.url),
    ]


_RETRY_SECONDS = 5.0
"""The file is written anew as often."""


def own_store(location: Endpoint, cancellation: CancellationToken) -> Store:
    """Return the location without the bandwidth limit, whose waits would make the file old."""
    return open_location(
        location.url,
        secrets=location.reveal(),
        retry_seconds=_RETRY_SECONDS,
        cancellation=cancellation,
    )


def unlocked_store(location: Endpoint, cancellation: CancellationToken) -> Store:
    """Return the same, unless the location could lock the file up. Raises ``MoveoutError``."""
    with suppress(NotAllowedError, UsageError):
        open_object_lock(location.url, secrets=location.reveal()).check_lock()
        raise MoveoutError(f"{location.shown} has Object Lock")
    return own_store(location, cancellation)
