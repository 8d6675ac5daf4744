"""Statistics of the destination's tables, for its planner.

ANALYZE of a parent samples the foreign tables below it too, and so asks other servers (PostgreSQL documentation,
"ANALYZE"). A restore must not depend on these: such parents are not analyzed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import psycopg

from migrate.restore.postgres.definitions.refusals import first_line, use_every_schema

_TABLES = """
WITH RECURSIVE remote(oid) AS (
  SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'f'
  UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN remote r ON i.inhrelid = r.oid)
SELECT n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname), c.oid IN (SELECT oid FROM remote)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND (i.inhparent IS NULL OR i.inhparent IN (SELECT oid FROM remote))
ORDER BY 2
"""
"""What ANALYZE without names works on but the server's own tables, and whether foreign tables are below it. A partition
comes with its parent where that is analyzed.
"""
_REMOTE = "it has foreign tables below it, and their servers are not asked"
_SHOWN = 5


def analyze(connection: psycopg.Connection[Any], stop: threading.Event) -> list[str]:
    """Analyze every table, and return notes about those that cannot be analyzed. A table that fails, because its index
    calls what works for the application only, say, costs only its own statistics. In no transaction. Who sets ``stop``
    and cancels the statement ends it.
    """
    tables = connection.execute(_TABLES.encode()).fetchall()
    reasons = {name: _REMOTE for _, name, remote in tables if remote}
    local = {name: schema for schema, name, remote in tables if not remote}
    try:
        if local:
            connection.execute(f"ANALYZE {', '.join(local)}".encode())
    except psycopg.Error:
        if connection.broken or stop.is_set():
            raise
        refusals = {name: _refusal(connection, schema, name, stop) for name, schema in local.items()}
        reasons |= {name: reason for name, reason in refusals.items() if reason}
    return [_note(reasons)] if reasons else []


def _refusal(connection: psycopg.Connection[Any], schema: str, name: str, stop: threading.Event) -> str:
    """Analyze one table while code of its indexes finds names without a schema; return why the server stopped, or
    "".
    """
    try:
        with connection.transaction():
            use_every_schema(connection, schema)
            connection.execute(f"ANALYZE {name}".encode())
    except psycopg.Error as exc:
        if connection.broken or stop.is_set():
            raise
        return first_line(exc)
    return ""


def _note(reasons: Mapping[str, str]) -> str:
    shown = [f"{name} ({reason})" for name, reason in list(reasons.items())[:_SHOWN]]
    more = f" and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    return f"these tables have no statistics yet: {', '.join(shown)}{more}"
