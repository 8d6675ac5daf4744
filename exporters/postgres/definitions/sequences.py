"""The values of sequences. They are outside of transactions: a value is that of now, at least the snapshot's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import psycopg

from exporters.errors import SourceError, SourceNotAllowedError
from exporters.postgres.errors import in_one_line, translate
from exporters.postgres.identifiers import quote_literal, quote_qualified
from exporters.postgres.query_rows import fetch

_BATCH = 200

_SEQUENCES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND c.oid <> ALL (%(unsayable)s::oid[])
  AND (NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
    AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
    OR EXISTS (SELECT FROM pg_extension e WHERE c.oid = ANY (e.extconfig)))
ORDER BY 1, 2
"""


def read_sequences(
    holder: psycopg.Connection[Any], locked: Collection[str] = (), unsayable: Sequence[int] = ()
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return schema, name, last_value and is_called of every sequence but those that are ``locked`` (quoted names) or
    ``unsayable`` (oids). Also return, by their quoted names, why others cannot be read; pg_dump cannot read them
    either. Raises what the driver raises where it is the server's fault.
    """
    values = {"unsayable": list(unsayable)}
    every = [(row["nspname"], row["relname"]) for row in fetch(holder, _SEQUENCES, values)]
    names = [name for name in every if quote_qualified(*name) not in locked]
    sequences: list[dict[str, Any]] = []
    unread: dict[str, str] = {}
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        if _read(holder, batch, sequences) is not None:
            reasons = {quote_qualified(*name): _read(holder, [name], sequences) for name in batch}
            unread |= {label: reason for label, reason in reasons.items() if reason is not None}
    return sequences, unread


def _read(
    holder: psycopg.Connection[Any], names: Sequence[tuple[str, str]], into: list[dict[str, Any]]
) -> str | None:
    """Read some at once; return why not, where it is their fault."""
    query = " UNION ALL ".join(
        f"SELECT {quote_literal(schema)} AS schema, {quote_literal(name)} AS name, last_value, is_called"
        f" FROM {quote_qualified(schema, name)}"
        for schema, name in names
    )
    try:
        with holder.transaction():
            into += fetch(holder, query)
    except psycopg.Error as exc:
        error = translate(exc, "")
        if not isinstance(error, SourceNotAllowedError) and type(error) is not SourceError:
            raise
        return in_one_line(exc)
    return None
