"""One restore into one database: what the steps of it share."""

from __future__ import annotations

from functools import cached_property

from msgspec import field

from exporters.api import Loss
from migrate.bundle.catalog import CatalogRow
from migrate.restore.common.api import OpenRowPool
from migrate.restore.common.table_parts import PartFile
from migrate.restore.common.table_restore import DatabaseRestore
from migrate.restore.postgres.definitions.column_order import Orders
from migrate.restore.postgres.definitions.dump_script import Name
from migrate.restore.postgres.definitions.recorded_definitions import Definitions
from migrate.restore.postgres.destination import PostgresDestination
from migrate.restore.postgres.restore_state import PostgresState


def is_users_table(row: CatalogRow) -> bool:
    """Tell whether a row of the catalog is a table, and neither large objects nor an extension's."""
    return row.kind == "table" and bool(row.number) and not row.details.get("extension")


class PostgresRestore(DatabaseRestore, kw_only=True):
    """A restore into PostgreSQL. ``names``: the tables and materialized views that are meant, those above partitions
    included. The pool of ``open_pool`` copies the rows instead of threads.
    """

    destination: PostgresDestination
    names: frozenset[Name]
    open_pool: OpenRowPool | None = None
    portable: bool = False
    """Whether the objects are made without owners and privileges."""
    unread: dict[Name, str] = field(default_factory=dict)
    """Tables that the destination does not let be read, and why."""
    refused_parts: list[PartFile] = field(default_factory=list)
    """Rows to be tried again once there are indexes and constraints."""

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
        """The catalog's rows of the user's tables: neither large objects nor tables of extensions."""
        return list(filter(is_users_table, self.run.tables))

    @property
    def derived(self) -> set[Name]:
        """What the destination fills by itself: materialized views, and tables of extensions."""
        tables = [table for table in self.run.tables if table.details.get("extension")]
        return {table.key for table in (*self.run.views, *tables)}

    @property
    def orders(self) -> Orders:
        """In which order the tables have their columns at the source."""
        return {table.key: table.column_names for table in self.tables}

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
