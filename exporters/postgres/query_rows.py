"""The rows of a query about a database, by the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg


def fetch(
    connection: psycopg.Connection[Any], query: str, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a query, each by the names of its columns."""
    cursor = connection.execute(query.encode(), parameters)
    names = [column.name for column in cursor.description or ()]
    rows = cursor.fetchall()
    if any(bytes in set(map(type, column)) for column in zip(*rows, strict=True)):
        rows = [tuple(map(_text, row)) for row in rows]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _text(value: Any) -> Any:
    """Return text also where the server sends "char" columns as bytes."""
    return value.decode() if isinstance(value, bytes) else value
