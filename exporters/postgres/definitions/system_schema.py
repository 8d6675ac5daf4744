"""What users have made among the server's own objects, and pg_dump takes for these: functions in ``pg_catalog``, and
operators and functions that were added to the server's operator families.
"""

from __future__ import annotations

from typing import Any

import psycopg

from exporters.api import Loss

FIRST_OID = 16384
"""No object of the server's own has a higher one (FirstNormalObjectId in src/include/access/transam.h)."""

_ENTRY = """--
-- Name: %s; Type: %s; Schema: %s; Owner: %s
--

%s


"""
_FUNCTIONS = """
SELECT pg_catalog.convert_to(pg_catalog.format(%(entry)s,
  pg_catalog.translate(p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')',
    E'\\n\\r', '  '),
  k.kind, n.nspname,
  CASE WHEN %(portable)s THEN '-'
    ELSE pg_catalog.translate(pg_catalog.pg_get_userbyid(p.proowner), E'\\n\\r', '  ') END,
  pg_catalog.regexp_replace(pg_catalog.pg_get_functiondef(p.oid), '^CREATE OR REPLACE ', 'CREATE ') || ';'
    || CASE WHEN %(portable)s THEN '' ELSE pg_catalog.format(E'\\n\\nALTER %%s %%s OWNER TO %%I;', k.kind, o.identity,
      pg_catalog.pg_get_userbyid(p.proowner)) END
    || CASE WHEN c.comment IS NULL THEN ''
      ELSE pg_catalog.format(E'\\n\\nCOMMENT ON %%s %%s IS %%L;', k.kind, o.identity, c.comment) END), %(encoding)s)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
CROSS JOIN LATERAL (SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END) AS k(kind)
CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0) AS o
CROSS JOIN LATERAL (SELECT pg_catalog.obj_description(p.oid, 'pg_proc')) AS c(comment)
WHERE n.nspname IN ('pg_catalog', 'information_schema') AND p.oid >= %(first)s AND p.prokind <> 'a'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    AND d.objid = p.oid AND d.deptype IN ('e', 'i'))
ORDER BY p.oid
"""
_MEMBERS = """
WITH member(family, method, oid, sql, classid, object) AS (
  SELECT f.oid, f.opfmethod, m.oid, pg_catalog.format('OPERATOR %%s %%s (%%s, %%s)%%s', m.amopstrategy,
      pg_catalog.format('%%I.%%s', n.nspname, p.oprname), pg_catalog.format_type(m.amoplefttype, NULL),
      pg_catalog.format_type(m.amoprighttype, NULL),
      CASE WHEN m.amopsortfamily <> 0 THEN (SELECT pg_catalog.format(' FOR ORDER BY %%I.%%I', sn.nspname, s.opfname)
        FROM pg_catalog.pg_opfamily s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.opfnamespace
        WHERE s.oid = m.amopsortfamily) ELSE '' END), 'pg_catalog.pg_operator'::pg_catalog.regclass, m.amopopr
  FROM pg_catalog.pg_amop m JOIN pg_catalog.pg_opfamily f ON f.oid = m.amopfamily
  JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace
  UNION ALL SELECT f.oid, f.opfmethod, m.oid, pg_catalog.format('FUNCTION %%s (%%s, %%s) %%s', m.amprocnum,
      pg_catalog.format_type(m.amproclefttype, NULL), pg_catalog.format_type(m.amprocrighttype, NULL), o.identity),
    'pg_catalog.pg_proc'::pg_catalog.regclass, m.amproc::pg_catalog.oid
  FROM pg_catalog.pg_amproc m JOIN pg_catalog.pg_opfamily f ON f.oid = m.amprocfamily
  CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_proc'::pg_catalog.regclass, m.amproc, 0) AS o)
SELECT pg_catalog.convert_to(pg_catalog.format(%(entry)s,
  f.opfname || ' USING ' || a.amname, 'OPERATOR FAMILY', n.nspname, '-',
  pg_catalog.format('ALTER OPERATOR FAMILY %%I.%%I USING %%I ADD%%s;', n.nspname, f.opfname, a.amname,
    E'\\n    ' || pg_catalog.string_agg(m.sql, E',\\n    ' ORDER BY m.oid))), %(encoding)s)
FROM member m JOIN pg_catalog.pg_opfamily f ON f.oid = m.family JOIN pg_catalog.pg_am a ON a.oid = m.method
JOIN pg_catalog.pg_namespace n ON n.oid = f.opfnamespace
WHERE m.oid >= %(first)s AND (f.oid < %(first)s OR EXISTS (SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND d.objid = f.oid AND d.deptype = 'e')
    AND m.object >= %(first)s)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = m.classid AND d.objid = m.object AND d.deptype = 'e')
GROUP BY f.opfname, a.amname, n.nspname ORDER BY 1
"""
_HAS_MEMBERS = """
SELECT 1 WHERE EXISTS (SELECT FROM pg_catalog.pg_amop WHERE oid >= %(first)s)
  OR EXISTS (SELECT FROM pg_catalog.pg_amproc WHERE oid >= %(first)s)
"""
"""Whether anybody has made one. To plan ``_MEMBERS`` takes a server longer than that."""
_UNDUMPED = """
SELECT o.type || ' ' || o.identity FROM (
  SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid AS class, oid, pronamespace AS namespace
    FROM pg_catalog.pg_proc WHERE prokind = 'a'
  UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, oid, relnamespace FROM pg_catalog.pg_class
    WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, typnamespace FROM pg_catalog.pg_type t
    WHERE typelem = 0 AND (typrelid = 0 OR (SELECT relkind FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid) = 'c')
  UNION ALL SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, oid, oprnamespace FROM pg_catalog.pg_operator
  UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, oid, opcnamespace FROM pg_catalog.pg_opclass
  UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, oid, opfnamespace FROM pg_catalog.pg_opfamily
  UNION ALL SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, oid, connamespace FROM pg_catalog.pg_conversion
  UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, oid, cfgnamespace FROM pg_catalog.pg_ts_config
  UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, oid, dictnamespace FROM pg_catalog.pg_ts_dict
) AS x JOIN pg_catalog.pg_namespace n ON n.oid = x.namespace
CROSS JOIN LATERAL pg_catalog.pg_identify_object(x.class, x.oid, 0) AS o
WHERE n.nspname IN ('pg_catalog', 'information_schema') AND x.oid >= %(first)s
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = x.class AND d.objid = x.oid AND d.deptype IN ('e', 'i'))
ORDER BY 1
"""


def read_system_objects(
    holder: psycopg.Connection[Any], encoding: str, *, portable: bool
) -> tuple[bytes, bytes]:
    """Return entries of pre-data in this encoding: functions in the server's own schemas, which come before everything
    else, and members of its operator families, which come behind everything.
    """
    values = {"entry": _ENTRY, "portable": portable, "encoding": encoding, "first": FIRST_OID}
    functions = b"".join(row[0] for row in holder.execute(_FUNCTIONS.encode(), values))
    if holder.execute(_HAS_MEMBERS.encode(), values).fetchone() is None:
        return functions, b""
    return functions, b"".join(row[0] for row in holder.execute(_MEMBERS.encode(), values))


def undumped(holder: psycopg.Connection[Any]) -> list[Loss]:
    """Return what else is in the server's own schemas, by name. Raises what the driver raises."""
    reason = (
        "it was made in a schema of the server's own, which no dump has; make it again on the destination"
    )
    rows = holder.execute(_UNDUMPED.encode(), {"first": FIRST_OID})
    return [Loss(item, "all of it", reason) for (item,) in rows]
