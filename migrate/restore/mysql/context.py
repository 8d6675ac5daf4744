"""One restore into one database: what the steps of it share."""

from __future__ import annotations

from functools import cached_property

from msgspec import Struct, field

from exporters.api import Loss
from migrate.bundle.catalog import CatalogRow
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.mysql.definitions.dialect import Adapter
from migrate.restore.mysql.definitions.object_maker import ObjectMaker
from migrate.restore.mysql.destination import MysqlDestination
from migrate.restore.mysql.restore_state import Refused
from migrate.restore.mysql.rows.system_versioning import history_of


class MysqlRestore(Struct, frozen=True, dict=True):
    """A restore, and where to. ``adapter``: where the destination is of the other flavour. ``merge``: others may use
    the database. ``notes``, ``left_out`` and ``losses`` are filled on the way, and ``absent`` and ``refused``: the
    tables and rows that the destination refuses.
    """

    run: TableRestore
    destination: MysqlDestination
    adapter: Adapter | None
    merge: bool = False
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)
    refused: list[Refused] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    """Definitions that the destination refuses: not marked as done, so a later run tries them again."""
    needed: set[str] = field(default_factory=set)
    """The databases that those may need."""
    passwordless: list[str] = field(default_factory=list)
    """The accounts that were made, and are locked until they get a password."""
    damaged: dict[str, list[str]] = field(default_factory=dict)
    """By table, the rows that could not be read."""
    paused_events: list[str] = field(default_factory=list)
    """The events that run at the source, and here only once the destination is in use."""
    recorded: set[str | Loss] = field(default_factory=set)
    """What of ``notes``, ``left_out`` and ``losses`` stands in the destination."""

    @cached_property
    def object_maker(self) -> ObjectMaker:
        """Makes the objects."""
        return ObjectMaker(self.destination.connection, self.notes, self.left_out)

    @property
    def alone(self) -> bool:
        """Whether the database holds nothing else."""
        return self.run.whole and not self.merge

    @property
    def is_followed(self) -> bool:
        """Whether changes of the source come after this restore of all its rows."""
        selection = self.run.selection
        is_whole = selection.rows and (selection.left_out or not selection.is_part)
        return is_whole and self.run.reader.changes(self.run.source) is not None

    @property
    def reduced(self) -> list[CatalogRow]:
        """The tables of which the destination can only hold the rows that hold still."""
        takes = self.destination.connection.takes_history
        return [table for table in self.run.tables if history_of(table) and not takes]
