"""What a restore keeps at the destination, in a schema of our own: how far it came, and what it left out.

The state is written in the same transactions as what it records. So a run can die at any moment: exactly the recorded
steps are done, each once. Once the restore is finished, what it left out is in a record that stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg

from exporters.postgres.errors import as_source_errors
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.postgres.sessions.connection import connect, parse_url
from migrate.bundle.reader import BundleReader
from migrate.errors import UsageError
from migrate.restore.common.api import UnfinishedRestore
from migrate.restore.common.left_out import FinishedRestore
from migrate.restore.common.table_restore import State
from migrate.restore.postgres.definitions.refusals import first_line
from migrate.restore.postgres.destination import PostgresDestination, has_schema

_TABLE = f"{PROGRESS_SCHEMA}.left_out"
_FINISHED = f"{PROGRESS_SCHEMA}.finished"
HOW_TO_FORGET = (
    f"the destination keeps this list in schema {PROGRESS_SCHEMA}, so the same command and verify --against name it"
    f" again; to forget it: DROP TABLE {PROGRESS_SCHEMA}.finished"
)
_ONLY_FINISHED = f"""
SELECT to_regclass('{PROGRESS_SCHEMA}.about') IS NULL AND (to_regclass('{PROGRESS_SCHEMA}.finished') IS NOT NULL
  OR to_regclass('{PROGRESS_SCHEMA}.follow') IS NOT NULL)
"""
_OWN = ("about", "done", "left_out")
_OWN_TABLES = "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = %s"


class PostgresState(State, frozen=True):
    """``portable``: the objects were made without owners and privileges."""

    portable: bool = False


def read_state(destination: PostgresDestination) -> PostgresState | None:
    """Return what an unfinished restore left, None where there is none. Raises ``UsageError`` if it cannot be read."""
    if not has_schema(destination.connection, PROGRESS_SCHEMA):
        return None
    try:
        if destination.connection.execute(_ONLY_FINISHED.encode()).fetchone() == (True,):
            return None
        row = destination.connection.execute(
            f"SELECT bundle, source, only_, portable FROM {PROGRESS_SCHEMA}.about".encode()
        ).fetchone()
    except psycopg.Error as exc:
        raise UsageError(
            f"{destination.address.url} has a schema {PROGRESS_SCHEMA} that is not a restore's: {exc}",
            next_step="restore into a fresh, empty database",
        ) from exc
    return PostgresState(*row) if row else None


def begin_state(connection: psycopg.Connection[Any], state: PostgresState) -> None:
    """Make the schema. Called within the transaction that makes the objects."""
    connection.execute(
        f"CREATE SCHEMA IF NOT EXISTS {PROGRESS_SCHEMA};"
        f"CREATE TABLE {PROGRESS_SCHEMA}.about (bundle text, source text, portable boolean, only_ text);"
        f"CREATE TABLE {PROGRESS_SCHEMA}.done (name text PRIMARY KEY);"
        f"CREATE TABLE {PROGRESS_SCHEMA}.left_out"
        " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, step text, entry text)".encode()
    )
    connection.execute(
        f"INSERT INTO {PROGRESS_SCHEMA}.about VALUES (%s, %s, %s, %s)".encode(),
        (state.bundle, state.source, state.portable, state.only),
    )


def read_done(destination: PostgresDestination) -> set[str]:
    """Return the names of the parts and steps that are done."""
    return {
        row[0] for row in destination.connection.execute(f"SELECT name FROM {PROGRESS_SCHEMA}.done".encode())
    }


def mark_done(connection: psycopg.Connection[Any], *names: str) -> None:
    """Record, within the transaction that does it, that parts or steps are done. It waits where another open
    transaction has recorded the same, and then raises.
    """
    connection.execute(
        f"INSERT INTO {PROGRESS_SCHEMA}.done SELECT pg_catalog.unnest(%s::text[])".encode(), (list(names),)
    )


def add_left_out(
    connection: psycopg.Connection[Any],
    step: str,
    left_out: Sequence[str] = (),
    notes: Sequence[str] = (),
    *,
    passwordless: Sequence[str] = (),
) -> None:
    """Record what a step left out, notes and new roles, within the transaction that marks it as done."""
    if left_out or notes or passwordless:
        entry = FinishedRestore("", left_out, notes, passwordless=passwordless).encode()
        connection.execute(f"INSERT INTO {_TABLE} (step, entry) VALUES (%s, %s)".encode(), (step, entry))


def read_left_out(connection: psycopg.Connection[Any]) -> FinishedRestore:
    """Return all that finished steps have recorded, each sentence once."""
    rows = connection.execute(f"SELECT entry FROM {_TABLE} ORDER BY id".encode()).fetchall()
    return FinishedRestore.joined(FinishedRestore.decode("", entry) for (entry,) in rows)


def read_finished(connection: psycopg.Connection[Any], bundle: str, source: str) -> list[FinishedRestore]:
    """Return the records of the finished restores of a source, of all or of parts of it."""
    if not _exists(connection, "finished"):
        return []
    rows = connection.execute(
        f"SELECT only_, entry FROM {_FINISHED} WHERE (bundle, source) = (%s, %s) ORDER BY finished_at".encode(),
        (bundle, source),
    ).fetchall()
    return [FinishedRestore.decode(*row) for row in rows]


def read_records(
    reader: BundleReader, source: str, url: str, secrets: Mapping[str, str]
) -> list[FinishedRestore]:
    """Return what finished restores, and an unfinished restore, left out of a database."""
    address = parse_url(url, secrets)
    with as_source_errors(address.url), closing(connect(address)) as connection:
        if not (_exists(connection, "about") or _exists(connection, "finished")):
            return []
        try:
            return _records(connection, reader.info.id, source)
        except psycopg.errors.InsufficientPrivilege as exc:
            words = f"schema {PROGRESS_SCHEMA} says what a restore left out, and cannot be read: {first_line(exc)}"
            return [FinishedRestore("", [words])]


def _records(connection: psycopg.Connection[Any], bundle: str, source: str) -> list[FinishedRestore]:
    records = read_finished(connection, bundle, source)
    if not _exists(connection, "about"):
        return records
    about = connection.execute(
        f"SELECT bundle, source, only_ FROM {PROGRESS_SCHEMA}.about".encode()
    ).fetchone()
    if about is None or about[:2] != (bundle, source):
        return records
    words = f"a restore of {about[2] or source} is not finished: give its command again"
    return [*records, FinishedRestore(about[2], [words, *read_left_out(connection).left_out], finished=False)]


def forget_finished(connection: psycopg.Connection[Any], state: PostgresState, *, every: bool) -> None:
    """Remove the record of this very restore; with ``every`` those of all: the database is empty."""
    if every:
        connection.execute(f"DROP SCHEMA IF EXISTS {PROGRESS_SCHEMA} CASCADE".encode())
    elif _exists(connection, "finished"):
        connection.execute(
            f"DELETE FROM {_FINISHED} WHERE (bundle, source, only_) = (%s, %s, %s)".encode(),
            (state.bundle, state.source, state.only),
        )


def forget_superseded(
    connection: psycopg.Connection[Any], state: PostgresState, bundles: Sequence[str]
) -> None:
    """Remove the records of a source's restores from these bundles, within the transaction that ends the restore."""
    if bundles and _exists(connection, "finished"):
        connection.execute(
            f"DELETE FROM {_FINISHED} WHERE source = %s AND bundle = ANY(%s)".encode(),
            (state.source, list(bundles)),
        )
        row = connection.execute(f"SELECT count(*) FROM {_FINISHED}".encode()).fetchone()
        if row == (0,):
            connection.execute(f"DROP TABLE {_FINISHED}".encode())


def end_state(connection: psycopg.Connection[Any], *, keep: bool) -> None:
    """Remove the state, within the transaction that ends the restore. ``keep``: ``write_finished`` follows."""
    if keep:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {_FINISHED} (bundle text, source text, only_ text,"
            " finished_at timestamptz DEFAULT pg_catalog.now(), entry text)".encode()
        )
    if keep or _exists(connection, "finished") or _exists(connection, "follow"):
        tables = ", ".join(f"{PROGRESS_SCHEMA}.{name}" for name in _OWN)
        connection.execute(f"DROP TABLE {tables}".encode())
    else:
        connection.execute(f"DROP SCHEMA {PROGRESS_SCHEMA} CASCADE".encode())


def write_finished(
    connection: psycopg.Connection[Any], state: PostgresState, record: FinishedRestore
) -> None:
    """Write the record that stays, within the transaction that ends the restore."""
    connection.execute(
        f"INSERT INTO {_FINISHED} (bundle, source, only_, entry) VALUES (%s, %s, %s, %s)".encode(),
        (state.bundle, state.source, record.only, record.encode()),
    )


def _exists(connection: psycopg.Connection[Any], table: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s)",
        (PROGRESS_SCHEMA, table),
    ).fetchone()
    return bool(row and row[0])


def unfinished_restore(url: str, secrets: Mapping[str, str]) -> UnfinishedRestore | None:
    """See ``Engine.unfinished_restore``. Records of others and marks of changes stay. Raises ``SourceError``."""
    address = parse_url(url, secrets)
    with closing(connect(address)) as connection, as_source_errors(address.url):
        tables = {str(name) for (name,) in connection.execute(_OWN_TABLES, (PROGRESS_SCHEMA,))}
        if "about" not in tables:
            return None
        row = connection.execute(f"SELECT bundle, source FROM {PROGRESS_SCHEMA}.about".encode()).fetchone()
    bundle, source = row or ("", "")
    labels = ", ".join(f"{PROGRESS_SCHEMA}.{name}" for name in _OWN if name in tables)
    if tables <= {*_OWN}:
        return UnfinishedRestore(
            bundle, source, f"schema {PROGRESS_SCHEMA}", f"DROP SCHEMA {PROGRESS_SCHEMA} CASCADE;"
        )
    return UnfinishedRestore(bundle, source, f"tables {labels}", f"DROP TABLE {labels};")
