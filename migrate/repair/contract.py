"""The contract of a destination whose rows are repaired. The engine's part ``row_repair`` names what opens it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from exporters.engine import LocatedRows
from migrate.repair.row_differences import RowChanges


class TableWriter(Protocol):
    """Writes changes to one table. No trigger and no foreign key acts on them."""

    def write(self, changes: RowChanges) -> str:
        """Remove and add rows in one transaction. Where the destination refuses what is added, the rows are removed all
        the same; return why, "" where all is written. Raises ``SourceError`` and errors of ``migrate.errors``.
        """
        ...


class RepairDestination(Protocol):
    """A live database whose rows are repaired, and how it was when it was opened. Methods raise ``SourceError``."""

    @property
    def rows(self) -> LocatedRows:
        """The rows as of the moment of opening."""
        ...

    def obstacle(self, schema: str, name: str) -> str:
        """Return why the rows of a table that is there cannot be repaired, "" where they can."""
        ...

    def writing(self, schema: str, name: str) -> AbstractContextManager[TableWriter]:
        """Open a table to be written. Raises ``NotAllowedError`` where its triggers cannot be kept from firing."""
        ...


class OpenRepair(Protocol):
    """Opens a destination. It locks out other repairs and restores."""

    def __call__(self, url: str, secrets: Mapping[str, str]) -> AbstractContextManager[RepairDestination]:
        """Connect, and take a snapshot. Raises ``SourceError``, ``BusyError``, ``NotAllowedError``."""
        ...
