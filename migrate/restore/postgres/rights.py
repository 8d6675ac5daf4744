"""What a superuser lends to a role for the time of one statement.

An index' functions, a materialized view's query and the check of a foreign key run as the owner, a privilege is passed
on as the one who passed it on. At the source each of them could do that once; what has been revoked since makes
pg_dump's script stop there. The loan ends within the same transaction, so that nobody ever sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from exporters.postgres.identifiers import quote_name
from migrate.restore.postgres.script import NAME, Entry

_GRANTOR = re.compile(rb"^SET SESSION AUTHORIZATION (" + NAME + rb");$", re.MULTILINE)


def is_superuser(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the session's role may do everything."""
    return connection.info.parameter_status("is_superuser") == "on"


@contextmanager
def lent(connection: psycopg.Connection[Any], entry: Entry) -> Iterator[None]:
    """Within the caller's transaction, as a superuser: let who grants something in an entry reach its schema, or, where
    nobody does, let its owner do everything. Others than superusers have nothing to lend.
    """
    if not is_superuser(connection):
        yield
        return
    grantors = dict.fromkeys(_GRANTOR.findall(entry.sql)) if entry.kind == "ACL" else {}
    if grantors:
        loan = [f"USAGE ON SCHEMA {quote_name(entry.schema)}".encode(), b", ".join(grantors)]
        give, take = b"GRANT %b TO %b", b"REVOKE %b FROM %b"
    else:
        found = connection.execute(
            "SELECT FROM pg_catalog.pg_roles WHERE rolname = %s AND NOT rolsuper", (entry.owner,)
        )
        loan = [quote_name(entry.owner).encode()] * found.rowcount
        give, take = b"ALTER ROLE %b SUPERUSER", b"ALTER ROLE %b NOSUPERUSER"
    if loan:
        connection.execute(give % tuple(loan))
    yield
    if loan:
        connection.execute(take % tuple(loan))
