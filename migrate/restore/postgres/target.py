"""The target database: may it be restored into, and how far an earlier run came.

A schema of our own in the target holds the state, written in the same transactions as what it speaks of. So a
run can die at any moment: what the state says is done is done, once, and nothing else is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from exporters.postgres.catalog import PROGRESS_SCHEMA
from exporters.postgres.connect import Address, connect
from migrate.errors import BusyError, UsageError

_LOCK = 0x6D6F7665
"""The advisory lock that a restore holds ("move")."""
_LOCK_SECONDS = 20

_CONTENT = """
SELECT what FROM (
  SELECT 1 AS rank, CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' WHEN 'S' THEN 'sequence '
    ELSE 'table ' END || n.nspname || '.' || c.relname AS what, c.oid, 'pg_class'::regclass AS class, n.nspname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL SELECT 2, 'function ' || n.nspname || '.' || p.proname, p.oid, 'pg_proc'::regclass, n.nspname
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  UNION ALL SELECT 3, 'type ' || n.nspname || '.' || t.typname, t.oid, 'pg_type'::regclass, n.nspname
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r')
) AS found
WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = found.class AND d.objid = found.oid
    AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
ORDER BY rank, what LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Target:
    """The database and the connection on which everything but rows is done; it holds the lock."""

    address: Address
    connection: psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class State:
    """What an earlier run left. ``portable``: it made the objects without owners and privileges."""

    bundle: str
    source: str
    portable: bool


@contextmanager
def open_target(address: Address) -> Iterator[Target]:
    """Connect and lock out other restores. Raises ``BusyError``, ``SourceError``."""
    connection = connect_writer(address)
    try:
        _lock(connection, address)
        yield Target(address, connection)
    finally:
        connection.close()


def connect_writer(address: Address) -> psycopg.Connection[Any]:
    """Return a connection for restoring: a server that loses its client gives up soon, and a commit need not wait for
    the disk, because state and data are lost together.
    """
    connection = connect(address)
    connection.execute(
        "SELECT set_config(name, CASE name WHEN 'synchronous_commit' THEN 'off' ELSE '2s' END, false)"
        " FROM pg_settings WHERE name IN ('synchronous_commit', 'client_connection_check_interval')"
    )
    return connection


def _lock(connection: psycopg.Connection[Any], address: Address) -> None:
    """Wait a little: the session of a run that was killed may still be ending."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while not _value(connection, f"SELECT pg_try_advisory_lock({_LOCK})"):
        if time.monotonic() > deadline:
            raise BusyError(
                f"another restore works on {address.url}",
                next_step="Wait for it, or end its session (pg_stat_activity, application_name moveout).",
            )
        time.sleep(0.2)


def content(target: Target) -> str:
    """Return the name of something in the database that is neither the system's nor an extension's, or ""."""
    return str(_value(target.connection, _CONTENT) or "")


def read_state(target: Target) -> State | None:
    """Return what an earlier restore left, None where there was none. Raises ``UsageError`` if it cannot be read."""
    if not _value(target.connection, f"SELECT to_regnamespace('{PROGRESS_SCHEMA}') IS NOT NULL"):
        return None
    try:
        row = target.connection.execute(
            f"SELECT bundle, source, portable FROM {PROGRESS_SCHEMA}.about".encode()
        ).fetchone()
    except psycopg.Error as exc:
        raise UsageError(
            f"{target.address.url} has a schema {PROGRESS_SCHEMA} that is not a restore's: {exc}",
            next_step="Restore into a fresh, empty database.",
        ) from exc
    return State(*row) if row else None


def begin_state(connection: psycopg.Connection[Any], state: State) -> None:
    """Make the schema. Called within the transaction that makes the objects."""
    connection.execute(f"CREATE SCHEMA {PROGRESS_SCHEMA}".encode())
    connection.execute(
        f"CREATE TABLE {PROGRESS_SCHEMA}.about (bundle text, source text, portable boolean)".encode()
    )
    connection.execute(f"CREATE TABLE {PROGRESS_SCHEMA}.done (name text PRIMARY KEY)".encode())
    connection.execute(
        f"INSERT INTO {PROGRESS_SCHEMA}.about VALUES (%s, %s, %s)".encode(),
        (state.bundle, state.source, state.portable),
    )


def read_done(target: Target) -> set[str]:
    """Return the names of the parts and steps that are done."""
    return {row[0] for row in target.connection.execute(f"SELECT name FROM {PROGRESS_SCHEMA}.done".encode())}


def mark_done(connection: psycopg.Connection[Any], name: str) -> None:
    """Say, within the transaction that does it, that a part or step is done. It waits where another
    transaction that may yet commit said so too, and then raises.
    """
    connection.execute(f"INSERT INTO {PROGRESS_SCHEMA}.done VALUES (%s)".encode(), (name,))


def drop_state(target: Target) -> None:
    """Remove the schema: the restore is over."""
    target.connection.execute(f"DROP SCHEMA {PROGRESS_SCHEMA} CASCADE".encode())


def _value(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None
