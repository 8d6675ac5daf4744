"""The one comparison of a bundle's tables with tables that were read elsewhere: rows and digests of the catalog against
those of a database, or of Parquet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from exporters.row_digest import RowsDigest, to_hex
from migrate.bundle.catalog import CatalogRow

TableName = tuple[str, str]
"""Schema and name."""

_HEX = re.compile(r"[0-9a-f]{32}")


class TableDigest(Struct, frozen=True):
    """Rows and digest of one table, wherever they were read. ``digest`` as in the catalog: 32 hex digits."""

    source: str
    schema: str
    name: str
    rows: int
    digest: str

    def as_json(self) -> dict[str, Any]:
        """Return it as reports have it."""
        return {
            "source": self.source,
            "schema": self.schema,
            "name": self.name,
            "rows": self.rows,
            "digest": self.digest,
        }


class TableDifference(Struct, frozen=True):
    """A table whose rows are not those of the catalog. ``expected`` and ``found`` are numbers of rows, or digests."""

    table: CatalogRow
    what: Literal["missing", "rows", "digest"]
    expected: str
    found: str

    @property
    def name(self) -> TableName:
        """Schema and name of the table."""
        return self.table.key

    @property
    def is_short(self) -> bool:
        """Whether the table is missing, or has fewer rows."""
        return self.what == "missing" or (self.what == "rows" and int(self.found) < int(self.expected))


def compare_tables(
    tables: Sequence[CatalogRow], live: Mapping[TableName, RowsDigest]
) -> list[TableDifference]:
    """Return the tables of a bundle whose rows are not the same in ``live``, in order.

    Rows that lie in another partition of the same table are no difference. Where a row lies may depend on what differs
    between two servers. The hash of an enum is that of its label's object number, and the order of texts is that of the
    operating system.
    """
    differences = [
        difference
        for table in tables
        if (difference := compare_table(table, live.get(table.key))) is not None
    ]
    moved_names = _moved_within_their_table(tables, differences, live)
    return [difference for difference in differences if difference.name not in moved_names]


def compare_table(table: CatalogRow, digest: RowsDigest | None) -> TableDifference | None:
    """Compare one table with what was read of it, None for nothing."""
    if digest is None:
        return TableDifference(table, "missing", str(table.items), "")
    if digest.rows != table.items:
        return TableDifference(table, "rows", str(table.items), str(digest.rows))
    if (actual_digest := to_hex(digest.digest)) != table.digest:
        return TableDifference(table, "digest", table.digest, actual_digest)
    return None


def digests_of(source: str, digests: Mapping[TableName, RowsDigest]) -> tuple[TableDigest, ...]:
    """Return the digests of a database's tables, in order."""
    return tuple(
        TableDigest(source, schema, name, digest.rows, to_hex(digest.digest))
        for (schema, name), digest in sorted(digests.items())
    )


def _moved_within_their_table(
    tables: Sequence[CatalogRow], differences: Sequence[TableDifference], live: Mapping[TableName, RowsDigest]
) -> set[TableName]:
    """Return the partitions that differ, while their partitioned table as a whole holds the same rows."""
    differing = {difference.name for difference in differences if difference.what != "missing"}
    families: dict[TableName, list[CatalogRow]] = {}
    for table in tables:
        if (above := table.details.get("ancestors")) and _HEX.fullmatch(table.digest):
            families.setdefault((str(above[-1][0]), str(above[-1][1])), []).append(table)
    return {
        table.key
        for family in families.values()
        if _catalog_sum(family) == _live_sum(family, live)
        for table in family
        if table.key in differing
    }


def _catalog_sum(family: Sequence[CatalogRow]) -> RowsDigest:
    return sum((RowsDigest(table.items, int(table.digest, 16)) for table in family), RowsDigest())


def _live_sum(family: Sequence[CatalogRow], live: Mapping[TableName, RowsDigest]) -> RowsDigest:
    return sum((live.get(table.key, RowsDigest()) for table in family), RowsDigest())
