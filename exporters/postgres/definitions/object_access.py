"""Who owns the objects of a database and may use them, what comments and security labels say of them, and what is set
for roles: by digests one sees later what has changed since.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import psycopg

from exporters.postgres.changes.slot import PREFIX
from exporters.postgres.definitions.roles import OF_A_HOLD, ROLES, SETTINGS, TELLTALE
from exporters.postgres.errors import as_source_errors
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.postgres.sessions.connection import connect, parse_url

ACCESS = "access"
"""Under this name the log of a ``ChangeBase`` has the digests as they were then."""
OWNER, PRIVILEGES, COMMENT, LABEL = "owner of ", "privileges of ", "comment on ", "security label on "
_DATABASE, _ROLE = "the database", "role "
TRANSACTION = "transaction"
"""Under this name it has the number that the next transaction got then."""
_DIGEST_BYTES = 8
_OBJECTS = f"""
WITH schemas AS (
  SELECT * FROM pg_catalog.pg_namespace
  WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', '{PROGRESS_SCHEMA}')),
objects(class, oid, kind, owner, acl) AS (
  SELECT 'pg_catalog.pg_namespace'::regclass, oid, 'n'::"char", nspowner, nspacl FROM schemas
  UNION ALL SELECT 'pg_catalog.pg_class'::regclass, c.oid, CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char",
    c.relowner, c.relacl FROM pg_catalog.pg_class c JOIN schemas n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
  UNION ALL SELECT 'pg_catalog.pg_proc'::regclass, p.oid, 'f', p.proowner, p.proacl
    FROM pg_catalog.pg_proc p JOIN schemas n ON n.oid = p.pronamespace
  UNION ALL SELECT 'pg_catalog.pg_type'::regclass, t.oid, 'T', t.typowner, t.typacl
    FROM pg_catalog.pg_type t JOIN schemas n ON n.oid = t.typnamespace
    WHERE t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND EXISTS (
      SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')
  UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::regclass, oid, 'F', fdwowner, fdwacl
    FROM pg_catalog.pg_foreign_data_wrapper
  UNION ALL SELECT 'pg_catalog.pg_foreign_server'::regclass, oid, 'S', srvowner, srvacl
    FROM pg_catalog.pg_foreign_server
  UNION ALL SELECT 'pg_catalog.pg_event_trigger'::regclass, oid, NULL, evtowner, NULL FROM pg_catalog.pg_event_trigger
  UNION ALL SELECT 'pg_catalog.pg_publication'::regclass, oid, NULL, pubowner, NULL
    FROM pg_catalog.pg_publication WHERE pubname !~ '^{PREFIX}'),
own AS (
  SELECT o.*, i.type || ' ' || i.identity AS label FROM objects o, pg_catalog.pg_identify_object(class, oid, 0) i
  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')
  UNION ALL SELECT 'pg_catalog.pg_database'::regclass, oid, 'd', datdba, datacl, '{_DATABASE}'
  FROM pg_catalog.pg_database WHERE datname = current_database()),
lists(label, owner, acl, usual) AS (
  SELECT label, owner, acl, acldefault(kind, owner) FROM own WHERE kind IS NOT NULL
  UNION ALL SELECT i.type || ' ' || i.identity, c.relowner, a.attacl, NULL
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN schemas n ON n.oid = c.relnamespace, pg_catalog.pg_identify_object('pg_class'::regclass, c.oid, a.attnum) i
  WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
  UNION ALL SELECT i.type || ' ' || i.identity, defaclrole, defaclacl, NULL
  FROM pg_catalog.pg_default_acl d, pg_catalog.pg_identify_object('pg_default_acl'::regclass, d.oid, 0) i),
texts(label, granted, usual) AS (
  SELECT l.label, g.texts[1], g.texts[2] FROM lists l, LATERAL (SELECT array_agg((
    SELECT string_agg(concat_ws(' ', coalesce(quote_ident(r.rolname), 'PUBLIC'), x.privilege_type, x.is_grantable), ', '
      ORDER BY r.rolname, x.privilege_type)
    FROM aclexplode(CASE which WHEN 1 THEN coalesce(l.acl, l.usual) ELSE l.usual END) x
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee WHERE x.grantee <> l.owner) ORDER BY which) AS texts
  FROM generate_series(1, 2) which) g WHERE l.acl IS NOT NULL)
SELECT textsend('{OWNER}' || label), textsend(quote_ident(pg_get_userbyid(owner))) FROM own
UNION ALL SELECT textsend('{PRIVILEGES}' || label), textsend(coalesce(granted, 'none')) FROM texts
  WHERE granted IS DISTINCT FROM usual
UNION ALL SELECT textsend('{COMMENT}' || i.type || ' ' || i.identity), textsend(c.description)
  FROM pg_catalog.pg_description c, pg_catalog.pg_identify_object(c.classoid, c.objoid, c.objsubid) i
  WHERE (c.objoid >= 16384 OR EXISTS (SELECT FROM schemas n WHERE c.classoid = 'pg_namespace'::regclass
    AND n.oid = c.objoid)) AND c.classoid <> 'pg_largeobject'::regclass
    AND i.schema IS DISTINCT FROM '{PROGRESS_SCHEMA}' AND i.identity !~ '^pg_(temp|toast)'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = c.classoid AND d.objid = c.objoid AND d.deptype = 'e')
UNION ALL SELECT textsend('{COMMENT}{_DATABASE}'), textsend(shobj_description(oid, 'pg_database'))
  FROM pg_catalog.pg_database WHERE datname = current_database() AND shobj_description(oid, 'pg_database') <> ''
UNION ALL SELECT textsend('{LABEL}' || i.type || ' ' || i.identity), textsend(string_agg(l.provider || ' ' || l.label,
    ', ' ORDER BY l.provider))
  FROM pg_catalog.pg_seclabel l, pg_catalog.pg_identify_object(l.classoid, l.objoid, l.objsubid) i
  GROUP BY i.type, i.identity
UNION ALL SELECT textsend('{LABEL}{_DATABASE}'), textsend(string_agg(provider || ' ' || label, ', ' ORDER BY provider))
  FROM pg_catalog.pg_shseclabel WHERE classoid = 'pg_catalog.pg_database'::regclass
    AND objoid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) GROUP BY objoid
"""
"""What an owner has by itself is left out: newer servers have privileges that older ones lack. So are comments on large
objects: the cutover carries them.
"""
_KEPT = f"""
ARRAY(SELECT s FROM unnest(settings) s
  WHERE split_part(s, '=', 1) <> '{OF_A_HOLD}' AND split_part(s, '=', 1) !~* '^{TELLTALE}$')
"""
_ROLES = f"""
SELECT textsend('{_ROLE}' || quote_ident(name)),
  textsend(concat_ws(' ', to_jsonb(r) - '{{name,bootstrap,settings,memberships}}'::text[], (
    SELECT string_agg((m - CASE WHEN coalesce((m ->> 'set')::bool, true) THEN 'set' ELSE '' END
      - CASE WHEN coalesce((m ->> 'inherit')::bool, r.inherit) = r.inherit THEN 'inherit' ELSE '' END)::text, ' ')
    FROM unnest(r.memberships) m), (
    SELECT string_agg(l.provider || ' ' || l.label, ' ' ORDER BY l.provider) FROM pg_catalog.pg_shseclabel l
    JOIN pg_catalog.pg_roles o ON o.oid = l.objoid AND l.classoid = 'pg_catalog.pg_authid'::regclass
    WHERE o.rolname = r.name), {_KEPT}))
FROM ({ROLES}) r WHERE NOT bootstrap AND name <> current_user
UNION ALL SELECT textsend('settings of ' || coalesce('role ' || quote_ident(role) || ' in ', '') || '{_DATABASE}'),
  textsend({_KEPT}::text) FROM ({SETTINGS}) s WHERE {_KEPT} <> '{{}}'
"""
"""Options of a membership that servers before 16 do not have are left out where they are as they always were there."""


def state_at(url: str, secrets: Mapping[str, str], position: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be known of a database's definitions, so that later changes of them are seen: as of the
    ``position`` of a snapshot, if it has the text of that, else now. The text begins with the first transaction that
    was open then. What that one defines is not in the snapshot. Raises ``SourceError``.
    """
    address = parse_url(url, secrets)
    first_open = str(position.get("snapshot", "")).partition(":")[0]
    with closing(connect(address)) as connection, as_source_errors(address.url):
        now = next_transaction(connection)
    return {TRANSACTION: min(now, int(first_open)) if first_open.isdecimal() else now}


def next_transaction(connection: psycopg.Connection[Any]) -> int:
    """Return the number that the next transaction gets: what a later one defines is new. Raises the driver's errors."""
    query = b"SELECT pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())"
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def read_access(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Return owners, privileges, comments, roles and settings as texts, by what they are of. Raises the driver's
    errors.
    """
    return {label: text for query in (_OBJECTS, _ROLES) for label, text in read_texts(connection, query)}


def without_newer(access: Mapping[str, str]) -> dict[str, str]:
    """Return the texts without a privilege that servers before PostgreSQL 17 do not have; newer ones give it with
    ALL.
    """
    return {
        label: _MAINTAIN.sub("", text).removesuffix(", ") if label.startswith(PRIVILEGES) else text
        for label, text in access.items()
    }


def digests_of(access: Mapping[str, str]) -> dict[str, str]:
    """Return a digest of each text; of what belongs to the database's owner there is none."""
    usual = access.get(OWNER + _DATABASE)
    return {
        label: hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
        for label, text in access.items()
        if not (label.startswith(OWNER) and text == usual)
    }


def changed_access(
    before: Mapping[str, str] | None, source: Mapping[str, str], destination: Mapping[str, str]
) -> list[str]:
    """Return what has changed at the source since ``before``, its digests then, and is otherwise at the destination.
    Where they are None, all that is otherwise: of a role that the destination lacks only the role itself. Of objects
    that only one side has nothing is named.
    """
    now = digests_of(source)
    if before is None:
        source, destination = _shared(source, destination), _shared(destination, source)
        changed = now.keys() & source.keys()
        changed |= {label for label in digests_of(destination) if not label.startswith(_ROLE)}
    else:
        changed = {label for label in now.keys() | before.keys() if now.get(label) != before.get(label)}
    return sorted(
        label
        for label in changed
        if source.get(label, "") != destination.get(label, "")
        and all(_has_object(side, label) for side in (source, destination))
    )


def _shared(side: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of a side without what concerns roles that the other side lacks."""
    lacking = {label for label in side.keys() - other.keys() if label.startswith(_ROLE)}
    names = {label.removeprefix(_ROLE) for label in lacking}
    if not names:
        return dict(side)
    of_those = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    granted = re.compile(rf"(?:^|, )(?:{of_those}) [A-Z ]+ [tf](?=, |$)")
    given = re.compile(rf"{PRIVILEGES}default acl for role (?:{of_those}) ")
    return {
        label: granted.sub("", text).removeprefix(", ") if label.startswith(PRIVILEGES) else text
        for label, text in side.items()
        if not ((label.startswith(OWNER) and text in names) or given.match(label))
    }


def _has_object(access: Mapping[str, str], label: str) -> bool:
    """Tell whether a side has the object of a label, where that is one with an owner."""
    match = _OWNED.match(label)
    return match is None or OWNER + label[match.end("aspect") :] in access


_MAINTAIN = re.compile(r'(?:(?<=^)|(?<=, ))(?:"(?:[^"]|"")*"|[^\s",]+) MAINTAIN [tf](?:, )?')
_OWNED = re.compile(
    rf"(?P<aspect>{OWNER}|{PRIVILEGES}|{COMMENT}|{LABEL})(?:schema|table|view|materialized view|sequence|foreign table"
    r"|function|procedure|aggregate|type|foreign-data wrapper|server|event trigger|publication|subscription)"
    r" (?!column |constraint )"
)


def read_texts(connection: psycopg.Connection[Any], query: str) -> Iterator[list[str]]:
    """Yield the rows of a query for texts, which come as bytes: not all are characters everywhere."""
    is_bytes = connection.info.parameter_status("server_encoding") == "SQL_ASCII"
    encoding = "SQL_ASCII" if is_bytes else "UTF8"
    connection.execute(f"SET client_encoding TO '{encoding}'".encode())
    rows = connection.execute(query.encode()).fetchall()
    connection.execute("SET client_encoding TO 'UTF8'")
    for row in rows:
        yield ["" if text is None else text.decode(errors="backslashreplace") for text in row]
