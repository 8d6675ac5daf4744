"""What a server refuses although the source had it: code that reads what comes later, or that finds things by names
without a schema, and checks that have become untrue. PostgreSQL believes that a check, an index' expression and a
materialized view depend on nothing but declared objects; pg_dump's scripts stop there, or go on without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any

import psycopg
from msgspec import Struct

from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from exporters.postgres.schemas import PROGRESS_SCHEMA, SEARCH_EVERY_SCHEMA
from migrate.restore.postgres.definitions.dump_script import DumpEntry
from migrate.restore.postgres.definitions.temporary_grants import is_superuser, lent

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


class Aid(Enum):
    """What helps an entry that the server refuses; the value describes it in messages."""

    NONE = ""
    SCHEMAS = "names without a schema: all schemas were searched"
    RIGHTS = "a schema that who granted it does not reach any more: it was lent for it"

    def given(self, connection: psycopg.Connection[Any], entry: DumpEntry) -> AbstractContextManager[None]:
        """Help, within the caller's transaction."""
        if self is Aid.RIGHTS:
            return lent(connection, entry)
        if self is Aid.SCHEMAS:
            use_every_schema(connection, entry.schema)
        return nullcontext()


class Check(Struct, frozen=True):
    """What rows may not violate. ``name`` is for messages; ``drop`` takes it away; of ``make`` the first that the
    server takes makes it again: for all rows, else for those to come.
    """

    name: str
    drop: str
    make: tuple[str, ...]


def suspects(connection: psycopg.Connection[Any], error: psycopg.Error, label: str) -> list[Check]:
    """Return what may have refused rows of a table: the check that they violate, else, where some code raised the
    error, every check of the table.
    """
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
    """Within the caller's transaction, let rows in that these would not; yield those that hold for new rows only then,
    or not at all.
    """
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
