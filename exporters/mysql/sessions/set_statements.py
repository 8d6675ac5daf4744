"""Statements that change settings of a server so that a restart keeps them, as far as it can."""

from __future__ import annotations

from collections.abc import Mapping

from exporters.mysql.connection import Connection

_PERSISTS = (8, 0)


def set_statements(connection: Connection, settings: Mapping[str, str]) -> str:
    """Return a statement a line that sets each of the settings, which are values as SQL by name. MySQL keeps them by
    SET PERSIST (manual, "Persisted System Variables"). Other servers have no such statement, so a comment says what
    the option file needs.
    """
    keeps = not connection.is_mariadb and connection.release >= _PERSISTS
    word = "PERSIST" if keeps else "GLOBAL"
    statements = "\n".join(f"SET {word} {name} = {value};" for name, value in settings.items())
    if keeps:
        return statements
    lines = ", ".join(f"{name} = {value.strip(chr(39))}" for name, value in settings.items())
    return f"{statements} -- a restart forgets it: write into the option file, too: {lines}"
