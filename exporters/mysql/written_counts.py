"""What a server counts of the writes of all its sessions, or of one."""

from __future__ import annotations

from exporters.mysql.connection import Connection

_STATEMENTS = ("Com_truncate", "Com_alter_table")
_ROWS = ("Handler_write", "Handler_update", "Handler_delete")
"""In MariaDB these are rows of tables that people make; MySQL counts its own, too."""


def server_writes(connection: Connection, scope: str = "GLOBAL") -> int:
    """Return how many statements that rewrite tables the server has run; in MariaDB also how many rows it has written.
    ``scope``: ``GLOBAL``, or ``SESSION`` for what the session itself did. Raises the driver's errors.
    """
    names = (*_STATEMENTS, *_ROWS) if connection.is_mariadb else _STATEMENTS
    listed = ", ".join(f"'{name}'" for name in names)
    rows = connection.rows(f"SHOW {scope} STATUS WHERE Variable_name IN ({listed})")
    return sum(int(count) for _, count in rows)
