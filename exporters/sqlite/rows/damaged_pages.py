"""Which rows of a table with damaged pages can be read: the stretches of rowids between the damage.

SQLite ends a query at the first page that makes no sense. A search for a greater rowid reaches the pages behind it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from exporters.sqlite.catalog import SqliteTable
from exporters.sqlite.errors import is_damage
from exporters.sqlite.identifiers import quote_name

_LEAST, _GREATEST = -(2**63), 2**63 - 1
_FINENESS = 16
"""The end of damage is searched for by steps of one such part of what is damaged so far: rows between damaged pages are
passed over only where they are fewer.
"""

Bounds = tuple[int | None, int | None]


class Stretch(Struct, frozen=True):
    """This many ``rows``, from the rowid ``first`` on, can be read one after the other."""

    first: int
    rows: int


class Readable(Struct, frozen=True):
    """What can be read of a table: ``holes`` are the first and the last rowid of each range that cannot. ``repeats``:
    its pages lead to some rows more than once.
    """

    stretches: Sequence[Stretch]
    holes: Sequence[tuple[int, int]]
    repeats: bool = False

    @property
    def rows(self) -> int:
        """How many rows can be read."""
        return sum(stretch.rows for stretch in self.stretches)

    def reasons(self) -> list[str]:
        """Say of each hole that it cannot be read, and that rows were there twice."""
        repeats = (
            ["its pages lead to some rows more than once, which are exported once"] if self.repeats else []
        )
        return repeats + [
            f"its rows from rowid {first} to {last}, if there are any, cannot be read"
            for first, last in self.holes
        ]


def readable(connection: sqlite3.Connection, table: SqliteTable, bounds: Bounds = (None, None)) -> Readable:
    """Read a chunk of a table that has rowids, value by value; return what can be read of it. Raises
    ``sqlite3.Error``.
    """
    values = " + ".join(
        f"coalesce(length(CAST({name} AS BLOB)), 0)" for name in (table.rowid, *table.selected)
    )
    query = (
        f"SELECT {table.rowid}, {values} FROM {quote_name(table.name)} NOT INDEXED"
        f" WHERE {table.rowid} >= ? ORDER BY {table.rowid}"
    )
    search = _Search(connection, query, _GREATEST if bounds[1] is None else bounds[1] - 1)
    return search.run(_LEAST if bounds[0] is None else bounds[0])


def disorder(connection: sqlite3.Connection, table: SqliteTable) -> list[str]:
    """Return what SQLite says of the pages of a table whose rowids are not among its columns, so that nothing else
    shows that they lead to some rows more than once. Raises ``sqlite3.Error``.
    """
    if table.rowid in table.selected:
        return []
    try:
        lines = connection.execute(f"PRAGMA quick_check({quote_name(table.name)})").fetchall()
    except sqlite3.OperationalError:  # a function that only the application has
        return []
    return [
        f"rows may be missing, or there more than once: {', '.join(line.splitlines()[1:])}"
        for (line,) in lines
        if line.startswith("*** in database")
    ]


class _Search:
    def __init__(self, connection: sqlite3.Connection, query: str, limit: int) -> None:
        self._connection = connection
        self._query = query
        self._limit = limit
        self._stretches: list[Stretch] = []
        self._holes: list[tuple[int, int]] = []
        self._repeats = False

    def run(self, start: int) -> Readable:
        while start <= self._limit:
            if self._is_damaged(start):
                end = self._end_of_damage(start)
                self._holes.append((start, end - 1))
                start = end
                continue
            rows, last = self._walk(start)
            if rows:
                self._stretches.append(Stretch(start, rows))
            elif last < start:
                self._holes.append((start, self._limit))
                break
            start = last + 1
        return Readable(self._stretches, self._holes, self._repeats)

    def _walk(self, start: int) -> tuple[int, int]:
        """Read rows from ``start`` on; return their number, and the last rowid up to which all is read. ``sqlite3``
        drops the row before one that it cannot read, so that one is asked for by itself.
        """
        rows, last = 0, start - 1
        try:
            for rowid, _ in self._connection.execute(self._query, (start,)):
                if rowid > self._limit:
                    break
                if rowid <= last:  # pages that point to those before them
                    self._repeats = True
                    return rows, self._pass_over(last)
                rows, last = rows + 1, rowid
        except sqlite3.DatabaseError as exc:
            if not is_damage(exc):
                raise
            row = None if self._is_damaged(last + 1) else self._first(last + 1)
            if row is None:
                return rows, last
            end = min(row[0], self._limit + 1)  # a greater one is of the next chunk
            if end > last + 1:  # a search may pass over what makes no sense
                self._holes.append((last + 1, end - 1))
            return rows + (row[0] <= self._limit), end
        return rows, self._limit

    def _pass_over(self, last: int) -> int:
        """Note what is missing between a row and the next greater one; return up to where all is read."""
        if self._is_damaged(last + 1):
            return last
        row = self._first(last + 1)
        end = self._limit if row is None else min(row[0] - 1, self._limit)
        if end > last:
            self._holes.append((last + 1, end))
        return end

    def _is_damaged(self, start: int) -> bool:
        """Tell whether the first row from ``start`` on cannot be read."""
        try:
            self._first(start)
        except sqlite3.DatabaseError as exc:
            if not is_damage(exc):
                raise
            return True
        return False

    def _first(self, start: int) -> tuple[int, int] | None:
        """Return the first row from ``start`` on, None where there is none, or an earlier one. Raises
        ``sqlite3.Error``.
        """
        row: tuple[int, int] | None = self._connection.execute(f"{self._query} LIMIT 1", (start,)).fetchone()
        return row if row and row[0] >= start else None

    def _end_of_damage(self, start: int) -> int:
        """Return the first rowid behind the damage at ``start``, by steps that grow, then by halves. Few tables have
        rowids below 1: the steps begin there, where the damage is at the beginning.
        """
        begin = damaged = max(start, min(1, self._limit)) if start == _LEAST else start
        while True:
            whole = min(damaged + max(1, (damaged - begin) // _FINENESS), self._limit + 1)
            if whole > self._limit or not self._is_damaged(whole):
                break
            damaged = whole
        while whole - damaged > 1:
            middle = (damaged + whole) // 2
            if self._is_damaged(middle):
                damaged = middle
            else:
                whole = middle
        return whole
