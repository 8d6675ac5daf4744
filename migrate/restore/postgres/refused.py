"""What a server refuses although the source had it: code that reads what comes later, or that finds things by names
without a schema, and checks that have become untrue. PostgreSQL believes that a check, an index' expression and a
materialized view depend on nothing but what it is told of; pg_dump's scripts stop there, or go on without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg

from exporters.postgres.catalog import PROGRESS_SCHEMA, SEARCH_EVERY_SCHEMA
from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from migrate.restore.postgres.rights import is_superuser, lent
from migrate.restore.postgres.script import Entry

REFUSALS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.NotSupportedError,
    psycopg.ProgrammingError,
    psycopg.errors.ObjectNotInPrerequisiteState,
)
"""What the server says of a statement, not of itself."""
_OF_CODE = ("08", "2F", "38", "39", "54", "58", "HV", "XX000")
"""SQLSTATEs that a session outlives only where they come from the code that it runs: of a foreign server that is not
reached, of a file that is not there (PostgreSQL documentation, appendix A).
"""

_CHECK_OF_TABLE = """
WITH RECURSIVE above AS (
  SELECT %s::regclass::oid AS relid
  UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above a ON i.inhrelid = a.relid
)
SELECT 'TABLE ' || a.relid::regclass, '', pg_catalog.pg_get_constraintdef(k.oid), pg_catalog.obj_description(k.oid)
FROM above a JOIN pg_catalog.pg_constraint k ON k.conrelid = a.relid
WHERE k.conname = %s AND k.contype = 'c' AND k.coninhcount = 0
"""
_CHECK_OF_DOMAIN = """
SELECT 'DOMAIN ' || t.oid::regtype, 'DOMAIN ', pg_catalog.pg_get_constraintdef(k.oid), pg_catalog.obj_description(k.oid)
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_constraint k ON k.contypid = t.oid
WHERE t.oid = %s::regtype AND k.conname = %s
"""


def is_refusal(error: psycopg.Error, connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a statement was refused for what it says: another one may be tried, and this one later. Where a
    superuser is not allowed something, it is code that runs as somebody else.
    """
    if error.diag.schema_name == PROGRESS_SCHEMA:
        return False
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return is_superuser(connection)
    of_code = (error.sqlstate or "").startswith(_OF_CODE) and not connection.broken
    return of_code or isinstance(error, REFUSALS)


def use_every_schema(connection: psycopg.Connection[Any]) -> None:
    """Let code find names without a schema until the end of the transaction, as it does for an application."""
    connection.execute(SEARCH_EVERY_SCHEMA.encode())


class Aid(Enum):
    """What helps an entry that the server refuses; the value is what it needs, for people."""

    NONE = ""
    SCHEMAS = "names without a schema: all schemas were searched"
    RIGHTS = "rights that its owner has no more: they were lent for it"

    def given(self, connection: psycopg.Connection[Any], entry: Entry) -> AbstractContextManager[None]:
        """Help, within the caller's transaction."""
        if self is Aid.RIGHTS:
            return lent(connection, entry)
        if self is Aid.SCHEMAS:
            use_every_schema(connection)
        return nullcontext()


@dataclass(frozen=True, slots=True)
class Check:
    """A check. ``owner``: ``TABLE name`` or ``DOMAIN name``, a table being where the check is not inherited from."""

    owner: str
    name: str
    definition: str
    comment: str | None
    commented: str

    @property
    def drop(self) -> str:
        """Return the statement that takes it away."""
        return f"ALTER {self.owner} DROP CONSTRAINT {self.name}"

    @property
    def add(self) -> str:
        """Return the statement that makes it for what comes, not for what is there."""
        late = "" if self.definition.endswith(" NOT VALID") else " NOT VALID"
        said = f"ALTER {self.owner} ADD CONSTRAINT {self.name} {self.definition}{late}"
        if self.comment is None:
            return said
        on = f"{self.commented}{self.owner.partition(' ')[2]}"
        return f"{said}; COMMENT ON CONSTRAINT {self.name} ON {on} IS {quote_literal(self.comment)}"


def violated(connection: psycopg.Connection[Any], error: psycopg.errors.CheckViolation) -> list[Check]:
    """Return the check that a row violates; of a table that inherits it more than once, all of those."""
    said = error.diag
    if not said.constraint_name or not said.schema_name:
        return []
    query, name = (
        (_CHECK_OF_TABLE, said.table_name) if said.table_name else (_CHECK_OF_DOMAIN, said.datatype_name)
    )
    found = connection.execute(
        query.encode(), (quote_qualified(said.schema_name, name or ""), said.constraint_name)
    )
    return [
        Check(owner, quote_name(said.constraint_name), definition, comment, commented)
        for owner, commented, definition, comment in found
    ]


@contextmanager
def without_checks(connection: psycopg.Connection[Any], checks: Sequence[Check]) -> Iterator[None]:
    """Within the caller's transaction, let rows in that these would not."""
    for check in checks:
        connection.execute(check.drop.encode())
    yield
    for check in reversed(checks):
        connection.execute(check.add.encode())
