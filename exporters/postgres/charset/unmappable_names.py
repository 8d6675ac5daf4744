"""Relations that cannot be named in UTF-8: some bytes of their names, or of their columns', are no characters there.

Statements are in UTF-8, so no query can name such a relation; the rest leaves without it.
"""

from __future__ import annotations

from typing import Any

import psycopg
from msgspec import Struct

from exporters.api import Gap
from exporters.postgres.charset.encodings import Codec, may_change
from exporters.postgres.charset.server_conversion import asking, database_encoding
from exporters.postgres.identifiers import quote_literal
from exporters.sql.value_codec import is_utf8

_NAMES = """
SELECT * FROM (SELECT c.oid::int8 AS oid, c.relkind AS kind,
  pg_catalog.convert_to(n.nspname::pg_catalog.text, {encoding}) AS schema,
  pg_catalog.convert_to(c.relname::pg_catalog.text, {encoding}) AS name,
  (SELECT pg_catalog.string_agg(pg_catalog.convert_to(
      a.attname::pg_catalog.text || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod), {encoding}), ' ')
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND c.relpersistence <> 't'
    AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
) AS found WHERE pg_catalog.encode(schema || name || coalesce(columns, ''), 'hex') ~ '^(..)*[89a-f]'
"""
_KINDS = {"v": "view ", "m": "materialized view ", "S": "sequence "}
_REASON = (
    "its name, that of a column or of a column's type has bytes for which there is no character in UTF-8,"
    " so that it cannot be asked for: rename it"
)


class Unsayable(Struct, frozen=True):
    """A relation whose name is only bytes. ``quoted``: as pg_dump takes it, in the database's encoding."""

    oid: int
    kind: str
    quoted: bytes

    @property
    def gap(self) -> Gap:
        """What is missing."""
        name = self.quoted.decode("utf-8", "backslashreplace")
        return Gap(f"{_KINDS.get(self.kind, '')}{name}", "failed", _REASON)


def unsayable(connection: psycopg.Connection[Any]) -> list[Unsayable]:
    """Return the relations of the user's that cannot be named."""
    encoding = database_encoding(connection)
    if encoding != "SQL_ASCII" and not may_change(encoding):
        return []
    is_sayable = (
        is_utf8 if encoding == "SQL_ASCII" else Codec(encoding, asking(connection, encoding)).is_faithful
    )
    query = _NAMES.format(encoding=quote_literal(encoding))
    return [
        Unsayable(
            oid,
            _text(kind),
            b".".join(b'"' + bytes(name).replace(b'"', b'""') + b'"' for name in (schema, name)),
        )
        for oid, kind, schema, name, columns in connection.execute(query.encode()).fetchall()
        if not is_sayable(b" ".join([schema, name, columns or b""]))
    ]


def _text(kind: Any) -> str:
    return kind.decode() if isinstance(kind, bytes) else str(kind)
