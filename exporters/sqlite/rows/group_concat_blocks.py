"""Rows in blocks that SQLite itself puts together: no value becomes a Python object, and other threads run meanwhile.

A block is one row of aggregates over some thousand rows, in the order of their rowids. Of a column of integers it has
the digits, a line each; of texts and blobs the bytes one after the other, and their lengths. A value of another class
than the column's is a line that is no number. Reals are fetched one by one: no text that SQLite makes of them is sure
to hold all their bits. So are columns in which another class turns up.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from msgspec import Struct

from exporters import arrow_functions as pc
from exporters.sqlite.catalog import SqliteTable
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.rows.value_text import ARROW, SqliteColumn, to_text

Bounds = tuple[int | None, int | None]
_FIRST, _LAST = -(2**63), 2**63 - 1
"""The least and the greatest rowid there can be."""
_MOST_AGGREGATES = 1000

_row_by_row = threading.Lock()
"""Two threads that fetch rows hand the interpreter's lock over at every row, which costs more than the rows."""


class _MixedError(Exception):
    """The values of a column are not all of the class that was expected."""


class _ColumnReader(Struct, frozen=True):
    """How a column of one class is read. ``aggregates`` of ``{}``, its name; ``array`` makes of their values, and the
    number of rows, its values. Raises ``_MixedError``, ``pa.ArrowInvalid``.
    """

    aggregates: tuple[str, ...]
    array: Callable[[Sequence[Any], int], pa.Array]


def _integers(values: Sequence[Any], rows: int) -> pa.Array:
    """Return integers, a line each, empty for NULL."""
    lines = (values[0] or b"").decode()
    texts = pc.split_pattern(pa.array([lines]), "\n").values
    if len(texts) != rows:
        raise _MixedError
    if "\n\n" in f"\n{lines}\n":
        texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    return texts.cast(pa.int64())


def _strings(values: Sequence[Any], rows: int, *, of: type) -> pa.Array:
    """Return texts or blobs, of the bytes of all and of their lengths."""
    data = values[0] or b""
    sizes = _integers(values[1:], rows)
    ends = pc.cumulative_sum(pc.fill_null(sizes, 0))
    if ends[-1].as_py() != len(data):
        raise _MixedError
    starts = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
    valid = pc.is_valid(sizes).buffers()[1] if sizes.null_count else None
    buffers = [valid, starts.buffers()[1], pa.py_buffer(data)]
    strings = pa.Array.from_buffers(ARROW[of], rows, buffers, sizes.null_count)
    strings.validate(full=True)
    return strings


def _lines(of: str, value: str) -> str:
    """Return the aggregate with a value of each row on a line, where its column is of a class."""
    lines = f"CASE typeof({{0}}) WHEN '{of}' THEN {value} WHEN 'null' THEN '' ELSE 'mixed' END"
    return f"group_concat({lines}, '\n')"


_BYTES = "group_concat({0}, '')"
_LENGTH = "length(CAST({0} AS BLOB))"
_WAYS: Mapping[type, _ColumnReader] = {
    int: _ColumnReader((_lines("integer", "{0}"),), _integers),
    str: _ColumnReader((_BYTES, _lines("text", _LENGTH)), partial(_strings, of=str)),
    bytes: _ColumnReader((_BYTES, _lines("blob", _LENGTH)), partial(_strings, of=bytes)),
}


class Blocks:
    """Reads a table that has rowids, of a database in UTF-8. ``classes``: what the values of every selected column are
    expected to be.
    """

    def __init__(self, connection: sqlite3.Connection, table: SqliteTable, classes: Sequence[type]) -> None:
        self._connection = connection
        self._table = table
        self._ways = {i: _WAYS[of] for i, of in enumerate(classes) if of in _WAYS}
        self._classes = classes

    @property
    def worthwhile(self) -> bool:
        """Whether there are columns to be read in this way, and not too many of them."""
        return 0 < sum(len(way.aggregates) for way in self._ways.values()) < _MOST_AGGREGATES

    def read(self, bounds: Bounds, most: int) -> Iterator[tuple[SqliteColumn, ...]]:
        """Yield the columns of up to ``most`` rows at once. Raises ``sqlite3.Error``."""
        first = _FIRST if bounds[0] is None else bounds[0]
        last = _LAST if bounds[1] is None else bounds[1] - 1
        while first <= last:
            end = self._end(first, last, most)
            rows, *values = self._aggregated(first, end)
            if not rows:
                return
            columns = self._made(values, rows)
            if missing := [i for i in range(len(self._classes)) if i not in columns]:
                columns |= self._fetched(first, end, missing)
            yield tuple(columns[i] for i in range(len(self._classes)))
            first = end + 1

    def _end(self, first: int, last: int, most: int) -> int:
        """Return the rowid of the ``most``-th row, or the last one of the range."""
        query = f"SELECT {self._table.rowid} {self._rows()} ORDER BY 1 LIMIT 1 OFFSET {most - 1}"
        row = self._connection.execute(query, (first, last)).fetchone()
        return int(row[0]) if row else last

    def _aggregated(self, first: int, last: int) -> Sequence[Any]:
        aggregates = [
            aggregate.format(self._table.selected[i])
            for i, way in self._ways.items()
            for aggregate in way.aggregates
        ]
        query = f"SELECT {', '.join(['count(*)', *aggregates])} {self._rows()}"
        self._connection.text_factory = bytes
        row: Sequence[Any] = self._connection.execute(query, (first, last)).fetchone()
        return row

    def _rows(self) -> str:
        return f"FROM {quote_name(self._table.name)} NOT INDEXED WHERE {self._table.rowid} BETWEEN ? AND ?"

    def _made(self, values: Sequence[Any], rows: int) -> dict[int, SqliteColumn]:
        """Return the columns by position; those of mixed classes are not read in this way any more."""
        columns: dict[int, SqliteColumn] = {}
        start = 0
        for i, way in list(self._ways.items()):
            end = start + len(way.aggregates)
            try:
                columns[i] = SqliteColumn.of_array(self._classes[i], way.array(values[start:end], rows))
            except (_MixedError, pa.ArrowInvalid):
                del self._ways[i]
            start = end
        return columns

    def _fetched(self, first: int, last: int, positions: Sequence[int]) -> dict[int, SqliteColumn]:
        names = ", ".join(self._table.selected[i] for i in positions)
        query = f"SELECT {names} {self._rows()} ORDER BY {self._table.rowid}"
        self._connection.text_factory = to_text
        with _row_by_row:
            rows = self._connection.execute(query, (first, last)).fetchall()
        return {i: SqliteColumn.of_values([row[n] for row in rows]) for n, i in enumerate(positions)}
