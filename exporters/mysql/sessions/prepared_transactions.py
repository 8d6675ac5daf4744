"""Transactions in two phases (XA) that wait for their end: neither committed nor rolled back."""

from __future__ import annotations

import pymysql

from exporters.mysql.connection import Connection
from exporters.mysql.errors import is_about_the_thing

UNENDED = "it is neither committed nor rolled back"
HOW_TO_END = "XA COMMIT {name}; or XA ROLLBACK {name}; whichever is right"


def prepared_transactions(connection: Connection) -> list[str] | None:
    """Return the names of those of the whole server; None where the account may not see them. Raises the driver's
    errors.
    """
    try:
        rows = connection.named("XA RECOVER")
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return None
    return [
        name_of_prepared(row["data"], row["gtrid_length"], row["bqual_length"], row["formatid"])
        for row in rows
    ]


def name_of_prepared(data: bytes | str, first: int, second: int, number: int) -> str:
    """Return the name of a transaction in two phases, as the statements that end it have it, in capitals. ``data``
    begins with both parts of it, of so many bytes; ``number``: the format of its name.
    """
    name = data if isinstance(data, bytes) else data.encode(errors="surrogateescape")
    parts = name[:first], name[first : first + second]
    return ",".join([*(f"X'{part.hex().upper()}'" for part in parts), str(number)])
