"""Lists the databases of a PostgreSQL server, with their sizes and what this role may not read of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
from msgspec import Struct

from exporters.discovery import EMPTY, Discovery, FoundSource, NotTaken, sentence_of_tables, url_of_database
from exporters.errors import SourceError
from exporters.limits import Note
from exporters.postgres.errors import DRIVER_ERRORS, as_source_errors, in_one_line
from exporters.postgres.identifiers import quote_name
from exporters.postgres.sessions.connection import (
    MAINTENANCE_DATABASES,
    PostgresAddress,
    connect,
    connect_to_server,
    parse_server_url,
    system_identifier,
)

_MAINTENANCE = MAINTENANCE_DATABASES[0]
_OF_PROVIDERS = {
    "rdsadmin": "Amazon RDS",
    "cloudsqladmin": "Google Cloud SQL",
    "alloydbadmin": "Google AlloyDB",
    "azure_maintenance": "Azure Database",
    "azure_sys": "Azure Database",
}
"""Databases in which providers keep what is theirs; no customer may read them (the providers' documentation)."""
_CONNECTIONS = 8

_DATABASES = """
SELECT oid::int8, datname, datistemplate, datallowconn,
  pg_catalog.has_database_privilege(oid, 'CONNECT') AS permitted
FROM pg_catalog.pg_database WHERE datname NOT IN ('template0', 'template1') ORDER BY datname
"""
_SIZE = "SELECT pg_catalog.pg_database_size(%s::oid)"
OWN_OBJECTS = """
SELECT EXISTS (SELECT FROM pg_class WHERE oid >= 16384) OR EXISTS (SELECT FROM pg_proc WHERE oid >= 16384)
  OR EXISTS (SELECT FROM pg_type WHERE oid >= 16384) OR EXISTS (SELECT FROM pg_namespace WHERE oid >= 16384)
  OR EXISTS (SELECT FROM pg_extension WHERE oid >= 16384) OR EXISTS (SELECT FROM pg_largeobject_metadata)
  OR EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
    WHERE d.datname = current_database())
"""
"""Whether a database holds anything that no fresh one has: objects that users make have OIDs from 16384 on
(src/include/access/transam.h, FirstNormalObjectId).
"""
_TABLES = """
SELECT n.nspname, c.relname,
  has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable,
  row_security_active(c.oid) AS filtered
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
    AND d.deptype = 'e')
ORDER BY 1, 2
"""


class _Database(Struct, frozen=True):
    oid: int
    name: str
    is_template: bool
    allows_connections: bool
    permitted: bool


class _Contents(Struct, frozen=True):
    """What one database holds. ``empty``: nothing but what a fresh database has."""

    tables: int | None = None
    empty: bool = False
    problems: Sequence[str] = ()


def discover(url: str, *, secrets: Mapping[str, str], note: Note, names_only: bool = False) -> Discovery:
    """Return the databases of a server. See ``exporters.discovery.Discover``."""
    address = parse_server_url(url, secrets)
    named = [address.keywords["dbname"]] if "dbname" in address.keywords else []
    with connect_to_server(address, dict.fromkeys([*named, *MAINTENANCE_DATABASES])) as connection:
        with as_source_errors(address.url):
            databases = [_Database(*row) for row in connection.execute(_DATABASES).fetchall()]
        own = [database for database in databases if database.name not in _OF_PROVIDERS]
        server, role = _server_identity(connection), connection.info.user
        sizes = {} if names_only else {database.oid: _size(connection, database) for database in own}
    offered = [database for database in own if not database.is_template]
    looked_into = [database for database in offered if not names_only or database.name == _MAINTENANCE]
    with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="discover") as pool:
        read = pool.map(lambda database: _read_contents(address, database, role), looked_into)
        contents = dict(zip((database.oid for database in looked_into), read, strict=True))
    sources, left_out = [], []
    for database in offered:
        content = contents.get(database.oid, _Contents())
        if database.name == _MAINTENANCE and content.empty:
            left_out.append(database.name)
            if not names_only:
                note(f"{address.url}: the database {_MAINTENANCE} is empty, and is left out")
            continue
        sources.append(
            FoundSource(
                url=url_of_database(url, database.name),
                name=database.name,
                items=content.tables,
                size_bytes=sizes.get(database.oid),
                identity=f"postgresql:{server}/{database.oid}",
                facts=(EMPTY,) if content.empty else (),
                problems=content.problems,
            )
        )
    return Discovery(sources, _not_taken(databases, sizes), left_out=left_out)


def _not_taken(databases: Sequence[_Database], sizes: Mapping[int, int | None]) -> list[NotTaken]:
    templates = [
        NotTaken(
            "template database",
            database.name,
            sizes.get(database.oid),
            advice="Name it as a source of its own if it holds data: postgresql://…/" + database.name,
        )
        for database in databases
        if database.is_template
    ]
    providers = [
        NotTaken("database of the provider", database.name, advice=f"It belongs to {provider}.")
        for database in databases
        if (provider := _OF_PROVIDERS.get(database.name))
    ]
    return [*templates, *providers]


def _server_identity(connection: psycopg.Connection[tuple[Any, ...]]) -> str:
    """Return the system identifier, or host and port where this role may not read it."""
    return system_identifier(connection) or f"{connection.info.host}:{connection.info.port}"


def _size(connection: psycopg.Connection[tuple[Any, ...]], database: _Database) -> int | None:
    """Return the bytes of a database on the server's disk; None where this role may not ask for them."""
    with suppress(*DRIVER_ERRORS):
        row = connection.execute(_SIZE, (database.oid,)).fetchone()
        return int(row[0]) if row and row[0] is not None else None
    return None


def _read_contents(address: PostgresAddress, database: _Database, role: str) -> _Contents:
    """Look into a database: how many tables, and which of them this role may not read."""
    if not database.allows_connections:
        allow = f"ALTER DATABASE {quote_name(database.name)} ALLOW_CONNECTIONS true"
        return _Contents(problems=[f"it allows no connections: {allow}"])
    if not database.permitted:
        grant = f"GRANT CONNECT ON DATABASE {quote_name(database.name)} TO {quote_name(role)}"
        return _Contents(problems=[f"this role may not connect: {grant}"])
    try:
        with connect(address.to_database(database.name)) as connection:
            connection.execute("SET search_path = pg_catalog")
            tables = connection.execute(_TABLES).fetchall()
            own_objects = connection.execute(OWN_OBJECTS).fetchone()
    except SourceError as exc:
        return _Contents(problems=[_without_url(str(exc))])
    except DRIVER_ERRORS as exc:
        return _Contents(problems=[f"it could not be looked into: {in_one_line(exc)}"])
    unreadable = [f"{schema}.{table}" for schema, table, readable, _ in tables if not readable]
    filtered = [f"{schema}.{table}" for schema, table, readable, hides in tables if readable and hides]
    problems = [
        *sentence_of_tables(unreadable, "may not be read by this role"),
        *sentence_of_tables(filtered, "with row-level security, which hides rows from this role"),
    ]
    return _Contents(len(tables), empty=own_objects == (False,), problems=problems)


def _without_url(message: str) -> str:
    return re.sub(r"^postgresql://\S*: ", "", message)
