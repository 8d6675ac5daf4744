"""Rows into the destination, part by part, several parts a transaction where they are small.

**Long values.** SQLite holds a value that is inserted three times: what is bound, its own copy, and the row as it is
written. Values at the end of a row need not be there at all. The row is made with zeros in their place, which take no
memory. These are overwritten in the file piece by piece (https://sqlite.org/c3ref/blob_open.html). Texts are blobs
until then.

**UTF-16.** Python hands text over in UTF-8, and SQLite takes U+FFFE and U+FFFF for U+FFFD where it converts that
(src/utf.c, ``READ_UTF8``). A literal of bytes is taken as it is.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from typing import Any

from msgspec import Struct

from exporters.row_digest import Advance
from exporters.sqlite.catalog import SqliteTable, read_catalog
from exporters.sqlite.identifiers import SCHEMA, is_own, label, quote_name
from exporters.sqlite.part_reader import PartLong, read_part
from exporters.sqlite.rows.long_rows import Cell
from exporters.sqlite.rows.row_batches import UTF_16_CODECS
from exporters.sqlite.rows.value_text import RawText, SqliteColumn
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.restore.common.table_parts import (
    AttemptProgress,
    PartFile,
    WrittenRows,
    damage,
    missing_rows,
    parts_of,
    readable,
)
from migrate.restore.sqlite.application_functions import StandIns
from migrate.restore.sqlite.context import SqliteRestore
from migrate.restore.sqlite.definitions import set_definition, without_expressions, without_requirements
from migrate.restore.sqlite.destination import mark_done, read_done
from migrate.runtime.crash_points import durable

COMMIT_ROWS = 200_000
COMMIT_BYTES = 64 * 2**20
Names = Sequence[str | None]
"""Names of columns; None is the rowid."""
_CHANGED = re.compile("[\ufffe\uffff]")


def bring_rows(
    job: SqliteRestore, connection: sqlite3.Connection, stand_ins: StandIns
) -> tuple[WrittenRows, list[str]]:
    """Insert the parts that are not done, SQLite's own tables last: loading others changes them. Returns a finding for
    each part that cannot be read, too. Raises ``DamageError`` and ``sqlite3.Error``.
    """
    run = job.run
    connection.execute("PRAGMA ignore_check_constraints = ON")
    every = read_catalog(connection).tables
    tables = {table.name: table for table in every if table.name in job.names}
    stand_ins.lend_for_rows(tables.values())
    changed = _without_uncomputed(job, tables, stand_ins)
    for name, sql in changed.items():
        set_definition(connection, name, sql)
    entries = [entry for entry in job.entries if entry.type == "table" and entry.name in tables]
    definitions = {entry.name: entry.sql or "" for entry in entries}
    made = {**definitions, **changed} if run.selection.definitions else {}
    parts = parts_of(sorted(run.tables, key=lambda table: (is_own(table.name), table.number)))
    rows = run.begin_rows(parts, read_done(connection))
    damaged = _PartWriter(run.reader, connection, tables, made).write_all(rows.parts, rows.advance)
    written = rows.end()
    present = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
    for name in made or changed:
        if present.get(name) != definitions[name]:
            set_definition(connection, name, definitions[name])
    return written, damaged


def _without_uncomputed(
    job: SqliteRestore, tables: Mapping[str, SqliteTable], stand_ins: StandIns
) -> dict[str, str]:
    """Return definitions of the tables with virtual columns that could not be computed for some row at the source:
    without these expressions. SQLite computes them when it inserts, and refuses the row. Stand-ins compute the others.
    """
    exported = {row.name: set(row.column_names) for row in job.run.tables}
    computed = {name for names in stand_ins.needed_by.values() for name in names}
    definitions = {}
    for entry in job.entries:
        if entry.type == "table" and entry.name in (exported.keys() & tables.keys()) - computed:
            virtual = {column.name for column in tables[entry.name].columns if column.virtual}
            if uncomputed := virtual - exported[entry.name]:
                definitions[entry.name] = without_expressions(entry.sql or "", uncomputed)
    return definitions


class _PartWriter(Struct, frozen=True):
    """Inserts the parts of ``tables``. ``made``: the definitions of those that this restore has made; both by table."""

    reader: BundleReader
    connection: sqlite3.Connection
    tables: Mapping[str, SqliteTable]
    made: Mapping[str, str]

    def write_all(self, parts: Sequence[PartFile], advance: Advance) -> list[str]:
        """Insert every part and mark it as done in the same transaction; return findings about those that cannot be
        read, which are not marked: a later run tries them again.
        """
        connection = self.connection
        rows = size_bytes = 0
        damaged: list[str] = []
        connection.execute("BEGIN IMMEDIATE")
        for part in parts:
            if part.table.name not in self.tables:
                raise DamageError(part.key, expected=f"a definition of {part.table.name}", found="none")
            shown = AttemptProgress(advance)
            connection.execute("SAVEPOINT part")
            try:
                self._write(part, shown)
            except DamageError as exc:
                connection.execute("ROLLBACK TO part")
                shown.take_back()
                damaged.append(missing_rows(label(SCHEMA, part.table.name), part, exc))
            connection.execute("RELEASE part")
            rows += part.rows
            size_bytes += part.size_bytes
            if rows >= COMMIT_ROWS or size_bytes >= COMMIT_BYTES:
                with durable("restore.sqlite.rows"):
                    connection.execute("COMMIT")
                connection.execute("BEGIN IMMEDIATE")
                rows = size_bytes = 0
        with durable("restore.sqlite.last_rows"):
            connection.execute("COMMIT")
        return damaged

    def _write(self, part: PartFile, shown: AttemptProgress) -> None:
        """Insert a part. Where its table refuses a row, it gets a definition that requires less, if this restore has
        made it; rows that are refused even so, as the second of one key, are left out.
        """
        connection, name, refused = self.connection, part.table.name, list[str]()
        # SQLite's own tables and the shadows of virtual ones are not empty even where nothing was inserted
        if part.first and (is_own(name) or part.table.details.get("shadow_of")):
            connection.execute(f"DELETE FROM {quote_name(name)}")
        connection.execute("SAVEPOINT rows_of_part")
        try:
            self._insert(part, shown)
        except sqlite3.IntegrityError:
            connection.execute("ROLLBACK TO rows_of_part")
            shown.take_back()
            if made_by := self.made.get(name):
                set_definition(connection, name, without_requirements(made_by))
            self._insert(part, shown, refused)
        connection.execute("RELEASE rows_of_part")
        sentence = f"{label(SCHEMA, name)}: {len(refused)} of {part.rows} rows in {part.key} were refused: "
        mark_done(connection, part.name, sentence + refused[0] if refused else None)

    def _insert(self, part: PartFile, shown: AttemptProgress, refused: list[str] | None = None) -> None:
        """Insert the rows of a part. With ``refused``, that gets the reason of each that SQLite does not take."""
        connection, table = self.connection, self.tables[part.table.name]
        there = {column.name.lower() for column in table.columns}
        with self.reader.open(part.key) as file:
            for rows in readable(part, read_part(file)):
                is_stored = [not generated for generated in rows.shown.generated]
                names = list(compress(rows.shown.names, is_stored))
                if unknown := [name for name in names if name is not None and name.lower() not in there]:
                    raise damage(
                        part, ValueError(f"{label(SCHEMA, table.name)} has no column {unknown[0]!r}")
                    )
                if isinstance(rows, PartLong):
                    cells = list(compress(rows.row.cells, is_stored))
                    with _refusing(connection, refused):
                        write_long(connection, table, names, cells)
                else:
                    columns = list(compress(rows.columns, is_stored))
                    try:
                        insert_rows(connection, table, names, columns, refused)
                    except (
                        sqlite3.InterfaceError,
                        sqlite3.ProgrammingError,
                        ValueError,
                        OverflowError,
                    ) as exc:
                        raise damage(part, exc) from exc  # values of a type that SQLite does not have
                shown.add(part, rows.rows)


@contextmanager
def _refusing(connection: sqlite3.Connection, refused: list[str] | None) -> Iterator[None]:
    """Write a row; with ``refused``, that gets the reason where SQLite does not take it."""
    if refused is None:
        yield
        return
    connection.execute("SAVEPOINT refused_row")
    try:
        yield
    except sqlite3.IntegrityError as exc:
        connection.execute("ROLLBACK TO refused_row")
        refused.append(str(exc))
    connection.execute("RELEASE refused_row")


def insert_rows(
    connection: sqlite3.Connection,
    table: SqliteTable,
    names: Names,
    columns: Sequence[SqliteColumn],
    refused: list[str] | None = None,
) -> None:
    """Insert rows, given by columns: by one statement for all, or, where text is not valid, by one each; so, too, with
    ``refused``, that gets the reason of each row that SQLite does not take.
    """
    codec = codec_of(connection)
    values = [column.to_list() for column in columns]
    if codec is not None:
        values = [[kept(value, codec) for value in column] for column in values]
    rows = zip(*values, strict=True)
    if refused is not None or any(RawText in map(type, column) for column in values):
        for row in rows:
            bound = [value for value in row if type(value) is not RawText]
            with _refusing(connection, refused):
                connection.execute(_insert(table, names, row), bound)
    else:
        connection.executemany(_insert(table, names, [None] * len(names)), rows)


def _insert(table: SqliteTable, names: Names, row: Sequence[Any]) -> str:
    """Return the statement. Text that is not valid stands in it as a literal."""
    values = ", ".join(literal(value) if type(value) is RawText else "?" for value in row)
    return f"{insert_into(table, names)} VALUES ({values})"


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
    """Return what is bound for a value, and the expression for it. Bytes are UTF-8 in every database."""
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
    """Return the statement up to the values. ABORT overrides what a table does at a conflict: IGNORE, or REPLACE."""
    columns = ", ".join(table.rowid if name is None else quote_name(name) for name in names)
    return f"INSERT OR ABORT INTO {quote_name(table.name)} ({columns})"


def _whole(cell: Cell) -> bytearray:
    """Return a value in one piece, for which there is room at once."""
    value = bytearray(cell.value.size_bytes)
    at = 0
    for piece in cell.value.pieces():
        value[at : at + len(piece)] = piece
        at += len(piece)
    return value


def codec_of(connection: sqlite3.Connection) -> str | None:
    """Return Python's name of the database's encoding, None where that is UTF-8."""
    return UTF_16_CODECS.get(connection.execute("PRAGMA encoding").fetchone()[0])


def kept(value: Any, codec: str) -> Any:
    """Return a value; text that SQLite would change as its bytes."""
    if type(value) is str and _CHANGED.search(value):
        return RawText(value.encode(codec))
    return value


def literal(value: RawText) -> str:
    """Return bytes as an expression for text: only in a literal SQLite takes them to be in the database's encoding."""
    return f"CAST(x'{value.hex()}' AS TEXT)"
