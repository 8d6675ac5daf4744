"""Statistics of the destination's tables, for its planner.

ANALYZE of a parent samples the foreign tables below it too, and so asks other servers (PostgreSQL documentation,
"ANALYZE"). A restore must not depend on these: such parents are not analyzed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import psycopg

from exporters.postgres.schemas import PROGRESS_SCHEMA
from migrate.errors import MoveoutError
from migrate.number_text import list_words
from migrate.restore.postgres.definitions.refusals import first_line, searching_every_schema
from migrate.restore.postgres.destination import PostgresDestination, connect_writer

_TABLES = f"""
WITH RECURSIVE remote(oid) AS (
  SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'f'
  UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN remote r ON i.inhrelid = r.oid)
SELECT n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname), c.oid IN (SELECT oid FROM remote)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', '{PROGRESS_SCHEMA}')
  AND (i.inhparent IS NULL OR i.inhparent IN (SELECT oid FROM remote))
ORDER BY 2
"""
"""What ANALYZE without names works on but the server's own tables and ours, and whether foreign tables are below it. A
partition comes with its parent where that is analyzed.
"""
_EXPRESSIONS = """
SELECT textsend(pg_catalog.pg_get_indexdef(i.indexrelid)) FROM pg_catalog.pg_index i
WHERE coalesce(i.indexprs, i.indpred) IS NOT NULL AND (i.indrelid = %(table)s::pg_catalog.regclass
  OR i.indrelid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(%(table)s::pg_catalog.regclass) AS t))
"""
"""The indexes of a table and of its partitions that run code."""
_REMOTE = "it has foreign tables below it, and their servers are not asked"
_TOGETHER = 32
"""How many tables at most are analyzed by one statement."""


class Analysis:
    """ANALYZE of every table, by the destination's own connection and, where the server allows that, by others."""

    def __init__(self, destination: PostgresDestination) -> None:
        self._destination = destination
        self._waiting: list[list[tuple[str, str]]] = []
        self._reasons: dict[str, str] = {}
        self._connections = [destination.connection]
        self._stop = threading.Event()
        self._one_at_a_time = threading.Lock()
        """Held while functions of the database may be altered for a moment: see ``searching_every_schema``."""

    def run(self, sessions: int) -> list[str]:
        """Analyze every table, and return notes about those that cannot be analyzed. A table that fails, because its
        index calls what works for the application only, say, costs only its own statistics. In no transaction.
        """
        connection = self._destination.connection
        tables = connection.execute(_TABLES.encode()).fetchall()
        self._reasons.update((name, _REMOTE) for _, name, remote in tables if remote)
        local = [(schema, name) for schema, name, remote in tables if not remote]
        self._waiting = grouped(local, sessions)
        statements = len(self._waiting)
        with ThreadPoolExecutor(sessions, thread_name_prefix="moveout-analyze") as pool:
            others = [pool.submit(self._by_another_session) for _ in range(min(sessions, statements) - 1)]
            try:
                self._work(connection)
                for other in others:
                    other.result()
            except BaseException:
                self.cancel()
                raise
        return [_note(self._reasons)] if self._reasons else []

    def cancel(self) -> None:
        """End what is under way."""
        self._stop.set()
        for connection in list(self._connections):
            with suppress(psycopg.Error):
                connection.cancel()

    def _by_another_session(self) -> None:
        try:
            connection = connect_writer(self._destination.address)
        except MoveoutError:  # such as no more connections: the first session does all
            return
        with closing(connection):
            self._connections.append(connection)
            self._work(connection)

    def _work(self, connection: psycopg.Connection[Any]) -> None:
        """Analyze what waits, as long as no other session takes it."""
        while not self._stop.is_set():
            try:
                tables = self._waiting.pop()
            except IndexError:
                return
            try:
                connection.execute(f"ANALYZE {', '.join(name for _, name in tables)}".encode())
            except psycopg.Error:
                if connection.broken or self._stop.is_set():
                    raise
                for schema, name in tables:
                    if reason := self._refusal(connection, schema, name):
                        self._reasons[name] = reason

    def _refusal(self, connection: psycopg.Connection[Any], schema: str, name: str) -> str:
        """Analyze one table while names without a schema are searched in all; return why that failed, or ""."""
        try:
            with self._one_at_a_time, connection.transaction():
                code = b" ".join(row[0] for row in connection.execute(_EXPRESSIONS.encode(), {"table": name}))
                with searching_every_schema(connection, schema, code):
                    connection.execute(f"ANALYZE {name}".encode())
        except psycopg.Error as exc:
            if connection.broken or self._stop.is_set():
                raise
            return first_line(exc)
        return ""


def grouped(tables: Sequence[tuple[str, str]], sessions: int) -> list[list[tuple[str, str]]]:
    """Return the tables of each statement: ``_TOGETHER`` at most, and at least one for each session."""
    statements = max(-(-len(tables) // _TOGETHER), min(sessions, len(tables)))
    return [list(tables[number::statements]) for number in range(statements)]


def _note(reasons: Mapping[str, str]) -> str:
    tables = [f"{name} ({reason})" for name, reason in sorted(reasons.items())]
    return f"these tables have no statistics yet: {list_words(tables)}"
