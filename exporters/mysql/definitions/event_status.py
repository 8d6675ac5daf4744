"""Whether the events of a database run: programs of the server's clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pymysql

from exporters.mysql.connection import Connection
from exporters.mysql.errors import is_about_the_thing
from exporters.mysql.identifiers import of_database, quote_literal, quote_name

ENABLED, DISABLED = "ENABLED", "DISABLED"
_WORDS = {ENABLED: "ENABLE", DISABLED: "DISABLE"}
_EVENTS = (
    "SELECT EVENT_NAME, STATUS, DEFINER, CHARACTER_SET_CLIENT, COLLATION_CONNECTION FROM information_schema.EVENTS"
    f" WHERE {of_database('EVENT_SCHEMA')}"
)
_OPTIONS = "SELECT OPTIONS FROM information_schema.SCHEMATA_EXTENSIONS WHERE SCHEMA_NAME = {}"
Rows = Callable[[str], list[tuple[Any, ...]]]
"""Runs a query, and raises what it raises."""


class Event(NamedTuple):
    """An event of a database. ``definer`` is as the catalog has it: ``user@host``. ``client`` and ``connection``: the
    charset and the collation of the session that made it.
    """

    name: str
    status: str
    definer: str
    client: str
    connection: str

    @property
    def account(self) -> str:
        """The definer, as GRANT names it."""
        user, _, host = self.definer.rpartition("@")
        return f"{quote_literal(user)}@{quote_literal(host)}"

    @property
    def settings(self) -> str:
        """The SQL that gives a session the charset and the collation of the event. The server notes those of whoever
        alters it, and reads by them what it has kept of the text.
        """
        return f"SET character_set_client = {self.client}, collation_connection = {self.connection}"

    def statement(self, status: str, database: str = "") -> str:
        """Return the SQL that enables or disables it, in that database or the session's own. Without its definer it
        would become ours (MySQL manual, "ALTER EVENT").
        """
        user, _, host = self.definer.rpartition("@")
        name = ".".join(map(quote_name, filter(None, (database, self.name))))
        return f"ALTER DEFINER = {quote_name(user)}@{quote_name(host)} EVENT {name} {_WORDS[status]}"


def set_status(event: Event, status: str, *, run: Callable[[str | bytes], object], rows: Rows) -> None:
    """Enable or disable an event of a session's database, whose name the event's charset may lack. ``run`` runs a
    statement. Raises what these raise.
    """
    statement: str | bytes = event.statement(status)
    if not statement.isascii():
        converted = f"SELECT HEX(CONVERT({quote_literal(str(statement))} USING {event.client}))"
        statement = bytes.fromhex(str(rows(converted)[0][0]))
    run(event.settings)
    try:
        run(statement)
    finally:
        run("SET NAMES utf8mb4")


def read_events(rows: Rows, database: str) -> list[Event]:
    """Return the events of a database."""
    return [Event(*map(str, row)) for row in rows(_EVENTS.format(schema=quote_literal(database)))]


def may_be_held(connection: Connection) -> bool:
    """Tell whether a server or a session's database is read-only: then a hold may have disabled its events. Raises the
    driver's errors.
    """
    return connection.is_on("read_only") or is_read_only(connection)


def is_read_only(connection: Connection) -> bool:
    """Tell whether a session's database is read-only, by MySQL's own mode. Raises the driver's errors."""
    try:
        options = connection.value(_OPTIONS.format(quote_literal(connection.address.database)))
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return False
    return "READ ONLY=1" in str(options)
