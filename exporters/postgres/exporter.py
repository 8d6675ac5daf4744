"""The first contact with a PostgreSQL database: opens it as a source.

A command waits for the imports of this module before it asks the server anything, so they are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import psycopg

from exporters.api import Host
from exporters.errors import SourceError, SourceUnreachableError
from exporters.limits import limits_of, note_of
from exporters.postgres.definitions.dump_programs import ask_newest, find_tools
from exporters.postgres.errors import DRIVER_ERRORS, sqlstate
from exporters.postgres.sessions.connection import (
    connect,
    connect_once,
    parse_server_url,
    parse_url,
    system_identifier,
)
from exporters.postgres.sessions.session_limits import SessionLimits

if TYPE_CHECKING:
    from exporters.postgres.source import PostgresSource

_DATABASE_OID = "SELECT oid::text FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"


class PostgresExporter:
    """Opens ``postgresql://user@host:port/database``. See ``exporters.api.Exporter``."""

    def open(self, name: str, url: str, host: Host) -> PostgresSource:
        """Connect once, to prove that the database can be reached and dumped. What reads it is imported meanwhile."""
        address = parse_url(url, {"password": host.secret("password") or ""})
        with ThreadPoolExecutor(2) as pool:
            asked = pool.submit(ask_newest)  # a program says its version in about the time of a login
            pool.submit(import_module, "exporters.postgres.source")
            with connect(address) as connection:
                asked.result()
                info = connection.info
                find_tools(info.server_version // 10000, info.get_parameters())
                identity = _database_identity(connection)
        from exporters.postgres.source import PostgresSource  # noqa: PLC0415  it is here by now

        return PostgresSource(name, address, SessionLimits(limits_of(host), note_of(host)), identity)


def _database_identity(connection: psycopg.Connection[Any]) -> str:
    """Return what identifies the database, "" where this role may not read the server's part of it."""
    server = system_identifier(connection)
    with suppress(*DRIVER_ERRORS):
        row = connection.execute(_DATABASE_OID).fetchone()
        if server and row is not None:
            return f"postgresql:{server}/{row[0]}"
    return ""


def contact(url: str, secrets: Mapping[str, str]) -> None:
    """Log in and out again. Raises ``SourceUnreachableError`` where there is no answer; a refusal is one."""
    try:
        connect_once(parse_server_url(url, secrets)).close()
    except SourceError as exc:
        if isinstance(exc, SourceUnreachableError) and not sqlstate(exc):
            raise
