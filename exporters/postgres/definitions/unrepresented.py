"""What a database has that neither the definitions nor the rows hold: it is recorded as lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from exporters.api import Gap, Loss
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.definitions.roles import ROLES, TELLTALE
from exporters.postgres.identifiers import quote_name
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.sql.source_summary import of_a_restore

_LOSSES = """
SELECT 'database ' || current_database(), 'tablespace',
    'it was in ' || t.spcname || '; the destination''s default is used'
  FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
  WHERE datname = current_database() AND t.spcname <> 'pg_default'
UNION SELECT 'user mapping for ' || u.usename || ' on foreign server ' || u.srvname, 'option',
    o.name || ' is left out of pre-data.sql; set it again on the destination'
  FROM pg_user_mappings u
  CROSS JOIN LATERAL (SELECT split_part(one, '=', 1) FROM unnest(u.umoptions) AS one) AS o(name)
  WHERE o.name ~* %(secret)s
UNION SELECT 'foreign server ' || s.srvname, 'option',
    o.name || ' is left out of pre-data.sql; set it again on the destination'
  FROM pg_foreign_server s
  CROSS JOIN LATERAL (SELECT split_part(one, '=', 1) FROM unnest(s.srvoptions) AS one) AS o(name)
  WHERE o.name ~* %(secret)s
UNION SELECT 'constraint ' || quote_ident(k.conname) || ' of table ' || k.conrelid::regclass, 'name',
    'a key of a partition gets the name of the partitioned table''s key, ' || quote_ident(root.conname)
  FROM pg_constraint k JOIN pg_constraint parent ON parent.oid = k.conparentid AND parent.conrelid <> k.conrelid
  CROSS JOIN LATERAL (
    WITH RECURSIVE above AS (SELECT k.conparentid AS oid UNION ALL
      SELECT c.conparentid FROM pg_constraint c JOIN above USING (oid) WHERE c.conparentid <> 0)
    SELECT c.conname FROM pg_constraint c JOIN above USING (oid) WHERE c.conparentid = 0) AS root
  WHERE k.contype = 'f' AND k.conname <> root.conname
UNION SELECT 'index ' || i.indexrelid::regclass, 'definition',
    'it is not valid, as one is that could not be made concurrently; a dump leaves it out'
  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT i.indisvalid AND c.relkind <> 'p' AND n.nspname !~ '^pg_'
UNION SELECT CASE c.relkind WHEN 'm' THEN 'materialized view ' WHEN 'p' THEN 'table ' ELSE 'index ' END
    || c.oid::regclass,
    'tablespace', 'it was in ' || t.spcname || '; the destination''s default is used'
  FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('i', 'I', 'm', 'p') AND n.nspname !~ '^pg_'
UNION SELECT 'table ' || c.oid::regclass, 'rows',
    'it belongs to the extension ' || e.extname || ', and the role may not read it, or somebody keeps it locked'
  FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
  WHERE c.relkind = 'r' AND c.oid <> ALL (coalesce(e.extconfig, '{}')) AND c.oid <> ALL (%(read)s::oid[])
    AND (NOT has_table_privilege(c.oid, 'SELECT') OR pg_relation_size(c.oid) > 0)
UNION SELECT 'operator ' || o.oid::regoperator, 'definition',
    'it is a shell that no operator names; a dump leaves it out'
  FROM pg_operator o WHERE o.oprcode = 0 AND o.oid >= 16384
  AND NOT EXISTS (SELECT FROM pg_operator u WHERE o.oid IN (u.oprcom, u.oprnegate))
UNION SELECT 'table ' || i.inhrelid::regclass, 'partition',
    'its detachment from ' || i.inhparent::regclass || ' is not finished, so a query of that reads none of its rows;'
    ' a dump attaches it again: detach it on the destination'
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind NOT IN ('i', 'I')
  WHERE (to_jsonb(i) ->> 'inhdetachpending')::bool
UNION SELECT 'every role', 'setting',
    split_part(c.one, '=', 1) || ' is set for all of the server (ALTER ROLE ALL); set it again on the destination'
  FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS c(one) WHERE s.setdatabase = 0 AND s.setrole = 0
UNION SELECT 'schema public', 'absence', 'this database has none, and a new one has; drop it on the destination'
  WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public')
UNION SELECT 'prepared transaction ' || gid, 'all of it',
    'it is neither committed nor rolled back, so what it wrote is not there yet; end it, and export again'
  FROM pg_prepared_xacts WHERE database = current_database()
UNION SELECT 'replication slot ' || slot_name, 'all of it', 'it is of this server; make it again on the destination'
  FROM pg_replication_slots WHERE database = current_database()
"""
_SHARED_LABELS = f"""
SELECT CASE WHEN l.classoid = 'pg_authid'::regclass THEN 'role ' || l.objoid::regrole
    ELSE 'database ' || current_database() END, 'security label',
    'that of ' || l.provider || ' is left out; set it again on the destination: ' || quote_literal(l.label)
  FROM pg_shseclabel l WHERE l.classoid = 'pg_database'::regclass
    AND l.objoid = (SELECT oid FROM pg_database WHERE datname = current_database())
  OR l.classoid = 'pg_authid'::regclass AND l.objoid IN (SELECT r.oid FROM pg_roles r WHERE r.rolname IN (
    SELECT name FROM ({ROLES}) AS using_it))
ORDER BY 1, 3
"""
_HAS_SHARED_LABELS = "SELECT 1 WHERE EXISTS (SELECT FROM pg_shseclabel)"
"""Servers rarely have any. To plan ``_SHARED_LABELS`` takes longer than to ask that."""
_LABELS_OF_LARGE_OBJECTS = """
SELECT 'large object ' || l.objoid, 'security label',
  'that of ' || l.provider || ' is left out; set it again on the destination: ' || quote_literal(l.label)
FROM pg_seclabel l WHERE l.classoid = 'pg_largeobject'::regclass ORDER BY l.objoid, l.provider
"""
_OF_A_RESTORE = """
SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname IN ('finished', 'follow'))
  AND NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname = 'about')
FROM pg_namespace n WHERE nspname = %(own)s
"""
_UNREADABLE_MAPPINGS = """
SELECT 'the options of the user mapping for ' || u.usename || ' on foreign server ' || u.srvname
FROM pg_user_mappings u JOIN pg_foreign_server s ON s.oid = u.srvid
WHERE u.umoptions IS NULL AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND NOT CASE u.umuser
  WHEN 0 THEN pg_has_role(s.srvowner, 'USAGE')
  ELSE u.usename = current_user AND (pg_has_role(s.srvowner, 'USAGE') OR has_server_privilege(s.oid, 'USAGE')) END
ORDER BY 1
"""
"""The view shows options under these conditions only (pg_user_mappings in src/backend/catalog/system_views.sql), and
NULL both in place of hidden ones and where there are none.
"""
_HIDING_DAMAGE = """
SELECT name FROM (VALUES ('ignore_checksum_failure'), ('zero_damaged_pages')) AS settings(name)
WHERE current_setting(name)::bool
"""
_OF_PARAMETERS = """
SELECT 'role ' || x.grantee::regrole, 'privilege on a parameter',
  x.privilege_type || ' on ' || p.parname || ' is of the whole server; grant it again on the destination'
FROM pg_parameter_acl p CROSS JOIN LATERAL aclexplode(p.paracl) AS x WHERE x.grantee <> 0 AND x.grantee <> 10
ORDER BY 1, 3
"""
_PARAMETERS_VERSION = 150000


def losses_of(holder: psycopg.Connection[Any], tables: Sequence[PostgresTable]) -> list[Loss]:
    """Return the losses that the catalogs show. Raises what the driver raises."""
    rows = holder.execute(_OF_A_RESTORE, {"own": PROGRESS_SCHEMA}).fetchall()
    losses = [of_a_restore(f"schema {PROGRESS_SCHEMA}", finished=finished) for (finished,) in rows]
    values = {"secret": f"^(?:{TELLTALE})$", "read": [table.oid for table in tables]}
    losses += [Loss(*row) for row in holder.execute(_LOSSES, values)]
    if holder.execute(_HAS_SHARED_LABELS).fetchone() is not None:
        losses += [Loss(*row) for row in holder.execute(_SHARED_LABELS)]
    if holder.info.server_version >= _PARAMETERS_VERSION:
        losses += [Loss(*row) for row in holder.execute(_OF_PARAMETERS)]
    return [*_table_losses(tables), *losses, *_subscriptions(holder)]


def labels_of_large_objects(holder: psycopg.Connection[Any]) -> list[Loss]:
    """Return the security labels of large objects as losses: newer programs leave them out of the definitions. Raises
    what the driver raises.
    """
    return [Loss(*row) for row in holder.execute(_LABELS_OF_LARGE_OBJECTS)]


def unreadable(holder: psycopg.Connection[Any]) -> list[Gap]:
    """Return what the role may not read of the definitions. Raises what the driver raises."""
    reason = "the role may not read them; a superuser may, and the user himself"
    return [Gap(item, "failed", reason) for (item,) in holder.execute(_UNREADABLE_MAPPINGS)]


def hidden_damage(holder: psycopg.Connection[Any]) -> list[Gap]:
    """Return a gap for each setting under which a damaged page is no error. Such a page stays in the server's memory as
    it was read, for all sessions. Raises what the driver raises.
    """
    reason = "it is on: what they held is missing or wrong here, and no error says so"
    rows = holder.execute(_HIDING_DAMAGE).fetchall()
    return [Gap(f"rows in damaged pages ({name})", "failed", reason) for (name,) in rows]


def _table_losses(tables: Sequence[PostgresTable]) -> list[Loss]:
    losses = []
    for table in tables:
        if table.view:
            continue
        if not table.readable:
            reason = "pg_dump may not lock it, because the role may not read it"
            losses.append(Loss(table.label, "definition", reason))
        if table.foreign:
            reason = "the rows lie on another server; only the definition is exported"
            losses.append(Loss(table.label, "rows of the foreign table", reason))
        for name in table.unread:
            reason = f"COPY by a table's name reads none, and the server plans no query of this one: {table.refusal}"
            losses.append(Loss(f"{table.label}.{quote_name(name)}", "generated values", reason))
        if table.tablespace:
            reason = f"it was in {table.tablespace}; the destination's default is used"
            losses.append(Loss(table.label, "tablespace", reason))
    return losses


def _subscriptions(holder: psycopg.Connection[Any]) -> list[Loss]:
    if holder.info.server_version < 100000:
        return []
    query = (
        "SELECT s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid"
        " WHERE d.datname = current_database() AND has_column_privilege('pg_subscription', 'subname', 'SELECT')"
    )
    reason = "it holds the password of another server; make it again on the destination"
    return [Loss(row[0], "subscription", reason) for row in holder.execute(query)]
