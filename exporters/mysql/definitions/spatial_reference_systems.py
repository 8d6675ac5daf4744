"""Spatial reference systems of the server's users: MySQL keeps them for all databases, and columns refer to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pymysql

from exporters.mysql.connection import Connection
from exporters.mysql.errors import is_about_the_thing
from exporters.mysql.identifiers import quote_literal

KIND = "spatial reference system"
_OWN = (
    "SELECT SRS_ID AS id, SRS_NAME AS name, ORGANIZATION AS organization, ORGANIZATION_COORDSYS_ID AS number,"
    " DEFINITION AS definition, DESCRIPTION AS description FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS"
    " WHERE SRS_ID > 32767 AND SRS_ID NOT BETWEEN 60000000 AND 69999999 AND SRS_ID < 2000000000 ORDER BY SRS_ID"
)
"""All but those that MySQL reserves for its own (manual, 15.1.22)."""


def reference_systems(connection: Connection) -> list[dict[str, Any]]:
    """Return the definitions of those that users have made; servers that know none have none."""
    try:
        rows = connection.named(_OWN)
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return []
    return [{"kind": KIND, "name": str(row["id"]), "sql": _statement(row)} for row in rows]


def _statement(row: Mapping[str, Any]) -> str:
    """Return the statement that makes it, where the number is free."""
    clauses = [
        f"CREATE SPATIAL REFERENCE SYSTEM IF NOT EXISTS {row['id']}",
        f"NAME {quote_literal(row['name'])}",
        f"DEFINITION {quote_literal(row['definition'])}",
    ]
    if row["organization"] is not None:
        clauses.append(f"ORGANIZATION {quote_literal(row['organization'])} IDENTIFIED BY {row['number']}")
    if row["description"] is not None:
        clauses.append(f"DESCRIPTION {quote_literal(row['description'])}")
    return " ".join(clauses)
