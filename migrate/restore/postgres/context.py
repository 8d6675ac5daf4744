"""One restore into one database: what the steps of it share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from msgspec import Struct, field

from exporters.api import Loss
from exporters.postgres.identifiers import quote_qualified
from migrate.bundle.catalog import CatalogRow
from migrate.errors import DamageError
from migrate.restore.common.api import OpenRowPool
from migrate.restore.common.selection import Selection
from migrate.restore.common.table_parts import REPAIR, PartFile, missing_rows
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.postgres.definitions.column_order import Orders
from migrate.restore.postgres.definitions.dump_script import Name
from migrate.restore.postgres.definitions.recorded_definitions import Definitions
from migrate.restore.postgres.destination import PostgresDestination
from migrate.restore.postgres.restore_state import PostgresState


def is_users_table(row: CatalogRow) -> bool:
    """Tell whether a row of the catalog is a table, and neither large objects nor an extension's."""
    return row.kind == "table" and bool(row.number) and not row.details.get("extension")


class PostgresRestore(Struct, dict=True):
    """A restore, and where to. ``names``: the tables and materialized views that are meant, those above partitions
    included. ``merge``: others may use the database. The pool of ``open_pool`` copies the rows instead of threads. All
    else is filled on the way.
    """

    run: TableRestore
    destination: PostgresDestination
    names: frozenset[Name]
    merge: bool = False
    open_pool: OpenRowPool | None = None
    portable: bool = False
    """Whether the objects are made without owners and privileges."""
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    passwordless: list[str] = field(default_factory=list)
    """The roles that were made and need a password."""
    damaged: dict[Name, list[str]] = field(default_factory=dict)
    """By table, the rows that could not be read."""
    unread: dict[Name, str] = field(default_factory=dict)
    """Tables that the destination does not let be read, and why."""
    refused_parts: list[PartFile] = field(default_factory=list)
    """Rows to be tried again once there are indexes and constraints."""

    @property
    def selection(self) -> Selection:
        """Which part is restored."""
        return self.run.selection

    @property
    def alone(self) -> bool:
        """Whether the database holds nothing else."""
        return self.run.whole and not self.merge

    @property
    def defined(self) -> frozenset[Name]:
        """The tables whose definitions are made: where only what was left out is, that names each of them itself."""
        return frozenset() if self.selection.left_out else self.names

    @property
    def state(self) -> PostgresState:
        """What is written into the destination to recognise this restore."""
        return PostgresState(self.run.reader.info.id, self.run.source, self.selection.words(), self.portable)

    @property
    def followed_from(self) -> int | None:
        """The position of the snapshot in the source's log; None where its changes are not followed."""
        base = self.run.reader.changes(self.run.source)
        return base.position if base else None

    @property
    def tables(self) -> list[CatalogRow]:
        """Of the catalog's rows those that are the user's tables: neither large objects nor of extensions."""
        return list(filter(is_users_table, self.run.tables))

    @property
    def derived(self) -> set[Name]:
        """What the destination fills by itself: materialized views, and tables of extensions."""
        tables = [table for table in self.run.tables if table.details.get("extension")]
        return {table.key for table in (*self.run.views, *tables)}

    @property
    def orders(self) -> Orders:
        """In which order the tables have their columns at the source."""
        return {table.key: [column["name"] for column in table.details["columns"]] for table in self.tables}

    def note_damage(self, damaged: Sequence[tuple[PartFile, DamageError]]) -> None:
        """Note parts that cannot be read."""
        for part, error in sorted(damaged, key=lambda entry: entry[0].name):
            name = part.table.key
            self.damaged.setdefault(name, []).append(missing_rows(quote_qualified(*name), part, error))
        self.notes.extend([REPAIR] if damaged and REPAIR not in self.notes else [])

    def note_loss(self, loss: Loss) -> None:
        """Note rows or values that are lost."""
        self.losses.append(loss)
        what = "rows" if loss.property == "rows" else "values"
        self.left_out.append(f"the {what} of {loss.item}: {loss.reason}")

    def section(self, name: str) -> bytes:
        """Return the SQL of ``pre-data`` or ``post-data``."""
        return self.definitions.section(name, portable=self.portable)

    @cached_property
    def definitions(self) -> Definitions:
        """The definitions, read from the bundle once."""
        return Definitions.read(self.run.reader, self.run.source)
