"""What a verb reports about its work while it runs. The command line shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Takes events from worker threads; every method is thread-safe and cheap."""

    def begin(self, what: str, *, items: int, size_bytes: int) -> None:
        """Start a stage (``export app``, ``transfer``) with its totals; 0 where unknown."""
        ...

    def grow(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Raise the totals of the stage, or lower them by negative numbers."""
        ...

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Report what has been done now."""
        ...

    def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Report what an earlier run has done already: counts as done, not in the rate."""
        ...

    def note(self, message: str) -> None:
        """Tell the user one sentence (a takeover, a retry that takes long, a gap)."""
        ...

    def end(self) -> None:
        """Finish the stage."""
        ...


class Silent:
    """A progress that nobody watches."""

    def begin(self, what: str, *, items: int, size_bytes: int) -> None:
        """Ignore."""

    def grow(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Ignore."""

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Ignore."""

    def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Ignore."""

    def note(self, message: str) -> None:
        """Ignore."""

    def end(self) -> None:
        """Ignore."""
