"""What a verb reports about its work while it runs. The command line shows it."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from migrate.errors import MoveoutError


class SourceTask(Struct, frozen=True):
    """Which source a task is for. ``share``: how much of the source's work in this stage it is, 0 to 1.
    ``counts_sent``: bytes count when a location has them, so those on the wire are to be shown besides.
    ``done_before``: how much of the source's work is done when the task begins, whichever tasks were needed for it.
    """

    source: str = ""
    share: float = 1.0
    counts_sent: bool = True
    done_before: float = 0.0


OF_NO_SOURCE = SourceTask()


class Progress(Protocol):
    """Takes events from worker threads; every method is thread-safe and cheap."""

    def begin(self, what: str, *, items: int, size_bytes: int, of: SourceTask = OF_NO_SOURCE) -> None:
        """Start a task (``export app``, ``transfer``) with its totals; 0 where unknown."""
        ...

    def grow(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Raise the totals of the task, or lower them by negative numbers."""
        ...

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Report what has been done now."""
        ...

    def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Report what an earlier run has done already: counts as done, not in the rate."""
        ...

    def count_gaps(self, count: int) -> None:
        """Report items that will be missing."""
        ...

    def note(self, message: str) -> None:
        """Tell the user one sentence (a takeover, a retry that takes long, a gap)."""
        ...

    def note_error(self, what: str, error: MoveoutError) -> None:
        """Tell the user what could not be done, and why."""
        ...

    def end(self, *, stopped: bool = False) -> None:
        """Finish the task. ``stopped``: it ended before all of it was done."""
        ...


class Silent:
    """A progress that nobody watches."""

    def begin(self, what: str, *, items: int, size_bytes: int, of: SourceTask = OF_NO_SOURCE) -> None:
        """Ignore."""

    def grow(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Ignore."""

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Ignore."""

    def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Ignore."""

    def count_gaps(self, count: int) -> None:
        """Ignore."""

    def note(self, message: str) -> None:
        """Ignore."""

    def note_error(self, what: str, error: MoveoutError) -> None:
        """Note it."""
        self.note(f"{what}: {error}")

    def end(self, *, stopped: bool = False) -> None:
        """Ignore."""
