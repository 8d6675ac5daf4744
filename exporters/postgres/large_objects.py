"""Large objects (pg_largeobject): one more table, number 0, whose rows are pieces of them.

Their definitions (owner, privileges, comment) are in ``pre-data.sql``, where pg_dump creates them empty;
since version 17 it counts them among the data, so they are written into a file of their own.
"""

from __future__ import annotations

from collections.abc import Collection

from exporters.api import Unit
from exporters.postgres.catalog import PostgresColumn, PostgresTable
from exporters.postgres.rows.column_types import SqlType, kind_of
from exporters.sql import chunk_plan
from exporters.sql.chunk_plan import PlannedTable, table_directory, unit_id

NUMBER = 0
"""Their number in the catalog: tables count from 1."""
SCHEMA, NAME = "pg_catalog", "pg_largeobject"
OID = 0
"""What stands in place of a table's."""
DIRECTORY = table_directory(NUMBER, SCHEMA, NAME)
PIECE_BYTES = 64 * 2048

_PIECES = f"""
FROM pg_catalog.pg_largeobject_metadata m CROSS JOIN LATERAL (
  SELECT o.size, pg_catalog.lo_close(o.fd) FROM (
    SELECT f.fd, pg_catalog.lo_lseek64(f.fd, 0, 2) AS size FROM (
      SELECT pg_catalog.lo_open(m.oid, x'40000'::int4) AS fd OFFSET 0) AS f OFFSET 0) AS o OFFSET 0) AS z
CROSS JOIN LATERAL pg_catalog.generate_series(0::int8, greatest(z.size - 1, 0), {PIECE_BYTES}) AS p(start)
"""
"""The size is asked of the object: pg_largeobject itself is for superusers only."""
COUNT = f"SELECT count(*) {_PIECES}"
"""Followed by the table's condition, as ``SELECT`` is."""
SELECT = f"SELECT m.oid, p.start, pg_catalog.lo_get(m.oid, p.start, {PIECE_BYTES}) {_PIECES}"
"""Every object has at least one piece, however empty: the piece that begins with its first byte."""
DIGESTS = f"""
SELECT m.oid::int8, p.start, pg_catalog.md5(pg_catalog.lo_get(m.oid, p.start, {PIECE_BYTES})) {_PIECES} ORDER BY 1, 2
"""
"""Oid, first byte and MD5 of each piece of all objects."""


METADATA = """
SELECT m.oid::int8 AS oid, r.rolname::text AS owner, obj_description(m.oid, 'pg_largeobject') AS comment,
  (SELECT json_agg(json_build_array(coalesce(g.rolname, ''), x.privilege_type, x.is_grantable) ORDER BY x.ordinality)
    FROM aclexplode(m.lomacl) WITH ORDINALITY AS x LEFT JOIN pg_roles g ON g.oid = x.grantee
    WHERE m.lomacl IS NOT NULL) AS privileges
FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = m.lomowner ORDER BY m.oid
"""
"""``privileges``: grantee (empty for PUBLIC), privilege and whether it may be passed on; null for the
owner's own.
"""
_DESCRIBED_SINCE = """
SELECT m.oid::int8 FROM pg_catalog.pg_largeobject_metadata m LEFT JOIN pg_catalog.pg_description d
  ON d.classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass AND d.objoid = m.oid
WHERE pg_catalog.age(m.xmin) BETWEEN 0 AND {age} OR pg_catalog.age(d.xmin) BETWEEN 0 AND {age}
"""
METADATA_VERSION = 17
"""From this pg_dump on."""


_READABLE = """
CASE WHEN pg_catalog.current_setting('lo_compat_privileges')::pg_catalog.bool THEN true
  WHEN (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER) THEN true
  WHEN m.lomacl IS NULL THEN pg_catalog.pg_has_role(m.lomowner, 'USAGE')
  ELSE EXISTS (SELECT FROM pg_catalog.aclexplode(m.lomacl) x WHERE x.privilege_type = 'SELECT'
    AND CASE WHEN x.grantee = 0 THEN true ELSE pg_catalog.pg_has_role(x.grantee, 'USAGE') END) END
"""
_OBJECTS = "FROM pg_catalog.pg_largeobject_metadata m"
_PRIVILEGE_VERSION = 180000
"""From this version on the server has a function for it."""


def readable(version: int) -> str:
    """Return the ``Table.condition`` of the objects that this role may read. ``version`` is the server's."""
    return f"WHERE {_privilege(version)}"


def described_since(transaction: int) -> str:
    """Return the query for the oids of the objects whose owner, privileges or comment were set by a transaction from
    this number on.
    """
    return _DESCRIBED_SINCE.format(age=f"pg_catalog.age('{transaction % 2**32}'::pg_catalog.xid)")


def unreadable_query(version: int) -> str:
    """Return the query for the oids of the objects that this role may not read."""
    return f"SELECT m.oid::int8 AS oid {_OBJECTS} WHERE NOT ({_privilege(version)}) ORDER BY 1"


def privilege_counts_query(version: int) -> str:
    """Return the query for how many objects there are (``count``), and how many this role may not read."""
    unreadable = f"count(*) FILTER (WHERE NOT ({_privilege(version)}))"
    return f"SELECT count(*) AS count, {unreadable} AS unreadable {_OBJECTS}"


def _privilege(version: int) -> str:
    has = "pg_catalog.has_largeobject_privilege(m.oid, 'SELECT')"
    return has if version >= _PRIVILEGE_VERSION else _READABLE


def planned(filenode: int) -> PlannedTable:
    """Return the plan for them: one chunk."""
    return PlannedTable(NUMBER, SCHEMA, NAME, f"large objects {filenode}", ((0, None),))


def spec(filenode: int) -> dict[str, object]:
    """Return the spec of the one unit."""
    return chunk_plan.spec(planned(filenode), 0)


def unit(table: PostgresTable) -> Unit:
    """Return the one unit for all large objects."""
    return Unit(unit_id(DIRECTORY, 0), table.estimate, table.size_bytes, spec(table.filenode))


def only(numbers: Collection[int]) -> str:
    """Return the ``Table.condition`` of these objects."""
    return f"WHERE m.oid = ANY ('{{{','.join(map(str, numbers))}}}'::pg_catalog.oid[])"


def table(count: int, condition: str = "") -> PostgresTable:
    """Return what stands in the catalog for ``count`` large objects."""
    columns = [("oid", "oid"), ("start", "int8"), ("data", "bytea")]
    return PostgresTable(
        oid=OID,
        schema=SCHEMA,
        name=NAME,
        foreign=False,
        persistence="p",
        filenode=0,
        heap=False,
        estimate=count,
        size_bytes=0,
        heap_bytes=0,
        readable=True,
        tablespace="",
        columns=tuple(_column(name, sql_type) for name, sql_type in columns),
        condition=condition,
    )


def _column(name: str, sql_type: str) -> PostgresColumn:
    kind = kind_of(SqlType(sql_type, built_in=True, modifier=-1))
    return PostgresColumn(name, sql_type, kind, not_null=True, generated=False, identity="", collation="")
