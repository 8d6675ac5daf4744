"""What a server refuses although the source had it: code that reads what comes later, or that finds things by names
without a schema, and checks that have become untrue. PostgreSQL believes that a check, an index' expression and a
materialized view depend on nothing but declared objects; pg_dump's scripts stop there, or go on without.

**Lent rights.** A privilege comes back as granted by who passed it on, which takes that this role reaches the schema.
At the source it could once; what has been revoked since makes pg_dump's script stop there. So a superuser lends the
role a look into the schema for that statement. The loan ends within the same transaction, so that nobody ever sees it,
and no code runs meanwhile. What runs code as its owner (an index' functions, a materialized view's query) is lent
nothing. It would do, or show, at the restore what its owner was kept from at the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any

import psycopg
from msgspec import Struct

from exporters.postgres.errors import translate
from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from exporters.postgres.schemas import PROGRESS_SCHEMA, SEARCH_EVERY_SCHEMA
from migrate.errors import MoveoutError, NoSpaceError, NotAllowedError, UsageError
from migrate.restore.postgres.definitions.dump_script import NAME, QUALIFIED, DumpEntry, unquote

REFUSALS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.NotSupportedError,
    psycopg.ProgrammingError,
    psycopg.errors.ObjectNotInPrerequisiteState,
)
"""Errors that concern a statement, not the server."""
_OF_THE_SERVER = ("25", "40", "53", "55P03", "57")
"""SQLSTATEs that speak of the session or the server: states of a transaction, what may pass, resources, locks, an
operator (PostgreSQL documentation, appendix A). All others are about the statement, those of the database's own code
too, which may be any: RAISE takes any.
"""

_CHECKS_OF_TABLE = """
WITH RECURSIVE above AS (
  SELECT %(relation)s::regclass::oid AS relid
  UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above a ON i.inhrelid = a.relid
)
SELECT 'TABLE ' || a.relid::regclass, '', k.conname, pg_catalog.pg_get_constraintdef(k.oid),
  pg_catalog.obj_description(k.oid)
FROM above a JOIN pg_catalog.pg_constraint k ON k.conrelid = a.relid
WHERE k.contype = 'c' AND k.coninhcount = 0 AND k.conname = coalesce(%(name)s, k.conname) ORDER BY k.conname
"""
_CHECK_OF_DOMAIN = """
SELECT 'DOMAIN ' || t.oid::regtype, 'DOMAIN ', k.conname, pg_catalog.pg_get_constraintdef(k.oid),
  pg_catalog.obj_description(k.oid)
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_constraint k ON k.contypid = t.oid
WHERE t.oid = %(type)s::regtype AND k.contype = 'c' AND k.conname = %(name)s
"""
_NOT_VALID = " NOT VALID"
_GRANTOR = re.compile(rb"^SET SESSION AUTHORIZATION (" + NAME + rb");$", re.MULTILINE)

_FUNCTIONS = """
WITH RECURSIVE relations(oid) AS (
  SELECT pg_catalog.to_regclass(%(relation)s::pg_catalog.text)::pg_catalog.oid
  UNION SELECT d.refobjid FROM relations r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
  WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass),
used(oid) AS (
  SELECT d.refobjid FROM relations r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
  WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  UNION SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname || '.' || p.proname = ANY (%(names)s))
SELECT pg_catalog.format('%%I.%%I(%%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid))
FROM used u JOIN pg_catalog.pg_proc p ON p.oid = u.oid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.oid >= 16384 AND p.prokind = 'f' AND l.lanname NOT IN ('c', 'internal')
  AND pg_catalog.pg_has_role(p.proowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) AS c WHERE c LIKE 'search\\_path=%%')
"""
"""The functions that a statement names, or that a materialized view and the views below it use, which have no
``search_path`` of their own, and which this role may alter.
"""
_RESTRICTED_VERSION = 170000
"""From this version on no session's ``search_path`` holds for code that makes an index or refreshes a materialized view
(release notes of PostgreSQL 17), only that of a function.
"""
_RESTRICTED = ", as REINDEX and REFRESH do not from PostgreSQL 17 on: ALTER FUNCTION … SET search_path"
_SHUT_OUT = """
SELECT pg_catalog.quote_ident(r.rolname) FROM pg_catalog.pg_roles r, pg_catalog.pg_namespace n
WHERE n.nspname = %s AND pg_catalog.quote_ident(r.rolname) = ANY (%s)
  AND NOT pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')
"""


def is_refusal(error: psycopg.Error, connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a statement was refused for what it says: another one may be tried, and this one later. Where a
    superuser is not allowed something, it is code that runs as somebody else.
    """
    if error.diag.schema_name == PROGRESS_SCHEMA:
        return False
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return is_superuser(connection)
    if not error.sqlstate:
        return isinstance(error, REFUSALS)
    return not connection.broken and not error.sqlstate.startswith(_OF_THE_SERVER)


def first_line(error: psycopg.Error) -> str:
    """Return the server's error message, in one line."""
    return str(error).strip().partition("\n")[0]


def use_every_schema(connection: psycopg.Connection[Any], first: str) -> None:
    """Let code find names without a schema until the end of the transaction, as it does for an application. Those of
    its own schema come first, so that nobody who may make things elsewhere puts others in their way.
    """
    connection.execute(SEARCH_EVERY_SCHEMA.encode())
    own = "" if first in ("", "-") else f"{quote_name(first)}, "
    search = (
        "SELECT pg_catalog.set_config('search_path', %s || pg_catalog.current_setting('search_path'), true)"
    )
    connection.execute(search.encode(), (own,))


def refusal_of(connection: psycopg.Connection[Any], name: str, sql: bytes) -> str:
    """Run a statement; return a sentence where the server refuses it, else "". Raises other errors."""
    try:
        with connection.transaction():
            connection.execute(sql)
    except psycopg.Error as exc:
        if not (isinstance(exc, psycopg.errors.InsufficientPrivilege) or is_refusal(exc, connection)):
            raise
        return f"{name}: {first_line(exc)}"
    return ""


@contextmanager
def searching_every_schema(
    connection: psycopg.Connection[Any], schema: str, sql: bytes, relation: str | None = None
) -> Iterator[None]:
    """Within the caller's transaction, let code find names without a schema, those of its own ``schema`` first. Where
    the server wants it so, the functions that ``sql`` names, or a view ``relation`` uses, have that search path until
    then: nobody else sees it.
    """
    use_every_schema(connection, schema)
    functions: list[tuple[str]] = []
    if connection.info.server_version >= _RESTRICTED_VERSION:
        names = [".".join(unquote(name)) for name in re.findall(QUALIFIED + rb"(?=\()", sql)]
        values = {"relation": relation, "names": names}
        functions = connection.execute(_FUNCTIONS.encode(), values).fetchall()
    for (function,) in functions:
        connection.execute(f"ALTER FUNCTION {function} SET search_path FROM CURRENT".encode())
    yield
    for (function,) in functions:
        connection.execute(f"ALTER FUNCTION {function} RESET search_path".encode())


class Workaround(Enum):
    """What helps an entry that the server refuses; the value describes it in messages."""

    NONE = ""
    SCHEMAS = "names without a schema: all schemas were searched"
    RIGHTS = "a schema that who granted it does not reach any more: it was lent for it"

    def need(self, connection: psycopg.Connection[Any]) -> str:
        """Describe what an entry needs, for this server."""
        is_restricted = connection.info.server_version >= _RESTRICTED_VERSION
        return self.value + (_RESTRICTED if self is Workaround.SCHEMAS and is_restricted else "")

    def given(self, connection: psycopg.Connection[Any], entry: DumpEntry) -> AbstractContextManager[None]:
        """Help, within the caller's transaction."""
        if self is Workaround.RIGHTS:
            return temporary_usage(connection, entry)
        if self is Workaround.SCHEMAS:
            relation = quote_qualified(entry.schema, entry.name)
            return searching_every_schema(connection, entry.schema, entry.sql, relation)
        return nullcontext()


class Check(Struct, frozen=True):
    """What rows may not violate. ``name`` is for messages; ``drop`` takes it away; of ``make`` the first that the
    server takes makes it again: for all rows, else for those to come.
    """

    name: str
    drop: str
    make: tuple[str, ...]


def suspects(connection: psycopg.Connection[Any], error: psycopg.Error, label: str) -> list[Check]:
    """Return the check that may have refused rows, or, where some code raised the error, all of the table."""
    diagnostics = error.diag
    if diagnostics.schema_name and diagnostics.datatype_name:
        domain = quote_qualified(diagnostics.schema_name, diagnostics.datatype_name)
        if isinstance(error, psycopg.errors.NotNullViolation):
            alter = f"ALTER DOMAIN {domain}"
            return [
                Check(f"NOT NULL of DOMAIN {domain}", f"{alter} DROP NOT NULL", (f"{alter} SET NOT NULL",))
            ]
        return _checks(connection, _CHECK_OF_DOMAIN, {"type": domain, "name": diagnostics.constraint_name})
    name = diagnostics.constraint_name if isinstance(error, psycopg.errors.CheckViolation) else None
    return _checks(connection, _CHECKS_OF_TABLE, {"relation": label, "name": name})


def _checks(connection: psycopg.Connection[Any], query: str, values: Mapping[str, str | None]) -> list[Check]:
    return [_check(*row) for row in connection.execute(query.encode(), values)]


def _check(owner: str, commented: str, name: str, definition: str, comment: str | None) -> Check:
    name = quote_name(name)
    add = f"ALTER {owner} ADD CONSTRAINT {name} {definition.removesuffix(_NOT_VALID)}"
    comment_sql = ""
    if comment is not None:
        on = f"{commented}{owner.partition(' ')[2]}"
        comment_sql = f"; COMMENT ON CONSTRAINT {name} ON {on} IS {quote_literal(comment)}"
    drop = f"ALTER {owner} DROP CONSTRAINT {name}"
    return Check(f"check {name} of {owner}", drop, (f"{add}{comment_sql}", f"{add}{_NOT_VALID}{comment_sql}"))


@contextmanager
def without_checks(connection: psycopg.Connection[Any], checks: Sequence[Check]) -> Iterator[list[Check]]:
    """Within the caller's transaction, let all rows in; yield the checks that do not hold for all afterwards."""
    untrue: list[Check] = []
    for check in checks:
        connection.execute(check.drop.encode())
    yield untrue
    for check in reversed(checks):
        for number, statement in enumerate(check.make):
            try:
                with connection.transaction():
                    connection.execute(statement.encode())
            except psycopg.Error as exc:
                if not is_refusal(exc, connection):
                    raise
                untrue.extend([check] * (number == 0))
            else:
                break


def is_superuser(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the session's role may do everything."""
    return connection.info.parameter_status("is_superuser") == "on"


@contextmanager
def temporary_usage(connection: psycopg.Connection[Any], entry: DumpEntry) -> Iterator[None]:
    """Within the caller's transaction, as a superuser: let who grants something in an entry reach its schema."""
    grantors = _GRANTOR.findall(entry.sql) if entry.kind == "ACL" and is_superuser(connection) else []
    cursor = connection.execute(
        _SHUT_OUT.encode(), (entry.schema, [name.decode(errors="replace") for name in grantors])
    )
    for (role,) in (shut_out := cursor.fetchall()):
        connection.execute(f"GRANT USAGE ON SCHEMA {quote_name(entry.schema)} TO {role}".encode())
    yield
    for (role,) in shut_out:
        connection.execute(f"REVOKE USAGE ON SCHEMA {quote_name(entry.schema)} FROM {role}".encode())


def destination_error(error: BaseException, where: str) -> MoveoutError:
    """Return the error for a failure of the destination."""
    if isinstance(error, psycopg.errors.DiskFull):
        return NoSpaceError(
            f"{where}: {' '.join(str(error).split())}",
            next_step="make room on the destination server, then run the same command again",
        )
    return translate(error, where)


def ddl_error(error: psycopg.Error, section: str) -> MoveoutError:
    """Return the error for a section, or one of its entries, that cannot be run."""
    reason = " ".join(str(error).split())
    if (
        isinstance(error, psycopg.errors.UndefinedFile | psycopg.errors.FeatureNotSupported)
        and "extension" in reason
    ):
        return UsageError(
            f"the destination server lacks an extension: {reason}",
            next_step="install the extension's package on the destination server, then run the same command again",
        )
    if isinstance(error, psycopg.OperationalError):
        return destination_error(error, section)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return NotAllowedError(
            f"{section} cannot be restored: {reason}",
            next_step="restore as the owner of the destination database or as a superuser",
        )
    if isinstance(
        error, psycopg.errors.DuplicateSchema | psycopg.errors.DuplicateTable | psycopg.errors.DuplicateObject
    ):
        return UsageError(
            f"{section} cannot be restored: {reason}",
            next_step="nothing of it was kept. Drop what is there, or restore rows alone: --only data",
        )
    return UsageError(
        f"{section} cannot be restored: {reason}",
        next_step="nothing of it was kept. Compare the servers' versions and extensions, then try again",
    )
