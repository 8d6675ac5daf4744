"""Collations that only the application has. Without one SQLite reads no table with a key in its order, and makes none.

A stand-in is registered, which orders by code points. Reading compares nothing with it, and what was written in its
order is put into the application's by ``REINDEX name`` (https://sqlite.org/lang_reindex.html).
"""

from __future__ import annotations

import re
import sqlite3

_NAMED = re.compile(
    r"\bCOLLATE\s+(?:\"((?:[^\"]|\"\")+)\"|`([^`]+)`|\[([^\]]+)\]|'([^']+)'|(\w+))", re.IGNORECASE
)


def lend_collations(connection: sqlite3.Connection) -> None:
    """Lend every collation that a definition names and SQLite does not have."""
    known = {str(row[1]).lower() for row in connection.execute("PRAGMA collation_list")}
    for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql LIKE '%collate%'").fetchall():
        for name in ("".join(groups).replace('""', '"') for groups in _NAMED.findall(str(sql))):
            if name.lower() not in known:
                lend_collation(connection, name)


def lend_collation(connection: sqlite3.Connection, name: str) -> None:
    """Lend one."""
    connection.create_collation(name, _by_code_points)


def _by_code_points(first: str, second: str) -> int:
    return (first > second) - (first < second)
