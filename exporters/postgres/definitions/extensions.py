"""Extensions, with what belongs to them. ``pg_dump`` prints no more than ``CREATE EXTENSION``: neither the version, nor
objects that were added to it, nor what was changed of its own ones.
"""

from __future__ import annotations

from typing import Any

import psycopg

from exporters.postgres.query_rows import fetch

_EXTENSIONS = """
SELECT e.extname::text AS name, n.nspname::text AS schema, e.extversion AS version,
  CASE WHEN e.extowner <> 10 THEN pg_catalog.pg_get_userbyid(e.extowner)::text END AS owner
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY 1
"""
_MEMBERS = """
SELECT e.extname::text AS extension, o.type, o.schema, coalesce(o.name, o.identity) AS name, o.identity,
  c.description AS comment, pg_catalog.pg_get_userbyid(s.refobjid)::text AS given_to, f.clauses, f.settings, f.body
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
LEFT JOIN pg_catalog.pg_shdepend s ON s.classid = d.classid AND s.objid = d.objid AND s.objsubid = 0
  AND s.deptype = 'o' AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid <> e.extowner
  AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) AS o
LEFT JOIN pg_catalog.pg_description c ON c.classoid = d.classid AND c.objoid = d.objid AND c.objsubid = 0
LEFT JOIN LATERAL (SELECT pg_catalog.md5(p.prosrc || coalesce(p.probin, '')) AS body, p.proconfig AS settings,
    CASE WHEN p.prokind = 'f' THEN pg_catalog.array_remove(ARRAY[
      'COST ' || p.procost, CASE WHEN p.proretset THEN 'ROWS ' || p.prorows ELSE '' END,
      CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END,
      CASE p.proparallel WHEN 's' THEN 'PARALLEL SAFE' WHEN 'r' THEN 'PARALLEL RESTRICTED' ELSE 'PARALLEL UNSAFE' END,
      CASE WHEN p.proleakproof THEN 'LEAKPROOF' ELSE 'NOT LEAKPROOF' END,
      CASE WHEN p.proisstrict THEN 'STRICT' ELSE 'CALLED ON NULL INPUT' END,
      CASE WHEN p.prosecdef THEN 'SECURITY DEFINER' ELSE 'SECURITY INVOKER' END], '')
    WHEN p.prokind = 'p' THEN ARRAY[
      CASE WHEN p.prosecdef THEN 'SECURITY DEFINER' ELSE 'SECURITY INVOKER' END] END AS clauses
  FROM pg_catalog.pg_proc p WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
    AND p.prokind IN ('f', 'p')) AS f ON true
WHERE d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
ORDER BY d.classid, d.objid
"""
_DEFINITIONS = """
SELECT o.type, o.identity, x.owner::pg_catalog.regrole::text AS owner, x.definition FROM pg_catalog.pg_depend d
CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) AS o
CROSS JOIN LATERAL (
  SELECT p.proowner, pg_catalog.pg_get_functiondef(p.oid) FROM pg_catalog.pg_proc p
  WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid AND p.prokind IN ('f', 'p')
  UNION ALL SELECT t.typowner, 'CREATE TYPE ' || o.identity || ' AS ENUM (' || (
      SELECT pg_catalog.string_agg(pg_catalog.quote_literal(v.enumlabel), ', ' ORDER BY v.enumsortorder)
      FROM pg_catalog.pg_enum v WHERE v.enumtypid = t.oid) || ')' FROM pg_catalog.pg_type t
  WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = d.objid AND t.typtype = 'e'
  UNION ALL SELECT t.typowner, 'CREATE TYPE ' || o.identity || ' AS (' || (
      SELECT coalesce(pg_catalog.string_agg(pg_catalog.format('%%I %%s', a.attname,
        pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum), '')
      FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) || ')'
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
  WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = d.objid
  UNION ALL SELECT t.typowner, pg_catalog.concat_ws(' ', 'CREATE DOMAIN', o.identity, 'AS',
      pg_catalog.format_type(t.typbasetype, t.typtypmod), 'DEFAULT ' || t.typdefault,
      CASE WHEN t.typnotnull THEN 'NOT NULL' END, (
        SELECT pg_catalog.string_agg(pg_catalog.format('CONSTRAINT %%I %%s', k.conname,
          pg_catalog.pg_get_constraintdef(k.oid)), ' ' ORDER BY k.oid)
        FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c')) FROM pg_catalog.pg_type t
  WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = d.objid AND t.typtype = 'd'
  UNION ALL SELECT c.relowner, CASE c.relkind WHEN 'v' THEN 'CREATE VIEW ' || o.identity || ' AS '
      || pg_catalog.rtrim(pg_catalog.pg_get_viewdef(c.oid), ';')
    ELSE pg_catalog.concat('CREATE ', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' END, 'TABLE ', o.identity, ' (',
      pg_catalog.concat_ws(', ', (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ',
          pg_catalog.quote_ident(a.attname),
          pg_catalog.format_type(a.atttypid, a.atttypmod),
          CASE WHEN a.attcollation <> t.typcollation THEN 'COLLATE ' || (
            SELECT pg_catalog.format('%%I.%%I', n.nspname, l.collname) FROM pg_catalog.pg_collation l
            JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) END,
          CASE WHEN a.attgenerated = 's' THEN pg_catalog.format('GENERATED ALWAYS AS (%%s) STORED',
              pg_catalog.pg_get_expr(v.adbin, v.adrelid))
            WHEN a.attidentity = 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
            WHEN a.attidentity = 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY'
            WHEN v.adbin IS NOT NULL THEN 'DEFAULT ' || pg_catalog.pg_get_expr(v.adbin, v.adrelid) END,
          CASE WHEN a.attnotnull THEN 'NOT NULL' END), ', ' ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_catalog.pg_attrdef v ON v.adrelid = a.attrelid AND v.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
      (SELECT pg_catalog.string_agg(pg_catalog.format('CONSTRAINT %%I %%s', k.conname,
          pg_catalog.pg_get_constraintdef(k.oid)), ', ' ORDER BY k.oid)
        FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('c', 'p', 'u', 'x'))), ')',
      (SELECT pg_catalog.string_agg('; ' || pg_catalog.pg_get_indexdef(i.indexrelid), '' ORDER BY i.indexrelid)
        FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND NOT EXISTS (SELECT
          FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))),
      (SELECT pg_catalog.string_agg(pg_catalog.format('; ALTER TABLE %%s ADD CONSTRAINT %%I %%s', o.identity, k.conname,
          pg_catalog.pg_get_constraintdef(k.oid)), '' ORDER BY k.oid)
        FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f')) END
  FROM pg_catalog.pg_class c WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid
    AND d.objsubid = 0 AND c.relkind IN ('r', 'v') AND NOT c.relispartition
) AS x(owner, definition)
WHERE d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
"""


def read_extensions(connection: psycopg.Connection[Any], *, definitions: bool) -> list[dict[str, Any]]:
    """Return name, schema, version, ``owner`` (None: the bootstrap superuser) and ``members`` of every extension. A
    member is ``given_to`` a role that owns neither the extension nor the server. With ``definitions``: how those are
    made that may have been added by hand: functions, procedures, views, tables, enums, domains and composite types.
    Raises what the driver raises.
    """
    extensions = {row["name"]: {**row, "members": []} for row in fetch(connection, _EXTENSIONS)}
    rows = fetch(connection, _DEFINITIONS, {}) if definitions else []
    definition_rows = {(row["type"], row["identity"]): row for row in rows}
    for row in fetch(connection, _MEMBERS):
        if row["type"] == "type" and row["identity"].endswith("[]"):
            continue  # of version 18; it comes with the type that it is an array of
        member = {name: value for name, value in row.items() if name != "extension" and value is not None}
        if (definition_row := definition_rows.get((row["type"], row["identity"]))) is not None:
            member |= {"owner": definition_row["owner"], "definition": definition_row["definition"]}
        extensions[row["extension"]]["members"].append(member)
    return list(extensions.values())
