"""What a server counts of the writes of all its sessions, or of one."""

from __future__ import annotations

from collections.abc import Sequence

from exporters.mysql.connection import Connection

_STATEMENTS = ("Com_truncate", "Com_alter_table")
_ROWS = ("Handler_write", "Handler_update", "Handler_delete")
"""In MariaDB these are rows of tables that people make; MySQL counts its own, too."""


def server_writes(connection: Connection, scope: str = "GLOBAL") -> int:
    """Return how many statements that rewrite tables the server has run; in MariaDB also how many rows it has written.
    ``scope``: ``GLOBAL``, or ``SESSION`` for what the session itself did. Raises the driver's errors.
    """
    return _count(connection, scope, (*_STATEMENTS, *_ROWS) if connection.is_mariadb else _STATEMENTS)


def server_rewrites(connection: Connection) -> int:
    """Return how many statements that rewrite tables the server has run. Raises the driver's errors."""
    return _count(connection, "GLOBAL", _STATEMENTS)


def _count(connection: Connection, scope: str, names: Sequence[str]) -> int:
    listed = ", ".join(f"'{name}'" for name in names)
    rows = connection.rows(f"SHOW {scope} STATUS WHERE Variable_name IN ({listed})")
    return sum(int(count) for _, count in rows)
