"""The rows that the changes of a log name, by the keys that they had before and after each change."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

MOST_KEYS = 500_000
"""How many keys of a table are kept at most: about 75 MB."""
RowKey = tuple[bytes, ...]
"""The values of a row's key, as the log has them."""
_TableName = tuple[str, str]


class TouchedRows(Struct):
    """The rows of one table that some changes name: by the ``columns`` of their key, ``keys`` has its values before and
    after each change. ``reason``: why these are not all rows that have changed, "" where they are.
    """

    columns: tuple[str, ...] = ()
    keys: set[RowKey] = field(default_factory=set)
    reason: str = ""


class TouchedTables:
    """The rows of changes so far, by the (schema, name) of their table."""

    def __init__(self) -> None:
        self._tables: dict[_TableName, TouchedRows] = {}

    def define(self, name: _TableName, columns: tuple[str, ...]) -> None:
        """Say by which columns the next changes of a table name its rows; none where they do not."""
        rows = self._tables.setdefault(name, TouchedRows(columns))
        if rows.columns != columns:
            self.refuse(name, "its definition has changed")

    def is_refused(self, name: _TableName) -> bool:
        """Tell whether it is known already that not all rows of a table are."""
        return bool(self._tables[name].reason)

    def add(self, name: _TableName, key: RowKey) -> None:
        """Add a row, by the values of its key, as far as the log has them."""
        rows = self._tables[name]
        if rows.reason:
            return
        if not rows.columns:
            self.refuse(name, "the log does not name its rows by a key")
            return
        if len(key) < len(rows.columns):
            self.refuse(name, "the log lacks a value of a key")
            return
        rows.keys.add(key)
        if len(rows.keys) > MOST_KEYS:
            self.refuse(name, f"more than {MOST_KEYS:,} of its rows were written")

    def refuse(self, name: _TableName, reason: str) -> None:
        """Say why it is not known which rows of a table have changed. The first reason stays."""
        rows = self._tables.setdefault(name, TouchedRows())
        rows.reason = rows.reason or reason
        rows.keys.clear()

    def touched(self) -> Mapping[_TableName, TouchedRows]:
        """Return the tables that have changed."""
        return {name: rows for name, rows in self._tables.items() if rows.keys or rows.reason}
