"""What a server keeps of a database apart from definitions and rows, and no other server takes: reported as losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pymysql

from exporters.api import Loss
from exporters.mysql.connection import Connection
from exporters.mysql.definitions.event_status import DISABLED, is_read_only, may_be_held, read_events
from exporters.mysql.errors import is_about_the_thing
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.sessions.prepared_transactions import HOW_TO_END, UNENDED, prepared_transactions

_OF_MARIADB = "SELECT table_name, column_name FROM mysql.column_stats WHERE db_name = {schema} ORDER BY 1, 2"
_OF_MYSQL = (
    "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMN_STATISTICS WHERE SCHEMA_NAME = {schema}"
    " ORDER BY 1, 2"
)
_ENCRYPTION = "SELECT DEFAULT_ENCRYPTION FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {schema}"
_SPATIAL = (
    "SELECT G_TABLE_NAME, G_GEOMETRY_COLUMN, SRID FROM information_schema.GEOMETRY_COLUMNS"
    " WHERE G_TABLE_SCHEMA = {schema} AND SRID <> 0 ORDER BY 1, 2"
)
"""MariaDB's: no definition shows what a column was given by ``REF_SYSTEM_ID``. MySQL has no such table."""
_LOADED = "SELECT name, dl FROM mysql.func ORDER BY 1"
_HIDDEN = Loss(
    "prepared transactions",
    "all of them",
    "they are hidden, if there are any: the account has no XA_RECOVER_ADMIN on *.*",
)
_SERVERS = "SELECT Server_name, Wrapper FROM mysql.servers ORDER BY 1"


def unrepresented_losses(connection: Connection) -> list[Loss]:
    """Return a row for each such thing, as far as the server shows it to this account."""
    losses = []
    columns: dict[str, list[str]] = {}
    for table, column in _rows(connection, _OF_MARIADB if connection.is_mariadb else _OF_MYSQL):
        columns.setdefault(str(table), []).append(quote_name(str(column)))
    for table, names in columns.items():
        reason = f"of {', '.join(names)}: the destination makes its own, by ANALYZE TABLE"
        losses.append(Loss(quote_name(table), "statistics", reason))
    for table, column, number in _rows(connection, _SPATIAL) if connection.is_mariadb else ():
        item = f"{quote_name(str(table))}.{quote_name(str(column))}"
        reason = f"its definition does not show it: ALTER TABLE … MODIFY … REF_SYSTEM_ID={number}"
        losses.append(Loss(item, "spatial reference system", reason))
    for name, library in _rows(connection, _LOADED):
        reason = f"it is of the whole server, from the library {library}; make it again on the destination"
        losses.append(Loss(f"function {quote_name(str(name))}", "all of it", reason))
    for name, wrapper in _rows(connection, _SERVERS):
        reason = (
            f"it is of the whole server, for {wrapper}, with a password; make it again on the destination"
        )
        losses.append(Loss(f"server {quote_name(str(name))}", "all of it", reason))
    prepared = prepared_transactions(connection)
    losses += [_HIDDEN] if prepared is None else map(_unended, prepared)
    if not connection.is_mariadb:
        if _rows(connection, _ENCRYPTION) == [("YES",)]:
            reason = "new tables are encrypted by default; on the destination as its own settings say"
            losses.append(Loss("database", "encryption", reason))
        if is_read_only(connection):
            losses.append(Loss("database", "read only", "it takes no changes; the restored one does"))
    if may_be_held(connection):
        reason = (
            "it is disabled while its database is read-only: if a hold has done that, ALTER EVENT … ENABLE at the"
            " destination"
        )
        losses += [
            Loss(f"event {quote_name(event.name)}", "status", reason)
            for event in read_events(connection.rows, connection.address.database)
            if event.status == DISABLED
        ]
    return losses


def _unended(name: str) -> Loss:
    end = HOW_TO_END.format(name=name)
    reason = (
        f"{UNENDED}: if it wrote to this database, that is not there yet; end it ({end}), and export again"
    )
    return Loss(f"prepared transaction {name}", "all of it", reason)


def _rows(connection: Connection, query: str) -> Sequence[tuple[Any, ...]]:
    try:
        return connection.rows(query.format(schema=quote_literal(connection.address.database)))
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return []
