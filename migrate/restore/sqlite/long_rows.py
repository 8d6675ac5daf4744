"""One row with long values into a table.

SQLite holds a value that is inserted three times: what is bound, its own copy, and the row as it is written. Values at
the end of a row need not be there at all. The row is made with zeros in their place, which take no memory. These are
overwritten in the file piece by piece (https://sqlite.org/c3ref/blob_open.html). Texts are blobs until then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from exporters.sqlite.catalog import SqliteTable
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.rows.long_rows import Cell
from exporters.sqlite.rows.value_text import RawText
from migrate.restore.sqlite.utf16 import codec_of, kept, literal

Names = Sequence[str | None]
"""Of columns; None is the rowid."""


def write_long(
    connection: sqlite3.Connection, table: SqliteTable, names: Names, cells: Sequence[Any]
) -> None:
    """Insert one row, within the caller's transaction."""
    long = {number for number, cell in enumerate(cells) if isinstance(cell, Cell)}
    if not (_is_plain(connection, table) and long == _at_the_end(cells, utf8=codec_of(connection) is None)):
        _write_whole(connection, table, names, cells)
        return
    connection.execute("SAVEPOINT long_row")
    try:
        _write_in_pieces(connection, table, names, cells, sorted(long))
    except sqlite3.OperationalError:  # a key is over one of them
        connection.execute("ROLLBACK TO long_row")
        _write_whole(connection, table, names, cells)
    connection.execute("RELEASE long_row")


def _is_plain(connection: sqlite3.Connection, table: SqliteTable) -> bool:
    """Tell whether rows have an address, and SQLite computes nothing of them."""
    query = "SELECT 1 FROM pragma_table_xinfo(?) WHERE hidden > 1"
    return bool(table.rowid) and connection.execute(query, (table.name,)).fetchone() is None


def _at_the_end(cells: Sequence[Any], *, utf8: bool) -> set[int]:
    """Return which long values have nothing but such, and NULL, behind them."""
    numbers = set()
    for number in range(len(cells) - 1, -1, -1):
        cell = cells[number]
        if isinstance(cell, Cell) and (cell.of is not str or utf8):
            numbers.add(number)
        elif cell is not None:
            break
    return numbers


def _write_in_pieces(
    connection: sqlite3.Connection,
    table: SqliteTable,
    names: Names,
    cells: Sequence[Any],
    long: Sequence[int],
) -> None:
    codec = codec_of(connection)
    some = [
        (cell.value.size_bytes, "zeroblob(?)") if isinstance(cell, Cell) else _bound(cell, codec)
        for cell in cells
    ]
    statement = f"{insert_into(table, names)} VALUES ({', '.join(expression for _, expression in some)})"
    rowid = connection.execute(statement, _values(some)).lastrowid or 0
    for number in long:
        with connection.blobopen(table.name, names[number] or "", rowid) as blob:
            for piece in cells[number].value.pieces():
                blob.write(piece)
    texts = [quote_name(names[number] or "") for number in long if cells[number].of is not bytes]
    if texts:
        casts = ", ".join(f"{name} = CAST({name} AS TEXT)" for name in texts)
        connection.execute(f"UPDATE {quote_name(table.name)} SET {casts} WHERE {table.rowid} = ?", (rowid,))


def _write_whole(
    connection: sqlite3.Connection, table: SqliteTable, names: Names, cells: Sequence[Any]
) -> None:
    codec = codec_of(connection)
    some = [_bound(cell, codec) for cell in cells]
    statement = (
        f"{insert_into(table, names)} SELECT {', '.join(expression for _, expression in some)} WHERE ?"
    )
    bound = _values(some)
    connection.execute(statement, [*bound, True])
    connection.execute(statement, [None] * len(bound) + [False])  # what is bound is kept until the next time


def _bound(cell: Any, codec: str | None) -> tuple[Any, str]:
    """Return what is bound for a value, and the expression for it. What is bound as bytes is UTF-8, whatever the
    database's encoding.
    """
    long, of = isinstance(cell, Cell), cell.of if isinstance(cell, Cell) else type(cell)
    value = _whole(cell) if long else cell
    as_text = of is RawText or (long and of is str)
    if codec is None or not (of is RawText or of is str):
        return value, "CAST(? AS TEXT)" if as_text else "?"
    value = RawText(value) if of is RawText else kept(value.decode() if long else value, codec)
    return value, literal(value) if type(value) is RawText else "?"


def _values(some: Sequence[tuple[Any, str]]) -> list[Any]:
    """Return what is bound; literals have nothing."""
    return [value for value, expression in some if "?" in expression]


def insert_into(table: SqliteTable, names: Names) -> str:
    """Return the statement up to the values."""
    columns = ", ".join(table.rowid if name is None else quote_name(name) for name in names)
    return f"INSERT INTO {quote_name(table.name)} ({columns})"


def _whole(cell: Cell) -> bytearray:
    """Return a value in one piece, for which there is room at once."""
    value = bytearray(cell.value.size_bytes)
    at = 0
    for piece in cell.value.pieces():
        value[at : at + len(piece)] = piece
        at += len(piece)
    return value
