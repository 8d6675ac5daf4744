"""Bytes of texts and blobs, column by column: as they were exported, and as SQLite itself adds them up."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pyarrow.compute as pc

from exporters.sqlite.catalog import Table
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.rows import Batch
from exporters.sqlite.values import Column


class Octets:
    """Adds up what is exported of ``columns`` columns."""

    def __init__(self, columns: int) -> None:
        self._sums = [0] * columns

    def add(self, batch: Batch) -> None:
        """Take a batch of rows."""
        for number, column in enumerate(batch.columns):
            self._sums[number] += _sum(column)

    def by_name(self, names: Sequence[str]) -> dict[str, int]:
        """Return the sums by the names of the columns."""
        return dict(zip(names, self._sums, strict=True))


def _sum(column: Column) -> int:
    if column.array is not None:
        measured = column.of in {str, bytes}
        return (pc.sum(pc.binary_length(column.array)).as_py() or 0) if measured else 0
    values = column.values or ()
    return sum(
        len(value.encode() if isinstance(value, str) else value) for value in values if _is_bytes(value)
    )


def _is_bytes(value: object) -> bool:
    return isinstance(value, (str, bytes))


def count_octets(connection: sqlite3.Connection, table: Table, names: Sequence[str]) -> dict[str, int]:
    """Return the sums by name, as SQLite tells them; none where text is not stored as it leaves. Raises
    ``sqlite3.Error``.
    """
    if connection.execute("PRAGMA encoding").fetchone()[0] != "UTF-8":
        return {}
    sums = ", ".join(
        f"coalesce(sum(CASE WHEN typeof({name}) IN ('text', 'blob') THEN length(CAST({name} AS BLOB)) END), 0)"
        for name in table.selected
    )
    row = connection.execute(f"SELECT {sums} FROM {quote_name(table.name)} NOT INDEXED").fetchone()
    return dict(zip(names, map(int, row), strict=True))
