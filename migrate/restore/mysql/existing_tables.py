"""Tables that are there already, and only get their rows (``--only data``).

Triggers would fire for every row, and no session can keep them from it. Those that are the bundle's own are dropped
meanwhile, and noted, so that any run that ends the restore makes them again. Counters are set as they were.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pymysql

from exporters.mysql.definitions.show_create import read_definition, set_sequence
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.errors import NotEmptyError
from migrate.restore.common.selection import strange_trigger
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.mysql.definitions import Definition, step_of, without_definer
from migrate.restore.mysql.destination import MysqlDestination, mark_done
from migrate.restore.mysql.table_ddl import options_of

_TRIGGERS = (
    "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {schema}"
)
_COUNTER = re.compile(r"\bAUTO_INCREMENT=(\d+)")


def in_the_way(run: TableRestore, destination: MysqlDestination) -> NotEmptyError | None:
    """Return the error where a table of the destination prevents the restore of a part. Raises ``UsageError`` where
    rows have no table to go to.
    """
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
