"""What is in a database: what holds rows, with its columns, read under the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import psycopg
from msgspec import Struct

from exporters.api import ItemKind
from exporters.postgres.charset.encodings import AS_STORED, may_change
from exporters.postgres.charset.server_conversion import database_encoding
from exporters.postgres.charset.unmappable_names import unsayable
from exporters.postgres.identifiers import quote_name, quote_qualified
from exporters.postgres.query_rows import fetch
from exporters.postgres.rows.column_types import SqlType, kind_of, known_types
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.sql.columns import Column, Kind

_MOVED = """
SELECT EXISTS (SELECT FROM pg_class c WHERE c.oid = ANY (%(oids)s::oid[])
    AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid))
  OR EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = ANY (%(locked)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    AND (pg_identify_object_as_address('pg_class'::regclass, c.oid, a.attnum)).object_names
      IS DISTINCT FROM ARRAY[n.nspname, c.relname, a.attname]::text[])
"""
"""What functions say is of now, what the catalog says is of the snapshot."""
_TABLES = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind AS relkind,
  c.relpersistence AS persistence, c.relfilenode::int8 AS filenode,
  coalesce(am.amname, '') AS access_method,
  greatest(c.reltuples, 0)::int8 AS counted_rows, c.relpages::int8 AS counted_pages,
  pg_stat_get_live_tuples(c.oid)::int8 AS live_rows,
  (SELECT 28 + coalesce(sum(CASE WHEN a.attlen > 0 THEN a.attlen ELSE 32 END), 0) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)::int8 AS row_bytes,
  CASE WHEN c.oid = ANY (%(locked)s::oid[]) THEN 0 ELSE pg_table_size(c.oid) END::int8 AS size_bytes,
  CASE WHEN c.oid = ANY (%(locked)s::oid[]) THEN 0 ELSE pg_relation_size(c.oid) END::int8 AS heap_bytes,
  CASE WHEN c.oid = ANY (%(locked)s::oid[]) THEN 0
    ELSE coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0) END::int8 AS toast_bytes,
  has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS readable,
  row_security_active(c.oid) AS hidden,
  c.relpersistence = 'u' AND pg_is_in_recovery() AS out_of_reach, coalesce(t.spcname, '') AS tablespace,
  current_setting('block_size')::int AS page_bytes,
  CASE WHEN c.relispartition THEN ARRAY(
    WITH RECURSIVE above(oid, depth) AS (
      SELECT i.inhparent, 1 FROM pg_inherits i WHERE i.inhrelid = c.oid
      UNION ALL SELECT i.inhparent, depth + 1 FROM above JOIN pg_class p ON p.oid = above.oid
        JOIN pg_inherits i ON i.inhrelid = p.oid WHERE p.relispartition)
    SELECT ARRAY[pn.nspname::text, p.relname::text] FROM above JOIN pg_class p ON p.oid = above.oid
      JOIN pg_namespace pn ON pn.oid = p.relnamespace ORDER BY depth) ELSE '{}' END AS ancestors,
  coalesce(config.condition, '') AS condition,
  CASE WHEN config.oid IS NULL THEN coalesce(member.extension, '') ELSE '' END AS extension
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_am am ON am.oid = c.relam LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
LEFT JOIN LATERAL (SELECT u.oid, u.condition FROM pg_extension e
  CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) AS u(oid, condition) WHERE u.oid = c.oid
  LIMIT 1) AS config ON true
LEFT JOIN LATERAL (SELECT e.extname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass
    AND d.deptype = 'e' LIMIT 1) AS member(extension) ON true
WHERE (c.relkind IN ('r', 'f') OR c.relkind = 'm' AND c.relispopulated) AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND n.nspname <> %(own)s
  AND c.oid <> ALL (%(unsayable)s::oid[])
  AND (config.oid IS NOT NULL OR member.extension IS NULL OR c.relkind = 'r'
    AND has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
    AND c.oid <> ALL (%(locked)s::oid[]) AND pg_relation_size(c.oid) > 0)
ORDER BY n.nspname, c.relname
"""

_PARTITIONED = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'))
ORDER BY 2, 3
"""
_COLUMNS = """
SELECT a.attrelid::int8 AS table_oid, a.attnum::int4 AS number, a.attname AS name, a.atttypid::int8 AS type_oid,
  a.atttypmod AS modifier, format_type(a.atttypid, a.atttypmod) AS sql_type, a.attnotnull AS not_null,
  {generated} AS generated, {computed} AS computed,
  {identity} AS identity, CASE WHEN a.attcollation NOT IN (0, 100) THEN co.collname ELSE '' END AS collation
FROM pg_attribute a LEFT JOIN pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY(%(oids)s)
ORDER BY a.attrelid, a.attnum
"""

COMPOSITES = """(c.relkind = 'c' OR EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_type'::regclass
  AND d.deptype = 'n' AND d.refobjid IN (c.reltype, (SELECT t.typarray FROM pg_type t WHERE t.oid = c.reltype))))"""
"""Which relations are types of values, by pg_class ``c``: composite types, and tables that serve as one."""
_DEFINED_TYPES = f"""
SELECT 'label ' || oid AS part, concat_ws(' ', xmin, md5(enumlabel::text)) AS definition FROM pg_enum UNION ALL
SELECT 'attributes ' || c.oid, string_agg(concat_ws(' ', a.attnum, a.atttypid, a.attisdropped), ',' ORDER BY a.attnum)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attnum > 0 AND {COMPOSITES} GROUP BY c.oid
"""
"""What the text of values of all types of users depends on: the labels of enums, the attributes of composite types. Of
a label also when it was set: it may be the same again after rows were read.
"""
_USER_TYPES = f"""
SELECT md5(coalesce(string_agg(concat_ws(' ', part, definition), ',' ORDER BY part), '')) AS definitions
FROM ({_DEFINED_TYPES}) AS types
"""
NAMED = "^(reg|aclitem$)"
"""The names of built-in types whose values are numbers, and their text is the names that things have now."""

_FIRST_USER_OID = 16384
"""Numbers of types below come with the server (FirstNormalObjectId)."""
_MEASURED = frozenset({"text", "varchar", "bpchar", "bytea"})
"""Types with an octet_length that looks at a value's header only (src/backend/utils/adt/varlena.c)."""

_VIRTUAL_VERSION = 180000
"""From here on a column may be computed when it is read."""
TID_RANGE_VERSION = 140000
"""From here on a range of ctids is read without reading the whole table (PostgreSQL 14 release notes)."""


def unreadable_partitioned(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Return the oids of the partitioned tables that the role may not read, by their labels. They hold no rows, but
    pg_dump locks them.
    """
    rows = fetch(connection, _PARTITIONED)
    return {quote_qualified(row["schema"], row["name"]): row["oid"] for row in rows}


class PostgresColumn(Column, frozen=True):
    """A column as it is exported."""

    identity: str
    measured: bool = False
    """Whether the server can count the bytes of its values without reading them."""
    number: int = 0
    """``pg_attribute.attnum``. A column that is made anew has another one, and other values in rows that nobody wrote
    to (``ADD COLUMN … DEFAULT``).
    """
    definition: str = ""
    """What else the text of values depends on that nobody wrote: the labels of a type (``RENAME VALUE``), the
    expression of a virtual column (``SET EXPRESSION``).
    """
    shows_names: bool = False
    """Whether values are shown by names of tables, functions or roles: see ``NAMED``."""

    @property
    def expression(self) -> str:
        """The canonical SQL of the value."""
        return self.kind.expression(quote_name(self.name))


class PostgresTable(Struct, frozen=True):
    """A table that holds rows of its own (leaf partitions, inheritance parents and populated materialized views
    included) or a foreign one.
    """

    oid: int
    schema: str
    name: str
    foreign: bool
    persistence: str
    filenode: int
    heap: bool
    estimate: int
    size_bytes: int
    heap_bytes: int
    readable: bool
    tablespace: str
    columns: tuple[PostgresColumn, ...]
    ancestors: tuple[tuple[str, str], ...] = ()
    """Schema and name of the partitioned tables that it is a partition of, the nearest first."""
    out_of_reach: bool = False
    """Whether it is unlogged, and this server a standby: the rows are on the primary only."""

    hidden: bool = False
    """Whether row-level security hides rows of it from this role."""

    toast_bytes: int = 0
    """The bytes of its values in the TOAST table (PostgreSQL documentation, "TOAST")."""

    page_bytes: int = 8192
    tid_ranges: bool = True
    """Whether the server reads a range of its pages without reading all of it."""

    locked: str = ""
    """Who keeps it locked for longer than we wait."""

    condition: str = ""
    """``WHERE …``: of an extension's own table, which rows are the user's (pg_extension_config_dump)."""

    refusal: str = ""
    """Why the server plans no query of it, so that only COPY by its name reads it (``unplannable_tables``)."""

    unread: tuple[str, ...] = ()
    """Columns that are not read for that."""

    extension: str = ""
    """The extension that owns it and does not mark its rows as the user's."""

    view: bool = False
    """Whether it is a materialized view: its rows are those of the last REFRESH, and cannot be written."""

    @property
    def kind(self) -> ItemKind:
        """Its kind in the catalog of a bundle."""
        return "materialized view" if self.view else "table"

    @property
    def exported(self) -> bool:
        """Whether its rows can be read here."""
        return not self.foreign and not self.gap

    @property
    def gap(self) -> str:
        """Why rows of its own are not exported, or nothing."""
        if self.foreign:
            return ""
        if not self.readable:
            return "the role may not read it"
        if self.hidden:
            return "row-level security hides rows from the role: it needs BYPASSRLS"
        if self.locked:
            return f"another session keeps it locked: {self.locked}"
        if self.refusal and (self.view or self.condition):
            return f"the server plans no query of it: {self.refusal}"
        return "it is unlogged, and a standby has no rows of it" if self.out_of_reach else ""

    @property
    def label(self) -> str:
        """``"schema"."name"``, for SQL and for people."""
        return quote_qualified(self.schema, self.name)

    @property
    def item(self) -> str:
        """Its name as an item of the summary."""
        return f"{self.kind} {self.label}" if self.view else self.label

    @property
    def fingerprint(self) -> str:
        """A hash of what a finished chunk depends on apart from its rows: identity, file and columns."""
        facts = [self.oid, self.schema, self.name, self.filenode]
        facts += [self.condition] if self.condition else []
        facts += ["by name"] if self.refusal else []
        facts += [
            [c.name, c.sql_type, c.kind.name, str(c.kind.stored), c.generated, c.number, c.definition]
            for c in self.columns
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def read_tables(
    connection: psycopg.Connection[Any], locked: Mapping[int, str] | None = None
) -> list[PostgresTable]:
    """Return all tables of the user's, ordered by schema and name; extensions' own tables are not the
    user's, nor are those that cannot be named. ``locked``: those that are not to be waited for, by oid, and who keeps
    them.
    """
    locked = locked or {}
    without = [relation.oid for relation in unsayable(connection)]
    rows = fetch(connection, _TABLES, {"own": PROGRESS_SCHEMA, "locked": list(locked), "unsayable": without})
    columns = read_columns(connection, [row["oid"] for row in rows])
    return [
        PostgresTable(
            oid=row["oid"],
            schema=row["schema"],
            name=row["name"],
            foreign=row["relkind"] == "f",
            persistence=row["persistence"],
            filenode=row["filenode"],
            heap=row["access_method"] == "heap",
            estimate=_row_estimate(row),
            size_bytes=row["size_bytes"] or 0,
            heap_bytes=row["heap_bytes"] or 0,
            toast_bytes=row["toast_bytes"] or 0,
            readable=row["readable"],
            tablespace=row["tablespace"],
            columns=tuple(columns.get(row["oid"], ())),
            out_of_reach=row["out_of_reach"],
            hidden=row["hidden"],
            page_bytes=row["page_bytes"],
            tid_ranges=connection.info.server_version >= TID_RANGE_VERSION,
            locked=locked.get(row["oid"], ""),
            condition=row["condition"],
            extension=row["extension"],
            view=row["relkind"] == "m",
            ancestors=tuple((schema, name) for schema, name in row["ancestors"]),
        )
        for row in rows
    ]


def _row_estimate(row: Mapping[str, Any]) -> int:
    """Return about how many rows a table has, as PostgreSQL's planner does (``table_block_relation_estimate_size`` in
    src/backend/access/table/tableam.c): today's pages by the density that ANALYZE saw, else by the widths of types.
    Where ANALYZE saw none, the server's count of writes is closer. A crash resets that, so a page counts for one row at
    least.
    """
    rows, pages, heap_bytes = int(row["counted_rows"]), int(row["counted_pages"]), int(row["heap_bytes"] or 0)
    page_bytes = int(row["page_bytes"])
    if not heap_bytes:
        return rows
    if rows and pages:
        return round(rows * heap_bytes / (pages * page_bytes))
    if live := int(row["live_rows"]):
        return max(live, heap_bytes // page_bytes)
    return heap_bytes // int(row["row_bytes"])


def have_moved(connection: psycopg.Connection[Any], tables: Sequence[PostgresTable]) -> bool:
    """Tell whether one of these tables has another file now than in the snapshot, or other names, by which its rows are
    read: it was truncated, rewritten, renamed or dropped since.
    """
    present = [table for table in tables if not table.foreign and not table.locked]
    oids, locked = [table.oid for table in present], [table.oid for table in present if table.readable]
    row = connection.execute(_MOVED.encode(), {"oids": oids, "locked": locked}).fetchone()
    return bool(row and row[0])


def types_have_changed(snapshot: psycopg.Connection[Any], present: psycopg.Connection[Any]) -> bool:
    """Tell whether a label or the attributes of a type are not those of a snapshot any more. New types and labels do
    not count: no row of the snapshot has one. Raises the driver's errors.
    """
    before, now = (
        {row["part"]: row["definition"] for row in fetch(connection, _DEFINED_TYPES)}
        for connection in (snapshot, present)
    )
    return any(now.get(part, definition) != definition for part, definition in before.items())


def read_columns(connection: psycopg.Connection[Any], oids: list[int]) -> dict[int, list[PostgresColumn]]:
    """Return the columns of tables, by oid, in their order."""
    version = connection.info.server_version
    query = _COLUMNS.format(
        computed="CASE a.attgenerated WHEN 'v' THEN pg_get_expr(d.adbin, d.adrelid) ELSE '' END"
        if version >= _VIRTUAL_VERSION
        else "''",
        generated="a.attgenerated <> ''" if version >= 120000 else "false",
        identity="a.attidentity" if version >= 100000 else "''",
    )
    encoding = database_encoding(connection)
    columns: dict[int, list[PostgresColumn]] = {}
    rows = fetch(connection, query, {"oids": oids})
    types = known_types(connection, {row["type_oid"] for row in rows})
    has_user_types = any(row["type_oid"] >= _FIRST_USER_OID for row in rows)
    user_types = fetch(connection, _USER_TYPES)[0]["definitions"] if has_user_types else ""
    utf8, own_encoding = encoding != "SQL_ASCII", encoding if may_change(encoding) else ""

    @cache
    def kinds(oid: int, modifier: int) -> tuple[SqlType, Kind]:
        sql_type = types.resolve(oid, modifier)
        return sql_type, kind_of(sql_type, utf8=utf8, encoding=own_encoding)

    for row in rows:
        sql_type, kind = kinds(row["type_oid"], row["modifier"])
        column = PostgresColumn(
            name=row["name"],
            sql_type=row["sql_type"],
            kind=kind,
            not_null=row["not_null"],
            generated=row["generated"],
            identity=row["identity"],
            collation=row["collation"] or "",
            measured=encoding in AS_STORED and sql_type.built_in and sql_type.name in _MEASURED,
            number=row["number"],
            definition=row["computed"] + (user_types if row["type_oid"] >= _FIRST_USER_OID else ""),
            shows_names=_shows_names(sql_type),
        )
        columns.setdefault(row["table_oid"], []).append(column)
    return columns


def _shows_names(sql_type: SqlType) -> bool:
    """Tell whether a type is one of ``NAMED``, or made of such."""
    return (sql_type.built_in and re.match(NAMED, sql_type.name) is not None) or any(
        map(_shows_names, sql_type.parts)
    )
