"""The protocol of those who hear how far a long command is, and how it ended."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from migrate.errors import OK, IncompleteError
from migrate.progress.state import ProgressState


class Ending(Struct):
    """How the command ended."""

    exit_code: int | None = None
    error: str = ""
    next_step: str = "run the same command again: it continues"
    """What helps where it did not end by itself."""

    @property
    def words(self) -> str:
        """How the command ended, for people."""
        if self.exit_code is None:
            return self.error or "stopped"
        words = {OK: "done, complete", IncompleteError.exit_code: "done, with gaps"}
        return words.get(self.exit_code, f"ended with exit code {self.exit_code}")


class Listener(Protocol):
    """Somebody who hears how far a command is."""

    def look(self, state: ProgressState) -> None:
        """Take the present state; called every second."""
        ...

    def end(self, state: ProgressState, ending: Ending) -> None:
        """Take the last state."""
        ...
