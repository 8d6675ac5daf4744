"""Functions and collations that only the application has: tables that name them are made and filled all the same.

A CHECK, a DEFAULT or a generated column may call a function that the application registers. SQLite wants it to be there
when the table is made and when rows are inserted, though it is not called then: checks are off, and every column is
given. So a stand-in is lent meanwhile, and taken back before indexes are built, whose order would hang on its results.
A collation is used in the keys of a table as rows come in; the application has to order those anew.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from exporters.sqlite.catalog import SqliteTable
from exporters.sqlite.files.connection_pool import lend_collation
from exporters.sqlite.identifiers import quote_name

_MISSING = re.compile(r"(?:(?:no such|unknown) function: (\w+)|no such collation sequence: (.+))")
_MOST = 100


class StandIns:
    """Stand-ins on one connection. ``needed_by``: what needs each of them, by name."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.needed_by: dict[str, set[str]] = {}
        self._collations: set[str] = set()

    def run(self, name: str, work: Callable[[], Any]) -> None:
        """Do ``work`` for the table ``name``, lending what it lacks. Raises ``sqlite3.OperationalError``."""
        for _ in range(_MOST):
            try:
                work()
            except sqlite3.OperationalError as exc:
                missing = _MISSING.match(str(exc))
                if missing is None:
                    raise
                self._lend(missing[1], missing[2], name)
            else:
                return
        work()

    def _lend(self, function: str | None, collation: str, name: str) -> None:
        if function is not None:
            self._connection.create_function(function, -1, _stand_in, deterministic=True)
            self.needed_by.setdefault(function, set()).add(name)
        else:
            lend_collation(self._connection, collation)
            self._collations.add(collation)

    def lend_for_rows(self, tables: Iterable[SqliteTable]) -> None:
        """Lend what inserting into the tables needs: also to a run that finds them made."""
        for table in tables:
            names = [quote_name(column.name) for column in table.columns if not column.generated]
            if names:
                marks = ", ".join("NULL" for _ in names)
                rows = f"{quote_name(table.name)} ({', '.join(names)}) VALUES ({marks})"
                self.run(table.name, partial(self._connection.execute, f"EXPLAIN INSERT INTO {rows}"))

    def take_back(self) -> list[str]:
        """Remove the stand-ins; return a sentence for each."""
        for function in self.needed_by:
            self._connection.create_function(function, -1, None)
        for collation in self._collations:
            self._connection.create_collation(collation, None)
        sentences = [_sentence(function, names) for function, names in sorted(self.needed_by.items())]
        return sentences + list(map(_of_collation, sorted(self._collations)))


def _stand_in(*_: object) -> None:
    return None


def _of_collation(collation: str) -> str:
    return (
        f"keys by the collation {collation}, which only the application has, are in another order: let it say REINDEX"
        f" {quote_name(collation)} before it looks anything up"
    )


def _sentence(function: str, names: set[str]) -> str:
    return (
        f"the definition of {', '.join(sorted(names))} calls the function {function}, which only the application has:"
        " it was not called"
    )
