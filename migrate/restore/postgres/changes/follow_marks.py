"""How far changes were applied, kept in the destination: in the schema that restores keep their place in.

A restore writes the mark in the transaction that ends it. From then on each transaction of changes moves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg

from exporters.postgres.errors import as_source_errors
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.postgres.sessions.connection import connect, parse_url
from migrate.changes.apply import Mark
from migrate.changes.segments import Place
from migrate.runtime.crash_points import durable

_TABLE = f"{PROGRESS_SCHEMA}.follow"
_OTHERS = (
    "ARRAY(SELECT n FROM pg_catalog.unnest(skipped) AS n WHERE n OPERATOR(pg_catalog.<>) ALL ($2::text[]))"
)
"""The tables that are skipped, but for those that are read again."""


def begin_mark(
    connection: psycopg.Connection[Any], source: str, base: int, skipped: Sequence[str] = ()
) -> None:
    """Write that a source was restored as of ``base`` but for the ``skipped`` tables, as the restore ends."""
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {PROGRESS_SCHEMA}".encode())
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {_TABLE} (source text PRIMARY KEY, base bigint, segment bigint, message bigint,"
        " position bigint, applied_at timestamptz, skipped text[], reread jsonb DEFAULT '{}')".encode()
    )
    connection.execute(f"DELETE FROM {_TABLE} WHERE source = %s".encode(), (source,))
    connection.execute(
        f"INSERT INTO {_TABLE} VALUES (%s, %s, 0, 0, %s, pg_catalog.now(), %s)".encode(),
        (source, base, base, list(skipped)),
    )


def read_mark(connection: psycopg.Connection[Any], source: str) -> Mark | None:
    """Return how far the changes of a source were applied; None where it was not restored to this database."""
    if not _exists(connection):
        return None
    query = f"SELECT base, segment, message, position, skipped FROM {_TABLE} WHERE source = $1"
    with psycopg.RawCursor(connection) as cursor:
        row = cursor.execute(query.encode(), (source,)).fetchone()
    return Mark(row[0], Place(row[1], row[2]), row[3], tuple(row[4])) if row else None


def _exists(connection: psycopg.Connection[Any]) -> bool:
    query = f"SELECT pg_catalog.to_regclass('{_TABLE}') IS NOT NULL"
    return connection.execute(query.encode()).fetchone() == (True,)


def read_again(connection: psycopg.Connection[Any], source: str) -> Mapping[str, int]:
    """Return the tables (``schema.name``) that were read again, and up to where in the log they have all changes."""
    with psycopg.RawCursor(connection) as cursor:
        row = cursor.execute(f"SELECT reread FROM {_TABLE} WHERE source = $1".encode(), (source,)).fetchone()
    return dict(row[0]) if row else {}


def tables_read_again(connection: psycopg.Connection[Any]) -> frozenset[str]:
    """Return the tables (``schema.name``) that were read again, of all sources."""
    if not _exists(connection):
        return frozenset()
    rows = connection.execute(f"SELECT pg_catalog.jsonb_object_keys(reread) FROM {_TABLE}".encode())
    return frozenset(str(name) for (name,) in rows)


def begin_again(connection: psycopg.Connection[Any], source: str, tables: Sequence[str]) -> None:
    """Write that tables are being read again: until that has ended their changes are left out."""
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(
            f"UPDATE {_TABLE} SET skipped = pg_catalog.array_cat({_OTHERS}, $2::text[]) WHERE source = $1".encode(),
            (source, list(tables)),
        )


def end_again(connection: psycopg.Connection[Any], source: str, tables: Sequence[str], position: int) -> None:
    """Write that tables have all that was committed before a position: only later changes of them are applied."""
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(
            f"UPDATE {_TABLE} SET skipped = {_OTHERS}, reread = reread || (SELECT"
            " pg_catalog.jsonb_object_agg(name, $3::bigint) FROM pg_catalog.unnest($2::text[]) AS name)"
            " WHERE source = $1".encode(),
            (source, list(tables), position),
        )


def applied_mark(url: str, secrets: Mapping[str, str], source: str) -> Mark | None:
    """See ``Engine.change_mark``. Raises ``SourceError``."""
    address = parse_url(url, secrets)
    with closing(connect(address)) as connection, as_source_errors(address.url):
        return read_mark(connection, source)


def forget_mark(connection: psycopg.Connection[Any], source: str) -> None:
    """Remove the mark of a source, and what is empty then: the table of marks, and the schema."""
    if read_mark(connection, source) is None:
        return
    with (
        durable("follow.postgres.forget_mark"),
        connection.transaction(),
        psycopg.RawCursor(connection) as cursor,
    ):
        cursor.execute(f"DELETE FROM {_TABLE} WHERE source = $1".encode(), (source,))
        if cursor.execute(f"SELECT FROM {_TABLE} LIMIT 1".encode()).fetchone() is None:
            cursor.execute(f"DROP TABLE {_TABLE}".encode())
        others = "SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.to_regnamespace($1) LIMIT 1"
        if cursor.execute(others.encode(), (PROGRESS_SCHEMA,)).fetchone() is None:
            cursor.execute(f"DROP SCHEMA {PROGRESS_SCHEMA}".encode())


MOVE_MARK = (
    f"UPDATE {_TABLE} SET segment = $2::bigint, message = $3::bigint, position = $4::bigint, applied_at = now()"
    " WHERE source = $1"
)
"""The statement that moves a mark: source, segment, message, position."""
