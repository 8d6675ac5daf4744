"""One restore into one file: what the steps of it share."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from exporters.sqlite.address import SqliteAddress
from exporters.sqlite.catalog import SchemaEntry
from exporters.sqlite.identifiers import SCHEMA, is_own
from migrate.bundle.catalog import CatalogRow
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.sqlite.definitions import SEQUENCE, Definitions, select_entries


class SqliteRestore(Struct, frozen=True):
    """A restore: what, and where to. ``counters``: the table of AUTOINCREMENT's counters, where only a part is
    selected; then SQLite's own tables are not among the run's.
    """

    run: TableRestore
    definitions: Definitions
    address: SqliteAddress
    counters: CatalogRow | None = None

    @staticmethod
    def of(
        run: TableRestore, definitions: Definitions, address: SqliteAddress, schema: str = SCHEMA
    ) -> SqliteRestore:
        """Return the job for one file. ``schema``: what the catalog calls it."""
        tables = [replace(table, schema=SCHEMA) for table in run.tables if table.schema == schema]
        if run.whole:
            return SqliteRestore(run.with_tables(tables), definitions, address)
        tables = [table for table in tables if not is_own(table.name)]
        return SqliteRestore(run.with_tables(tables), definitions, address, _counters(run, schema))

    @property
    def entries(self) -> Sequence[SchemaEntry]:
        """What is to be made."""
        entries = self.definitions.entries
        return select_entries(entries, self.names) if self.run.selection.is_part else entries

    @property
    def virtual(self) -> dict[str, str]:
        """By shadow table: the virtual table whose rows it holds."""
        every = ((table.name, table.details.get("shadow_of")) for table in self.run.tables)
        return {name: str(virtual) for name, virtual in every if virtual}

    @property
    def names(self) -> frozenset[str]:
        """The names of the selected tables."""
        return frozenset(table.name for table in self.run.tables)


def _counters(run: TableRestore, schema: str) -> CatalogRow | None:
    key = (run.source, schema, SEQUENCE)
    return next((row for row in run.reader.catalog() if (row.source, row.schema, row.name) == key), None)
