"""Roles that the destination lacks, privileges, and what is set for roles and for the database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import psycopg

from exporters.postgres.definitions.roles import DATABASE
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.postgres.query_rows import fetch
from migrate.errors import DamageError
from migrate.restore.common.left_out import FinishedRestore
from migrate.restore.postgres.definitions.refusals import is_superuser, refusal_of

_ATTRIBUTES = (
    ("inherit", "INHERIT", "NOINHERIT"),
    ("createrole", "CREATEROLE", "NOCREATEROLE"),
    ("createdb", "CREATEDB", "NOCREATEDB"),
    ("login", "LOGIN", "NOLOGIN"),
)
_SUPERUSERS_ATTRIBUTES = (
    ("superuser", "SUPERUSER", "NOSUPERUSER"),
    ("replication", "REPLICATION", "NOREPLICATION"),
    ("bypassrls", "BYPASSRLS", "NOBYPASSRLS"),
)
_DEFAULT_PRIVILEGES = """
SELECT DISTINCT CASE defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'
  WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE 'large objects' END, current_user::text
FROM pg_catalog.pg_default_acl WHERE pg_get_userbyid(defaclrole) = current_user ORDER BY 1
"""
_SHOWN = 3
_OPTIONS_VERSION = 160000
"""From this version on each membership has its own INHERIT and SET options."""
_LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
"""Settings whose values are lists of quoted names (variable_is_guc_list_quote, src/bin/pg_dump/dumputils.c)."""
_ELEMENT = re.compile(r'"((?:[^"]|"")*)"|([^",\s]+)')


_MAY_GIVE = """
SELECT FROM pg_catalog.pg_roles o, pg_catalog.pg_roles me WHERE o.rolname = %s AND me.rolname = current_user
  AND (me.rolsuper OR me.rolcreatedb AND pg_catalog.pg_has_role(o.oid, 'MEMBER'))
"""
"""One row if this role may make that one the owner of a database of its own (ALTER DATABASE)."""


_PASSWORDLESS = """
SELECT rolname FROM pg_catalog.pg_authid WHERE rolcanlogin AND rolpassword IS NULL AND rolname = ANY (%s) ORDER BY 1
"""

_HERE = """
SELECT r.rolname::text AS name, r.rolsuper AS superuser, r.rolinherit AS inherit, r.rolcreaterole AS createrole,
  r.rolcreatedb AS createdb, r.rolcanlogin AS login, r.rolreplication AS replication, r.rolbypassrls AS bypassrls,
  r.rolconnlimit AS connection_limit, r.rolvaliduntil::text AS valid_until, coalesce(r.rolconfig, '{}') AS settings,
  ARRAY(SELECT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
    WHERE m.member = r.oid AND g.rolname = ANY (%(groups)s::text[])) AS groups
FROM pg_catalog.pg_roles r WHERE r.rolname = ANY (%(names)s::text[]) ORDER BY 1
"""


def note_made(names: Sequence[str]) -> list[str]:
    """Return the note about new roles."""
    return [f"these roles were made and have no password yet: {', '.join(names)}"] if names else []


def must_keep(connection: psycopg.Connection[Any], record: FinishedRestore) -> bool:
    """Tell whether a restore made roles whose missing password cannot be seen later."""
    return bool(record.passwordless) and not is_superuser(connection)


def note_kept(connection: psycopg.Connection[Any], roles: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return notes about roles that were there before: what each had at the source, and has not here. What they may do
    beyond the database is for the destination's administrator to decide.
    """
    there = {role["name"]: role for role in roles if not role.get("bootstrap")}
    groups = [membership["role"] for role in roles for membership in role.get("memberships") or ()]
    notes = []
    for here in fetch(connection, _HERE, {"names": list(there), "groups": groups}):
        if lacking := [*_lacking(there[here["name"]], here)]:
            words = (
                f"role {quote_name(here['name'])} was there, and stays as it is; at the source it also had"
            )
            notes.append(f"{words}: {', '.join(lacking)}")
    return notes


def note_default_privileges(connection: psycopg.Connection[Any]) -> list[str]:
    """Return a note about what else is granted, or not, on all that this role makes: no definition says otherwise."""
    rows = connection.execute(_DEFAULT_PRIVILEGES).fetchall()
    kinds = ", ".join(kind for kind, _ in rows)
    words = "may have other privileges than at the source, since ALTER DEFAULT PRIVILEGES was set here before"
    return [f"{kinds} of {quote_name(rows[0][1])} {words}: compare them (\\dp)"] if rows else []


def _lacking(role: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    yield from (yes for key, yes, _ in _ATTRIBUTES + _SUPERUSERS_ATTRIBUTES if role[key] and not here[key])
    if role.get("connection_limit", -1) != here["connection_limit"]:
        yield f"CONNECTION LIMIT {role.get('connection_limit', -1)}"
    if role.get("valid_until") and role["valid_until"] != here["valid_until"]:
        yield f"VALID UNTIL {quote_literal(role['valid_until'])}"
    yield from (f"SET {setting}" for setting in role.get("settings", ()) if setting not in here["settings"])
    groups = [membership["role"] for membership in role.get("memberships") or ()]
    yield from (f"membership in {quote_name(group)}" for group in groups if group not in here["groups"])


def logging_in(roles: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of those roles that log in once they are made (``create_role``)."""
    return [role["name"] for role in roles if role["login"] and not role["bootstrap"]]


def missing_roles(connection: psycopg.Connection[Any], roles: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the roles that the destination does not have."""
    # Names of a server's other databases may be no characters in this one's encoding.
    query = (
        "SELECT name FROM pg_catalog.unnest(%s::pg_catalog.text[]) AS name"
        " WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name)"
    )
    return [row[0] for row in connection.execute(query, ([role["name"] for role in roles],))]


def note_passwordless(
    connection: psycopg.Connection[Any], roles: Sequence[Mapping[str, Any]], made: Sequence[str]
) -> list[str]:
    """Return the note about those of the roles that log in and have no password. Only a superuser can see that; for
    others, about those that restores have ``made``.
    """
    if not is_superuser(connection):
        return note_made(made)
    without = [name for (name,) in connection.execute(_PASSWORDLESS, (logging_in(roles),))]
    return [f"these roles have no password: {', '.join(without)}"] if without else []


def make_roles(
    connection: psycopg.Connection[Any], roles: Sequence[Mapping[str, Any]], missing: Sequence[str]
) -> list[str]:
    """Make roles without passwords, within the caller's transaction; return what the server refuses of their settings.
    The source's bootstrap superuser becomes a plain role that cannot log in. Raises
    ``psycopg.errors.InsufficientPrivilege``.
    """
    superuser = is_superuser(connection)
    new_roles = [role for role in roles if role["name"] in set(missing)]
    for role in new_roles:
        connection.execute(create_role(role, superuser=superuser).encode())
    refused = [] if superuser else [f"{name}: only a superuser gives that" for name in _withheld(new_roles)]
    for role in new_roles:
        for statement in _belonging(role, options=connection.info.server_version >= _OPTIONS_VERSION):
            connection.execute(statement.encode())
        refused += set_all(connection, f"ROLE {quote_name(role['name'])}", role.get("settings", ()))
    return refused


def create_role(role: Mapping[str, Any], *, superuser: bool) -> str:
    """Return the statement that makes a role as it was on the source, as far as the session may."""
    name = quote_name(role["name"])
    if role["bootstrap"]:
        return f"CREATE ROLE {name} NOLOGIN"
    attributes = _ATTRIBUTES + (_SUPERUSERS_ATTRIBUTES if superuser else ())
    words = [yes if role[key] else no for key, yes, no in attributes]
    if role["connection_limit"] != -1:
        words.append(f"CONNECTION LIMIT {int(role['connection_limit'])}")
    if role["valid_until"]:
        words.append(f"VALID UNTIL {quote_literal(role['valid_until'])}")
    return f"CREATE ROLE {name} {' '.join(words)}"


def _withheld(roles: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what roles had of what only a superuser may give."""
    for role in roles:
        words = [yes for key, yes, _ in _SUPERUSERS_ATTRIBUTES if role[key] and not role["bootstrap"]]
        if words:
            yield f"{', '.join(words)} of role {quote_name(role['name'])}"


def _belonging(role: Mapping[str, Any], *, options: bool) -> Iterator[str]:
    """Yield the statements for a role's groups and comment. ``options``: the destination supports them."""
    name = quote_name(role["name"])
    for membership in role.get("memberships") or [{"role": group} for group in role.get("member_of", ())]:
        words = ["ADMIN OPTION"] * bool(membership.get("admin"))
        if options:
            recorded = [
                (key, membership[key])
                for key in ("admin", "inherit", "set")
                if membership.get(key) is not None
            ]
            words = [f"{key} {value is True}".upper() for key, value in recorded]
        yield f"GRANT {quote_name(membership['role'])} TO {name}" + (
            f" WITH {', '.join(words)}" if words else ""
        )
    if role.get("comment"):
        yield f"COMMENT ON ROLE {name} IS {quote_literal(role['comment'])}"


def set_for_database(connection: psycopg.Connection[Any], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Set what holds in this database, within the caller's transaction; return what is refused."""
    database = f"DATABASE {quote_name(connection.info.dbname)}"
    refused = []
    for setting in settings:
        whose = (
            f"ROLE {quote_name(setting['role'])} IN {database}" if setting["role"] is not None else database
        )
        refused += set_all(connection, whose, setting["settings"])
    return refused


def differing_database(
    connection: psycopg.Connection[Any], source: Mapping[str, Any], *, portable: bool
) -> tuple[dict[str, Any], bool]:
    """Return what a database lacks of the source's own owner, privileges, comment and connection limit, and whether it
    may be given: it is as the role that is connected has made it, and that may give it to the owner. ``portable``:
    it stays with its owner here, who has the privileges of the source's owner.
    """
    (here,) = fetch(connection, DATABASE)
    new = here["owner"] == connection.info.user and here["privileges"] is None
    new = new and here["comment"] is None and here["connection_limit"] == -1
    there = _owned_by(here["owner"], source) if portable or source["bootstrap"] else source
    names = ("owner", "privileges", "comment", "connection_limit")
    lacking = {name: there[name] for name in names if there[name] != here[name]}
    if new and "owner" in lacking:
        new = bool(connection.execute(_MAY_GIVE, (lacking["owner"],)).fetchall())
    return lacking, new


def _owned_by(owner: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a database's properties with another owner, who has the privileges that the source's owner has there."""
    privileges = source["privileges"]
    if privileges is not None:
        privileges = [[owner if role == source["owner"] else role, *what] for role, *what in privileges]
    return {**source, "owner": owner, "privileges": privileges}


def describe_database(connection: psycopg.Connection[Any], lacking: Mapping[str, Any]) -> list[str]:
    """Give the database what ``differing_database`` says, within the caller's transaction; return what is refused."""
    name = f"DATABASE {quote_name(connection.info.dbname)}"
    owner = lacking.get("owner", connection.info.user)
    statements = []
    if "connection_limit" in lacking:
        statements.append(f"ALTER {name} CONNECTION LIMIT {int(lacking['connection_limit'])}")
    if "comment" in lacking:
        statements.append(f"COMMENT ON {name} IS {quote_literal(lacking['comment'])}")
    if "owner" in lacking:
        statements.append(f"ALTER {name} OWNER TO {quote_name(owner)}")
    statements += grants(
        name, owner, lacking.get("privileges"), key="schema/database.json", public=", PUBLIC"
    )
    refused = (refusal_of(connection, sql, sql.encode()) for sql in statements)
    return [*filter(None, refused)]


def set_all(connection: psycopg.Connection[Any], whose: str, settings: Sequence[str]) -> list[str]:
    """Set ``name=value`` for ``DATABASE …`` or ``ROLE …``, within the caller's transaction; return what is refused."""
    refused: list[str] = []
    for assignment in settings:
        name, _, value = assignment.partition("=")
        statement = f"ALTER {whose} SET {setting(name, value)}".encode()
        refused.append(refusal_of(connection, f"{name} of {whose} is not set", statement))
    return list(filter(None, refused))


def setting(name: str, value: str) -> str:
    """Return how a setting is written as it is stored (pg_db_role_setting)."""
    values = [value]
    if name.lower() in _LISTS:
        elements = _ELEMENT.findall(value)
        values = [plain or quoted.replace('""', '"') for quoted, plain in elements] or [""]
    words = ", ".join(quote_literal(value) for value in values)
    return f"{'.'.join(quote_name(part) for part in name.split('.'))} TO {words}"


def grants(
    name: str, owner: str, privileges: Sequence[Sequence[Any]] | None, *, key: str, public: str = ""
) -> list[str]:
    """Return the statements that give an object these privileges instead of those that a new one has. ``public``: who
    else than its owner has such. ``key``: the file of the bundle. Raises ``DamageError``.
    """
    if privileges is None:
        return []
    return [
        f"REVOKE ALL ON {name} FROM {quote_name(owner)}{public}",
        *(
            f"GRANT {_word(privilege, key)} ON {name} TO {quote_name(role) if role else 'PUBLIC'}"
            + (" WITH GRANT OPTION" if grantable else "")
            for role, privilege, grantable in privileges
        ),
    ]


def note_not_given(refused: Sequence[str]) -> list[str]:
    """Return a note about privileges that the destination refuses, or says that it has not given."""
    more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    note = (
        f"privileges that could not be given, unless they are there: {'; '.join(refused[:_SHOWN])}{more};"
        " pre-data.sql, post-data.sql and database.json of the bundle have each, for the owner or a superuser to give"
        " once the roles are there"
    )
    return [note] if refused else []


def _word(privilege: str, key: str) -> str:
    """Return a privilege's name from the bundle, only where it is one word."""
    if not privilege.isalpha():
        raise DamageError(key, expected="a privilege", found=privilege)
    return privilege
