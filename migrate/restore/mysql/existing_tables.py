"""Tables that are there already and get rows: from a restore of rows alone (``--only data``), or from a repair.

Their triggers would fire for every row, and no session can keep them from it. So triggers are dropped meanwhile. A
restore drops those that are the bundle's own, and notes them, so that any run that ends the restore makes them again. A
repair keeps the definitions of those that it drops in a control table. Where it was killed, whoever comes next to the
database makes them first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress

import pymysql

from exporters.mysql.connection import Connection, MysqlAddress, connect
from exporters.mysql.control_tables import OWN_TABLE, find_control_tables
from exporters.mysql.definitions.show_create import read_definition, read_trigger, set_sequence
from exporters.mysql.errors import DRIVER_ERRORS, is_about_the_thing, message_of
from exporters.mysql.identifiers import of_database, quote_literal, quote_name
from migrate.errors import IncompleteError, NotEmptyError
from migrate.restore.common.selection import strange_trigger
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.mysql.definitions.object_maker import ObjectMaker, without_definer
from migrate.restore.mysql.definitions.recorded_definitions import Definition, step_of
from migrate.restore.mysql.definitions.table_ddl import options_of
from migrate.restore.mysql.destination import DestinationConnection, MysqlDestination, open_destination
from migrate.restore.mysql.restore_state import mark_done

_TRIGGERS = (
    "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS"
    f" WHERE {of_database('TRIGGER_SCHEMA')}"
)
_COUNTER = re.compile(r"\bAUTO_INCREMENT=(\d+)")


def in_the_way(run: TableRestore, destination: MysqlDestination) -> NotEmptyError | None:
    """Return the error where a table is in the way of a part; see ``RestoreSelection.conflict``."""
    connection, schema = destination.connection, quote_literal(destination.address.database)

    def has(name: str) -> bool:
        query = f"SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = "
        return bool(connection.value(query + quote_literal(name)))

    def has_rows(name: str) -> bool:
        return bool(connection.value(f"SELECT 1 FROM {quote_name(name)} LIMIT 1"))

    names = [table.name for table in run.tables]
    return run.selection.conflict(names, has, has_rows, destination.address.url)


def put_aside(
    run: TableRestore, destination: MysqlDestination, definitions: Sequence[Definition], done: set[str]
) -> None:
    """Drop the triggers of the tables that get rows. Raises ``NotEmptyError`` for one that is not the bundle's."""
    connection = destination.connection
    ours = {definition["name"]: definition for definition in definitions if definition["kind"] == "trigger"}
    tables = {table.name for table in run.tables}
    rows = connection.rows(_TRIGGERS.format(schema=quote_literal(destination.address.database)))
    on_them = [(str(name), str(table)) for name, table in rows if table in tables]
    for name, table in on_them:
        if name not in ours or not _is_same(destination, ours[name]):
            raise strange_trigger(quote_name(name), quote_name(table), destination.address.url)
    for name, _ in on_them:
        if step_of(ours[name]) in done:  # all rows are there, and it was made again
            continue
        if _aside(ours[name]) not in done:
            mark_done(connection, _aside(ours[name]))
        connection.run(f"DROP TRIGGER {quote_name(name)}")


def were_aside(definitions: Sequence[Definition], done: set[str]) -> list[Definition]:
    """Return the triggers that are to be made again."""
    return [
        definition
        for definition in definitions
        if definition["kind"] == "trigger" and _aside(definition) in done
    ]


def set_counters(run: TableRestore, destination: MysqlDestination, definitions: Sequence[Definition]) -> None:
    """Let AUTO_INCREMENT and, where all tables came, sequences go on where they were. Raises the driver's errors."""
    tables = {table.name for table in run.tables}
    for definition in definitions:
        name = quote_name(definition["name"])
        if definition["kind"] == "sequence" and not run.selection.is_part:
            destination.connection.rows(set_sequence(definition))
        counter = _COUNTER.search(options_of(definition["sql"])) if definition["kind"] == "table" else None
        if counter is not None and definition["name"] in tables:
            destination.connection.run(f"ALTER TABLE {name} AUTO_INCREMENT = {counter[1]}")


def _aside(definition: Definition) -> str:
    return f"aside {definition['name']}"


def _is_same(destination: MysqlDestination, definition: Definition) -> bool:
    try:
        existing = read_definition(destination.connection, "trigger", definition["name"])
    except pymysql.Error:
        return False
    return without_definer(existing["sql"]) == without_definer(definition["sql"])


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
    """Make the triggers again that a repair has dropped. Raises ``IncompleteError`` where that is refused."""
    for table in map(quote_name, _tables(connection)):
        maker = ObjectMaker(connection, [], [])
        for name, text in connection.rows(f"SELECT trigger_name, definition FROM {table}"):
            _make(maker, json.loads(text), table)
            connection.run(f"DELETE FROM {table} WHERE trigger_name = {quote_literal(str(name))}")
        connection.run(f"DROP TABLE {table}")


def _make(maker: ObjectMaker, definition: Definition, table: str) -> None:
    try:
        maker.make(definition)
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
