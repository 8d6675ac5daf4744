"""A session with a MySQL or MariaDB, and what all holds there ask it for."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from exporters.mysql.connection import MysqlAddress, connect
from exporters.mysql.errors import DRIVER_ERRORS, translate
from migrate.custody.source_holds.driver import translated

_SYSTEM = ("mysql", "information_schema", "performance_schema", "sys")
_NEEDS = "use an account with the privilege SUPER or READ_ONLY ADMIN"


class Server:
    """``name`` is the database that is to be held. Methods raise ``SourceError``."""

    def __init__(self, address: MysqlAddress) -> None:
        self.url, self.name = address.url, address.database
        self._connection = connect(address)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._translated():
            return self._connection.rows(query)

    def value(self, query: str) -> Any:
        """Return the first value, None where there is none."""
        with self._translated():
            return self._connection.value(query)

    def run(self, statement: str) -> None:
        """Run a statement."""
        with self._translated():
            self._connection.run(statement)

    def variable(self, name: str) -> str | None:
        """Return a global variable's text, None where the server has none of that name."""
        with self._translated():
            return self._connection.variable(name)

    def neighbours(self) -> list[str]:
        """Return the other databases of the server, without its own."""
        rows = self.rows("SELECT schema_name FROM information_schema.schemata ORDER BY schema_name")
        return [str(row[0]) for row in rows if str(row[0]) not in (*_SYSTEM, self.name)]

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    def _translated(self) -> AbstractContextManager[None]:
        return translated(DRIVER_ERRORS, translate, self.url, needs=_NEEDS)
