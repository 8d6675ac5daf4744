"""Lists the databases of a MySQL or MariaDB server, with their sizes and what this account may not read of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import pymysql
from msgspec.structs import replace

from exporters.discovery import EMPTY, Discovery, FoundSource, sentence_of_tables, url_of_database
from exporters.limits import Note
from exporters.mysql.connection import Connection, connect, parse_server_url
from exporters.mysql.errors import as_source_errors, is_about_the_thing, is_refused
from exporters.mysql.identifiers import of_database, quote_literal, quote_name

SYSTEM_SCHEMAS = ("mysql", "information_schema", "performance_schema", "sys", "ndbinfo")

_DATABASES = """
SELECT s.schema_name, count(t.table_name),
  CAST(coalesce(sum(t.data_length + t.index_length), 0) AS UNSIGNED)
FROM information_schema.schemata s LEFT JOIN information_schema.tables t
  ON t.table_schema = s.schema_name AND t.table_type NOT IN ('VIEW', 'SYSTEM VIEW')
  AND CAST(t.table_schema AS BINARY) = CAST(s.schema_name AS BINARY)
GROUP BY CAST(s.schema_name AS BINARY) ORDER BY s.schema_name
"""
_OBJECTS = f"""
SELECT (SELECT count(*) FROM information_schema.tables WHERE table_schema = {{name}})
  + (SELECT count(*) FROM information_schema.routines WHERE {of_database("routine_schema", "{name}")})
  + (SELECT count(*) FROM information_schema.events WHERE {of_database("event_schema", "{name}")})
"""
_TABLES = """
SELECT table_name FROM information_schema.tables
WHERE table_schema = {name} AND table_type NOT IN ('VIEW', 'SYSTEM VIEW') ORDER BY table_name
"""


def discover(url: str, *, secrets: Mapping[str, str], note: Note, names_only: bool = False) -> Discovery:
    """Return the databases of a server. See ``exporters.discovery.Discover``."""
    del note
    address = replace(parse_server_url(url, secrets), database="")
    with closing(connect(address)) as connection, as_source_errors(address.url):
        databases = [
            (str(name), int(tables), int(size))
            for name, tables, size in connection.rows(_DATABASES)
            if str(name).lower() not in SYSTEM_SCHEMAS
        ]
        server = server_identity(connection)
        sees_all, reads_all = _global_rights(connection)
        sources = [
            FoundSource(
                url=url_of_database(url, name),
                name=name,
                items=tables,
                size_bytes=size,
                identity=f"mysql:{server}/{name}",
                facts=(EMPTY,) if not (tables or names_only) and is_empty(connection, name) else (),
                problems=() if reads_all or names_only else _problems(connection, name),
            )
            for name, tables, size in databases
        ]
    hidden = "this account lacks the right SHOW DATABASES: databases on which it has no right at all are not listed"
    return Discovery(sources, gaps=() if sees_all else (hidden,))


def server_identity(connection: Connection) -> str:
    """Return MySQL's UUID of the server; MariaDB has none, so its number, host and port. Raises ``SourceError``."""
    query = "SELECT @@server_id, @@hostname, @@port" if connection.is_mariadb else "SELECT @@server_uuid"
    with as_source_errors(connection.address.url):
        return ":".join(str(value) for value in connection.rows(query)[0])


def _global_rights(connection: Connection) -> tuple[bool, bool]:
    """Return whether the account is shown every database, which any global right grants (MySQL manual, "SHOW DATABASES
    Statement"), and whether it may read every table.
    """
    rights = {
        str(right).upper()
        for (right,) in connection.rows("SELECT privilege_type FROM information_schema.user_privileges")
    }
    return bool(rights - {"USAGE"}), "SELECT" in rights


def is_empty(connection: Connection, database: str) -> bool:
    """Tell whether a database has no table, view, routine or event. What the server cannot list may be there."""
    try:
        return int(connection.value(_OBJECTS.format(name=quote_literal(database)))) == 0
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return False


def _problems(connection: Connection, database: str) -> list[str]:
    tables = [str(row[0]) for row in connection.rows(_TABLES.format(name=quote_literal(database)))]
    refused = [table for table in tables if not _may_read(connection, database, table)]
    return sentence_of_tables(refused, "may not be read by this account")


def _may_read(connection: Connection, database: str, table: str) -> bool:
    """Try it: rights may come by roles and by patterns of names, which no view of the server resolves."""
    try:
        connection.rows(f"SELECT 1 FROM {quote_name(database)}.{quote_name(table)} LIMIT 0")
    except pymysql.Error as exc:
        if not is_refused(exc):
            raise
        return False
    return True
