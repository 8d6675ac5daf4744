"""A connection's transaction within the snapshot of another session: left now and then, and begun again where a name
is not found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from exporters.postgres.errors import sqlstate
from exporters.postgres.identifiers import quote_literal
from exporters.postgres.schemas import SEARCH_EVERY_SCHEMA

QUERIES = 100
"""How many queries are one transaction. The locks of all tables and indexes that it read are held until its end, and a
server has no room for those of ten thousand tables.
"""
NOT_FOUND = frozenset({"3F000", "42703", "42704", "42883", "42P01"})
"""The error, before the first row, of a table whose index calls a function in SQL that names something without its
schema. To plan any query of the table is to look into that function.
"""
Value = TypeVar("Value")


class Transaction:
    """Runs queries within a snapshot. ``execute`` runs statements on the connection, of whichever driver, which is in
    no transaction yet. What it raises, as what a query raises, may be a driver's error or one translated from it.
    """

    def __init__(self, snapshot: str, execute: Callable[[str], object]) -> None:
        self._snapshot = snapshot
        self._execute = execute
        self._begun = False
        self._queries = 0

    def run(self, query: Callable[[], Value]) -> Value:
        """Return what ``query()`` does within the snapshot. It is called again, with all schemas in sight, where a
        name without a schema was not found; no later query sees them.
        """
        self.begin_for(1)
        try:
            return query()
        except Exception as exc:
            if not self.begin_again_after(exc):
                raise
        return query()

    def begin_for(self, queries: int) -> None:
        """Begin a transaction for so many queries, if there is none or it had enough of them."""
        if not self._begun or self._queries >= QUERIES:
            self._begin()
        self._queries += queries

    def begin_again_after(self, error: Exception) -> bool:
        """Begin a transaction for one query, with all schemas in sight, where ``error`` is of a name without a schema
        that was not found; tell whether it is.
        """
        if sqlstate(error) not in NOT_FOUND:
            return False
        self._begin(SEARCH_EVERY_SCHEMA)
        self._queries = QUERIES
        return True

    def _begin(self, *settings: str) -> None:
        leave = ["ROLLBACK"] * self._begun
        self._execute("; ".join([*leave, begin_statement(self._snapshot), *settings]))
        self._begun = True
        self._queries = 0


def begin_statement(snapshot: str) -> str:
    """Return the statements that begin a transaction with another one's snapshot, or with one of its own for ""."""
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    return f"{begin}; SET TRANSACTION SNAPSHOT {quote_literal(snapshot)}" if snapshot else begin
