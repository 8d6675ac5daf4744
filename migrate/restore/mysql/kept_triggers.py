"""Triggers that are dropped while rows of their table are repaired, and made again.

No session keeps triggers from firing. A control table keeps those that were dropped. Where a repair was killed, whoever
comes next to the database makes them first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pymysql

from exporters.mysql.connection import Connection, MysqlAddress, connect
from exporters.mysql.control_tables import OWN_TABLE, find_control_tables
from exporters.mysql.definitions.show_create import read_trigger
from exporters.mysql.errors import DRIVER_ERRORS, is_about_the_thing, message_of
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.errors import IncompleteError
from migrate.restore.mysql.definitions import Definer, Definition
from migrate.restore.mysql.destination import DestinationConnection, open_destination


@contextmanager
def dropped_triggers(connection: DestinationConnection, table: str, names: list[str]) -> Iterator[None]:
    """Drop triggers of a table, and make them again at the end. Raises the driver's errors, ``IncompleteError``."""
    connection.run(
        f"CREATE TABLE IF NOT EXISTS {connection.triggers} (trigger_name VARCHAR(64), definition LONGTEXT)"
        f" {OWN_TABLE}"
    )
    for name in names:
        definition = json.dumps(read_trigger(connection, name, table))
        values = f"{quote_literal(name)}, {quote_literal(definition)}"
        connection.run(f"INSERT INTO {connection.triggers} VALUES ({values})")
        connection.run(f"DROP TRIGGER {quote_name(name)}")
    try:
        yield
    except BaseException:
        with suppress(*DRIVER_ERRORS, IncompleteError):  # who comes next makes them
            connection.run("ROLLBACK")
            make_kept_triggers(connection)
        raise
    make_kept_triggers(connection)


def make_kept_triggers(connection: DestinationConnection) -> None:
    """Make the triggers again that a repair has dropped. Raises the driver's errors; ``IncompleteError`` for one that
    the server refuses.
    """
    for table in map(quote_name, _tables(connection)):
        definer = Definer(connection, [], [])
        for name, text in connection.rows(f"SELECT trigger_name, definition FROM {table}"):
            _make(definer, json.loads(text), table)
            connection.run(f"DELETE FROM {table} WHERE trigger_name = {quote_literal(str(name))}")
        connection.run(f"DROP TABLE {table}")


def _make(definer: Definer, definition: Definition, table: str) -> None:
    try:
        definer.make(definition)
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        raise IncompleteError(
            f"a repair has dropped the trigger {quote_name(definition['name'])}, and the server refuses it now:"
            f" {message_of(exc)}",
            next_step=f"make it at the destination: {definition['sql']}; then DROP TABLE {table}, and give the same"
            " command again",
        ) from exc


def make_triggers_of_killed_repair(address: MysqlAddress) -> None:
    """Make the triggers again that a repair has dropped which was killed. Raises ``BusyError`` where one is at work,
    ``SourceError``, the driver's errors, ``IncompleteError``.
    """
    with closing(connect(address)) as connection:
        if not _tables(connection):
            return
    with open_destination(address) as destination:
        make_kept_triggers(destination.connection)


def _tables(connection: Connection) -> list[str]:
    """Return the control tables that keep triggers."""
    control, _ = find_control_tables(connection)
    return [name for name in control if name.endswith("_triggers")]
