"""How much a source is asked to bear, and where an exporter says what it is waiting for. A host may lend
these, it need not: then the defaults hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

LOCK_SECONDS = 60.0

Note = Callable[[str], None]
"""Tells the user one sentence; thread-safe."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_connections`` at once to one database (None: as many as the workers need, at least two). A
    statement ends after ``statement_seconds`` (0: never), waiting for a lock after ``lock_seconds``.
    """

    max_connections: int | None = None
    statement_seconds: float = 0.0
    lock_seconds: float = LOCK_SECONDS

    def beside(self, others: int, *, wanted: int) -> int:
        """Return how many of the ``wanted`` connections are allowed beside ``others``; at least one."""
        if self.max_connections is None:
            return max(1, wanted)
        return max(1, min(wanted, self.max_connections - others))


class Considerate(Protocol):
    """A host that sets limits and takes notes."""

    def limits(self) -> Limits:
        """Return what the user allows."""
        ...

    def note(self, message: str) -> None:
        """Tell the user one sentence."""
        ...


def limits_of(host: object) -> Limits:
    """Return the limits that a host sets, or the defaults."""
    return cast("Considerate", host).limits() if hasattr(host, "limits") else Limits()


def note_of(host: object) -> Note:
    """Return how to tell the user something; nobody listens where the host does not."""
    return cast("Considerate", host).note if hasattr(host, "note") else lambda _: None
