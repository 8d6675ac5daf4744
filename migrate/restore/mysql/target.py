"""The target database: may it be restored into, and how far an earlier run came.

Two tables of our own in the target hold the state. A part's rows and the note that it is done are one transaction, so
a run can die at any moment. Definitions are not transactional in MySQL; each is noted when it is made, and one that
was made but not noted is recognised by its being there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pymysql

from exporters.mysql.catalog import PROGRESS_TABLES
from exporters.mysql.connect import Address, Connection, connect
from exporters.mysql.errors import is_about_the_thing, number_of, said_by
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.errors import BusyError, UsageError
from migrate.restore.mysql.ddl import items_of
from migrate.restore.relational.run import State

ABOUT, DONE, AGAIN = (quote_name(name) for name in PROGRESS_TABLES)
_AWAY = "`moveout_restore_away`"
"""For the time of one statement."""
_NO_DELETE = 1031
_LOCK_SECONDS = 20

_CONTENT = """
SELECT what FROM (
  SELECT 1 AS place, CONCAT(LOWER(TABLE_TYPE), ' ', TABLE_NAME) AS what FROM information_schema.TABLES
    WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME NOT IN ({own})
  UNION ALL SELECT 2, CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_NAME) FROM information_schema.ROUTINES
    WHERE ROUTINE_SCHEMA = {schema}
  UNION ALL SELECT 3, CONCAT('event ', EVENT_NAME) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {schema}
) AS found ORDER BY place, what LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Target:
    """The database and the session on which everything but rows is done; it holds the lock."""

    address: Address
    connection: Connection


@contextmanager
def open_target(address: Address) -> Iterator[Target]:
    """Connect and lock out other restores. Raises ``BusyError``, ``SourceError``."""
    connection = connect(address)
    try:
        name = quote_literal(f"moveout {address.database}"[:64])
        deadline = time.monotonic() + _LOCK_SECONDS
        while connection.value(f"SELECT GET_LOCK({name}, 1)") != 1:
            if time.monotonic() > deadline:
                raise BusyError(
                    f"another restore works on {address.url}",
                    next_step="Wait for it, or end its session (SHOW PROCESSLIST).",
                )
        yield Target(address, connection)
    finally:
        connection.close()


def content(target: Target) -> str:
    """Return the name of something in the database, or ""."""
    own = ", ".join(map(quote_literal, PROGRESS_TABLES))
    schema = quote_literal(target.address.database)
    return str(target.connection.value(_CONTENT.format(schema=schema, own=own)) or "")


def read_state(target: Target) -> State | None:
    """Return what an earlier restore left, None where there was none. Raises ``UsageError`` if it cannot be read."""
    schema = quote_literal(target.address.database)
    query = f"SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = "
    if not target.connection.value(query + quote_literal(PROGRESS_TABLES[0])):
        return None
    try:
        rows = target.connection.rows(f"SELECT bundle, source, only_ FROM {ABOUT}")
    except pymysql.Error as exc:
        raise UsageError(
            f"{target.address.url} has a table {ABOUT} that is not a restore's: {said_by(exc)}",
            next_step="Restore into a fresh, empty database.",
        ) from exc
    return State(*rows[0]) if rows else None


def begin_state(target: Target, state: State) -> None:
    """Make the tables; the row that says whose they are comes last."""
    connection = target.connection
    kind = "ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    connection.run(f"CREATE TABLE IF NOT EXISTS {DONE} (name VARCHAR(700) PRIMARY KEY) {kind}")
    connection.run(f"DELETE FROM {DONE}")
    connection.run(
        f"CREATE TABLE IF NOT EXISTS {ABOUT} (bundle VARCHAR(200), source VARCHAR(200), only_ LONGTEXT) {kind}"
    )
    values = ", ".join(map(quote_literal, (state.bundle, state.source, state.only)))
    connection.run(f"INSERT INTO {ABOUT} VALUES ({values})")


def read_done(connection: Connection) -> set[str]:
    """Return the names of the parts and steps that are done."""
    return {str(row[0]) for row in connection.rows(f"SELECT name FROM {DONE}")}


def mark_done(connection: Connection, name: str) -> None:
    """Say, within the transaction that does it, that a part or step is done."""
    connection.run(f"INSERT INTO {DONE} VALUES ({quote_literal(name)})")


def items_there(connection: Connection, table: str) -> list[str]:
    """Return the columns, keys and constraints of a table of the target, as it prints them."""
    return items_of(str(connection.rows(f"SHOW CREATE TABLE {quote_name(table)}")[0][1]))[2]


def alter(connection: Connection, table: str, words: str) -> str | None:
    """Alter a table; return what the target says if it refuses. Raises the driver's errors."""
    try:
        connection.run(f"ALTER TABLE {quote_name(table)} {words}")
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return said_by(exc)
    return None


def make_empty(connection: Connection, table: str) -> None:
    """Remove the rows of a table without transactions; one that no row can be deleted from is made again."""
    name = quote_name(table)
    if connection.value(f"SELECT 1 FROM {name} LIMIT 1") is None:
        return
    try:
        connection.run(f"DELETE FROM {name}")
    except pymysql.Error as exc:
        if number_of(exc) != _NO_DELETE:
            raise
        connection.run(f"DROP TABLE IF EXISTS {AGAIN}")
        connection.run(f"CREATE TABLE {AGAIN} LIKE {name}")
        connection.run(f"RENAME TABLE {name} TO {_AWAY}, {AGAIN} TO {name}, {_AWAY} TO {AGAIN}")
        connection.run(f"DROP TABLE {AGAIN}")


def drop_state(target: Target) -> None:
    """Remove the tables: the restore is over."""
    target.connection.run(f"DROP TABLE IF EXISTS {ABOUT}, {DONE}, {AGAIN}")
