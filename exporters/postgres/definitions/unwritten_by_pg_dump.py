"""What pg_dump does not write of objects that come back with others: owners of operators' shells; owners, privileges
and comments of multirange types; privileges of the functions that make ranges; columns that take NULL below a parent
that does not; names of NOT NULL that another table took first. Entries in pg_dump's words, at the end of pre-data.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg

from exporters.postgres.schemas import PROGRESS_SCHEMA

_MULTIRANGES_VERSION = 140000
_NO_CHARACTERS = (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter)
_SHELLS = """
SELECT o.oid, 'OPERATOR' AS kind, o.oprname::text AS name, n.nspname AS schema, o.oprowner AS owner,
  CASE WHEN %(portable)s THEN '' ELSE pg_catalog.format(E'ALTER OPERATOR %%I.%%s (%%s, %%s) OWNER TO %%I;\\n',
    n.nspname, o.oprname,
    CASE WHEN o.oprleft = 0 THEN 'NONE' ELSE pg_catalog.format_type(o.oprleft, NULL) END,
    CASE WHEN o.oprright = 0 THEN 'NONE' ELSE pg_catalog.format_type(o.oprright, NULL) END,
    pg_catalog.pg_get_userbyid(o.oprowner)) END AS sql
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE o.oprcode = 0 AND EXISTS (SELECT FROM pg_catalog.pg_operator u WHERE (u.oprcom = o.oid OR u.oprnegate = o.oid)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = u.oid
    AND d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass))
"""
_MULTIRANGES = """
SELECT t.oid, 'TYPE' AS kind, t.typname::text AS name, n.nspname AS schema, t.typowner AS owner,
  CASE WHEN %(portable)s THEN '' WHEN t.typowner <> r.typowner THEN alter_owner ELSE pg_catalog.format(E'DO %%L;\\n',
    'BEGIN IF pg_catalog.current_setting(''server_version_num'')::pg_catalog.int4 < 170000 THEN '
    || alter_owner || 'END IF; END') END
  || CASE WHEN %(portable)s OR t.typacl IS NULL THEN '' ELSE concat(
    (SELECT pg_catalog.format(E'REVOKE ALL ON TYPE %%I.%%I FROM PUBLIC;\\n', n.nspname, t.typname)
      WHERE NOT EXISTS (SELECT FROM pg_catalog.aclexplode(t.typacl) WHERE grantee = 0)),
    (SELECT pg_catalog.string_agg(pg_catalog.format(E'GRANT USAGE ON TYPE %%I.%%I TO %%I%%s;\\n', n.nspname, t.typname,
        pg_catalog.pg_get_userbyid(x.grantee), CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '')
      FROM pg_catalog.aclexplode(t.typacl) AS x WHERE x.grantee NOT IN (0, t.typowner))) END
  || CASE WHEN pg_catalog.obj_description(t.oid, 'pg_type') IS NULL THEN '' ELSE pg_catalog.format(
    E'COMMENT ON TYPE %%I.%%I IS %%L;\\n', n.nspname, t.typname, pg_catalog.obj_description(t.oid, 'pg_type')) END
  AS sql
FROM pg_catalog.pg_range g JOIN pg_catalog.pg_type t ON t.oid = g.rngmultitypid
JOIN pg_catalog.pg_type r ON r.oid = g.rngtypid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
CROSS JOIN LATERAL pg_catalog.format(E'ALTER TYPE %%I.%%I OWNER TO %%I;\\n', n.nspname, t.typname,
  pg_catalog.pg_get_userbyid(t.typowner)) AS alter_owner
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = r.oid
  AND d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass)
"""
"""From PostgreSQL 17 on a multirange type has the owner of its range type (AlterTypeOwner_oid)."""
_CONSTRUCTORS = """
SELECT p.oid, 'ACL' AS kind, pg_catalog.format('FUNCTION %%s(%%s)', p.proname, args) AS name, n.nspname AS schema,
  p.proowner AS owner, CASE WHEN %(portable)s THEN '' ELSE pg_catalog.concat(
    (SELECT pg_catalog.format(E'REVOKE ALL ON FUNCTION %%I.%%I(%%s) FROM PUBLIC;\n', n.nspname, p.proname, args)
      WHERE NOT EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) WHERE grantee = 0)),
    (SELECT pg_catalog.string_agg(pg_catalog.format(E'GRANT EXECUTE ON FUNCTION %%I.%%I(%%s) TO %%I%%s;\n', n.nspname,
        p.proname, args, pg_catalog.pg_get_userbyid(x.grantee),
        CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '')
      FROM pg_catalog.aclexplode(p.proacl) AS x WHERE x.grantee NOT IN (0, p.proowner))) END AS sql
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
CROSS JOIN LATERAL pg_catalog.pg_get_function_identity_arguments(p.oid) AS args
WHERE p.proacl IS NOT NULL AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'i' AND d.objid = p.oid
    AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = p.oid
    AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass)
"""
"""Each range type has such functions, and default privileges hold for them, too."""
_NULLABLE = """
SELECT c.oid, 'DEFAULT' AS kind, c.relname || ' ' || a.attname AS name, n.nspname AS schema, c.relowner AS owner,
  pg_catalog.format(E'ALTER TABLE ONLY %%I.%%I ALTER COLUMN %%I DROP NOT NULL;\\n',
    n.nspname, c.relname, a.attname) AS sql
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND NOT c.relispartition AND a.attinhcount > 0 AND NOT a.attnotnull AND NOT a.attisdropped
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = c.oid
    AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
  AND EXISTS (WITH RECURSIVE above AS (
      SELECT i.inhparent AS oid FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid
      UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above ON i.inhrelid = above.oid)
    SELECT FROM above JOIN pg_catalog.pg_attribute p ON p.attrelid = above.oid
    WHERE p.attname = a.attname AND p.attnotnull)
"""
"""Before PostgreSQL 18 a column may take NULL where its parent's does not, and pg_dump lets it inherit NOT NULL."""
_NOT_NULL_NAMES = """
SELECT k.oid, 'CONSTRAINT' AS kind, c.relname || ' ' || k.conname AS name, n.nspname AS schema, c.relowner AS owner,
  pg_catalog.format(E'DO %%L;\\n', pg_catalog.concat('DECLARE made pg_catalog.name; BEGIN SELECT k.conname INTO made'
    ' FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid'
    ' AND a.attnum = k.conkey[1] WHERE k.contype = ''n'' AND k.conrelid = ', pg_catalog.quote_literal(label),
    '::pg_catalog.regclass AND a.attname = ', pg_catalog.quote_literal(a.attname), ' AND k.conname <> ',
    pg_catalog.quote_literal(k.conname), '; IF FOUND THEN EXECUTE pg_catalog.concat(',
    pg_catalog.quote_literal('ALTER TABLE ' || label || ' RENAME CONSTRAINT '), ', pg_catalog.quote_ident(made), ',
    pg_catalog.quote_literal(' TO ' || pg_catalog.quote_ident(k.conname)), '); END IF; END')) AS sql
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid AND c.relkind IN ('r', 'p')
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
CROSS JOIN LATERAL pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS label
WHERE k.contype = 'n' AND k.conislocal AND k.coninhcount = 0 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
    WHERE d.deptype = 'e' AND d.objid = c.oid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
  AND EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.connamespace = k.connamespace AND o.conname = k.conname
    AND o.conrelid <> k.conrelid)
"""
"""pg_dump leaves the usual name to the server, which takes another where a copy (LIKE) has it; since PostgreSQL 18."""
_ENTRIES = """
SELECT pg_catalog.convert_to(pg_catalog.format(
  E'--\\n-- Name: %%s; Type: %%s; Schema: %%s; Owner: %%s\\n--\\n\\n%%s\\n\\n',
  pg_catalog.translate(e.name, E'\\n\\r', '  '), e.kind, pg_catalog.translate(e.schema, E'\\n\\r', '  '),
  CASE WHEN %(portable)s THEN '-'
    ELSE pg_catalog.translate(pg_catalog.pg_get_userbyid(e.owner), E'\\n\\r', '  ') END, e.sql), %(encoding)s)
FROM ({objects}) AS e
WHERE e.oid = coalesce(%(oid)s, e.oid) AND e.sql <> '' AND e.schema !~ '^pg_'
  AND e.schema NOT IN ('information_schema', %(progress)s)
ORDER BY e.kind, e.schema, e.name, e.sql
"""
_TYPES = """
SELECT rngmultitypid::pg_catalog.int8 FROM pg_catalog.pg_range WHERE rngmultitypid >= 16384 ORDER BY 1
"""


_PRESENT = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_operator WHERE oprcode = 0),
  EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attinhcount > 0 AND NOT attnotnull),
  EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'n'),
  EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proacl IS NOT NULL AND oid >= 16384),
  EXISTS (SELECT FROM pg_catalog.pg_range WHERE rngtypid >= 16384)
"""
"""Whether there is anything of each kind at all. To plan the queries for entries takes a server longer than that."""


def read_unwritten(holder: psycopg.Connection[Any], encoding: str, *, portable: bool) -> bytes:
    """Return entries in this encoding, for the end of pre-data, of what pg_dump does not write."""
    has_multiranges = holder.info.server_version >= _MULTIRANGES_VERSION
    parameters = {"portable": portable, "encoding": encoding, "progress": PROGRESS_SCHEMA, "oid": None}
    entries: list[bytes] = []
    present = holder.execute(_PRESENT.encode()).fetchone()
    assert present is not None
    *are_there, has_functions, has_ranges = present
    for objects, is_there in zip((_SHELLS, _NULLABLE, _NOT_NULL_NAMES), are_there, strict=True):
        if is_there:
            entries += _entries(holder, objects, parameters)
    if has_functions:
        with suppress(*_NO_CHARACTERS):
            entries += _entries(holder, _CONSTRUCTORS, parameters)
    if has_ranges and has_multiranges:
        try:
            entries += _entries(holder, _MULTIRANGES, parameters)
        except _NO_CHARACTERS:
            entries += _nameable(holder, parameters)
    return b"".join(entries)


def _entries(holder: psycopg.Connection[Any], objects: str, parameters: Mapping[str, Any]) -> list[bytes]:
    with holder.transaction():
        rows = holder.execute(_ENTRIES.format(objects=objects).encode(), parameters).fetchall()
    return [bytes(row[0]) for row in rows]


def _nameable(holder: psycopg.Connection[Any], parameters: Mapping[str, Any]) -> list[bytes]:
    """Return the entries of the multirange types that have a name in characters. The server cuts long names that it
    makes up within a character (makeMultirangeTypeName); such a type is left as the destination makes it.
    """
    entries: list[bytes] = []
    for (oid,) in holder.execute(_TYPES.encode()).fetchall():
        with suppress(*_NO_CHARACTERS):
            entries += _entries(holder, _MULTIRANGES, {**parameters, "oid": oid})
    return entries
