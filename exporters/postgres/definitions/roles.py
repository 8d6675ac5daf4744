"""Who uses a database, and what is set for them and for all of it: what no section of pg_dump's holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from exporters.api import Loss

ROLES = """
WITH RECURSIVE this(oid) AS (SELECT oid FROM pg_database WHERE datname = current_database()), using_it(oid) AS (
  SELECT s.refobjid FROM pg_shdepend s, this WHERE s.refclassid = 'pg_authid'::regclass
    AND (s.dbid = this.oid OR s.classid = 'pg_database'::regclass AND s.objid = this.oid)
  UNION SELECT relowner FROM pg_class UNION SELECT nspowner FROM pg_namespace
  UNION SELECT proowner FROM pg_proc UNION SELECT typowner FROM pg_type
  UNION SELECT setrole FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
    WHERE datname = current_database() AND setrole <> 0
  UNION SELECT m.member FROM using_it u JOIN pg_auth_members m ON m.roleid = u.oid
    JOIN pg_roles g ON g.oid = m.roleid AND g.rolname !~ '^pg_' AND NOT g.rolsuper),
needed(oid) AS (
  SELECT oid FROM using_it
  UNION SELECT m.roleid FROM needed n JOIN pg_auth_members m ON m.member = n.oid)
SELECT r.rolname AS name, r.oid = 10 AS bootstrap, r.rolsuper AS superuser, r.rolinherit AS inherit,
  r.rolcreaterole AS createrole, r.rolcreatedb AS createdb, r.rolcanlogin AS login,
  r.rolreplication AS replication, r.rolbypassrls AS bypassrls, r.rolconnlimit AS connection_limit,
  r.rolvaliduntil::text AS valid_until, shobj_description(r.oid, 'pg_authid') AS comment,
  coalesce(r.rolconfig, '{}') AS settings,
  ARRAY(SELECT jsonb_build_object('role', g.rolname, 'admin', bool_or(m.admin_option),
      'inherit', bool_or((to_jsonb(m) ->> 'inherit_option')::bool),
      'set', bool_or((to_jsonb(m) ->> 'set_option')::bool))
    FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
    WHERE m.member = r.oid GROUP BY g.rolname ORDER BY g.rolname) AS memberships
FROM pg_roles r JOIN (SELECT DISTINCT oid FROM needed) n ON n.oid = r.oid
WHERE r.rolname !~ '^pg_' ORDER BY r.rolname
"""
"""Those that own something or may do something here, their members, and the groups that all of these are in. Of a
membership ``inherit`` and ``set`` are null where the server has no such options (before version 16).
"""
SETTINGS = """
SELECT r.rolname AS role, s.setconfig AS settings
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
WHERE d.datname = current_database() ORDER BY r.rolname NULLS FIRST
"""
"""``ALTER DATABASE … SET`` (no role) and ``ALTER ROLE … IN DATABASE … SET``."""

DATABASE = """
SELECT r.rolname::text AS owner, r.oid = 10 AS bootstrap, d.datconnlimit AS connection_limit,
  shobj_description(d.oid, 'pg_database') AS comment, CASE WHEN d.datacl IS NOT NULL THEN coalesce((
    SELECT json_agg(json_build_array(coalesce(g.rolname, ''), x.privilege_type, x.is_grantable) ORDER BY x.ordinality)
    FROM aclexplode(d.datacl) WITH ORDINALITY AS x LEFT JOIN pg_roles g ON g.oid = x.grantee), '[]') END AS privileges
FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = current_database()
"""
"""What a database itself has. ``privileges`` as in ``large_objects.METADATA``; ``bootstrap``: the owner is the server's
first superuser.
"""

TELLTALE = (
    r"(?!password_encryption)[\w.]*(?:passw|secret|token|credential|api_?key|access_?key|private_?key)[\w.]*"
)
"""A name, of a setting or an option, that says that its value is secret."""
_SECRET = re.compile(TELLTALE, re.IGNORECASE)


OF_A_HOLD = "default_transaction_read_only"
"""What keeps people from writing to a database that is leaving: it is not for the one that takes its place."""


def keepable(rows: Iterable[Mapping[str, Any]], database: str) -> tuple[list[dict[str, Any]], list[Loss]]:
    """Return rows of ``ROLES`` or ``SETTINGS`` without the settings that do not leave, and those: what has the name of
    a secret, and what a hold sets for a database.
    """
    kept_rows, losses = [], []
    for row in rows:
        item, of_role = f"database {database}", f" of role {row['role']}" if row.get("role") else ""
        if "name" in row:
            item = f"role {row['name']}"
        settings = []
        for setting in row["settings"]:
            name = setting.partition("=")[0]
            if _SECRET.fullmatch(name):
                reason = "looks like a secret; set it again on the destination"
            elif name == OF_A_HOLD and "name" not in row:
                reason = "may be a hold's; set it again on the destination if it is not"
            else:
                settings.append(setting)
                continue
            losses.append(Loss(item, "setting", f"{name}{of_role} {reason}"))
        kept_rows.append(dict(row) | {"settings": settings})
    return kept_rows, losses
