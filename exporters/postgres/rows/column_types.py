"""How each SQL type becomes an Arrow type: one ``Kind`` a column.

A kind says what the CSV parser makes of the server's text (``parsed``), what stands in the Parquet file
(``stored``), and how the text is made again (``codec``). The rule for values that a type
cannot hold is one for all kinds: the typed column is NULL there and the exact text stands in a side column.

Why the text of each kind determines the value, and the value the text (settings as in ``connection.PINNED``):

``bool``  t or f. ``int``  canonical decimal digits. ``decimal``  numeric(p,s) with p <= 38 prints exactly s
digits after the point; NaN and infinities fail to parse and go to the side. ``text``  itself. ``date``,
``timestamp``, ``timestamptz``, ``time``  ISO 8601 with a fraction of up to six digits without trailing zeros;
years beyond four digits, BC, infinities and 24:00:00 fail to parse. ``uuid``, ``bytes``  hexadecimal, lower
case. These are parsed without being compared. ``float``  the shortest text that gives the same bits; two
shortest-digit algorithms may differ, so it is compared, value by value (a float4 is sent as float8, which
holds it exactly). ``interval``, ``timetz`` and all composed kinds are compared, too.

Arrays, ranges, multiranges, composites and hstore become lists, structs and maps as far as their text is only that. A
bound, element or field that its own type cannot hold makes the whole value one for the side column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from exporters.postgres.query_rows import fetch
from exporters.postgres.rows.text_codec.codecs import codec_of, named
from exporters.postgres.rows.text_codec.composed_values import MAP, range_type
from exporters.postgres.rows.text_codec.times import INTERVAL, TIMETZ
from exporters.sql.columns import MAX_DECIMAL_DIGITS, Kind


class SqlType(Struct, frozen=True):
    """A type after domains are resolved: its name, whether it is built in, and the type modifier (-1 for
    none). ``shape`` says what it is made of: ``list range multirange struct map`` or nothing; ``parts``: the types of
    its elements, bounds or fields; ``fields``: their names.
    """

    name: str
    built_in: bool
    modifier: int
    shape: str = ""
    parts: tuple[SqlType, ...] = ()
    fields: tuple[str, ...] = ()


_TEXT = Kind(codec_of("text"), pa.string(), pa.string(), plain=False)
_BYTES_TEXT = Kind(codec_of("text"), pa.binary(), pa.binary(), plain=False)
_FLOAT4 = Kind(
    codec_of("float4"), pa.string(), pa.float32(), compared=True, expression="{}::pg_catalog.float8".format
)

_SIMPLE: Mapping[str, Kind] = {
    "bool": Kind(codec_of("bool"), pa.bool_(), pa.bool_()),
    "int2": Kind(codec_of("int"), pa.int16(), pa.int16()),
    "int4": Kind(codec_of("int"), pa.int32(), pa.int32()),
    "int8": Kind(codec_of("int"), pa.int64(), pa.int64()),
    "oid": Kind(codec_of("int"), pa.uint32(), pa.uint32()),
    "float4": _FLOAT4,
    "float8": Kind(codec_of("float8"), pa.string(), pa.float64(), compared=True),
    "bytea": Kind(codec_of("bytes"), pa.string(), pa.binary()),
    "date": Kind(codec_of("date"), pa.date32(), pa.date32()),
    "timestamp": Kind(codec_of("timestamp"), pa.timestamp("us"), pa.timestamp("us")),
    "timestamptz": Kind(codec_of("timestamptz"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
    "time": Kind(codec_of("time"), pa.time64("us"), pa.time64("us")),
    "uuid": Kind(codec_of("uuid"), pa.string(), pa.uuid()),
    "timetz": Kind(codec_of("timetz"), pa.string(), TIMETZ, compared=True),
    "interval": Kind(codec_of("interval"), pa.string(), INTERVAL, compared=True),
    **{
        f"_{name}": Kind(codec_of(f"{name}list"), pa.string(), pa.list_(element), compared=True, plain=False)
        for name, element in {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64()}.items()
    },
    "json": Kind(codec_of("json"), pa.string(), pa.json_(pa.string()), plain=False),
    "jsonb": Kind(codec_of("json"), pa.string(), pa.json_(pa.string()), plain=False),
}


def kind_of(sql_type: SqlType, *, utf8: bool = True, encoding: str = "") -> Kind:
    """Return the kind of a column. ``utf8`` is False for a database without an encoding, whose text is
    bytes; ``encoding`` is that of a database whose text may not come through UTF-8 as it is.
    """
    kind = _kind_of(sql_type, utf8=utf8)
    return replace(kind, encoding=encoding) if encoding and not kind.plain else kind


def _kind_of(sql_type: SqlType, *, utf8: bool) -> Kind:
    if sql_type.built_in:
        if sql_type.name == "numeric":
            return _numeric(sql_type.modifier) or _TEXT
        kind = _SIMPLE.get(sql_type.name)
        if kind is not None and (utf8 or kind.name != "json"):
            return kind
    if not utf8:
        return _BYTES_TEXT
    inner = _made_of_others(sql_type, _MAX_DEPTH)
    return (
        _TEXT
        if inner is None
        else Kind(codec_of(inner.kind), pa.string(), inner.stored, compared=True, plain=False)
    )


class _Inner(Struct, frozen=True):
    """The kind of a value within another, and how it is stored."""

    kind: str
    stored: pa.DataType


_MAX_DEPTH = 8
_MAX_FIELDS = 64
"""A composite with more fields is its text."""
_TEXT_WITHIN = _Inner("text", pa.string())
_WITHIN: Mapping[str, _Inner] = {
    "float4": _Inner("single", pa.float32()),
    "json": _TEXT_WITHIN,
    "jsonb": _TEXT_WITHIN,
}
"""Where a value within another is not what a column would be: it has the text of its own type, in any select."""


def _made_of_others(sql_type: SqlType, depth: int) -> _Inner | None:
    """Return what arrays, ranges, composites and maps become; None where that is text."""
    if not depth or len(sql_type.parts) > _MAX_FIELDS:
        return None
    if sql_type.shape == "map":
        return _Inner("map", MAP)
    inner = [_within(part, depth - 1) for part in sql_type.parts]
    if not inner:
        return None
    kind = named(sql_type.shape, *(part.kind for part in inner))
    if sql_type.shape == "struct":
        return _Inner(
            kind, pa.struct(list(zip(sql_type.fields, (part.stored for part in inner), strict=True)))
        )
    (only,) = inner
    stored = only.stored if sql_type.shape == "list" else range_type(only.stored)
    return _Inner(kind, stored if sql_type.shape == "range" else pa.list_(stored))


def _within(sql_type: SqlType, depth: int) -> _Inner:
    inner = _made_of_others(sql_type, depth)
    if inner is not None or not sql_type.built_in:
        return inner or _TEXT_WITHIN
    if sql_type.name in _WITHIN:
        return _WITHIN[sql_type.name]
    kind = _numeric(sql_type.modifier) if sql_type.name == "numeric" else _SIMPLE.get(sql_type.name)
    return _TEXT_WITHIN if kind is None else _Inner(kind.name, kind.stored)


def _numeric(modifier: int) -> Kind | None:
    """Return the DECIMAL kind of ``numeric(p, s)``, None where it has no precision or does not fit.

    The modifier is ((p << 16) | (s & 0x7ff)) + 4, s signed in 11 bits (src/backend/utils/adt/numeric.c).
    """
    if modifier < 4:
        return None
    precision = ((modifier - 4) >> 16) & 0xFFFF
    scale = (((modifier - 4) & 0x7FF) ^ 1024) - 1024
    if precision > MAX_DECIMAL_DIGITS or not 0 <= scale <= precision:
        return None
    decimal = pa.decimal128(precision, scale)
    return Kind(codec_of("decimal"), decimal, decimal)


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
