"""The types that columns have, down to what they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from msgspec import Struct

from exporters.postgres.query_rows import fetch
from exporters.postgres.rows.column_types import SqlType

_TYPES = """
SELECT t.oid::int8 AS oid, t.typname AS name, n.nspname = 'pg_catalog' AS built_in, t.typtype AS kind,
  t.typbasetype::int8 AS base, t.typtypmod AS base_modifier, coalesce(e.oid, 0)::int8 AS element,
  coalesce(r.rngsubtype, 0)::int8 AS bound, {several} AS several, t.typrelid::int8 AS relation,
  t.typname = 'hstore' AND EXISTS (SELECT FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
    WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e' AND x.extname = 'hstore') AS hstore
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_type e ON e.typarray = t.oid AND e.typdelim = ','
LEFT JOIN pg_range r ON {ranges}
WHERE t.oid = ANY(%(oids)s)
"""
"""A true array is what another type names as its own array: int2vector and point have elements, too."""
_FIELDS = """
SELECT a.attrelid::int8 AS relation, a.attname AS name, a.atttypid::int8 AS oid, a.atttypmod AS modifier
FROM pg_attribute a WHERE a.attrelid = ANY(%(oids)s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""
_MULTIRANGE_VERSION = 140000

Row = Mapping[str, Any]


class KnownTypes(Struct, frozen=True):
    """Rows of pg_type by oid, with all that they are made of; the fields of composites by their relation."""

    types: Mapping[int, Row]
    fields: Mapping[int, list[Row]]

    def resolve(self, oid: int, modifier: int) -> SqlType:
        """Return a type with domains followed down to their base."""
        row = self.types[oid]
        while row["kind"] == "d":
            modifier = row["base_modifier"]
            row = self.types[row["base"]]
        shape, parts = self._made_of(row, modifier)
        return SqlType(
            row["name"],
            row["built_in"],
            modifier,
            shape,
            tuple(self.resolve(part["oid"], part["modifier"]) for part in parts),
            tuple(part["name"] for part in parts),
        )

    def _made_of(self, row: Row, modifier: int) -> tuple[str, list[Row]]:
        if row["hstore"]:
            return "map", []
        if row["element"]:
            return "list", [{"oid": row["element"], "modifier": modifier, "name": ""}]
        if row["bound"]:
            return row["several"], [{"oid": row["bound"], "modifier": -1, "name": ""}]
        return ("struct", self.fields.get(row["relation"], [])) if row["relation"] else ("", [])


def known_types(connection: psycopg.Connection[Any], oids: Iterable[int]) -> KnownTypes:
    """Read these types and, step by step, those that they are made of."""
    several = connection.info.server_version >= _MULTIRANGE_VERSION
    query = _TYPES.format(
        several="CASE WHEN r.rngtypid = t.oid THEN 'range' ELSE 'multirange' END" if several else "'range'",
        ranges="t.oid IN (r.rngtypid, r.rngmultitypid)" if several else "t.oid = r.rngtypid",
    )
    types: dict[int, Row] = {}
    fields: dict[int, list[Row]] = {}
    pending = set(oids)
    while pending:
        rows = fetch(connection, query, {"oids": sorted(pending)})
        types.update((row["oid"], row) for row in rows)
        relations = [row["relation"] for row in rows if row["relation"]]
        field_rows = fetch(connection, _FIELDS, {"oids": relations}) if relations else []
        for row in field_rows:
            fields.setdefault(row["relation"], []).append(row)
        inner = {row[name] for row in rows for name in ("base", "element", "bound")}
        pending = (inner | {row["oid"] for row in field_rows}) - types.keys() - {0}
    return KnownTypes(types, fields)
