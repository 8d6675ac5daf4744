"""What a superuser lends to roles for one statement: a look into a schema, so that a privilege can be passed on.

A privilege comes back as granted by who passed it on, which takes that this role reaches the schema. At the source it
could once; what has been revoked since makes pg_dump's script stop there. The loan ends within the same transaction, so
that nobody ever sees it, and no code runs meanwhile. What runs code as its owner (an index' functions, a materialized
view's query) is lent nothing. It would do, or show, at the restore what its owner was kept from at the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from exporters.postgres.identifiers import quote_name
from migrate.restore.postgres.definitions.dump_script import NAME, DumpEntry

_GRANTOR = re.compile(rb"^SET SESSION AUTHORIZATION (" + NAME + rb");$", re.MULTILINE)

_SHUT_OUT = """
SELECT pg_catalog.quote_ident(r.rolname) FROM pg_catalog.pg_roles r, pg_catalog.pg_namespace n
WHERE n.nspname = %s AND pg_catalog.quote_ident(r.rolname) = ANY (%s)
  AND NOT pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')
"""


def is_superuser(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the session's role may do everything."""
    return connection.info.parameter_status("is_superuser") == "on"


@contextmanager
def lent(connection: psycopg.Connection[Any], entry: DumpEntry) -> Iterator[None]:
    """Within the caller's transaction, as a superuser: let who grants something in an entry reach its schema. Others
    than superusers have nothing to lend.
    """
    grantors = _GRANTOR.findall(entry.sql) if entry.kind == "ACL" and is_superuser(connection) else []
    cursor = connection.execute(
        _SHUT_OUT.encode(), (entry.schema, [name.decode(errors="replace") for name in grantors])
    )
    for (role,) in (shut_out := cursor.fetchall()):
        connection.execute(f"GRANT USAGE ON SCHEMA {quote_name(entry.schema)} TO {role}".encode())
    yield
    for (role,) in shut_out:
        connection.execute(f"REVOKE USAGE ON SCHEMA {quote_name(entry.schema)} FROM {role}".encode())
