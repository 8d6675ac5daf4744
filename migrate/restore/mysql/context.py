"""One restore into one database: what the steps of it share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from msgspec import field

from exporters.api import Loss
from migrate.bundle.catalog import CatalogRow
from migrate.restore.common.left_out import loss_sentence
from migrate.restore.common.table_parts import PartFile
from migrate.restore.common.table_restore import DatabaseRestore
from migrate.restore.mysql.definitions.dialect import Adapter
from migrate.restore.mysql.definitions.object_maker import ObjectMaker
from migrate.restore.mysql.destination import MysqlDestination
from migrate.restore.mysql.restore_state import Refused
from migrate.restore.mysql.rows.insert_statements import RowTooLargeError
from migrate.restore.mysql.rows.system_versioning import history_of


class MysqlRestore(DatabaseRestore, kw_only=True):
    """A restore into MySQL or MariaDB. ``adapter``: where the destination is of the other flavour. ``absent`` and
    ``refused``: the tables and rows that the destination refuses.
    """

    destination: MysqlDestination
    adapter: Adapter | None
    absent: set[str] = field(default_factory=set)
    refused: list[Refused] = field(default_factory=list)
    too_large: set[tuple[str, str]] = field(default_factory=set)
    """Schema and name of the tables with rows above the server's max_allowed_packet: a later run tries them again."""
    refusals: list[str] = field(default_factory=list)
    """Definitions and rows that the destination refuses: not marked as done, so a later run tries them again."""
    needed: set[str] = field(default_factory=set)
    """The databases that those may need."""
    paused_events: list[str] = field(default_factory=list)
    """The events that run at the source, and here only once the destination is in use."""
    recorded: set[str | Loss] = field(default_factory=set)
    """What of ``notes``, ``left_out`` and ``losses`` stands in the destination, or is not to stand there."""

    @cached_property
    def object_maker(self) -> ObjectMaker:
        """Makes the objects."""
        return ObjectMaker(self.destination.connection, self.notes, self.left_out)

    def note_too_large(self, parts: Sequence[tuple[PartFile, RowTooLargeError]]) -> None:
        """Note parts with rows that the server does not take before its max_allowed_packet is raised."""
        for part, error in sorted(parts, key=lambda entry: entry[0].name):
            self.too_large.add(part.table.key)
            self.refusals.append(f"rows of {error}")
        if parts:
            error = max((error for _, error in parts), key=lambda error: error.size_bytes)
            self.notes.append(f"the restore is not finished: {error.next_step}, which restores the rest")

    @property
    def waiting(self) -> set[tuple[str, str]]:
        """The tables of which a later run of the same restore writes the rest."""
        return self.damaged.keys() | self.too_large

    def note_loss(self, loss: Loss) -> None:
        """Note that something is there, but not as at the source."""
        self.losses.append(loss)
        self.left_out.append(loss_sentence(loss))

    @property
    def is_followed(self) -> bool:
        """Whether changes of the source come after this restore of all its rows."""
        return self.has_all_rows and self.run.reader.changes(self.run.source) is not None

    @property
    def reduced(self) -> list[CatalogRow]:
        """The tables of which the destination can only hold the rows that hold still."""
        takes = self.destination.connection.takes_history
        return [table for table in self.run.tables if history_of(table) and not takes]
