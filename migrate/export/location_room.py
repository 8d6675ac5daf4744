"""Room at the location of a bundle: a reserve, so that what was exported can be sealed where the location is full."""

from __future__ import annotations

from concurrent.futures import Executor, Future, wait
from contextlib import suppress

from exporters.errors import SourceError
from migrate.bundle import layout
from migrate.errors import MoveoutError, NoSpaceError
from migrate.number_text import bytes_words
from migrate.storage.api import MultipartStore

RESERVE_BYTES = 16 * 2**20
_BYTES_A_UNIT = 1024
"""A unit has a file or more, and a file a line in each of two lists."""


def _needed_bytes(units: int) -> int:
    """Return how much the seal of so many units needs at most."""
    return RESERVE_BYTES + units * _BYTES_A_UNIT


class LocationFullError(SourceError, NoSpaceError):
    """A source was not read to its end, because the bundle's location is full."""

    exit_code = NoSpaceError.exit_code
    code = "location-full"


class LocationRoom:
    """The reserve of one export, and whether the location is full. No reserve is kept where the location does not say
    how much is free. ``executor`` writes it: a disk takes longer for it than for a small export.
    """

    def __init__(self, store: MultipartStore, executor: Executor) -> None:
        self._store = store
        self._executor = executor
        self._reserved_bytes = 0
        self._keeping: Future[None] | None = None
        self._full: NoSpaceError | None = None

    def keep(self, units: int) -> None:
        """Begin to keep a reserve for the seal of so many units; a larger one only where twice as much is needed."""
        needed = _needed_bytes(units)
        if self._full is not None or needed < 2 * self._reserved_bytes:
            return
        self._reserved_bytes = needed
        if self._keeping is not None:
            wait([self._keeping])
        self._keeping = self._executor.submit(self._keep, needed)

    def _keep(self, size_bytes: int) -> None:
        with suppress(MoveoutError):
            self._delete()
            self._store.keep_room(layout.RESERVE, size_bytes)

    def release(self) -> None:
        """Give the reserve back: what belongs to the seal is written from now on."""
        if self._keeping is not None:
            wait([self._keeping])
        self._delete()

    def _delete(self) -> None:
        if self._store.free_bytes() is not None:
            self._store.delete(layout.RESERVE)

    def as_source_error(self, source: str, error: SourceError | NoSpaceError) -> SourceError:
        """Return why a source is not read any more. Where the location is full, note that, and release the reserve."""
        if isinstance(error, SourceError):
            return error
        self._full = self._full or error
        self.release()
        return self._error(source, self._full)

    def check(self, source: str) -> None:
        """Raise ``LocationFullError`` where the location is full: ``source`` need not be begun."""
        if self._full is not None:
            raise self._error(source, self._full)

    def seal_error(self, error: NoSpaceError, units: int) -> NoSpaceError:
        """Return why a bundle of so many units could not be sealed: the location is too small for it, for even what was
        kept for the seal was not enough.
        """
        free, needed = self._store.free_bytes(), bytes_words(_needed_bytes(units))
        left = "" if free is None else f" ({bytes_words(free)} left)"
        return NoSpaceError(
            f"{self._store.location} is too small: what was exported lies there, but there is no room for the"
            f" manifests and reports that seal it{left}: {error}",
            next_step=f"make room there, {needed} are enough, then run the same command again: it continues",
        )

    @staticmethod
    def _error(source: str, error: NoSpaceError) -> LocationFullError:
        return LocationFullError(
            f"the location is full, so {source} was not read to its end: {error}", next_step=error.next_step
        )
