"""Bytes of texts and blobs, column by column: as they were exported, and as SQLite itself adds them up."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from exporters.sqlite.catalog import Table, where
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.rows import Batch


class Octets:
    """Adds up what is exported of ``columns`` columns."""

    def __init__(self, columns: int) -> None:
        self._sums = [0] * columns

    def add(self, batch: Batch) -> None:
        """Take a batch of rows."""
        for number, column in enumerate(batch.columns):
            self._sums[number] += column.octets

    def by_name(self, names: Sequence[str]) -> dict[str, int]:
        """Return the sums by the names of the columns."""
        return dict(zip(names, self._sums, strict=True))


def count_octets(
    connection: sqlite3.Connection, table: Table, names: Sequence[str], bounds: tuple[int | None, int | None]
) -> dict[str, int]:
    """Return the sums of a chunk by name, as SQLite tells them; none where text is not stored as it leaves. Raises
    ``sqlite3.Error``.

    No number is as great as the empty text, no text or blob less; ``+`` keeps a column's affinity out of that.
    """
    if connection.execute("PRAGMA encoding").fetchone()[0] != "UTF-8":
        return {}
    sums = ", ".join(
        f"coalesce(sum(CASE WHEN +{name} COLLATE BINARY >= '' THEN length(CAST({name} AS BLOB)) END), 0)"
        for name in table.selected
    )
    query = f"SELECT {sums} FROM {quote_name(table.name)} NOT INDEXED{where(table, bounds)}"
    return dict(zip(names, map(int, connection.execute(query).fetchone()), strict=True))
