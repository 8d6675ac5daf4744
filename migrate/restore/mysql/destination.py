"""The destination database: made where there is none, locked, and asked what is in it; and what is done to it that the
server makes easy in no other way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pymysql
from msgspec import Struct
from msgspec.structs import replace

from exporters.mysql.connection import Connection, MysqlAddress, connect, folds_names, parse_url
from exporters.mysql.control_tables import ControlTables, find_control_tables
from exporters.mysql.definitions.show_create import create_database_statement, defaults_of
from exporters.mysql.errors import (
    DRIVER_ERRORS,
    as_source_errors,
    is_about_the_thing,
    message_of,
    number_of,
    translate,
)
from exporters.mysql.identifiers import of_database, quote_literal, quote_name
from migrate.bundle.reader import BundleReader
from migrate.changes.remainder import BothSides
from migrate.errors import BusyError
from migrate.restore.common.api import Created, is_missing, naming_create
from migrate.restore.mysql.definitions.recorded_definitions import read_definitions
from migrate.restore.mysql.definitions.table_ddl import items_of

_NO_DELETE = 1031
_LOCK_SECONDS = 20

_CONTENT = f"""
SELECT what FROM (
  SELECT 1 AS location, CONCAT(LOWER(TABLE_TYPE), ' ', TABLE_NAME) AS what FROM information_schema.TABLES
    WHERE TABLE_SCHEMA = {{schema}} AND TABLE_NAME NOT IN ({{own}})
  UNION ALL SELECT 2, CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_NAME) FROM information_schema.ROUTINES
    WHERE {of_database("ROUTINE_SCHEMA")}
  UNION ALL SELECT 3, CONCAT('event ', EVENT_NAME) FROM information_schema.EVENTS
    WHERE {of_database("EVENT_SCHEMA")}
) AS found ORDER BY location, what{{limit}}
"""


class DestinationConnection(Connection):
    """A session on the destination. ``control`` names the control tables, ``about`` to ``triggers`` as SQL."""

    def __init__(self, address: MysqlAddress, raw: Any, control: ControlTables) -> None:
        super().__init__(address, raw)
        self.control = control
        names = map(quote_name, control.names)
        self.about, self.done, self.left_out, self.again, self.away, self.triggers, _ = names

    def another(self) -> DestinationConnection:
        """Open a further session. Raises ``SourceError``."""
        return DestinationConnection(self.address, connect(self.address).raw, self.control)


class MysqlDestination(Struct, frozen=True):
    """The database and the session that holds the lock. ``existing``: the control tables there at first."""

    address: MysqlAddress
    connection: DestinationConnection
    existing: frozenset[str]


@contextmanager
def open_destination(address: MysqlAddress, names: Collection[str] = ()) -> Iterator[MysqlDestination]:
    """Connect and lock out other restores. The control tables have none of the ``names`` that the restore makes, and
    none of what is there. Raises ``BusyError``, ``SourceError``.
    """
    with naming_create():
        opened = connect(address)
    with closing(opened) as connection:
        name = quote_literal(f"moveout {address.database}"[:64])
        deadline = time.monotonic() + _LOCK_SECONDS
        while connection.value(f"SELECT GET_LOCK({name}, 1)") != 1:
            if time.monotonic() > deadline:
                holder = connection.value(f"SELECT IS_USED_LOCK({name})")
                raise BusyError(
                    f"another restore works on {address.url}",
                    next_step=f"wait for it; or end its session, if its machine is gone: KILL {holder or 'ID'}",
                )
        existing, others = find_control_tables(connection)
        control = ControlTables.apart_from({*names, *others})
        yield MysqlDestination(address, DestinationConnection(address, connection.raw, control), existing)


def create_database(
    reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
) -> Created | None:
    """Make the database of a URL where there is none. See ``CreateDestination``."""
    address = parse_url(url, secrets)
    if not is_missing(partial(connect, address)):
        return None
    database = next(
        (entry for entry in read_definitions(reader, source) if entry["kind"] == "database"), None
    )
    words = defaults_of({**database, "comment": ""}) if database else ""
    made = f"made the database {address.database}"
    with closing(connect(replace(address, database=""))) as connection:
        try:
            connection.run(create_database_statement(address.database, words))
        except DRIVER_ERRORS as exc:
            if not (words and isinstance(exc, pymysql.Error) and is_about_the_thing(exc)):
                raise translate(exc, address.url) from exc
            refusal = message_of(exc)
        else:
            return Created(f"{made}: {words}" if words else made)
        with as_source_errors(address.url):
            connection.run(create_database_statement(address.database))
    otherwise = f"{made} as the server makes them, since it has not what the source had ({refusal})"
    return Created(otherwise, as_source=False)


@contextmanager
def connect_both(sides: BothSides) -> Iterator[tuple[Connection, Connection]]:
    """Connect to a source and its destination. Raises ``SourceError``."""
    source = parse_url(sides.source_url, sides.source_secrets)
    destination = parse_url(sides.destination_url, sides.destination_secrets)
    with (
        closing(connect(source)) as reader,
        closing(connect(destination)) as writer,
        as_source_errors(f"{source.url} or {destination.url}"),
    ):
        yield reader, writer


def spelled_as(connection: Connection, names: Iterable[str]) -> Callable[[str], str]:
    """Return what gives a name at the destination as the source spells it, one of ``names``: the destination may keep
    names in lower case. Raises the driver's errors.
    """
    if not folds_names(connection):
        return lambda name: name
    spelled = {name.lower(): name for name in sorted(names, reverse=True)}
    return lambda name: spelled.get(name, name)


def find_content(connection: Connection, own_names: Collection[str]) -> str:
    """Return the name of something in the session's database that is none of a restore's ``own_names``, or ""."""
    return str(connection.value(_content_query(connection, own_names, limit=" LIMIT 1")) or "")


def all_content(destination: MysqlDestination) -> set[str]:
    """Return the kinds and names of everything in the database, such as ``view v``; no triggers."""
    connection = destination.connection
    query = _content_query(connection, connection.control.names, limit="")
    return {str(row[0]) for row in connection.rows(query)}


def _content_query(connection: Connection, own_names: Collection[str], *, limit: str) -> str:
    own = ", ".join(map(quote_literal, own_names))
    return _CONTENT.format(schema=quote_literal(connection.address.database), own=own, limit=limit)


def items_there(connection: Connection, table: str) -> list[str]:
    """Return the columns, keys and constraints of a table of the destination, as it prints them."""
    return items_of(str(connection.rows(f"SHOW CREATE TABLE {quote_name(table)}")[0][1]))[2]


def alter(connection: Connection, table: str, words: str) -> str | None:
    """Alter a table; return the error message if the destination refuses. Raises the driver's errors."""
    try:
        connection.run(f"ALTER TABLE {quote_name(table)} {words}")
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return message_of(exc)
    return None


def make_empty(connection: DestinationConnection, table: str) -> None:
    """Remove the rows of a table without transactions; one that no row can be deleted from is made again."""
    name = quote_name(table)
    if connection.value(f"SELECT 1 FROM {name} LIMIT 1") is None:
        return
    try:
        connection.run(f"DELETE FROM {name}")
    except pymysql.Error as exc:
        if number_of(exc) != _NO_DELETE:
            raise
        again, away = connection.again, connection.away
        connection.run(f"DROP TABLE IF EXISTS {again}")
        connection.run(f"CREATE TABLE {again} LIKE {name}")
        connection.run(f"RENAME TABLE {name} TO {away}, {again} TO {name}, {away} TO {again}")
        connection.run(f"DROP TABLE {again}")
