"""Bytes of texts and blobs, column by column: as they were exported, and as SQLite itself adds them up."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from operator import add

from exporters.sql.large_values.long_values import LONG_BYTES
from exporters.sqlite.catalog import SqliteTable, where
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.rows.long_rows import LongCells, between, octets, read_row, rowids
from exporters.sqlite.rows.row_batches import Batch


class Octets:
    """Adds up what is exported of ``columns`` columns."""

    def __init__(self, columns: int) -> None:
        self._sums = [0] * columns

    def add(self, batch: Batch | LongCells) -> None:
        """Take a batch of rows, or a long one."""
        sizes = (
            map(octets, batch.cells)
            if isinstance(batch, LongCells)
            else (column.octets for column in batch.columns)
        )
        for number, size in enumerate(sizes):
            self._sums[number] += size

    def by_name(self, names: Sequence[str]) -> dict[str, int]:
        """Return the sums by the names of the columns."""
        return dict(zip(names, self._sums, strict=True))


def count_octets(
    connection: sqlite3.Connection,
    table: SqliteTable,
    names: Sequence[str],
    bounds: tuple[int | None, int | None],
    *,
    largest_bytes: int,
) -> dict[str, int]:
    """Return the sums of a chunk by name, as SQLite computes them; none where text is not stored as it leaves.
    ``largest_bytes``: no row of the table is larger. Raises ``sqlite3.Error``.
    """
    if connection.execute("PRAGMA encoding").fetchone()[0] != "UTF-8":
        return {}
    long = rowids(connection, table, bounds) if largest_bytes > LONG_BYTES and table.rowid else []
    sums = [0] * len(names)
    for some in between(long, bounds):
        sums = list(map(add, sums, _summed(connection, table, some)))
    for rowid in long:
        sums = list(map(add, sums, map(octets, read_row(connection, table, rowid).cells)))
    return dict(zip(names, sums, strict=True))


def _summed(
    connection: sqlite3.Connection, table: SqliteTable, bounds: tuple[int | None, int | None]
) -> Sequence[int]:
    """No number is as great as the empty text, no text or blob less; ``+`` keeps a column's affinity out of that. The
    rowid is a number in each row.
    """
    sums = ", ".join(
        f"coalesce(sum(length(CAST({name} AS BLOB))) FILTER (WHERE +{name} COLLATE BINARY >= ''), 0)"
        for name in table.selected
        if name != table.rowid
    )
    if not sums:
        return [0]
    query = f"SELECT {sums} FROM {quote_name(table.name)} NOT INDEXED{where(table, bounds)}"
    sums_in_order = iter(connection.execute(query).fetchone())
    return [0 if name == table.rowid else int(next(sums_in_order)) for name in table.selected]
