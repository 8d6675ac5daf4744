"""The load that a source may be put under, and where an exporter reports what it is waiting for. A host may provide
these; otherwise the defaults hold.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, cast

from msgspec import Struct

LOCK_SECONDS = 60.0
GENTLE_CONNECTIONS = 3
"""One for the snapshot, one to read, one to see who blocks."""
ARCHIVE_TIERS = ("auto", "no", "Bulk", "Standard", "Expedited")
"""How archived objects are retrieved: by the deadline, not at all, or by one of S3's tiers, the cheapest first."""

Note = Callable[[str], None]
"""Shows the user one sentence; thread-safe."""


class Limits(Struct, frozen=True):
    """``gentle``: a database is read by short statements, with pauses that follow its load, where its engine can.
    ``max_connections`` at once to one database (None: as many as the workers need, at least two). A
    statement ends after ``statement_seconds`` (0: never), waiting for a lock after ``lock_seconds``. Archived objects
    are brought back by ``archive_tier`` (S3's name of it, ``auto``, or ``no``), if they can be by the ``deadline``.
    """

    max_connections: int | None = None
    statement_seconds: float = 0.0
    lock_seconds: float = LOCK_SECONDS
    archive_tier: str = "auto"
    deadline: datetime | None = None
    gentle: bool = False

    def allowed(self, reserved: int, *, requested: int) -> int:
        """Return how many of the ``requested`` connections are allowed when ``reserved`` are taken; at least one."""
        if self.max_connections is None:
            return max(1, requested)
        return max(1, min(requested, self.max_connections - reserved))


class SetsLimits(Protocol):
    """A host that sets limits and takes notes."""

    def limits(self) -> Limits:
        """Return what the user allows."""
        ...

    def note(self, message: str) -> None:
        """Show the user one sentence."""
        ...


class HasInventory(Protocol):
    """A host that has a report about its source."""

    def inventory(self) -> str | None:
        """Return its URL or path: of a bucket the ``manifest.json`` of an S3 Inventory."""
        ...


def limits_of(host: object) -> Limits:
    """Return the limits that a host sets, or the defaults."""
    return cast("SetsLimits", host).limits() if hasattr(host, "limits") else Limits()


def note_of(host: object) -> Note:
    """Return the function that shows the user a note; it does nothing where the host shows none."""
    return cast("SetsLimits", host).note if hasattr(host, "note") else lambda _: None


def inventory_of(host: object) -> str | None:
    """Return the URL or path of a report for a second count of a source's items, None where there is none."""
    return cast("HasInventory", host).inventory() if hasattr(host, "inventory") else None
