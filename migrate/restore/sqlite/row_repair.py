"""Repairs rows of a SQLite database: all of a table in one transaction, its triggers dropped and made again in it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from exporters.sqlite.address import SqliteAddress, parse_url
from exporters.sqlite.catalog import SqliteTable
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.live_rows import SqliteRows, live_rows
from exporters.sqlite.rows.value_text import RawText, SqliteColumn, values_of_text
from migrate.errors import BusyError
from migrate.repair.row_differences import LocatedRow, RowChanges
from migrate.restore.sqlite.application_functions import StandIns
from migrate.restore.sqlite.destination import LOCK_SECONDS, open_destination, translated
from migrate.restore.sqlite.load_rows import codec_of, insert_rows, kept, literal
from migrate.runtime.crash_points import durable

_LOCK_PAUSE_SECONDS = 0.1
_TRIGGERS = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE ORDER BY rowid"


class SqliteRepair:
    """See ``RepairDestination``."""

    def __init__(self, address: SqliteAddress, rows: SqliteRows) -> None:
        self._address = address
        self.rows = rows

    def incomparable(self, schema: str, name: str) -> str:
        """See ``RepairDestination``."""
        is_found = self.rows.table(schema, name).hidden_rowid or self.rows.key(schema, name)
        return "" if is_found else "nothing tells its equal rows apart"

    def unwritable(self, schema: str, name: str) -> str:
        """See ``RepairDestination``."""
        del schema, name
        return ""

    def is_atomic(self, schema: str, name: str) -> bool:
        """See ``RepairDestination``."""
        del schema, name
        return True

    @contextmanager
    def writing(self, schema: str, name: str) -> Iterator[SqliteTableWriter]:
        """See ``RepairDestination``."""
        address = self._address.below(schema) if self._address.path.is_dir() else self._address
        table = self.rows.table(schema, name)
        key = list(self.rows.key(schema, name))
        with open_destination(address) as destination, translated(address):
            connection = destination.connection
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute("PRAGMA foreign_keys = OFF")
            StandIns(connection).lend_for_rows([table])
            connection.execute("BEGIN IMMEDIATE")
            triggers = connection.execute(_TRIGGERS, (name,)).fetchall()
            for trigger, _ in triggers:
                connection.execute(f"DROP TRIGGER {quote_name(trigger)}")
            yield SqliteTableWriter(connection, table, key)
            for _, sql in triggers:
                connection.execute(sql)
            with durable("repair.sqlite.rows"):
                connection.execute("COMMIT")


class SqliteTableWriter:
    """See ``TableWriter``."""

    def __init__(self, connection: sqlite3.Connection, table: SqliteTable, key: Sequence[str]) -> None:
        self._connection = connection
        self._table = table
        hidden: list[str | None] = [None] if table.hidden_rowid else []
        self._names = [*hidden, *(column.name for column in table.columns)]
        self._stored = [*(True for _ in hidden), *(not column.generated for column in table.columns)]
        self._key = [0] if hidden else [self._names.index(name) for name in key]
        self._others = [i for i, is_stored in enumerate(self._stored) if is_stored and i not in self._key]

    def write(self, changes: RowChanges) -> str:
        """See ``TableWriter``."""
        self._remove(changes.gone)
        self._connection.execute("SAVEPOINT new_rows")
        try:
            self._add(changes.new)
        except sqlite3.IntegrityError as exc:
            self._connection.execute("ROLLBACK TO new_rows")
            return str(exc)
        finally:
            self._connection.execute("RELEASE new_rows")
        return ""

    def _remove(self, rows: Sequence[LocatedRow]) -> None:
        """Delete rows. Raises ``BusyError`` where one is not as it was compared: somebody else has written to it."""
        codec = codec_of(self._connection)
        for row in rows:
            values: list[Any] = values_of_text(row.text)
            if codec is not None:
                values = [kept(value, codec) for value in values]
            bound = [values[index] for index in (*self._key, *self._others)]
            bound = [value for value in bound if type(value) is not RawText]
            if self._connection.execute(self._delete(values), bound).rowcount != 1:
                raise BusyError(
                    f"{quote_name(self._table.name)} was written to while it was compared",
                    next_step="find out who writes there; then run the same command again",
                )

    def _delete(self, values: Sequence[Any]) -> str:
        """Return the statement. Text that is not valid stands in it as a literal."""
        names = [self._table.rowid if name is None else quote_name(name) for name in self._names]
        marks = [literal(value) if type(value) is RawText else "?" for value in values]
        condition = " AND ".join(f"{names[index]} IS {marks[index]}" for index in self._key)
        if self._others:
            others, their_marks = (
                ", ".join(words[index] for index in self._others) for words in (names, marks)
            )
            condition += f" AND ({others}) IS ({their_marks})"
        return f"DELETE FROM {quote_name(self._table.name)} WHERE {condition}"

    def _add(self, texts: Sequence[bytes]) -> None:
        rows = [values_of_text(text) for text in texts]
        indexes = [index for index, stored in enumerate(self._stored) if stored]
        columns = [SqliteColumn.of_values([row[index] for row in rows]) for index in indexes]
        insert_rows(self._connection, self._table, [self._names[index] for index in indexes], columns)


@contextmanager
def open_repair(url: str, secrets: Mapping[str, str]) -> Iterator[SqliteRepair]:
    """See ``migrate.repair.repair.OpenRepair``."""
    del secrets
    address = parse_url(url)
    with _alone(address), live_rows(address) as rows:
        yield SqliteRepair(address, rows)


@contextmanager
def _alone(address: SqliteAddress) -> Iterator[None]:
    """Lock out other repairs of the file or directory by a lock that SQLite does not see. Raises ``BusyError``. The
    file is closed last: that ends all locks of this process on it.
    """
    if not os.access(address.path, os.R_OK):
        yield  # whoever reads it says why that cannot be
        return
    file = os.open(address.path, os.O_RDONLY)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _is_locked(file):
            if time.monotonic() > deadline:
                raise BusyError(
                    f"another repair or delta pass works on {address.path}",
                    next_step="wait for it, or end it; then run the same command again",
                )
            time.sleep(_LOCK_PAUSE_SECONDS)
        yield
    finally:
        os.close(file)


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks
        return True
    return True
