"""What a kind of source must offer so that it can be held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from migrate.bundle.findings import Finding


@dataclass(frozen=True, slots=True)
class Change:
    """One setting of a source: how it was, and how the hold has it. Values are plain JSON.

    ``back`` is what an undo leads to: ``before``, except where the server has no way back to that. ``says`` is what
    will be done, in the source's own words (SQL, or a sentence); ``undo_says`` the same of the undo.
    """

    setting: str
    before: Any
    after: Any
    back: Any
    says: str
    undo_says: str


class SourceHold(Protocol):
    """One source, opened to be held. Methods raise errors of ``migrate.errors`` or ``exporters.errors``."""

    url: str
    """Without secrets."""

    def wanted(self) -> Sequence[Change]:
        """Return what has to change for the source to be held, in the order in which it has to; nothing where all is in
        force.
        """
        ...

    def read(self, setting: str) -> Any:
        """Return a setting as the source has it now."""
        ...

    def write(self, setting: str, value: Any) -> None:
        """Set it, as ``read`` returns it."""
        ...

    def same(self, setting: str, one: Any, other: Any) -> bool:
        """Tell whether two values of a setting mean the same: servers write them in other words."""
        ...

    def now(self) -> datetime:
        """Return the source's own clock."""
        ...

    def open_ways(self, since: datetime | None) -> Sequence[Finding]:
        """Return by what ways something may still be deleted or written although all settings are in force: asked and
        tried, not assumed. ``since``: when the settings were complete, None where nobody knows.
        """
        ...

    def close_ways(self, since: datetime) -> int:
        """End what was begun before and is not bound by the settings (sessions of a database); return how many."""
        ...

    def beyond(self) -> str:
        """Return whom else the hold would concern, "" for nobody: a sentence for whoever has to decide."""
        ...

    def limits(self) -> Sequence[str]:
        """Return sentences: what such a hold cannot do, and who stands above it."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...
