"""Rows that are too many for memory, in a private file that SQLite removes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any


def scratch_table(
    definition: str, insert: str = "", rows: Iterable[tuple[Any, ...]] = ()
) -> sqlite3.Connection:
    """Return a database with what ``definition`` makes, and ``rows``. The file is gone once it is closed, which is
    done here where ``rows`` raises.
    """
    database = sqlite3.connect("", check_same_thread=False)
    try:
        database.executescript(definition)
        if insert:
            database.executemany(insert, rows)
    except BaseException:
        database.close()
        raise
    return database
