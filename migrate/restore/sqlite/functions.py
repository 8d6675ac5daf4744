"""Functions that only the application has: tables that name them are made and filled all the same.

A CHECK, a DEFAULT or a generated column may call a function that the application registers. SQLite wants it to be there
when the table is made and when rows are inserted, though it is not called then: checks are off, and every column is
given. So a stand-in is lent meanwhile, and taken back before indexes are built, whose order would hang on its results.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from exporters.sqlite.catalog import Table
from exporters.sqlite.identifiers import quote_name

_MISSING = re.compile(r"(?:no such|unknown) function: (\w+)")
_MOST = 100


class Lent:
    """Stand-ins on one connection. ``by``: what needs each of them, by name."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.by: dict[str, set[str]] = {}

    def run(self, name: str, work: Callable[[], Any]) -> None:
        """Do ``work`` for the table ``name``, lending what it lacks. Raises ``sqlite3.OperationalError``."""
        for _ in range(_MOST):
            try:
                work()
            except sqlite3.OperationalError as exc:
                missing = _MISSING.match(str(exc))
                if missing is None:
                    raise
                self._connection.create_function(missing[1], -1, _stand_in, deterministic=True)
                self.by.setdefault(missing[1], set()).add(name)
            else:
                return
        work()

    def lend_for_rows(self, tables: Iterable[Table]) -> None:
        """Lend what inserting into the tables needs: also to a run that finds them made."""
        for table in tables:
            names = [quote_name(column.name) for column in table.columns if not column.generated]
            if names:
                marks = ", ".join("NULL" for _ in names)
                rows = f"{quote_name(table.name)} ({', '.join(names)}) VALUES ({marks})"
                self.run(table.name, partial(self._connection.execute, f"EXPLAIN INSERT INTO {rows}"))

    def take_back(self) -> list[str]:
        """Remove the stand-ins; return a sentence for each."""
        for function in self.by:
            self._connection.create_function(function, -1, None)
        return [_sentence(function, names) for function, names in sorted(self.by.items())]


def _stand_in(*_: object) -> None:
    return None


def _sentence(function: str, names: set[str]) -> str:
    return (
        f"the definition of {', '.join(sorted(names))} calls the function {function}, which only the application has:"
        " it was not called"
    )
